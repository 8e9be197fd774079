"""Stages under FSDP2: its units, what they cannot do, and the checkpoints that Lightning loads late."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from ..errors import ConfigError

_METADATA = "meta.pt"  # Lightning's, of a distributed checkpoint


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


def callback_state(path: Any, key: str, weights_only: bool | None) -> dict[str, Any] | None:
    """A callback's state in a checkpoint, be it a file or a folder; None where it has none."""
    path = Path(path)
    file = path / _METADATA if path.is_dir() else path
    checkpoint = torch.load(file, map_location="cpu", mmap=file == path, weights_only=weights_only)
    state: dict[str, Any] | None = checkpoint.get("callbacks", {}).get(key)
    return state


def _units(module: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, part) for name, part in module.named_modules() if isinstance(part, FSDPModule))
