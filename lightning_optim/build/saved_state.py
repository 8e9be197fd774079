"""`check_state_dict`: whether what a file has in place of an optimizer's state dict is one, before anything uses it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..catalog.info import DECOUPLED_KEY
from ..core.errors import ConfigError
from ..core.param_group_keys import ALGORITHM, SCHEDULE
from ..core.printable import to_printable
from ..schedule.param_group_values import SCHEDULER_KEYS

# Of values within values. LBFGS has lists of tensors in its state; nothing is nested deeper than a few levels.
_MAX_DEPTH = 20
# Of values in the state of one parameter, or in one param group.
_MAX_VALUES = 100_000
_MAX_INTEGER = 1 << 64
_MAX_TEXT = 10_000
_MAX_STEP = 2.0**63
_NUMBER = (int, float, Tensor)
_KINDS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("lr", "peak_lr", "weight_decay", *SCHEDULER_KEYS), _NUMBER),
    **dict.fromkeys(("max_momentum", "base_momentum"), (int, float)),
    DECOUPLED_KEY: bool,  # in a group that thaws later torch would take None for L2 decay
    "name": str,
    ALGORITHM: str,
    "configured": Mapping,
    SCHEDULE: Mapping,
}
"""Of keys in a param group that this package reads."""
_MAY_BE_NONE = ("weight_decay", "name")
_NAMES = {Mapping: "a dict", str: "text", bool: "true or false", _NUMBER: "a number", (int, float): "a number"}


def check_state_dict(state_dict: Any, *, is_regrouped: bool = False, is_shown_only: bool = False) -> None:
    """Check the types in an optimizer's state dict, and that its tensors are ordinary ones.

    Args:
        state_dict: anything that was loaded from a file.
        is_regrouped: whether torch has put it into the groups of this run, as for sharded parameters: their names are
            still those of the saved groups.
        is_shown_only: whether no run goes on from it: then steps may be any numbers.

    Raises:
        ConfigError: a type is wrong, a key is missing, a group has more or fewer names than parameters, a tensor is
            sparse, without data (on the meta device) or larger than what was saved of it, or values are nested without
            an end. The message begins with the key in the state dict.
    """
    _check_kind(state_dict, Mapping, "the optimizer's state", "a dict")
    for key in ("param_groups", "state"):
        if key not in state_dict:
            raise ConfigError(f"{key}: missing from the optimizer's state")
    groups, states = state_dict["param_groups"], state_dict["state"]
    _check_kind(groups, (list, tuple), "param_groups", "a list")
    _check_kind(states, Mapping, "state", "a dict")
    seen: set[Any] = set()
    for index, group in enumerate(groups):
        _check_group(group, f"param_groups[{index}]", seen, count_names=not is_regrouped)
    _check_keys(states, "state")
    own = {key: state for key, state in states.items() if key in seen}  # else one of the optimizer as a whole
    for key, state in states.items():
        if key in own:
            _check_state(state, f"state[{_show(key)}]", is_shown_only)
        elif isinstance(key, int) and (without := [param for param in seen if param not in states]):
            raise ConfigError(
                f"state[{_show(key)}]: no param group has a parameter of this number, and parameter "
                f"{_show(without[0])} has no state"
            )
        else:
            _check_values({key: state}, "state")
    for group in groups:  # each of one algorithm, which counts steps or does not
        of_group = {key: own[key] for key in group["params"] if key in own}
        has_step = any("step" in state for state in of_group.values())
        for key, state in of_group.items():
            if has_step and state and "step" not in state:
                raise ConfigError(f"state[{_show(key)}]: step is missing")


def _check_group(group: Any, path: str, seen: set[Any], *, count_names: bool) -> None:
    _check_kind(group, Mapping, path, "a dict")
    _check_keys(group, path)
    if "params" not in group:
        raise ConfigError(f"{path}: params is missing")
    params, names = group["params"], group.get("param_names")
    _check_kind(params, (list, tuple), f"{path}.params", "a list")
    for param in params:
        if isinstance(param, bool) or not isinstance(param, (int, str)):
            raise ConfigError(f"{path}.params: must be numbers or names, got {_describe(param)}")
        if param in seen:
            raise ConfigError(f"{path}.params: {_show(param)} is in it twice, or in another group too")
        seen.add(param)
    if names is not None:
        _check_kind(names, (list, tuple), f"{path}.param_names", "a list")
        for name in names:
            _check_kind(name, str, f"{path}.param_names", "text")
        if count_names and len(names) != len(params):
            raise ConfigError(f"{path}.param_names: {len(names)} names for {len(params)} parameters")
    check_group_values(group, path)
    configured = group.get("configured") or {}
    if not isinstance(configured.get(ALGORITHM, ""), str):
        raise ConfigError(f"{path}.configured.{ALGORITHM}: must be text")
    for key, value in configured.items():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            _check_number(item, f"{path}.configured.{_show(key)}")
    if "configured" in group and (missing := [key for key in ("lr", "peak_lr") if key not in group]):
        raise ConfigError(f"{path}: {missing[0]} is missing")


def check_group_values(group: Any, path: str) -> None:
    """Check the values in a param group that this package or a scheduler computes with.

    Args:
        group: a saved one, with or without its parameters.
        path: where it was saved, for the error.

    Raises:
        ConfigError: one is of another type; or it is a number that is not finite, or is negative.
    """
    _check_kind(group, Mapping, path, "a dict")
    _check_values({key: value for key, value in group.items() if key not in ("params", "param_names")}, path)
    for key, kind in _KINDS.items():
        value = group.get(key)
        if key in group and not (value is None and key in _MAY_BE_NONE):
            if key in ("peak_lr", *SCHEDULER_KEYS) and not isinstance(group.get("lr"), Tensor):
                kind = (int, float)  # else lr would become a tensor
            _check_kind(value, kind, f"{path}.{key}", _NAMES[kind])
            if kind is _NUMBER or kind == (int, float):
                _check_amount(value, f"{path}.{key}", 1.0 if key.endswith("momentum") else math.inf)


def _check_state(state: Any, path: str, is_shown_only: bool) -> None:
    _check_kind(state, Mapping, path, "a dict")
    _check_values(state, path)
    if "step" in state:
        _check_kind(state["step"], (int, float, Tensor), f"{path}.step", "a number")
        if is_shown_only:
            return _check_number(state["step"], f"{path}.step")
        _check_amount(state["step"], f"{path}.step", _MAX_STEP)
        if not float(state["step"]).is_integer():
            raise ConfigError(f"{path}.step: must be a whole number, got {float(state['step']):g}")


def _check_values(values: Mapping[Any, Any], path: str) -> None:
    """Check all values, level by level: a file may hold a list that contains itself."""
    level: list[tuple[str, Any]] = [(path, values)]
    count = 0
    for _ in range(_MAX_DEPTH):
        below: list[tuple[str, Any]] = []
        for where, value in level:
            items = list(_items(where, value))
            count += len(items)
            if count > _MAX_VALUES:
                raise ConfigError(f"{path}: more than {_MAX_VALUES:,} values")
            below += items
        for where, value in below:
            _check_value(value, where)
        level = below
        if not level:
            return
    raise ConfigError(f"{path}: values are nested more than {_MAX_DEPTH} deep")


def _items(path: str, value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        _check_keys(value, path)
        return [(f"{path}.{_show(key)}", item) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [(path, item) for item in value]
    return []


def _check_value(value: Any, path: str) -> None:
    if isinstance(value, int) and abs(value) > _MAX_INTEGER:
        raise ConfigError(f"{path}: an integer of {value.bit_length():,} bits")
    if isinstance(value, str) and len(value) > _MAX_TEXT:
        raise ConfigError(f"{path}: text of {len(value):,} characters")
    if not isinstance(value, Tensor):
        return
    if value.layout != torch.strided:
        raise ConfigError(f"{path}: the tensor is sparse ({value.layout}), and optimizer state is dense")
    if value.is_quantized:
        raise ConfigError(f"{path}: the tensor is quantized ({value.dtype}), and optimizer state is not")
    if value.is_meta:
        raise ConfigError(f"{path}: the tensor has no data, as it was saved on the meta device")
    if type(value) in (Tensor, nn.Parameter):
        num_bytes = value.numel() * value.element_size()
        if num_bytes > value.untyped_storage().nbytes():
            raise ConfigError(f"{path}: the tensor has {num_bytes:,} bytes, more than were saved of it")


def _check_number(value: Any, path: str) -> None:
    if isinstance(value, Tensor) and (value.numel() != 1 or value.is_complex()):
        raise ConfigError(f"{path}: must be a number, got {_describe(value)}")


def _check_amount(value: Any, path: str, limit: float = math.inf) -> None:
    """Check a number that a run cannot have negative, NaN, infinite or at the limit."""
    _check_number(value, path)
    if isinstance(value, Tensor) and (value.is_meta or value.layout != torch.strided or value.is_quantized):
        return _check_value(value, path)
    if isinstance(value, int) and value > _MAX_INTEGER:
        return _check_value(value, path)
    if not 0 <= float(value) < limit:
        allowed = "a finite number >= 0" if limit == math.inf else f"a number >= 0 and < {limit:g}"
        raise ConfigError(f"{path}: must be {allowed}, got {float(value):g}")


def _check_keys(values: Mapping[Any, Any], path: str) -> None:
    for key in values:
        if not isinstance(key, (str, int)):
            raise ConfigError(f"{path}: keys must be text, got {_describe(key)}")


def _check_kind(value: Any, kind: type | tuple[type, ...], path: str, expected: str) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{path}: must be {expected}, got {_describe(value)}")


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, (str, bool, float)) or value is None:
        return to_printable(repr(value)[:60])
    return f"a value of type {type(value).__name__}"


def _show(key: Any) -> str:
    if isinstance(key, int):
        return str(key) if abs(key) <= _MAX_INTEGER else "a huge number"
    return to_printable(str(key)[:200])
