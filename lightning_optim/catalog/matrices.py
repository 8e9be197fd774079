"""Optimizers of matrices: their steps are products of matrices, so they take parameters of two or more dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..core.hyperparameters import Choice, Flag, Hyperparameter, Number, Numbers, Parts
from .common import beta, betas, eps, lr, shared_options, weight_decay
from .decay import find_decay_conflict
from .entry import native_entry
from .info import OptimizerInfo
from .modifiers import MODIFIERS

JORDAN = (3.4445, -4.775, 2.0315)
"""The coefficients of Keller Jordan's quintic."""

_SHAPES: dict[str, Hyperparameter] = {
    "matrix": Choice(
        default=None,
        options=("flatten", "batch"),
        optional=True,
        help=(
            "what a parameter of 3 or more dimensions is: flatten: one matrix (out, rest), a convolution's kernel; "
            "batch: a stack of matrices (..., rows, columns); null: by the class of its module"
        ),
    ),
    "split": Parts(
        default=1,
        help=(
            "matrices that the rows are cut into: 3, equal ones of a fused qkv; [768, 256, 256], of so many rows each, "
            "for one with grouped queries"
        ),
    ),
}
"""How parameters are read as matrices."""

_MOMENTUM = Number(default=0.95, low=0, help="momentum factor")
_NESTEROV = Flag(default=True, help="Nesterov momentum")
_NEWTON_SCHULZ: dict[str, Hyperparameter] = {
    "ns_coefficients": Numbers(
        default=JORDAN,
        items=tuple(Number(default=coefficient) for coefficient in JORDAN),
        help="coefficients of the Newton-Schulz polynomial",
    ),
    "eps": Number(default=1e-7, low=0, help="minimum of the norm that a matrix is divided by"),
    "ns_steps": Number(default=5, low=1, high=99, integer=True, help="Newton-Schulz iterations"),
}
_OWN_NEWTON_SCHULZ: dict[str, Hyperparameter] = {
    "coefficients": Choice(
        default="jordan",
        options=("jordan", "polar_express"),
        help="jordan: ns_coefficients in each iteration; polar_express: others in each (arXiv:2505.16932)",
    ),
    "ns_dtype": Choice(
        default="bfloat16",
        options=("bfloat16", "parameter"),
        help="dtype of the iterations: bfloat16, or that of the parameter",
    ),
}
_ITERATIONS = {key: _NEWTON_SCHULZ[key] for key in ("ns_coefficients", "ns_steps")}
_SOAP_FACTORS = frozenset({"row_cov", "column_cov", "row_basis", "column_basis"})
_SHAMPOO_FACTORS = frozenset({"row_sum", "column_sum", "row_root", "column_root"})
_POLYNOMIALS = (
    "coefficients: polar_express has other a, b, c in each iteration (arXiv:2505.16932), and divides by 1.01 ‖x‖"
)


def _factor_beta(help: str) -> Number:
    return Number(default=None, low=0, high=1, open_high=True, optional=True, help=help)


def _find_coefficients_conflict(values: Mapping[str, Any]) -> str | None:
    if values["coefficients"] == "polar_express" and tuple(values["ns_coefficients"]) != JORDAN:
        return "ns_coefficients: coefficients: polar_express has its own. Remove one of them"
    return None


MATRICES = (
    OptimizerInfo(
        name="muon",
        summary="Momentum orthogonalized by Newton-Schulz; for the matrices and convolutions of hidden layers.",
        path="torch.optim:Muon",
        own="lightning_optim.optim:Muon",
        paper="Jordan et al. 2024; arXiv:2502.16982",
        equations=(
            "b ← μ b + (1 - μ) g",
            "x = (1 - μ) g + μ b with nesterov, else b;  x ← x / ‖x‖, transposed if rows > columns",
            "ns_steps times:  A = x xᵀ;  x ← a x + (b A + c A²) x    (a, b, c: ns_coefficients)",
            _POLYNOMIALS,
            "p ← p - lr s x;  s = √max(1, rows / columns), with adjust_lr_fn: match_rms_adamw 0.2 √max(rows, columns)",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "weight_decay": weight_decay(0.1),
            "momentum": _MOMENTUM,
            "nesterov": _NESTEROV,
            **_NEWTON_SCHULZ,
            "adjust_lr_fn": Choice(
                default=None,
                options=("original", "match_rms_adamw", "spectral_unclamped"),
                options_since={"spectral_unclamped": "2.14"},
                optional=True,
                help="how lr is adjusted to a matrix's shape; null: original",
            ),
            **_OWN_NEWTON_SCHULZ,
            **_SHAPES,
            **shared_options("decoupled"),
        },
        own_only=frozenset({
            *("weight_decay_mode", "cautious_decay", "maximize", "foreach", "fused"),
            *MODIFIERS, *_OWN_NEWTON_SCHULZ, *_SHAPES,
        }),
        buffers={"momentum_buffer": ""},
        decay="decoupled",
        matrices_only=True,
        conflict=find_decay_conflict,
        own_conflict=_find_coefficients_conflict,
    ),
    native_entry(
        "normuon",
        "NorMuon",
        summary="Muon whose rows are normalized by a running mean of their squares.",
        paper="arXiv:2510.05491",
        equations=(
            "b ← μ b + (1 - μ) g;  x = NewtonSchulz(b), as in muon    (nesterov: of (1 - μ) g + μ b)",
            "for each row  v ← β2 v + (1 - β2) mean(x²);  u = x / (√v + ε)",
            "p ← p - lr 0.2 √(rows columns) u / (‖u‖ + ε)",
            "adjust_lr_fn: original:  p ← p - lr √max(1, rows / columns) ‖x‖ u / (‖u‖ + ε)",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "momentum": _MOMENTUM,
            "beta2": beta(0.95, "decay rate of the running average of each row's mean square"),
            "nesterov": replace(_NESTEROV, default=False),
            "eps": eps(help="added to the denominators"),
            "weight_decay": weight_decay(),
            **_ITERATIONS,
            "adjust_lr_fn": Choice(
                default="match_rms_adamw",
                options=("original", "match_rms_adamw"),
                help="match_rms_adamw: updates of the RMS 0.2; original: of the norm before the normalization",
            ),
            **_OWN_NEWTON_SCHULZ,
            **_SHAPES,
        },
        buffers={"momentum_buffer": "", "row_sq_avg": ""},
        reduced=frozenset({"row_sq_avg"}),
        decay="decoupled",
        matrices_only=True,
        own_conflict=_find_coefficients_conflict,
    ),
    native_entry(
        "adamuon",
        "AdaMuon",
        summary="Muon with the signs of the momentum; the result is divided by the root of its second moment.",
        paper="arXiv:2507.11005",
        equations=(
            "b ← β1 b + (1 - β1) g;  x = NewtonSchulz(sign(b)), as in muon    (nesterov: of (1 - β1) g + β1 b)",
            "v ← β2 v + (1 - β2) x²;  u = x / (√v + ε)",
            "p ← p - lr 0.2 √(rows columns) u / (‖u‖ + ε)",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "betas": betas(0.95, 0.95, "decay rates of the momentum and of the second moment"),
            "nesterov": replace(_NESTEROV, default=False),
            "sign": Flag(default=True, help="orthogonalize the signs of the momentum; false: the momentum"),
            "eps": eps(help="added to the denominators"),
            "weight_decay": weight_decay(),
            **_ITERATIONS,
            **_OWN_NEWTON_SCHULZ,
            **_SHAPES,
        },
        buffers={"momentum_buffer": "", "exp_avg_sq": ""},
        decay="decoupled",
        matrices_only=True,
        own_conflict=_find_coefficients_conflict,
    ),
    native_entry(
        "soap",
        "SOAP",
        summary="Adam in the eigenvectors of Shampoo's factors.",
        paper="arXiv:2409.11321",
        equations=(
            "L ← β3 L + (1 - β3) g gᵀ;  R ← β3 R + (1 - β3) gᵀ g    (after the step; β3: shampoo_beta)",
            "t = 1:  Q_L, Q_R = the eigenvectors of L and R, and no step",
            "m ← β1 m + (1 - β1) g;  v ← β2 v + (1 - β2) (Q_Lᵀ g Q_R)²",
            "p ← p - lr √(1 - β2^(t-1)) / (1 - β1^(t-1)) Q_L (Q_Lᵀ m Q_R / (√v + ε)) Q_Rᵀ",
            "every precondition_frequency steps:  Q_L = QR(L Q_L), Q_R = QR(R Q_R), sorted by eigenvalues",
        ),
        hyperparameters={
            "lr": lr(3e-3),
            "betas": betas(0.95, 0.95, "decay rates of the momentum and of the second moment"),
            "shampoo_beta": _factor_beta("decay rate of L and R; null: β2"),
            "eps": eps(),
            "weight_decay": weight_decay(1e-2),
            "precondition_frequency": Number(
                default=10, low=1, integer=True, help="steps between two refinements of the eigenvectors"
            ),
            "max_size": Number(default=10_000, low=0, integer=True, help="a side longer than this is not rotated"),
            **_SHAPES,
        },
        buffers=dict.fromkeys(("exp_avg", "exp_avg_sq", "row_cov", "column_cov", "row_basis", "column_basis"), ""),
        reduced=_SOAP_FACTORS,
        factors=_SOAP_FACTORS,
        decay="decoupled",
        matrices_only=True,
    ),
    native_entry(
        "shampoo",
        "Shampoo",
        summary="Gradients multiplied on both sides by inverse fourth roots of sums of their outer products.",
        paper="arXiv:1802.09568",
        equations=(
            "L ← L + g gᵀ;  R ← R + gᵀ g    (with beta2: L ← β2 L + (1 - β2) g gᵀ, and R)",
            "d = (L + ε I)^(-1/4) g (R + ε I)^(-1/4)    (roots of each precondition_frequency-th step)",
            "p ← p - lr d;  with momentum:  b ← momentum b + d, p ← p - lr b",
        ),
        hyperparameters={
            "lr": lr(1e-2),
            "momentum": beta(0.0, "momentum factor; 0: no momentum buffer"),
            "beta2": _factor_beta("decay rate of L and R; null: sums"),
            "eps": replace(eps(1e-6, "added to the diagonals"), open_low=True),
            "weight_decay": weight_decay(),
            "precondition_frequency": Number(default=1, low=1, integer=True, help="steps between two roots"),
            **_SHAPES,
        },
        buffers={
            "row_sum": "",
            "column_sum": "",
            "row_root": "",
            "column_root": "",
            "momentum_buffer": "momentum",
        },
        reduced=_SHAMPOO_FACTORS,
        factors=_SHAMPOO_FACTORS,
        matrices_only=True,
    ),
)  # fmt: skip
