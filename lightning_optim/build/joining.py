"""Param groups that join a built optimizer: they get the keys and parameter names that its first groups have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from ..core.param_group_keys import ALGORITHM
from ..core.param_names import joining, position_names
from ..optim.decay import WeightDecay
from ..schedule.joined_groups import schedule_joined_groups
from .blueprint import Blueprint, configured_values


def join(
    optimizer: Optimizer,
    blueprint: Blueprint,
    names: Mapping[Tensor, str],
    param_group: dict[str, Any],
    *,
    at_current_lr: bool = False,
) -> None:
    """Add a param group to an optimizer that a factory built, whether its parameters have names or not.

    Args:
        optimizer: its class adds the group.
        blueprint: of the optimizer.
        names: of the model's parameters; others get names by position.
        param_group: as torch's `add_param_group` takes it.
        at_current_lr: whether its lr is that of this step of a schedule; else it is the peak, as in a config.

    Raises:
        ConfigError: the class refuses the group.
    """
    add = type(optimizer).add_param_group
    if not isinstance(param_group, dict) or isinstance(param_group.get("params", set()), set):
        add(optimizer, param_group)  # it says what is wrong
        return
    group = _name_params(param_group, optimizer, names)
    if "name" in group:
        group["name"] = _unused_name(str(group["name"]), optimizer)
    with joining(group, optimizer.param_groups) as named:
        add(optimizer, named)
    _record_configured(optimizer.param_groups[-1], param_group, blueprint)
    schedule_joined_groups(optimizer, at_current_lr=at_current_lr)


def _name_params(param_group: Mapping[str, Any], optimizer: Optimizer, names: Mapping[Tensor, str]) -> dict[str, Any]:
    """The group with `(name, parameter)` pairs, if the name of any of its parameters is known."""
    group = dict(param_group)
    given = group["params"]
    params = [given] if isinstance(given, Tensor) else list(given)
    if len(given_names := group.pop("param_names", None) or ()) == len(params):
        params = [
            param if isinstance(param, tuple) else pair
            for param, pair in zip(params, zip(given_names, params, strict=True), strict=True)
        ]
    used = {name for other in optimizer.param_groups for name in other.get("param_names", ())}
    known = [param[0] if isinstance(param, tuple) else _known_name(param, names, used) for param in params]
    tensors = [param[1] if isinstance(param, tuple) else param for param in params]
    if not any(known):
        return {**group, "params": tensors}
    by_position = position_names(optimizer.param_groups, len(optimizer.param_groups), len(params))
    pairs = [(name or fallback, tensor) for name, fallback, tensor in zip(known, by_position, tensors, strict=True)]
    return {**group, "params": pairs}


def _known_name(param: Any, names: Mapping[Tensor, str], used: set[str]) -> str | None:
    name = names.get(param) if isinstance(param, Tensor) else None
    return None if name in used else name


def _unused_name(name: str, optimizer: Optimizer) -> str:
    """The name of a group, made unique as `Plan.from_optimizer` does."""
    used = {group.get("name") for group in optimizer.param_groups}
    return next(n for n in (name, *(f"{name}-{i}" for i in range(2, len(used) + 3))) if n not in used)


def _record_configured(group: dict[str, Any], given: Mapping[str, Any], blueprint: Blueprint) -> None:
    """Give a group that has joined the keys that the factory gives the groups it makes."""
    group.setdefault("peak_lr", float(group["lr"]))
    if "configured" in group:
        return
    algorithm = group.get(ALGORITHM, blueprint.main)
    keys = {
        *given,
        *(("weight_decay_mode", "cautious_decay") if isinstance(given.get("weight_decay"), WeightDecay) else ()),
    }
    values = {
        key: group[key] if key in keys and key in group else value
        for key, value in blueprint.hyperparameters[algorithm].items()
    }
    group["configured"] = configured_values(algorithm, {**values, "lr": group["peak_lr"]})
