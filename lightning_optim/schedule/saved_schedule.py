"""Check what a checkpoint has in place of a scheduler's state: torch takes any, and fails or goes astray later."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..core.config_values import to_plain
from ..core.errors import ConfigError, prefix_errors
from ..core.param_group_keys import SCHEDULE
from ..core.printable import to_printable
from .catalog import FLOORS, SCHEDULES

# The lists that torch's schedulers keep by group. The first three hold configured lrs: the config decides them.
PEAKS = ("base_lrs", "max_lrs", "min_lrs")
BY_GROUP = (*PEAKS, "_last_lr", "lr_lambdas", "base_momentums", "max_momentums")
_ARGUMENTS = frozenset(key for info in SCHEDULES.values() for key in info.hyperparameters) - {*FLOORS, "lr_lambda"}
_COUNTERS = ("last_epoch", "_step_count", "num_bad_epochs", "cooldown_counter")
_PLAIN = (bool, int, float, str)
_CHOICES = (("min", "max"), ("rel", "abs"), ("cos", "linear"))
# Without these a scheduler would begin anew. torch's other private attributes differ from version to version.
_NEEDED = ("_step_count", "_schedulers")
_ADVICE = "Use the checkpoint as it was saved, or type scheduler.on_resume: restart"


@contextmanager
def refuse_wrong_schedule() -> Iterator[None]:
    """Raise a ConfigError where the block finds other types or keys in a scheduler's state than it has saved.

    Raises:
        ConfigError: as above, or as the block.
    """
    try:
        yield
    except ConfigError as error:
        if (message := to_printable(str(error))) == str(error):
            raise
        raise ConfigError(message) from None  # names in the file may hold line ends
    except (TypeError, KeyError, IndexError, AttributeError, ValueError, RuntimeError, OverflowError) as error:
        reason = to_printable(f"{type(error).__name__} {error}".splitlines()[0][:200])
        raise ConfigError(
            f"scheduler: its state in the checkpoint has wrong types or lacks keys ({reason}). {_ADVICE}"
        ) from error


def check_scheduler_state(own: Mapping[str, Any], saved: Any) -> dict[str, Any]:
    """The saved state without keys that this run's scheduler does not have, which would replace its methods.

    Args:
        own: the state of this run's scheduler, of the same class.
        saved: what was loaded in its place.

    Raises:
        ConfigError: a key is missing, or its value is of another type than this run's.
    """
    _check(isinstance(saved, Mapping), "the state", saved, "a dict")
    needed = _NEEDED if "mode_worse" in own else (*_NEEDED, "_last_lr")  # torch's plateaus once had none
    for key in own:
        if key not in saved and (not key.startswith("_") or key in needed):
            raise ConfigError(f"scheduler: its state in the checkpoint lacks {key}. {_ADVICE}")
    state = {key: value for key, value in saved.items() if key in own}
    for key, value in state.items():
        _check_alike(own[key], value, key)
    return state


def check_constants(own: Mapping[str, Any], saved: Mapping[str, Any], path: str = "") -> None:
    """Check that a state has the arguments of the schedule that its record says: they are no progress.

    Args:
        own: the state of this run's scheduler, which has the same record.
        saved: the state that is to be loaded.
        path: where it is.

    Raises:
        ConfigError: an argument has another value.
    """
    for key in own.keys() & saved.keys():
        if key in _ARGUMENTS and isinstance(own[key], _PLAIN):
            is_same = isinstance(saved[key], _PLAIN) and own[key] == saved[key]
            _check(is_same, f"{path}{key}", saved[key], f"{own[key]}, as its record says")
    for index, (inner, other) in enumerate(zip(own.get("_schedulers", ()), saved.get("_schedulers", ()), strict=False)):
        if isinstance(other, Mapping):
            check_constants(inner, other, f"{path}_schedulers[{index}].")
    if "curves" in saved:
        check_curves(saved["curves"])
        for curve in own.get("curves", ()):
            for other in saved["curves"]:
                if (other[SCHEDULE], other["momentum"]) == (curve[SCHEDULE], curve["momentum"]):
                    check_constants(curve["state"], other["state"], f"{path}curves.")


def check_has_begun(state: Mapping[str, Any]) -> None:
    """Check that the scheduler that is stepped itself, and is not part of a sequence, is at a step.

    Raises:
        ConfigError: it is at none.
    """
    counter = state.get("last_epoch", 0)
    _check(_is_count(counter), "last_epoch", counter, "an integer >= 0")


def check_class_name(name: Any) -> None:
    """Check the class that has saved a state.

    Raises:
        ConfigError: it is no name.
    """
    _check(isinstance(name, str) and len(name) < 1000, "class", name, "a name")


def check_group_names(names: Any) -> None:
    """Check the names by which a saved state has its lists.

    Raises:
        ConfigError: they are no names, or two groups have one.
    """
    is_list = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    _check(is_list and len(set(names)) == len(names), "group_names", names, "a list of different names")


def check_curves(curves: Any) -> None:
    """Check what a scheduler with a curve for each override has saved.

    Raises:
        ConfigError: it is no list of curves.
    """
    _check(isinstance(curves, list) and bool(curves), "curves", curves, "a list of curves")
    for index, curve in enumerate(curves):
        where = f"curves[{index}]"
        is_curve = isinstance(curve, Mapping) and {SCHEDULE, "momentum", "state"} <= curve.keys()
        _check(is_curve, where, curve, f"a dict of {SCHEDULE}, momentum and state")
        _check(isinstance(curve["state"], Mapping), f"{where}.state", curve["state"], "a dict")


def check_record(record: Any) -> None:
    """Check the record of a schedule.

    Raises:
        ConfigError: it is none.
    """
    _check(isinstance(record, Mapping), SCHEDULE, record, "a dict")
    _check(record.get("interval") in ("step", "epoch"), f"{SCHEDULE}.interval", record.get("interval"), "step or epoch")
    curves, started_at = record.get("curves"), record.get("started_at", {})
    _check(isinstance(curves, list) and bool(curves), f"{SCHEDULE}.curves", curves, "a list of curves")
    for index, curve in enumerate(curves):
        is_curve = isinstance(curve, Mapping) and isinstance(curve.get("name"), str) and SCHEDULE in curve
        _check(is_curve, f"{SCHEDULE}.curves[{index}]", curve, f"a dict with name and {SCHEDULE}")
        with prefix_errors("scheduler: the checkpoint's record"):
            to_plain(curve, f"{SCHEDULE}.curves[{index}]")  # a few lists in lists stand for more than can be printed
    also = record.get("also", {})
    is_also = isinstance(also, Mapping) and all(isinstance(curve, Mapping) for curve in also.values())
    _check(is_also, f"{SCHEDULE}.also", also, "a dict of curves")
    is_position = isinstance(started_at, Mapping) and all(_is_count(started_at.get(key)) for key in ("step", "epoch"))
    _check(started_at is None or is_position, f"{SCHEDULE}.started_at", started_at, "a dict of step and epoch")


def _check_alike(own: Any, saved: Any, path: str) -> None:
    """Check that a saved value may stand in place of this run's."""
    key = path.rpartition(".")[2]
    if key in _COUNTERS:
        # Inside a sequence, one that has not begun is at -1.
        _check(_is_count(saved) or (saved == -1 and key == "last_epoch"), path, saved, "an integer >= 0")
    elif isinstance(own, bool):
        _check(isinstance(saved, bool), path, saved, "true or false")
    elif isinstance(own, (int, float, Tensor)):
        _check(_is_number(saved), path, saved, "a number")
        is_metric = path.rpartition(".")[2] == "best"  # infinite before the first one
        _check(math.isfinite(saved) or is_metric or not math.isfinite(own), path, saved, "a finite number")
    elif isinstance(own, str):
        allowed = next((choices for choices in _CHOICES if own in choices), None)
        _check(isinstance(saved, str) and (allowed is None or saved in allowed), path, saved, "text as this run's")
    elif isinstance(own, Mapping):
        _check(
            isinstance(saved, Mapping) and own.keys() <= saved.keys(),
            path,
            saved,
            f"a dict of {', '.join(map(str, own))}",
        )
        for key, value in own.items():
            _check_alike(value, saved[key], f"{path}.{key}")
    elif isinstance(own, (list, tuple)):
        _check_list(own, saved, path)
    elif own is None:
        _check(saved is None or _is_number(saved) or isinstance(saved, Mapping), path, saved, "none")


def _check_list(own: Sequence[Any], saved: Any, path: str) -> None:
    _check(isinstance(saved, (list, tuple)), path, saved, "a list")
    if path not in BY_GROUP:  # the number of groups may differ
        _check(len(saved) == len(own), path, saved, f"a list of {len(own)}")
    for index, value in enumerate(saved):
        if path == "_schedulers":  # each checks its own when it loads it
            _check(isinstance(value, Mapping), f"{path}[{index}]", value, "a dict")
        elif value is not None or path != "lr_lambdas":  # of a function, nothing is saved
            _check_alike(own[min(index, len(own) - 1)] if own else None, value, f"{path}[{index}]")


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        is_real = value.numel() == 1 and not value.is_complex() and value.dtype != torch.bool
        return is_real and not value.is_meta and not bool(value.isnan())
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return not math.isnan(value) if isinstance(value, float) else abs(value) < 1 << 63


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _check(is_right: bool, path: str, value: Any, expected: str) -> None:
    if not is_right:
        found = to_printable(repr(value)[:60]) if isinstance(value, (str, bool, float)) else type(value).__name__
        raise ConfigError(
            f"scheduler: {to_printable(path)} in the checkpoint must be {expected}, got {found}. {_ADVICE}"
        )
