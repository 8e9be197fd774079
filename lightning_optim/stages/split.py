"""A plan's groups split by stage, with the hyperparameters that each stage sets on them."""

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

_LR = Number(default=1e-3, low=0)


def split(plan: Plan, stages: Sequence[Stage]) -> Plan:
    """A plan's groups × stages, with what each stage sets; an lr becomes a part of the peak, to stay on its curve.

    Raises:
        ConfigError: a stage sets what the algorithm of one of its groups does not have, or not such a value.
    """
    by_name = {stage.name: stage for stage in stages}
    parts = plan.split(stages)
    groups = [_overridden(group, by_name[str(group.stage)], peaks=plan.peaks) for group in parts.groups]
    return replace(parts, groups=tuple(groups))


def _overridden(group: Group, stage: Stage, *, peaks: bool) -> Group:
    if not stage.hyperparameters or not group.hyperparameters:
        return group
    key = stage.key
    known = find_optimizer(group.algorithm)
    values: dict[str, Any] = {}
    for name, value in stage.hyperparameters.items():
        words = group.hyperparameters if known is None else group.hyperparameters.keys() & known.hyperparameters.keys()
        if name not in words:
            ours = known is not None and name in known.own_only
            remedy = "Type implementation: own in the optimizer's config, or remove it" if ours else "Remove it"
            raise ConfigError(
                f"{key}.{name}: it claims {format_names(group.params, 3)}, which go by {group.algorithm}, and "
                f"{'this' if ours else group.algorithm} has no {name}. {remedy}, or narrow the selectors of {key}"
            )
        values[name] = known.hyperparameters[name].check(value, f"{key}.{name}") if known else value
    if "lr" in values:
        group = replace(group, lr_scale=group.lr_scale * _part_of_peak(group, values.pop("lr"), key, peaks=peaks))
    if known and (wrong := known.find_conflict({**known.defaults, **group.hyperparameters, **values})):
        raise ConfigError(f"{key}: {wrong} (for {format_names(group.params, 3)})")
    return replace(group, hyperparameters={**group.hyperparameters, **values}, overrides=values)


def _part_of_peak(group: Group, lr: Any, key: str, *, peaks: bool) -> float:
    lr = _LR.check(lr, f"{key}.lr")
    peak = group.hyperparameters["lr"]
    if not peaks or not peak:
        why = "its lr is 0" if peaks else "no OptimizerFactory has built it, so the peak of its lr is not known"
        raise ConfigError(
            f"{key}.lr: got {to_yaml(lr)} for param group '{group.parent}', and {why}. Type a part of it: "
            f"{key}.lr_scale: 0.1"
        )
    return float(lr / peak)
