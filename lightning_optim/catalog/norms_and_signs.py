"""Optimizers whose step is scaled by a tensor's norm, or is the sign of a momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.hyperparameters import Choice, Flag, Number
from .common import MOMENTS, beta, betas, eps, lr, weight_decay
from .entry import native_entry


def _find_memory_conflict(values: Mapping[str, Any]) -> str | None:
    if values["cautious_update"] and values["memory"]:
        return "cautious_update: the memory does not hold what it masks from a step. Remove it, or type memory: false"
    return None


NORMS_AND_SIGNS = (
    native_entry(
        "lars",
        "LARS",
        summary="SGD whose step in each tensor is proportional to the tensor's norm; for large batches.",
        paper="arXiv:1708.03888",
        equations=(
            "d = trust_coefficient ‖p‖ / (‖g‖ + λ ‖p‖) · (g + λ p), λ = 0 unless weight_decay_mode: update",
            "v ← momentum v + lr d;  p ← p - v    (ratio 1 where a norm is 0)",
        ),
        hyperparameters={
            "lr": lr(1.0),
            "momentum": beta(0.9, "momentum factor; 0: no momentum buffer"),
            "trust_coefficient": Number(
                default=1e-3, low=0, help="the fraction of its norm that a tensor moves by with lr 1"
            ),
            "weight_decay": weight_decay(),
        },
        buffers={"momentum_buffer": "momentum"},
        decay="update",
    ),
    native_entry(
        "lamb",
        "LAMB",
        summary="Adam whose step in each tensor is proportional to the tensor's norm; for large batches.",
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
    native_entry(
        "novograd",
        "NovoGrad",
        summary="Momentum of gradients that are divided by their norm in each tensor: one buffer.",
        paper="arXiv:1905.11286",
        equations=(
            "n ← β2 n + (1 - β2) ‖g‖², initially n = ‖g‖²",
            "d = g / (√n + ε)    (+ λ p with weight_decay_mode: update)",
            "m ← β1 m + d, with grad_averaging β1 m + (1 - β1) d;  p ← p - lr m",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "betas": betas(0.95, 0.98, "decay rates of the momentum and of the running average of ‖g‖²"),
            "eps": eps(),
            "weight_decay": weight_decay(),
            "grad_averaging": Flag(default=False, help="weight each scaled gradient by 1 - β1 in the momentum"),
        },
        buffers={"exp_avg": "", "sq_norm_avg": ""},
        reduced=frozenset({"sq_norm_avg"}),
        decay="update",
    ),
    native_entry(
        "lion",
        "Lion",
        summary="Sign of an interpolated momentum: one buffer, and the same step size for every coordinate.",
        paper="arXiv:2302.06675",
        equations=(
            "p ← p - lr sign(β1 m + (1 - β1) g)",
            "m ← β2 m + (1 - β2) g",
        ),
        hyperparameters={
            "lr": lr(1e-4),
            "betas": betas(0.9, 0.99, "weights of the momentum in the step and in its own average"),
            "weight_decay": weight_decay(),
        },
        buffers={"exp_avg": ""},
        decay="decoupled",
    ),
    native_entry(
        "signum",
        "Signum",
        summary="Sign of a running average of gradients; signSGD without momentum.",
        paper="arXiv:1802.04434",
        equations=("m ← momentum m + (1 - momentum) g", "p ← p - lr sign(m)"),
        hyperparameters={
            "lr": lr(1e-4),
            "momentum": beta(0.9, "decay rate of the running average; 0: signSGD, no buffer"),
            "weight_decay": weight_decay(),
        },
        buffers={"exp_avg": "momentum"},
        decay="decoupled",
    ),
    native_entry(
        "ef_sgd",
        "EFSGD",
        summary="Sign steps with error feedback: what the sign leaves out is added to the next step.",
        paper="arXiv:1901.09847",
        equations=(
            "c = lr g + e, with momentum lr b + e, b ← momentum b + g",
            "d = mean|c| sign(c), with comp: sign lr sign(c)",
            "p ← p - d;  e ← c - d    (0 with memory: false)",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "momentum": beta(0.0, "momentum factor, before compression; 0: no momentum buffer"),
            "weight_decay": weight_decay(),
            "comp": Choice(
                default="scaled_sign",
                options=("scaled_sign", "sign"),
                help="compression: scaled_sign, ‖c‖₁ / d · sign(c) per tensor, or sign, lr · sign(c)",
            ),
            "memory": Flag(default=True, help="add the compression error to the next step; false: none"),
        },
        buffers={"error": "memory", "momentum_buffer": "momentum"},
        own_conflict=_find_memory_conflict,
    ),
)
