"""`AccumulatedGradients`: the gradients of a step that Lightning is still accumulating, in a checkpoint and out of it.

A checkpoint of Lightning holds no gradients. One that is saved between the batches of a step, by an exception, a
validation or a timer, resumes with the next batch, and takes the step without the batches before it. So does the one
that a ModelCheckpoint by steps writes after the first batch of a resumed run, in place of the whole one of that step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from ..core.later_release import refuse_unknown
from .lightning_internals import accumulated_batches, is_within_batch, total_batches

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

_NUM_BATCHES, _BY_NAME = "num_batches", "by_name"


class AccumulatedGradients:
    """Reads and restores them."""

    def __init__(self) -> None:
        self._last_backward: int | None = None

    def before_backward(self, trainer: Trainer) -> None:
        """Remember that the current batch is about to add its gradients."""
        self._last_backward = total_batches(trainer)

    def read(self, trainer: Trainer, module: LightningModule) -> dict[str, Any] | None:
        """What to save, in types that `torch.load(weights_only=True)` accepts; None between two steps.

        Without the gradients (`by_name` is None) on several ranks, where each has others, and where the batch that a
        resume repeats may have added its own to them.
        """
        num_batches = accumulated_batches(trainer)
        if not num_batches:
            return None
        gradients = {name: param.grad for name, param in module.named_parameters() if param.grad is not None}
        is_mixed = is_within_batch(trainer) and self._last_backward == total_batches(trainer)
        are_whole = trainer.world_size == 1 and not is_mixed and all(map(_is_plain, gradients.values()))
        return {_NUM_BATCHES: num_batches, _BY_NAME: gradients if are_whole else None}

    def restore(self, module: LightningModule, state: Mapping[str, Any]) -> None:
        """Give the parameters their gradients back, before the first batch of a resumed run.

        Raises:
            ConfigError, TypeError, ValueError, KeyError: the state has other keys, or gradients that do not fit.
        """
        refuse_unknown(state, (_NUM_BATCHES, _BY_NAME), "gradients")
        params = dict(module.named_parameters())
        num_batches, by_name = int(state[_NUM_BATCHES]), state[_BY_NAME]
        if by_name is None or not all(map(_is_plain, params.values())):
            rank_zero_warn(
                f"RNGState: the checkpoint was saved while a step had accumulated {num_batches} batches, "
                "and their gradients are not in it. The first step of this run is taken without them. For an exact "
                "resume, use a checkpoint that was saved after a step"
            )
            return
        for name, gradient in by_name.items():
            param = params[name]
            if not _is_gradient_of(param, gradient):
                raise ValueError(f"{name}: this is no gradient of the parameter")
            param.grad = gradient.to(param.device)


def _is_plain(value: Any) -> bool:
    """Whether it is a tensor, and not a DTensor: a shard of one."""
    return isinstance(value, Tensor) and not hasattr(value, "to_local")


def _is_gradient_of(param: Tensor, value: Any) -> bool:
    if not isinstance(value, Tensor) or value.is_meta:
        return False
    return value.shape == param.shape and value.dtype == param.dtype
