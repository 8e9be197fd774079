"""Adam-mini."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...core.errors import ConfigError
from ..base import ParamGroup
from ..update import Update
from .member import Member
from .moments import bias_corrections, moments


class AdamMini(Member, name="adam_mini"):
    """Adam with one second moment for each block of a tensor (Zhang et al., arXiv:2406.16793, algorithm 1).

    The second moment of a block averages the mean of its g². Blocks are configured per param group, not guessed from
    parameter names as in the authors' code. The default is one block per tensor, which that code uses for all
    parameters that it does not recognize. For a transformer the paper wants one block per head in queries and keys
    (num_blocks: num_heads), and one per row (null) in embeddings, values, projections, MLPs and the output layer.

    State:
        block_sq_avg: one number per block, of its dtype.

    Raises:
        ConfigError: a tensor cannot be cut into `num_blocks` equal blocks.

    Examples:
        >>> from torch import nn
        >>> model = nn.Linear(3, 4)
        >>> optimizer = optim.AdamMini([{"params": [model.weight], "num_blocks": 2}, {"params": [model.bias]}])
        >>> [optimizer.shapes(group, group["params"][0])["block_sq_avg"] for group in optimizer.param_groups]
        [(2, 1), (1, 1)]
    """

    def shapes(self, group: ParamGroup, param: Tensor) -> dict[str, Sequence[int]]:
        return {"block_sq_avg": (count_blocks(group["num_blocks"], param), 1)}

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        return {**moments(group), **bias_corrections(t, group), "num_blocks": group["num_blocks"]}

    @staticmethod
    def update(p, g, m, v, *, w1, b2, w2, eps, size, root, num_blocks) -> Update:
        m.lerp_(g, w1)
        v.mul_(b2).add_(split_blocks(g, num_blocks).square().mean(1, keepdim=True), alpha=w2)
        return Update((split_blocks(m, num_blocks) / (v.sqrt() / root).add_(eps)).view_as(p), size)


def split_blocks(x: Any, num: int | None) -> Any:
    """A tensor as a matrix with one row per block."""
    # The two new dimensions give vectors and 0-d tensors rows too.
    return x.reshape(num, -1) if num is not None else x.unsqueeze(-1).unsqueeze(-1).flatten(1)


def count_blocks(num: int | None, param: Tensor) -> int:
    """The number of blocks of a tensor.

    Raises:
        ConfigError: its rows cannot be divided into `num` equal blocks.
    """
    rows = param.shape[0] if param.ndim else 1
    if num is not None and rows % num and num != 1:
        raise ConfigError(
            f"num_blocks: got {num}, but a parameter of the shape {list(param.shape)} has {rows} rows, which "
            f"cannot be cut into {num} equal blocks. Give it a group of its own, with num_blocks: 1"
        )
    return rows if num is None else num
