"""`Blueprint`: what an optimizer keeps of its plan, for loads, copies and groups that join."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..catalog.info import DECOUPLED_KEY
from ..core.param_group_keys import ALGORITHM, EXECUTION_FLAGS
from ..groups.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """Plain values only, so that a copy of the optimizer has a copy of it."""

    main: str
    """The algorithm of groups that name none."""
    uses_own_class: Mapping[str, bool]
    """By algorithm: whether this package's class runs it."""
    hyperparameters: Mapping[str, Mapping[str, Any]]
    """By algorithm: the config's values for groups that no rule matches."""
    order: tuple[str, ...]
    """The names of the parameters, in the model's order."""
    rules: Mapping[str, tuple[str, ...]]
    """By group: the names of the rules that made it."""
    may_fuse: bool
    """Whether a class of torch's that has a fused kernel runs some groups."""

    @classmethod
    def from_plan(cls, plan: Plan) -> Blueprint:
        """The blueprint of the optimizer that is built from a plan."""
        return cls(
            main=plan.groups[0].algorithm,
            uses_own_class={name: spec.uses_own_class for name, spec in plan.specs.items()},
            hyperparameters={name: dict(spec.hyperparameters) for name, spec in plan.specs.items()},
            order=tuple(plan.tensors),
            rules={group.name: group.made_by for group in plan.groups},
            may_fuse=any(spec.info.fused and not spec.uses_own_class for spec in plan.specs.values()),
        )


def configured_values(algorithm: str, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """What loading by name compares: algorithm and hyperparameters except execution flags, the decay flag resolved."""
    values = {key: value for key, value in hyperparameters.items() if key not in EXECUTION_FLAGS}
    values[ALGORITHM] = algorithm
    if DECOUPLED_KEY in values and "weight_decay_mode" in values:
        values[DECOUPLED_KEY] = values["weight_decay_mode"] == "decoupled"
    return values
