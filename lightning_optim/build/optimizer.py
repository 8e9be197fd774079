"""From a plan to the optimizer that carries it out: one class, or a composite of several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..catalog.info import DECOUPLED_KEY, OptimizerInfo
from ..core.errors import ConfigError
from ..core.param_group_keys import ALGORITHM, EXECUTION_FLAGS, SCHEDULE
from ..groups.group import Group
from ..groups.plan import Plan
from ..groups.rules import Spec
from ..optim.composite import Composite
from ..schedule.by_group import is_scheduled
from .implementation import constructor_arguments
from .load_by_name import remap_before_load


def build_optimizer(plan: Plan) -> Optimizer:
    """The optimizer that carries out a plan: one class, or a `Composite` where the groups need several.

    Args:
        plan: of `OptimizerFactory.plan`; the parameters it freezes get `requires_grad=False`.
    """
    needed = {group.algorithm for group in plan.groups}
    for name in plan.frozen:
        plan.tensors[name].requires_grad_(False)
    make = {name: partial(_make, plan, spec) for name, spec in plan.specs.items() if name in needed}
    groups = [{"name": group.name} for group in plan.groups]
    if len(needed) == 1:
        optimizer = make[plan.groups[0].algorithm](groups)
    else:
        for param_group, group in zip(groups, plan.groups, strict=True):
            param_group[ALGORITHM] = group.algorithm
        optimizer = Composite(groups, make, main=next(iter(plan.specs)))
    own = {name: spec.own for name, spec in plan.specs.items()}
    optimizer.register_load_state_dict_pre_hook(partial(remap_before_load, own, plan.groups[0].algorithm))
    if any(group.schedule for group in plan.groups):
        optimizer.register_step_pre_hook(_check_scheduled)
    return optimizer


def _make(plan: Plan, spec: Spec, named: list[dict[str, Any]]) -> Optimizer:
    """One class over the groups of these names."""
    info, own = spec.info, spec.own
    by_name = {group.name: group for group in plan.groups}
    groups = [by_name[group["name"]] for group in named]
    # A class of one group may derive one value from another (LBFGS: max_eval from max_iter): it gets the group's.
    defaults = constructor_arguments(
        own, info, groups[0].hyperparameters if info.single_group else spec.hyperparameters
    )
    if not info.is_built_in:
        # What all of its groups have, its constructor gets: it may be no value of a group's.
        shared = constructor_arguments(own, info, groups[0].hyperparameters)
        for group in groups[1:]:
            values = group.hyperparameters
            shared = {key: value for key, value in shared.items() if values[key] == value}
        defaults |= shared
    if not own and info.fused and defaults["fused"] is None and defaults["foreach"] is None:
        held = [plan.tensors[name] for group in groups for name in group.params]
        defaults["fused"] = True if _can_fuse(held) and not plan.sparse and not defaults["differentiable"] else None
    optimizer = info.load(own=own)(
        [
            {**_param_group(plan, group, constructor_arguments(own, info, group.hyperparameters), defaults), **about}
            for group, about in zip(groups, named, strict=True)
        ],
        **defaults,
    )
    if not info.is_built_in:
        _check_takes_in_groups(info, optimizer, groups, defaults)
    if defaults.get("fused"):
        # A fused kernel can unscale gradients itself, but then clipping and hooks would see them scaled.
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    return optimizer


def _check_takes_in_groups(
    info: OptimizerInfo, optimizer: Optimizer, groups: Iterable[Group], defaults: Mapping[str, Any]
) -> None:
    """Whether a class that we know by its signature alone has a value for each group, where groups differ."""
    for group in groups:
        for key, value in group.hyperparameters.items():
            if key in defaults and value != defaults[key] and key not in optimizer.defaults:
                where = group.sources.get(key, (f"groups.{group.name}.{key}",))[0]
                raise ConfigError(
                    f"{where}: {info.name} has one {key} for all of its groups. Set it at the top, for all of them"
                )


def _param_group(
    plan: Plan, group: Group, hyperparameters: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "params": [(name, plan.tensors[name]) if plan.named else plan.tensors[name] for name in group.params],
        # The rest comes from the constructor's, where torch may have put a value in the place of a null.
        **{
            key: value
            for key, value in hyperparameters.items()
            if value != defaults[key] and key not in EXECUTION_FLAGS
        },
        "peak_lr": group.hyperparameters["lr"],
        "configured": _configured(group),
        **({SCHEDULE: dict(group.schedule)} if group.schedule else {}),
    }


def _configured(group: Group) -> dict[str, Any]:
    """What loading by name compares: algorithm and hyperparameters, not how a step runs; the decay by its flag too."""
    values = {key: value for key, value in group.hyperparameters.items() if key not in EXECUTION_FLAGS}
    values[ALGORITHM] = group.algorithm
    if DECOUPLED_KEY in values and "weight_decay_mode" in values:
        values[DECOUPLED_KEY] = values["weight_decay_mode"] == "decoupled"
    return values


def _can_fuse(tensors: Iterable[Tensor]) -> bool:
    """Whether torch's fused kernels take these: real floating point, on a device that has them."""
    from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

    devices = _get_fused_kernels_supported_devices()
    return all(torch.is_floating_point(tensor) and tensor.device.type in devices for tensor in tensors)


def _check_scheduled(optimizer: Optimizer, *_: Any) -> None:
    """For torch's hook before a step: whether somebody carries out the rules' `schedule`."""
    if is_scheduled(optimizer):
        return
    for group in optimizer.param_groups:
        if SCHEDULE in group:
            raise ConfigError(
                f"schedule: the rule of param group '{group.get('name')}' gives it one of its own, and no "
                "SchedulerFactory has built it. Build the schedule with lightning_optim.SchedulerFactory, or with "
                "configure_optimizers"
            )
