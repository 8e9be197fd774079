"""Which of a module's parameters the stages of a fit claim, before and after the optimizers are built."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from torch import nn
from torch.optim import Optimizer

from ..core.errors import ConfigError, format_names
from ..groups.frozen_by_rules import frozen_by_rules
from ..groups.parameters import Parameter, read_parameters
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


@contextmanager
def trainable_as_in_a_fit(stages: Sequence[Stage], parameters: Sequence[Parameter]) -> Iterator[None]:
    """Make the claimed parameters trainable for a while: rules may ask for what is frozen when a fit builds a plan."""
    claimed = frozenset().union(*(stage.params for stage in stages))
    thawed = [p.tensor for p in parameters if p.name in claimed and not p.tensor.requires_grad]
    for tensor in thawed:
        tensor.requires_grad_(True)
    try:
        yield
    finally:
        for tensor in thawed:
            tensor.requires_grad_(False)


def drop_frozen_params(
    stages: Sequence[Stage], module: nn.Module, optimizers: Sequence[Optimizer]
) -> tuple[Stage, ...]:
    """The stages without the parameters that `frozen: true` rules left out of the optimizers.

    Args:
        stages: as `claim_trainable` returned them.
        module: the module they were claimed in.
        optimizers: the optimizers built over it.

    Raises:
        ConfigError: a claimed parameter is in no optimizer, and no rule freezes it; or a trainable one is in no stage.
    """
    in_optimizers = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    by_rules = {id(tensor) for optimizer in optimizers for tensor in frozen_by_rules(optimizer)}
    parameters = read_parameters(module)
    frozen = {p.name for p in parameters if id(p.tensor) in by_rules}
    missing = {p.name for p in parameters if id(p.tensor) not in in_optimizers} - frozen
    matched = []
    for stage in stages:
        if lost := stage.params & missing:
            names = [p.name for p in parameters if p.name in lost]
            raise ConfigError(
                f"{stage.key}: no optimizer holds {len(names)} of the parameters it claims: {format_names(names, 3)}. "
                "Give configure_optimizers the whole model, whatever requires_grad is: optimizer(self.parameters())"
            )
        matched.append(replace(stage, params=stage.params - frozen))
    check_all_claimed(matched, parameters)
    return tuple(matched)
