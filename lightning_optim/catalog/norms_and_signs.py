"""Optimizers whose step has the size of a tensor's norm, or the sign of a momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.hyperparameters import Choice, Flag, Number
from .common import MOMENTS, beta, betas, eps, lr, weight_decay
from .entry import ours


def _memory_conflict(values: Mapping[str, Any]) -> str | None:
    if values["cautious_update"] and values["memory"]:
        return "cautious_update: what it leaves out of a step is not in the memory. Remove it, or type memory: false"
    return None


NORMS_AND_SIGNS = (
    ours(
        "lars",
        "LARS",
        summary="SGD whose step in each tensor is in proportion to the tensor's norm; for large batches.",
        paper="arXiv:1708.03888",
        equations=(
            "d = trust_coefficient ‖p‖ / (‖g‖ + λ ‖p‖) · (g + λ p), λ = 0 but with weight_decay_mode: update",
            "v ← momentum v + lr d;  p ← p - v    (ratio 1 where a norm is 0)",
        ),
        hyperparameters={
            "lr": lr(1.0),
            "momentum": beta(0.9, "factor of the running sum of steps; 0: none is kept"),
            "trust_coefficient": Number(default=1e-3, low=0, help="the part of its norm that a tensor moves by"),
            "weight_decay": weight_decay(),
        },
        buffers={"momentum_buffer": "momentum"},
        decay="update",
    ),
    ours(
        "lamb",
        "LAMB",
        summary="Adam whose step in each tensor is in proportion to the tensor's norm; for large batches.",
        paper="arXiv:1904.00962",
        equations=(
            MOMENTS,
            "r = m / (1 - β1^t) / (√(v / (1 - β2^t)) + ε)    (+ λ p with weight_decay_mode: update)",
            "p ← p - lr ‖p‖ / ‖r‖ · r    (ratio 1 where a norm is 0)",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "betas": betas(),
            "eps": eps(1e-6),
            "weight_decay": weight_decay(),
        },
        buffers={"exp_avg": "", "exp_avg_sq": ""},
        decay="update",
    ),
    ours(
        "novograd",
        "NovoGrad",
        summary="Momentum of gradients that are scaled by their norm in each tensor: one buffer.",
        paper="arXiv:1905.11286",
        equations=(
            "n ← β2 n + (1 - β2) ‖g‖², at first n = ‖g‖²",
            "d = g / (√n + ε)    (+ λ p with weight_decay_mode: update)",
            "m ← β1 m + d, with grad_averaging β1 m + (1 - β1) d;  p ← p - lr m",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "betas": betas(0.95, 0.98, "decay rates of the momentum and of the squared norm's average"),
            "eps": eps(),
            "weight_decay": weight_decay(),
            "grad_averaging": Flag(default=False, help="take 1 - beta1 of each scaled gradient, not all of it"),
        },
        buffers={"exp_avg": "", "sq_norm_avg": ""},
        reduced=frozenset({"sq_norm_avg"}),
        decay="update",
    ),
    ours(
        "lion",
        "Lion",
        summary="Steps by the sign of an interpolated momentum: one buffer, and equal steps for all.",
        paper="arXiv:2302.06675",
        equations=(
            "p ← p - lr sign(β1 m + (1 - β1) g)",
            "m ← β2 m + (1 - β2) g",
        ),
        hyperparameters={
            "lr": lr(1e-4),
            "betas": betas(0.9, 0.99, "weights of the momentum in the step, and in its own average"),
            "weight_decay": weight_decay(),
        },
        buffers={"exp_avg": ""},
        decay="decoupled",
    ),
    ours(
        "signum",
        "Signum",
        summary="Steps by the sign of a running average of gradients; without momentum signSGD.",
        paper="arXiv:1802.04434",
        equations=("m ← momentum m + (1 - momentum) g", "p ← p - lr sign(m)"),
        hyperparameters={
            "lr": lr(1e-4),
            "momentum": beta(0.9, "decay rate of the running average; 0: signSGD"),
            "weight_decay": weight_decay(),
        },
        buffers={"exp_avg": "momentum"},
        decay="decoupled",
    ),
    ours(
        "ef_sgd",
        "EFSGD",
        summary="Steps by the sign, that make up for what the sign left out.",
        paper="arXiv:1901.09847",
        equations=(
            "c = lr g + e, with momentum lr b + e, b ← momentum b + g",
            "d = mean|c| sign(c), with comp: sign lr sign(c)",
            "p ← p - d;  e ← c - d    (0 with memory: false)",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "momentum": beta(0.0, "factor of the running sum of gradients; 0: none is kept"),
            "weight_decay": weight_decay(),
            "comp": Choice(
                default="scaled_sign", options=("scaled_sign", "sign"), help="what each step is compressed to"
            ),
            "memory": Flag(default=True, help="make up for what the compression left out"),
        },
        buffers={"error": "memory", "momentum_buffer": "momentum"},
        own_conflict=_memory_conflict,
    ),
)
