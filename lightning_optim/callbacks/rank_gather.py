"""`RankGather`: values of all ranks after an exception, which may have stopped only some of them."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

TIMEOUT_S = 30.0
"""How long a rank that has stopped waits for the others."""
_LOG = logging.getLogger(__name__)


class RankGather:
    """A process group of its own, so that no collective that another rank still waits for is answered.

    Args:
        trainer: of a fit that begins; every rank must create one.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._group: Any = None
        self._has_failed = False
        if trainer.world_size > 1 and dist.is_available() and dist.is_initialized():
            self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=TIMEOUT_S))

    def gather(self, value: Tensor) -> Tensor:
        """The values of all ranks, `(ranks,)`; if one of them does not call this in time, this rank's, `(1,)`.

        Args:
            value: of shape `(1,)`.
        """
        own = value.cpu()
        if self._group is None or self._has_failed:
            return own
        by_rank = [torch.empty_like(own) for _ in range(dist.get_world_size(self._group))]
        try:
            dist.all_gather(by_rank, own, group=self._group)
        except RuntimeError:
            self._has_failed = True
            _LOG.warning(
                "StagedUnfreeze: an exception has stopped this rank and not all others. The checkpoint has only this "
                "rank's part of the metrics of the epoch, so a stage or a scheduler that waits for one may decide "
                "differently in a run that resumes from it"
            )
            return own
        return torch.cat(by_rank)

    def close(self) -> None:
        """Remove the group."""
        if self._group is not None:
            with suppress(RuntimeError, ValueError):  # the processes may be gone
                dist.destroy_process_group(self._group)
        self._group = None
