"""`check_stages_state`: whether what a checkpoint has in place of StagedUnfreeze's state is one, before it is used."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..build.saved_state import check_group_values, check_state_dict
from ..build.saved_values import check_saved_values
from ..core.errors import ConfigError, prefix_errors
from ..stages.scheduler_proxy import SchedulerProxy
from .logged_metrics import REDUCTIONS
from .remaining_work import EPOCH_END, VALIDATION


def check_stages_state(state: Any) -> None:
    """Check the types and the kinds of numbers in the state; what the plan has to do with it is checked elsewhere.

    Args:
        state: what was loaded in place of `StagedUnfreeze.state_dict()`; empty before the optimizers were split.

    Raises:
        ConfigError: a value is of another type. The message begins with its key.
    """
    _check(isinstance(state, Mapping), "state", state, "a dict")
    if not state:
        return
    names, times = state["thawed"], state["thaw_times"]
    _check(_is_list(names, str), "thawed", names, "a list of names")
    _check(isinstance(times, Mapping) and list(times) == list(names), "thaw_times", times, "a dict of the thawed")
    for name, time in times.items():
        is_time = _is_list(time, (int, float)) and len(time) == 3 and all(map(_is_position, time))
        _check(
            is_time and all(isinstance(it, int) for it in time[:2]), f"thaw_times.{name}", time, "epoch, step, fraction"
        )
    thaw_log = state.get("thaw_log", [])
    _check(isinstance(thaw_log, (list, tuple)), "thaw_log", thaw_log, "a list")
    for index, row in enumerate(thaw_log):
        is_row = isinstance(row, Mapping) and row.keys() == {"step", "epoch", "stage", "groups"}
        is_row = is_row and all(_is_count(row[key]) for key in ("step", "epoch"))
        is_row = is_row and all(isinstance(row[key], str) for key in ("stage", "groups"))
        _check(is_row, f"thaw_log[{index}]", row, "a dict of step, epoch, stage and groups")
    _check(isinstance(state["stage_plateaus"], Mapping), "stage_plateaus", state["stage_plateaus"], "a dict")
    for name, plateaus in state["stage_plateaus"].items():
        _check(isinstance(plateaus, (list, tuple)), f"stage_plateaus.{name}", plateaus, "a list")
        for index, plateau in enumerate(plateaus):
            _check_plateau(plateau, f"stage_plateaus.{name}[{index}]")
    _check_tracker(state["plateaus"])
    _check(_is_list(state["optimizers"], Mapping), "optimizers", state["optimizers"], "a list of dicts")
    for index, optimizer in enumerate(state["optimizers"]):
        _check_optimizer(optimizer, f"optimizers[{index}]")


def check_scheduler_groups(proxy: SchedulerProxy, saved: Sequence[dict[str, Any]], key: str) -> None:
    """Check the values that the schedulers' groups take from saved ones.

    Args:
        proxy: has the groups of this run.
        saved: those of the checkpoint.
        key: where in the state they are.

    Raises:
        ConfigError: a hyperparameter is of another type.
    """
    for group, sources in zip(proxy.param_groups, proxy.match_saved(saved), strict=True):
        with prefix_errors(f"callbacks.StagedUnfreeze.{key}"):
            check_saved_values(group, sources, {})


def read_unstaged_groups(states: Sequence[Any]) -> list[list[dict[str, Any]]]:
    """The param groups of the optimizers that a run without stages has saved.

    Args:
        states: the checkpoint's `optimizer_states`.

    Raises:
        ConfigError: one is no optimizer's state.
    """
    for index, state in enumerate(states):
        with prefix_errors(f"optimizer_states[{index}]"):
            check_state_dict(state)
    return [state["param_groups"] for state in states]


def _check_plateau(plateau: Any, path: str) -> None:
    is_plateau = isinstance(plateau, Mapping) and all(isinstance(plateau[key], str) for key in ("monitor", "mode"))
    is_plateau = is_plateau and isinstance(plateau["best"], float) and not math.isnan(plateau["best"])
    is_plateau = is_plateau and _is_count(plateau["wait_count"]) and isinstance(plateau["pending"], bool)
    _check(is_plateau, path, plateau, "a dict of monitor, mode, best, wait_count and pending")


def _check_tracker(state: Any) -> None:
    _check(isinstance(state, Mapping), "plateaus", state, "a dict")
    _check(_is_list(state["pending_steps"], bool), "plateaus.pending_steps", state["pending_steps"], "a list of flags")
    remaining = state.get("remaining")
    _check(remaining in (None, VALIDATION, EPOCH_END), "plateaus.remaining", remaining, f"{VALIDATION} or {EPOCH_END}")
    metrics = state["metrics"]
    _check(isinstance(metrics, Mapping), "plateaus.metrics", metrics, "a dict")
    values, partials = metrics["values"], metrics["partials"]
    is_values = isinstance(values, Mapping) and all(isinstance(it, float) for it in values.values())
    _check(is_values and _is_list(list(values), str), "plateaus.metrics.values", values, "numbers by name")
    names = metrics["from_validation"]
    _check(_is_list(names, str), "plateaus.metrics.from_validation", names, "a list of names")
    _check(isinstance(partials, Mapping), "plateaus.metrics.partials", partials, "a dict")
    for key, partial in partials.items():
        is_partial = isinstance(partial, Mapping) and isinstance(partial["partials"], Mapping)
        is_partial = is_partial and isinstance(partial["name"], str) and isinstance(partial["is_synced"], bool)
        is_partial = is_partial and partial["reduction"] in REDUCTIONS and bool(partial["partials"])
        is_partial = is_partial and all(map(_is_vector, partial["partials"].values()))
        _check(is_partial, f"plateaus.metrics.partials.{key}", partial, "what a metric has accumulated")


def _check_optimizer(state: Mapping[str, Any], path: str) -> None:
    groups, live, steps = state["scheduler_groups"], state["live_groups"], state["num_steps"]
    _check(_is_list(groups, Mapping), f"{path}.scheduler_groups", groups, "a list of dicts")
    for index, group in enumerate(groups):
        check_group_values(group, f"callbacks.StagedUnfreeze.{path}.scheduler_groups[{index}]")
    _check(_is_list(live, Mapping), f"{path}.live_groups", live, "a list of dicts")
    for index, group in enumerate(live):
        is_group = isinstance(group["name"], str) and _is_list(group["param_names"], str)
        _check(is_group, f"{path}.live_groups[{index}]", group, "a dict of name and param_names")
    is_steps = isinstance(steps, Mapping) and all(map(_is_count, steps.values()))
    is_steps = is_steps and steps.keys() >= {group["name"] for group in live}
    _check(is_steps, f"{path}.num_steps", steps, "the steps of each group")
    count = state.get("num_optimizer_steps", 0)
    _check(_is_count(count), f"{path}.num_optimizer_steps", count, "an integer >= 0")


def _is_list(value: Any, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, kind) for item in value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _is_position(value: Any) -> bool:
    return not isinstance(value, bool) and math.isfinite(value) and 0 <= value < 1 << 63


def _is_vector(value: Any) -> bool:
    is_plain = isinstance(value, Tensor) and not value.is_meta and not value.is_quantized and not value.is_sparse
    return is_plain and value.ndim == 1 and value.numel() > 0 and not value.is_complex()


def _check(is_right: bool, path: str, value: Any, expected: str) -> None:
    if not is_right:
        raise ConfigError(
            f"callbacks.StagedUnfreeze.{path}: must be {expected}, got a value of type {type(value).__name__} in the "
            "checkpoint, or one with other contents. Use the checkpoint as it was saved"
        )
