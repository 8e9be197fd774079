"""Which of a module's parameters the stages of a fit claim, before and after the optimizers are built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn
from torch.optim import Optimizer

from ..core.errors import ConfigError, format_names
from ..groups.parameters import read_parameters
from ..stages.freezing import set_trainable
from ..stages.stages import Stage, check_all_claimed, claim


def claim_trainable(stages: Sequence[Stage], module: nn.Module) -> tuple[Stage, ...]:
    """The stages with the parameters they claim, all of which are made trainable.

    Raises:
        ConfigError: a stage claims nothing.
    """
    parameters = read_parameters(module)
    claimed = claim(stages, parameters)
    names = frozenset().union(*(stage.params for stage in claimed))
    set_trainable([parameter.tensor for parameter in parameters if parameter.name in names], True)
    return claimed


def drop_frozen_params(
    stages: Sequence[Stage], module: nn.Module, optimizers: Sequence[Optimizer]
) -> tuple[Stage, ...]:
    """The stages without the parameters that `frozen: true` rules left out of the optimizers.

    Args:
        stages: as `claim_trainable` returned them.
        module: the module they were claimed in.
        optimizers: the optimizers built over it.

    Raises:
        ConfigError: a claimed, trainable parameter is in no optimizer, or a trainable one is in no stage.
    """
    in_optimizers = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    parameters = read_parameters(module)
    left_out = {p.name: p.tensor for p in parameters if id(p.tensor) not in in_optimizers}
    # All claimed parameters were trainable before the optimizers were built: a rule has frozen the others.
    missing = {name for name, tensor in left_out.items() if tensor.requires_grad}
    matched = []
    for stage in stages:
        if lost := stage.params & missing:
            names = [p.name for p in parameters if p.name in lost]
            raise ConfigError(
                f"{stage.key}: no optimizer holds {len(names)} of the parameters it claims: {format_names(names, 3)}. "
                "Give configure_optimizers the whole model: optimizer(self.parameters())"
            )
        matched.append(replace(stage, params=stage.params - left_out.keys()))
    check_all_claimed(matched, parameters)
    return tuple(matched)
