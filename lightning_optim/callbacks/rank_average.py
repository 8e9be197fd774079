"""Average gradients over all ranks, some of which may have used fewer parameters than others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def average_over_ranks(
    num_samples: float, grads: Mapping[Tensor, Tensor], params: Sequence[Tensor]
) -> tuple[float, Mapping[Tensor, Tensor]]:
    """The total number of samples on all ranks, and the gradients of the mean loss over all ranks' batches.

    Args:
        num_samples: samples in this rank's batch.
        grads: this rank's gradients, by parameter; a parameter that its loss does not depend on is missing.
        params: the same parameters in the same order on every rank.

    Returns:
        As given where there is one process. A parameter is in the result if any rank has a gradient of it.
    """
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return num_samples, grads
    counts = torch.tensor([num_samples, *(float(param in grads) for param in params)], device=params[0].device)
    torch.distributed.all_reduce(counts)
    total_samples, *num_ranks_with_grad = counts.tolist()
    means = {}
    for param, num_ranks in zip(params, num_ranks_with_grad, strict=True):
        if num_ranks:
            means[param] = grads[param] if param in grads else torch.zeros_like(param)
            torch.distributed.all_reduce(means[param])
            means[param] /= torch.distributed.get_world_size()
    return total_samples, means
