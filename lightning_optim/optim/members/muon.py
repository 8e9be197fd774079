"""Muon."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .matrix_member import MatrixMember, lr_ratio, newton_schulz_options, orthogonalized


class Muon(MatrixMember, name="muon"):
    """Momentum whose matrices are orthogonalized before each step (Jordan et al. 2024; Liu et al., arXiv:2502.16982).

    It equals `torch.optim.Muon`, whose state it reads and writes, and takes more: convolutions, stacks of matrices
    (experts), a fused qkv by `split`, each decay mode and modifier, the coefficients of Polar Express
    (arXiv:2505.16932, algorithm 1). All matrices of one shape are orthogonalized by one series of batched products;
    with foreach=False, one after the other. In bfloat16 on a CPU both give the same bits, elsewhere the same up to
    rounding. Sharded parameters (FSDP2) are gathered for it, each matrix on one rank, so the result is that
    of one process. For hidden layers: embeddings, output layers, biases and norms belong to another optimizer.

    Args:
        matrix: what a parameter of three or more dimensions is: "flatten", one matrix (out, rest), as a convolution's
            kernel; "batch", a stack of matrices (..., rows, columns). None: four or more dimensions are flattened, and
            three are refused; in a config the class of its module decides.
        split: matrices that the rows of each one are cut into, which are stepped apart: 3 for a fused qkv; the rows of
            each, as [768, 256, 256], for one with grouped queries. Sharded ones of unequal parts are on every rank.

    State:
        momentum_buffer: running average of the gradient.

    Raises:
        ConfigError: a parameter is no matrix, or its rows cannot be cut as `split` says.

    Examples:
        >>> from torch import nn
        >>> layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
        >>> weights = [(name, p) for name, p in layers.named_parameters() if p.ndim > 1]
        >>> optimizer = optim.Muon(weights, lr=0.02, weight_decay=0.01)
        >>> optimizer.layout(optimizer.param_groups[0], layers[1].weight)
        {'rows': 8, 'columns': 72}
    """

    _torch_counts_steps = False

    def denominator_floor(self, group: ParamGroup) -> float | None:
        return None if group["ns_dtype"] == "bfloat16" else group["eps"]

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        size = group["lr"] * lr_ratio(group["adjust_lr_fn"], group["rows"], group["columns"])
        momentum = {"w": 1 - group["momentum"], "momentum": group["momentum"], "nesterov": group["nesterov"]}
        return {**momentum, "size": size, **newton_schulz_options(group, group["eps"])}

    @staticmethod
    def update(p, g, b, *, w, momentum, nesterov, size, **options) -> Update:
        b.lerp_(g, w)
        return Update(orthogonalized(g.lerp(b, momentum) if nesterov else b, **options), size)
