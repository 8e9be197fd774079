"""From plan to optimizer: classes made over the plan's groups, and what happens when one is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .catalog.info import DECOUPLED_KEY
from .errors import ConfigError, listed
from .groups.loading import check_algorithm, check_saved, check_states, match
from .groups.merging import OF_THIS_RUN, merged
from .groups.plan import Group, Plan
from .groups.rules import Spec
from .implementation import check_crossing, in_words_of
from .optim.checks import check_matrices
from .optim.composite import ALGORITHM, Composite
from .registry import OptimizerInfo, optimizer_info
from .schedule.by_group import VARIATION, is_scheduled, is_scheduled_elsewhere, note_moved


def build(plan: Plan, specs: Mapping[str, Spec], own: Mapping[str, bool]) -> Optimizer:
    """The optimizer that carries out a plan: one class, or a `Composite` where the groups need several.

    Args:
        plan: what it shall hold; what is frozen in it gets `requires_grad=False`.
        specs: every algorithm of the config by its name, the top one first.
        own: by algorithm: whether our class is taken, else torch's.
    """
    needed = {group.algorithm for group in plan.groups}
    for name in plan.frozen:
        plan.tensors[name].requires_grad_(False)
    make = {name: partial(_make, plan, spec, own[name]) for name, spec in specs.items() if name in needed}
    groups = [{"name": group.name} for group in plan.groups]
    if len(needed) == 1:
        optimizer = make[plan.groups[0].algorithm](groups)
    else:
        for param_group, group in zip(groups, plan.groups, strict=True):
            param_group[ALGORITHM] = group.algorithm
        optimizer = Composite(groups, make, main=next(iter(specs)))
    optimizer.register_load_state_dict_pre_hook(partial(_before_load, own, plan.groups[0].algorithm))
    if any(group.schedule for group in plan.groups):
        optimizer.register_step_pre_hook(_check_scheduled)
    return optimizer


def check_takes(plan: Plan) -> None:
    """Whether each algorithm of a plan takes its groups and parameters.

    Raises:
        ConfigError: one does not.
    """
    for name in dict.fromkeys(group.algorithm for group in plan.groups):
        _check_takes(optimizer_info(name), plan)


def _check_takes(info: OptimizerInfo, plan: Plan) -> None:
    if info.single_group and len(plan.groups) > 1:
        names = ", ".join(group.name for group in plan.groups)
        raise ConfigError(
            f"groups: {info.name} takes one param group, the rules make {len(plan.groups)}: {names}. "
            "Remove them with groups: null"
        )
    for group in plan.groups if info.matrices_only else ():
        if group.algorithm != info.name:
            continue
        key = group.sources.get("optimizer", ("name",))[0]
        rule = key.rpartition(".")[0]
        advice = (
            f"Narrow {rule} by kinds: [matrix] and classes: [Linear]"
            if rule
            else "Type name: adamw, or optimizer=muon_adamw, which gives muon the backbone's matrices"
        )
        check_matrices(info.name, [(name, plan.tensors[name]) for name in group.params], key, advice)


def _make(plan: Plan, spec: Spec, own: bool, named: list[dict[str, Any]]) -> Optimizer:
    """One class over the groups of these names."""
    info = spec.info
    by_name = {group.name: group for group in plan.groups}
    groups = [by_name[group["name"]] for group in named]
    # A class of one group may derive one value from another (LBFGS: max_eval from max_iter): it gets the group's.
    defaults = in_words_of(own, info, groups[0].hyperparameters if info.single_group else spec.hyperparameters)
    if not info.is_built_in:
        # What all of its groups have, its constructor gets: it may be no value of a group's.
        shared = in_words_of(own, info, groups[0].hyperparameters)
        for group in groups[1:]:
            values = group.hyperparameters
            shared = {key: value for key, value in shared.items() if values[key] == value}
        defaults |= shared
    if not own and info.fused and defaults["fused"] is None and defaults["foreach"] is None:
        held = [plan.tensors[name] for group in groups for name in group.params]
        defaults["fused"] = True if _can_fuse(held) and not plan.sparse and not defaults["differentiable"] else None
    optimizer = info.load(own=own)(
        [
            {**_param_group(plan, group, in_words_of(own, info, group.hyperparameters), defaults), **about}
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
        **{key: value for key, value in hyperparameters.items() if value != defaults[key] and key not in OF_THIS_RUN},
        "peak_lr": group.hyperparameters["lr"],
        "configured": _configured(group),
        **({VARIATION: dict(group.schedule)} if group.schedule else {}),
    }


def _configured(group: Group) -> dict[str, Any]:
    """What loading by name compares: algorithm and hyperparameters, not how a step runs; the decay by its flag too."""
    values = {key: value for key, value in group.hyperparameters.items() if key not in OF_THIS_RUN}
    values[ALGORITHM] = group.algorithm
    if DECOUPLED_KEY in values and "weight_decay_mode" in values:
        values[DECOUPLED_KEY] = values["weight_decay_mode"] == "decoupled"
    return values


def _can_fuse(tensors: Iterable[Tensor]) -> bool:
    """Whether torch's fused kernels take these: real floating point, on a device that has them."""
    from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

    devices = _get_fused_kernels_supported_devices()
    return all(torch.is_floating_point(tensor) and tensor.device.type in devices for tensor in tensors)


def _before_load(
    own: Mapping[str, bool], main: str, optimizer: Optimizer, state_dict: dict[str, Any]
) -> dict[str, Any]:
    """For torch's hook before a load: the state dict in this run's groups, by name, and in its classes' words.

    Args:
        own: by algorithm: whether its class is ours.
        main: the algorithm where the groups name none.
        optimizer: what is loaded into.
        state_dict: its source.
    """
    current, saved = optimizer.param_groups, state_dict["param_groups"]
    if optimizer_info(main).single_group:
        check_saved(current, saved)  # its state is one vector over all parameters
    _check_scheduler_follows(optimizer, saved)
    # Only what another program saved: ours says what was configured, and what differs comes from the config.
    for theirs in saved:
        name = theirs.get(ALGORITHM, main)
        if "configured" not in theirs and not own.get(name, True):
            check_crossing(optimizer_info(name), theirs)
    found = match(current, state_dict)
    groups = []
    for each in found:
        group = {**merged(each.now, each.sources), "params": list(each.places)}
        name = each.now.get(ALGORITHM, main)
        info = optimizer_info(name)
        check_algorithm(info, each, state_dict["state"])
        if not own[name] and info.is_built_in:
            places = [f"parameter {place}" for place in each.places]
            check_states(info, group, each.now.get("param_names") or places, state_dict["state"])
            group = {key: value for key, value in group.items() if key not in info.own_only}
        groups.append(group)
    note_moved(optimizer, [str(each.now.get("name")) for each in found if each.moved])
    return {**state_dict, "param_groups": groups}


def _check_scheduler_follows(optimizer: Optimizer, saved: Iterable[Mapping[str, Any]]) -> None:
    """Whether the scheduler finds its groups again: torch's keep their lists by place."""
    if not is_scheduled_elsewhere(optimizer):
        return
    now, before = (
        [(group.get("name"), group.get("peak_lr")) for group in groups] for groups in (optimizer.param_groups, saved)
    )
    if now != before and None not in {name for name, _ in (*now, *before)}:
        raise ConfigError(
            f"scheduler: the checkpoint's param groups are {_in_words(before)}, this run's {_in_words(now)}, and a "
            "scheduler that no SchedulerFactory has built keeps their lrs by place. Build it with "
            "lightning_optim.SchedulerFactory, or give the groups and lrs that it was saved under"
        )


def _in_words(groups: Iterable[tuple[Any, Any]]) -> str:
    return listed(f"{name} (lr {lr:g})" if isinstance(lr, float) else str(name) for name, lr in groups)


def _check_scheduled(optimizer: Optimizer, *_: Any) -> None:
    """For torch's hook before a step: whether somebody carries out the rules' `schedule`."""
    if is_scheduled(optimizer):
        return
    for group in optimizer.param_groups:
        if VARIATION in group:
            raise ConfigError(
                f"schedule: the rule of param group '{group.get('name')}' gives it one of its own, and no "
                "SchedulerFactory has built it. Build the schedule with lightning_optim.SchedulerFactory, or with "
                "configure_optimizers"
            )
