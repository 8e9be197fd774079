"""FSDP2 under stages: the check of its mixed-precision policy, and resharding between steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule

from ..core.errors import ConfigError


def check_precision(module: nn.Module) -> None:
    """Check that every FSDP2 unit computes in the dtype of its parameters.

    A unit fixes its dtypes when it is first used, by what is trainable then. If it thaws later, its gradients have
    another dtype than it expects, which is an error at best (pytorch#186998).

    Raises:
        ConfigError: a unit's MixedPrecisionPolicy has another dtype.
    """
    for name, unit in _units(module):
        policy = unit._get_fsdp_state()._mp_policy
        dtypes = {parameter.dtype for parameter in unit.parameters()}
        for option in ("param_dtype", "reduce_dtype"):
            dtype = getattr(policy, option)
            if dtype is not None and dtypes - {dtype}:
                raise ConfigError(
                    f"stages: {name or 'the module'} is sharded with MixedPrecisionPolicy({option}={dtype}), under "
                    "which a unit that thaws later does not train correctly (pytorch#186998). Type trainer.precision: "
                    "bf16-mixed or bf16-true instead, or train without stages: unfreeze=none"
                )


def reshard(module: nn.Module) -> None:
    """Put the sharded parameters of every FSDP2 unit back into the module.

    Without a common root, a frozen unit stays gathered after a step: the module then has other tensors, whose gradients
    the optimizer never sees.
    """
    for _, unit in _units(module):
        unit.reshard()


def _units(module: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, part) for name, part in module.named_modules() if isinstance(part, FSDPModule))
