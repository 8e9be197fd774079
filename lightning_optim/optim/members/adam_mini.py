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
    """Adam with one second moment for a block of each tensor (Zhang et al., arXiv:2406.16793, algorithm 1).

    What is a block is said by group, not guessed from names as in the authors' code: 1 a tensor by default, as that has
    it for all that it does not recognise; for a transformer the paper wants one a head in queries and keys
    (num_blocks: num_heads), and one a row, `null`, in embeddings, values, projections, MLPs and the output. The
    second moment of a block is the mean of its g².

    Args and options are `AdamW`'s, less amsgrad and optimized_update, and:

    Args:
        num_blocks: into how many equal parts each tensor of the group is cut, along its first dimension; null: its
            rows.

    State of each parameter, of its dtype: `exp_avg`, of its shape, and `block_sq_avg`, a number for each block.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group; or a
            tensor cannot be cut into so many blocks.

    Example:
        >>> from torch import nn
        >>> model = nn.Linear(3, 4)
        >>> optimizer = optim.AdamMini([{"params": [model.weight], "num_blocks": 2}, {"params": [model.bias]}])
        >>> [optimizer.shapes(group, group["params"][0])["block_sq_avg"] for group in optimizer.param_groups]
        [(2, 1), (1, 1)]
    """

    def shapes(self, group: ParamGroup, param: Tensor) -> dict[str, Sequence[int]]:
        return {"block_sq_avg": (num_blocks(group["num_blocks"], param), 1)}

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        return {**moments(group), **bias_corrections(t, group), "num_blocks": group["num_blocks"]}

    @staticmethod
    def update(p, g, m, v, *, w1, b2, w2, eps, size, root, num_blocks) -> Update:
        m.lerp_(g, w1)
        v.mul_(b2).add_(blocks(g, num_blocks).square().mean(1, keepdim=True), alpha=w2)
        return Update((blocks(m, num_blocks) / (v.sqrt() / root).add_(eps)).view_as(p), size)


def blocks(x: Any, num: int | None) -> Any:
    """A tensor as a matrix, a row for each block."""
    # With the new dimensions a vector has rows too, and so has a number.
    return x.reshape(num, -1) if num is not None else x.unsqueeze(-1).unsqueeze(-1).flatten(1)


def num_blocks(asked: int | None, param: Tensor) -> int:
    """How many there are.

    Raises:
        ConfigError: it cannot be cut so.
    """
    rows = param.shape[0] if param.ndim else 1
    if asked is not None and rows % asked and asked != 1:
        raise ConfigError(
            f"num_blocks: got {asked}, but a parameter of the shape {list(param.shape)} has {rows} rows, which "
            f"cannot be cut into {asked} equal blocks. Give it a group of its own, with num_blocks: 1"
        )
    return rows if asked is None else asked
