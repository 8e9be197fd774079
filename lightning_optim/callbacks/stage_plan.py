"""The plan of a model's groups and stages, before there is a fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn
from torch.optim import Optimizer

from ..build.stage_optimizers import plan_with_stages
from ..groups.parameters import read_parameters
from ..groups.plan import Plan
from ..stages.split import split_by_stage
from ..stages.stages import Stage, check_all_claimed, claim
from .stage_claims import trainable_as_in_a_fit

if TYPE_CHECKING:
    from ..build.factory import OptimizerFactory


def plan_stages(
    parsed_stages: Sequence[Stage], module: nn.Module, optimizer: OptimizerFactory | Optimizer | None
) -> tuple[Plan, tuple[Stage, ...]]:
    """The groups of a model split by stage, as a fit would have them, and the stages with what they claim.

    Args:
        parsed_stages: from `parse_stages`.
        module: the model; it is not changed.
        optimizer: a factory or a built optimizer, which gives the groups; without it, each stage is one group.

    Raises:
        ConfigError: the plan does not fit the model.
    """
    parameters = read_parameters(module)
    stages = claim(parsed_stages, parameters)
    if isinstance(optimizer, Optimizer):
        plan = Plan.from_optimizer(optimizer, module)
    elif optimizer is not None:
        with trainable_as_in_a_fit(stages, parameters):
            plan = plan_with_stages(optimizer, stages, parameters)
    else:
        plan = Plan.from_module(module)
    check_all_claimed(stages, parameters, excluded=frozenset(plan.frozen))
    return split_by_stage(plan, stages), stages
