"""Stages under FSDP2: its units, and what they cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule

from ..core.errors import ConfigError


def check_precision(module: nn.Module) -> None:
    """Whether every unit computes in the type that its parameters have.

    A unit settles its types when it is first used, by what is trainable then: thawed later, its gradients have another
    type than it expects, which is an error at best (pytorch#186998).

    Raises:
        ConfigError: one does not.
    """
    for name, unit in _units(module):
        policy = unit._get_fsdp_state()._mp_policy
        types = {parameter.dtype for parameter in unit.parameters()}
        for option in ("param_dtype", "reduce_dtype"):
            wanted = getattr(policy, option)
            if wanted is not None and types - {wanted}:
                raise ConfigError(
                    f"stages: {name or 'the module'} is sharded with MixedPrecisionPolicy({option}={wanted}), under "
                    "which a unit that thaws later does not train right (pytorch#186998). Type trainer.precision: "
                    "bf16-mixed or bf16-true in its place, or leave the unfreeze out: unfreeze=none"
                )


def reshard(module: nn.Module) -> None:
    """Put every unit's sharded parameters in place.

    Without a common root, a frozen unit's stay gathered after a step: other tensors, whose gradients nobody sees.
    """
    for _, unit in _units(module):
        unit.reshard()


def _units(module: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, part) for name, part in module.named_modules() if isinstance(part, FSDPModule))
