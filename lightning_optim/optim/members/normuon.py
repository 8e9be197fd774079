"""NorMuon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..base import ParamGroup
from ..matrices import join_matrices, separate_matrices
from ..newton_schulz import matrix_norms
from ..update import Update
from .matrix_member import MatrixMember, lr_ratio, newton_schulz_options, orthogonal_stack, scale_to


class NorMuon(MatrixMember, name="normuon"):
    """Muon with rows normalized by a running mean of their squares (Li et al., arXiv:2510.05491, algorithm 1).

    So no neuron moves much further than others. With `adjust_lr_fn="match_rms_adamw"`, the default and the paper's,
    each update has the RMS 0.2, as AdamW's; with "original" the norm that it had after orthogonalization, times Muon's
    √max(1, rows / columns), as in the authors' code, which has nesterov=True too. Parameters are read as matrices, and
    sharded ones gathered, as in Muon.

    State:
        row_sq_avg: running average of each row's mean square, of the shape (matrices, rows, 1).

    Raises:
        ConfigError: a parameter is no matrix, or its rows cannot be cut as `split` says.

    Examples:
        >>> from torch import nn
        >>> optimizer = optim.NorMuon([nn.Linear(6, 4).weight], lr=1e-3)
        >>> optimizer.shapes(optimizer.param_groups[0], optimizer.param_groups[0]["params"][0])
        {'row_sq_avg': (1, 4, 1)}
    """

    def stack_shapes(self, group: ParamGroup, number: int, rows: int, columns: int) -> dict[str, Sequence[int]]:
        return {"row_sq_avg": (number, rows, 1)}

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        keeps_norm = group["adjust_lr_fn"] == "original"
        size = group["lr"] * (lr_ratio("original", group["rows"], group["columns"]) if keeps_norm else 1.0)
        momentum = {"w1": 1 - group["momentum"], "momentum": group["momentum"], "nesterov": group["nesterov"]}
        rest = {"w2": 1 - group["beta2"], "eps": group["eps"], "size": size, "keeps_norm": keeps_norm}
        return {**momentum, **rest, "options": newton_schulz_options(group)}

    @staticmethod
    def update(p, g, b, v, *, w1, momentum, nesterov, w2, eps, size, keeps_norm, options) -> Update:
        b.lerp_(g, w1)
        x = orthogonal_stack(g.lerp(b, momentum) if nesterov else b, **options)
        mean_square = join_matrices(v, x.shape[-2], 1).lerp(x.square().mean(-1, keepdim=True), w2)
        v.copy_(separate_matrices(mean_square, v))
        norm = matrix_norms(x) if keeps_norm else 0.2 * (x.shape[-2] * x.shape[-1]) ** 0.5
        return Update(separate_matrices(scale_to(norm, x / (mean_square.sqrt() + eps), eps), p), size)
