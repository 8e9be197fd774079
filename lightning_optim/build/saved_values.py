"""Check that the hyperparameters in a saved param group are of the types that this run's group has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..core.errors import ConfigError, prefix_errors
from ..core.hyperparameters import Hyperparameter
from ..core.param_group_keys import EXECUTION_FLAGS
from ..core.printable import to_printable


def check_saved_values(
    current: Mapping[str, Any], sources: Sequence[Mapping[str, Any]], specs: Mapping[str, Hyperparameter]
) -> None:
    """Check what a group may take from saved ones: torch would step with it, or fail then.

    Args:
        current: a group of this run; only what it records as configured is checked.
        sources: the saved groups of the same parameters.
        specs: what values the hyperparameters of the group's algorithm accept.

    Raises:
        ConfigError: a hyperparameter is of another type, or out of bounds.
    """
    configured = current.get("configured", {})
    for source in sources:
        for key in configured.keys() & current.keys() & source.keys() - set(EXECUTION_FLAGS):
            # Under another value in the config, and so maybe of another algorithm, it is not taken.
            is_taken = source.get("configured", {}).get(key, configured[key]) == configured[key]
            if is_taken and not _is_alike(current[key], source[key]):
                raise ConfigError(
                    f"the checkpoint's {to_printable(str(key))} of param group "
                    f"'{to_printable(str(current.get('name')))}' is a value of type {type(source[key]).__name__}, "
                    f"which cannot stand in place of {current[key]!r}"
                )
            if is_taken and key != "lr" and key in specs and source[key] != current[key]:
                with prefix_errors(f"the checkpoint's param group '{to_printable(str(current.get('name')))}'"):
                    specs[key].check(_without_tensors(source[key]), key)


def _without_tensors(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_without_tensors(item) for item in value]
    return value.item() if isinstance(value, Tensor) else value


def _is_alike(current: Any, saved: Any) -> bool:
    if current is None or isinstance(current, Mapping):
        return saved is None or not isinstance(saved, Tensor) or saved.numel() == 1
    if isinstance(current, bool) or isinstance(saved, bool):
        return isinstance(current, bool) and isinstance(saved, bool)
    if isinstance(current, (int, float, Tensor)):
        is_number = isinstance(saved, (int, float)) or (isinstance(saved, Tensor) and not saved.is_complex())
        return is_number and (not isinstance(saved, Tensor) or saved.numel() == 1)
    if isinstance(current, (list, tuple)):
        is_list = isinstance(saved, (list, tuple)) and len(saved) == len(current)
        return is_list and all(map(_is_alike, current, saved))
    return isinstance(saved, type(current))
