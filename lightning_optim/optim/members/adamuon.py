"""AdaMuon."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..matrices import join_matrices, separate_matrices
from ..update import Update
from .matrix_member import MatrixMember, newton_schulz_options, orthogonal_stack, scale_to


class AdaMuon(MatrixMember, name="adamuon"):
    """Muon of the momentum's signs, divided by Adam's second moment (Si et al., arXiv:2507.11005, algorithm 1).

    Each update has the RMS 0.2 times lr, as AdamW's. With sign=False the momentum itself is orthogonalized, as in the
    paper's first version. Parameters are read as matrices, and sharded ones gathered, as in Muon.

    State:
        momentum_buffer: running average of the gradient.
        exp_avg_sq: running average of the square of the orthogonalized momentum.

    Raises:
        ConfigError: a parameter is no matrix, or its rows cannot be cut as `split` says.

    Examples:
        >>> from torch import nn
        >>> optim.AdaMuon([nn.Linear(6, 4).weight], lr=1e-3).defaults["betas"]
        (0.95, 0.95)
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        b1, b2 = group["betas"]
        momentum = {"w1": 1 - b1, "b1": b1, "nesterov": group["nesterov"], "sign": group["sign"]}
        rest = {"b2": b2, "w2": 1 - b2, "eps": group["eps"], "size": group["lr"]}
        return {**momentum, **rest, "options": newton_schulz_options(group)}

    @staticmethod
    def update(p, g, b, v, *, w1, b1, nesterov, sign, b2, w2, eps, size, options) -> Update:
        b.lerp_(g, w1)
        m = g.lerp(b, b1) if nesterov else b
        # The sign of NaN is 0 in torch. 0 m adds nothing to the others, and makes NaN of what is not finite.
        x = orthogonal_stack(m.sign().add_(m, alpha=0.0) if sign else m, **options)
        square = join_matrices(v, x.shape[-2], x.shape[-1]).mul(b2).addcmul_(x, x, value=w2)
        v.copy_(separate_matrices(square, v))
        norm = 0.2 * (x.shape[-2] * x.shape[-1]) ** 0.5
        return Update(separate_matrices(scale_to(norm, x / (square.sqrt() + eps), eps), p), size)
