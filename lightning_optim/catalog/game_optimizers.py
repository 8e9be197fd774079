"""Optimizers for games such as GANs: optimistic ones and extragradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.hyperparameters import Flag
from .common import AMSGRAD, MOMENTS, OPTIMIZED_UPDATE, V_HAT, beta, betas, eps, lr, weight_decay
from .entry import native_entry


def _find_optimistic_conflict(values: Mapping[str, Any]) -> str | None:
    if values["cautious_update"]:
        return "cautious_update: the next step subtracts the whole of this one, the masked part included. Remove it"
    return None


def _find_nesterov_conflict(values: Mapping[str, Any]) -> str | None:
    return "nesterov: true needs momentum > 0" if values["nesterov"] and values["momentum"] <= 0 else None


GAME_OPTIMIZERS = (
    native_entry(
        "omd",
        "OMD",
        summary="Gradient descent by twice the gradient minus the previous one; for games such as GANs.",
        paper="arXiv:1711.00141",
        equations=("p ← p - 2 lr g_t + lr g_{t-1}, with g_0 = 0",),
        hyperparameters={"lr": lr(1e-3), "weight_decay": weight_decay()},
        buffers={"previous": ""},
        own_conflict=_find_optimistic_conflict,
    ),
    native_entry(
        "optimistic_adam",
        "OptimisticAdam",
        summary="Adam that doubles each step and subtracts the previous one; for games such as GANs.",
        paper="arXiv:1711.00141",
        equations=(
            MOMENTS,
            V_HAT,
            "d_t = m / (1 - β1^t) / (√v̂ / √(1 - β2^t) + ε)",
            "p ← p - 2 lr d_t + lr d_{t-1}, with d_0 = 0",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "betas": betas(),
            "eps": eps(),
            "weight_decay": weight_decay(),
            "amsgrad": AMSGRAD,
        },
        buffers={"exp_avg": "", "exp_avg_sq": "", "previous": "", "max_exp_avg_sq": "amsgrad"},
        own_conflict=_find_optimistic_conflict,
    ),
    native_entry(
        "extra_sgd",
        "ExtraSGD",
        summary="SGD with the gradient at an extrapolated point: two evaluations per step; for games such as GANs.",
        paper="arXiv:1802.10551",
        equations=(
            "q = p - lr d(∇f(p));  p ← p - lr d(∇f(q))",
            "d(g) = g;  with momentum  b ← momentum b + g, d = b, with nesterov g + momentum b",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "momentum": beta(0.0, "momentum factor; 0: no momentum buffer"),
            "weight_decay": weight_decay(),
            "nesterov": Flag(default=False, help="Nesterov momentum"),
        },
        buffers={"origin": "", "momentum_buffer": "momentum"},
        evaluations=2,
        own_conflict=_find_nesterov_conflict,
    ),
    native_entry(
        "extra_adam",
        "ExtraAdam",
        summary="Adam with the gradient at an extrapolated point: two evaluations per step; for games such as GANs.",
        paper="arXiv:1802.10551",
        equations=(
            "q = p - Adam's step by ∇f(p);  p ← p - Adam's step by ∇f(q)",
            "Adam's moments and t count both gradients",
        ),
        hyperparameters={
            "lr": lr(1e-3),
            "betas": betas(),
            "eps": eps(),
            "weight_decay": weight_decay(),
            "amsgrad": AMSGRAD,
            "optimized_update": OPTIMIZED_UPDATE,
        },
        buffers={"origin": "", "exp_avg": "", "exp_avg_sq": "", "max_exp_avg_sq": "amsgrad"},
        evaluations=2,
    ),
)
