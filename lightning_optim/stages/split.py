"""Split the groups of a plan by stage, with the hyperparameters that each stage sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..catalog.registry import find_optimizer
from ..core.config_values import to_yaml
from ..core.errors import ConfigError, format_names
from ..core.hyperparameters import Number
from ..groups.group import Group
from ..groups.plan import Plan
from .stages import Stage
from .triggers import FromStart

_LR = Number(default=1e-3, low=0)


def split_by_stage(plan: Plan, stages: Sequence[Stage]) -> Plan:
    """A plan with one group for each group × stage, and with the hyperparameters that the stages set.

    A stage's `lr` becomes an `lr_scale` relative to the group's peak, so that the group stays on its curve. The groups'
    `sources` name the keys of the stage too, with those of `stage`, `thaws`, `lr_scale` and `warmup_steps`. Parameters
    that the model keeps frozen are in no group, but in `fixed`.

    Raises:
        ConfigError: a stage sets a hyperparameter or value that the algorithm of one of its groups does not accept.
    """
    by_name = {stage.name: stage for stage in stages}
    first_of = {stage.key: stage.name for stage in reversed(stages)}
    parts = plan.split(stages)
    groups = []
    for group in parts.groups:
        stage = by_name[str(group.stage)]
        sources = _merge_sources(group, stage, is_first=first_of[stage.key] == stage.name)
        groups.append(_apply_hyperparameters(replace(group, sources=sources), stage, peaks=plan.knows_peaks))
    fixed = frozenset().union(*(stage.fixed for stage in stages)) - set(plan.frozen)
    return replace(parts, groups=tuple(groups), fixed=tuple(name for name in plan.tensors if name in fixed))


def _merge_sources(group: Group, stage: Stage, *, is_first: bool) -> dict[str, tuple[str, ...]]:
    """The group's sources with the keys of its stage; `is_first`: of the layers that one entry thaws, the first."""
    key = stage.key
    own_lr = (f"{key}.lr",) if "lr" in stage.hyperparameters else ()
    scale = (f"{key}.lr_scale",) if stage.lr_scale != 1 else ()
    trigger = () if isinstance(stage.trigger, FromStart) else (f"{key}.{'at' if is_first else 'each'}",)
    return {
        **group.sources,
        **{name: (f"{key}.{name}",) for name in stage.hyperparameters},
        **({"optimizer": (f"{key}.optimizer",)} if stage.optimizer is not None else {}),
        "lr": (*(own_lr or group.sources.get("lr", ())), *scale),
        "stage": (key,),
        "thaws": trigger,
        "lr_scale": (*(own_lr if stage.optimizer is None else ()), *scale),
        "warmup_steps": (f"{key}.warmup_steps",),
    }


def _apply_hyperparameters(group: Group, stage: Stage, *, peaks: bool) -> Group:
    # With an optimizer of its own, they are those of the rule that it has become.
    if not stage.hyperparameters or not group.hyperparameters or stage.optimizer is not None:
        return group
    key = stage.key
    info = find_optimizer(group.algorithm)
    values: dict[str, Any] = {}
    for name, value in stage.hyperparameters.items():
        known = group.hyperparameters if info is None else group.hyperparameters.keys() & info.hyperparameters.keys()
        if name not in known:
            own_only = info is not None and name in info.own_only
            remedy = "Type implementation: own in the optimizer's config, or remove it" if own_only else "Remove it"
            raise ConfigError(
                f"{key}.{name}: the stage claims {format_names(group.params, 3)}, optimized by {group.algorithm}, and "
                f"{'this implementation' if own_only else group.algorithm} has no {name}. {remedy}, or narrow the "
                f"selectors of {key}"
            )
        values[name] = info.hyperparameters[name].check(value, f"{key}.{name}") if info else value
    if "lr" in values:
        scale = _fraction_of_peak(group, values.pop("lr"), key, peaks=peaks)
        group = replace(group, lr_scale=group.lr_scale * scale)
    if info and (conflict := info.find_conflict({**info.defaults, **group.hyperparameters, **values})):
        raise ConfigError(f"{key}: {conflict} (for {format_names(group.params, 3)})")
    return replace(group, hyperparameters={**group.hyperparameters, **values}, overrides=values)


def _fraction_of_peak(group: Group, lr: Any, key: str, *, peaks: bool) -> float:
    lr = _LR.check(lr, f"{key}.lr")
    peak = group.hyperparameters["lr"]
    if not peaks or not peak:
        reason = "its lr is 0" if peaks else "no OptimizerFactory has built it, so the peak of its lr is not known"
        raise ConfigError(
            f"{key}.lr: got {to_yaml(lr)} for param group '{group.parent}', and {reason}. Type a fraction of it: "
            f"{key}.lr_scale: 0.1"
        )
    return float(lr / peak)
