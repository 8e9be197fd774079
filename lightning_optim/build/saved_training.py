"""`check_training_checkpoint`: whether what a file holds is a Lightning checkpoint, before Lightning takes it apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..core.errors import ConfigError, prefix_errors
from ..core.printable import to_printable
from .saved_state import check_state_dict

_VERSION = "pytorch-lightning_version"
_KINDS: Mapping[str, tuple[type, str]] = {
    _VERSION: (str, "text"),
    "state_dict": (Mapping, "a dict"),
    "optimizer_states": (list, "a list"),
    "lr_schedulers": (list, "a list"),
    "callbacks": (Mapping, "a dict"),
    "loops": (Mapping, "a dict"),
    "epoch": (int, "an integer"),
    "global_step": (int, "an integer"),
}


def check_training_checkpoint(content: Any) -> None:
    """Check the types of what Lightning and this package read from a checkpoint.

    Args:
        content: what was loaded from the file.

    Raises:
        ConfigError: a type is wrong, a weight has no data, an optimizer's state is none, or the weights are those that
            WeightAveraging has exchanged.
    """
    if not isinstance(content, Mapping) or _VERSION not in content:
        found = f"has no key {_VERSION!r}" if isinstance(content, Mapping) else f"holds a {type(content).__name__}"
        raise ConfigError(f"this is no checkpoint of Lightning: it {found}. Pass one that a Trainer has saved")
    for key, (kind, name) in _KINDS.items():
        if key in content and not isinstance(content[key], kind):
            raise ConfigError(f"{key}: must be {name}, got a value of type {type(content[key]).__name__}")
    if content.get("optimizer_states") == [] and (content.get("lr_schedulers") or content.get("global_step")):
        raise ConfigError("optimizer_states: is empty, although the run has taken steps")
    for name, weight in content.get("state_dict", {}).items():
        if isinstance(weight, Tensor) and weight.is_meta:
            raise ConfigError(
                f"state_dict.{to_printable(str(name))}: the tensor has no data, as it was saved on the meta device"
            )
    for name, state in content.get("loops", {}).items():
        with prefix_errors(f"loops.{to_printable(str(name))}"):
            _check_loop(state)
    if content.get("lr_schedulers") == [] and _num_scheduler_steps(content.get("loops", {})):
        raise ConfigError("lr_schedulers: is empty, although the run has stepped a scheduler")  # Lightning skips it
    for name, state in content.get("callbacks", {}).items():
        if not isinstance(state, Mapping):
            raise ConfigError(
                f"callbacks.{to_printable(str(name)[:200])}: must be a dict, got a value of type {type(state).__name__}"
            )
    for index, state in enumerate(content.get("lr_schedulers", ())):
        if not isinstance(state, Mapping):
            raise ConfigError(f"lr_schedulers[{index}]: must be a dict, got a value of type {type(state).__name__}")
    for index, state_dict in enumerate(content.get("optimizer_states", ())):
        # Optimizers that are not torch's may have other keys.
        if not isinstance(state_dict, Mapping) or {"param_groups", "state"} & state_dict.keys():
            with prefix_errors(f"optimizer_states[{index}]"):
                check_state_dict(state_dict)
    if "averaging_state" in content and _is_within_validation(content.get("loops", {})):
        raise ConfigError(
            "this was written because a validation was stopped, in which Lightning's WeightAveraging exchanges the "
            "trained weights and their average: each would be taken for the other. Use the checkpoint before it"
        )


def _num_scheduler_steps(loops: Mapping[str, Any]) -> int:
    """How often Lightning has stepped schedulers."""
    total = loops.get("fit_loop", {}).get("epoch_loop.scheduler_progress", {}).get("total", {})
    return int(total.get("completed", 0))


def _is_within_validation(loops: Mapping[str, Any]) -> bool:
    """Whether a batch of a validation was running; in hooks before the first and after the last one, it is not seen."""
    current = loops.get("fit_loop", {}).get("epoch_loop.val_loop.batch_progress", {}).get("current", {})
    return bool(current.get("ready") != current.get("completed"))


def _check_loop(state: Any) -> None:
    """Check the counts of a loop: `{"epoch_progress": {"total": {"ready": 1, ...}, "current": {...}}, ...}`."""
    if not isinstance(state, Mapping):
        raise ConfigError(f"must be a dict, got a value of type {type(state).__name__}")
    for key, value in state.items():
        if not isinstance(value, Mapping):
            raise ConfigError(f"{to_printable(str(key))}: must be a dict, got a value of type {type(value).__name__}")
        if str(key).endswith("_progress"):
            _check_progress(value, to_printable(str(key)))


def _check_progress(progress: Mapping[str, Any], path: str) -> None:
    """Check the counts, which an optimizer's progress has a level below: `{"optimizer": {"step": {"total": ...}}}`."""
    for key, value in progress.items():
        if key in ("total", "current"):
            if not isinstance(value, Mapping) or not all(isinstance(count, int) for count in value.values()):
                raise ConfigError(f"{path}.{key}: must be a dict of integers")
        elif key in ("optimizer", "step", "zero_grad"):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{path}.{key}: must be a dict, got a value of type {type(value).__name__}")
            _check_progress(value, f"{path}.{key}")
