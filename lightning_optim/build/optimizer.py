"""`build_optimizer`: the optimizer for a plan, of one class, or a composite of several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.utils.weak import WeakTensorKeyDictionary

from ..catalog.info import OptimizerInfo
from ..core.errors import ConfigError
from ..core.param_group_keys import ALGORITHM, EXECUTION_FLAGS, SCHEDULE
from ..groups.frozen_by_rules import mark_frozen_by_rules
from ..groups.group import Group
from ..groups.plan import Plan
from ..groups.rules import AlgorithmSpec
from ..optim.composite import Composite
from ..optim.half_precision import check_float16
from ..optim.sharpness import SharpnessMixin
from ..schedule.optimizer_marks import is_scheduled
from .attachments import attach
from .blueprint import Blueprint, configured_values
from .first_step import attach_dense_check
from .fused_layouts import can_fuse
from .implementation import constructor_arguments


def build_optimizer(plan: Plan) -> Optimizer:
    """The optimizer for a plan: one class, or a `Composite` where the groups need several.

    Args:
        plan: from `OptimizerFactory.plan`. The parameters it freezes get `requires_grad=False`.
    """
    needed = {group.algorithm for group in plan.groups}
    for name in plan.frozen:
        plan.tensors[name].requires_grad_(False)
    builders = {name: partial(_build_one_class, plan, spec) for name, spec in plan.specs.items() if name in needed}
    groups = [{"name": group.name} for group in plan.groups]
    if len(needed) == 1:
        optimizer = builders[plan.groups[0].algorithm](groups)
    else:
        for param_group, group in zip(groups, plan.groups, strict=True):
            param_group[ALGORITHM] = group.algorithm
        optimizer = Composite(groups, builders, main=next(iter(plan.specs)))
    if plan.model is not None and isinstance(optimizer, SharpnessMixin):
        optimizer.set_model(plan.model)
    mark_frozen_by_rules(optimizer, [plan.tensors[name] for name in plan.frozen])
    attach(optimizer, Blueprint.from_plan(plan), _names_by_tensor(plan))
    if plan.sparse_gradients:
        attach_dense_check(optimizer)
    if any(group.schedule for group in plan.groups):
        optimizer.register_step_pre_hook(_check_scheduled)
    return optimizer


def _build_one_class(plan: Plan, spec: AlgorithmSpec, named: list[dict[str, Any]]) -> Optimizer:
    """An optimizer of one class.

    Args:
        plan: the whole plan.
        spec: the algorithm.
        named: for each of its groups: the name, and further keys to set.
    """
    info, own = spec.info, spec.uses_own_class
    by_name = {group.name: group for group in plan.groups}
    groups = [by_name[group["name"]] for group in named]
    defaults = _constructor_defaults(spec, groups)
    if not own and info.fused and defaults["fused"] is None and defaults["foreach"] is None:
        tensors = [plan.tensors[name] for group in groups for name in group.params]
        fits = can_fuse(info.load(), tensors) and not plan.sparse_gradients and not defaults["differentiable"]
        defaults["fused"] = True if fits else None
    if not own and defaults.get("fused"):
        _check_real(plan, groups)
    if not own and info.own and not defaults.get("fused"):
        _check_float16(plan, groups)
    param_groups = [
        {**_param_group(plan, group, constructor_arguments(own, info, group.hyperparameters), defaults), **extra}
        for group, extra in zip(groups, named, strict=True)
    ]
    try:
        optimizer = info.load(own=own)(param_groups, **defaults)
    except ConfigError:
        raise
    except ValueError as error:  # what a class refuses by checks of its own
        raise ConfigError(f"name: {info.name} does not take these parameters or values: {error}") from error
    if not info.is_built_in:
        _check_takes_in_groups(info, optimizer, groups, defaults)
    if defaults.get("fused"):
        # A fused kernel can unscale gradients itself, but then clipping and hooks would see them scaled.
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    return optimizer


def _constructor_defaults(spec: AlgorithmSpec, groups: Sequence[Group]) -> dict[str, Any]:
    """The arguments of the class besides its param groups."""
    info, own = spec.info, spec.uses_own_class
    # A class with one group may derive a value from another (LBFGS: max_eval from max_iter): it gets the group's.
    values = groups[0].hyperparameters if info.single_group else spec.hyperparameters
    defaults = constructor_arguments(own, info, values)
    if info.is_built_in:
        return defaults
    # A registered class may read a value from its arguments only, and not from the group: pass what all groups share.
    shared = constructor_arguments(own, info, groups[0].hyperparameters)
    for group in groups[1:]:
        shared = {key: value for key, value in shared.items() if group.hyperparameters[key] == value}
    return defaults | shared


def _param_group(
    plan: Plan, group: Group, hyperparameters: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "params": [(name, plan.tensors[name]) if plan.has_names else plan.tensors[name] for name in group.params],
        # The rest comes from the constructor, where torch may have replaced a null by a value.
        **{
            key: value
            for key, value in hyperparameters.items()
            if value != defaults[key] and key not in EXECUTION_FLAGS
        },
        "peak_lr": group.hyperparameters["lr"],
        "configured": configured_values(group.algorithm, group.hyperparameters),
        **({SCHEDULE: dict(group.schedule)} if group.schedule else {}),
    }


def _check_real(plan: Plan, groups: Iterable[Group]) -> None:
    """Check that a fused kernel of torch gets no complex parameter, which it refuses in its first step."""
    for group in groups:
        for name in group.params:
            if plan.tensors[name].is_complex():
                raise ConfigError(
                    f"fused: torch's kernels take no complex parameters, and {name or 'one'} is one. Type fused: null"
                )


def _check_float16(plan: Plan, groups: Iterable[Group]) -> None:
    """Check what torch's class computes in the parameter's dtype: all but its fused kernels, which use float32."""
    for group in groups:
        if "eps" in group.hyperparameters:
            prefix = (group.sources.get("eps") or ("eps",))[0].removesuffix("eps")
            tensors = [plan.tensors[name] for name in group.params]
            check_float16(group.hyperparameters, tensors, lambda values: values["eps"], prefix)


def _names_by_tensor(plan: Plan) -> MutableMapping[Tensor, str]:
    """The names of the model's parameters, frozen ones too, which may join later; it keeps none of them alive."""
    names: MutableMapping[Tensor, str] = WeakTensorKeyDictionary()
    for name, tensor in (plan.model_tensors if plan.has_names else {}).items():
        names[tensor] = name
    return names


def _check_takes_in_groups(
    info: OptimizerInfo, optimizer: Optimizer, groups: Iterable[Group], defaults: Mapping[str, Any]
) -> None:
    """Check that a class of which only the signature is known takes a hyperparameter by group, where groups differ."""
    for group in groups:
        for key, value in group.hyperparameters.items():
            if key in defaults and value != defaults[key] and key not in optimizer.defaults:
                source = group.sources.get(key, (f"groups.{group.name}.{key}",))[0]
                raise ConfigError(
                    f"{source}: {info.name} has one {key} for all of its groups. Set it at the top level, for all of "
                    "them"
                )


def _check_scheduled(optimizer: Optimizer, *_: Any) -> None:
    """Check that the rules' `schedule:` has an effect: torch's hook before a step."""
    if is_scheduled(optimizer):
        return
    for group in optimizer.param_groups:
        if SCHEDULE in group:
            raise ConfigError(
                f"schedule: a rule sets one for param group '{group.get('name')}', but no SchedulerFactory built the "
                "scheduler. Build it with lightning_optim.SchedulerFactory or configure_optimizers"
            )
