"""Optimizers that torch does not have either: by norms and signs, for games, with the Hessian, of several gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..hyperparameters import Choice, Flag, Hyperparameter, Number
from .common import AMSGRAD, OPTIMIZED_UPDATE, beta, betas, eps, lr, options, weight_decay
from .decay import decay_conflict
from .info import OptimizerInfo

_MOMENTS = "m ← β1 m + (1 - β1) g;  v ← β2 v + (1 - β2) g²"


def _momentum(default: float, help: str) -> Number:
    return replace(beta(default), help=help)


def _ours(
    name: str,
    cls: str,
    hyperparameters: Mapping[str, Hyperparameter],
    *,
    decay: str = "l2",
    in_rule: bool = False,
    **more: Any,
) -> OptimizerInfo:
    path = f"lightning_optim.optim:{cls}"
    given = {**hyperparameters, **options(decay, in_rule=in_rule)}
    return OptimizerInfo(
        name=name, path=path, own=path, hyperparameters=given, conflict=decay_conflict, decay=decay, **more
    )


def _nesterov_clash(values: Mapping[str, Any]) -> str | None:
    return "nesterov: true needs momentum > 0" if values["nesterov"] and values["momentum"] <= 0 else None


def _taken_back_clash(values: Mapping[str, Any]) -> str | None:
    if values["cautious_update"]:
        return "cautious_update: the next step takes back what of this one was left out and never taken. Remove it"
    return None


def _memory_clash(values: Mapping[str, Any]) -> str | None:
    if values["cautious_update"] and values["memory"]:
        return "cautious_update: what it leaves out of a step is not in the memory. Remove it, or type memory: false"
    return None


OTHERS = (
    _ours(
        "lars",
        "LARS",
        {
            "lr": lr(1.0),
            "momentum": _momentum(0.9, "factor of the running sum of steps; 0: none is kept"),
            "trust_coefficient": Number(default=1e-3, low=0, help="the part of its norm that a tensor moves by"),
            "weight_decay": weight_decay(),
        },
        summary="SGD whose step in each tensor is in proportion to the tensor's norm; for large batches.",
        paper="arXiv:1708.03888",
        equations=(
            "d = trust_coefficient ‖p‖ / (‖g‖ + λ ‖p‖) · (g + λ p), λ = 0 but with weight_decay_mode: update",
            "v ← momentum v + lr d;  p ← p - v    (ratio 1 where a norm is 0)",
        ),
        buffers={"momentum_buffer": "momentum"},
        decay="update",
        in_rule=True,
    ),
    _ours(
        "novograd",
        "NovoGrad",
        {
            "lr": lr(1e-3),
            "betas": replace(betas(0.95, 0.98), help="decay rates of the momentum and of the squared norm's average"),
            "eps": eps(),
            "weight_decay": weight_decay(),
            "grad_averaging": Flag(default=False, help="take 1 - beta1 of each scaled gradient, not all of it"),
        },
        summary="Momentum of gradients that are scaled by their norm in each tensor: one buffer.",
        paper="arXiv:1905.11286",
        equations=(
            "n ← β2 n + (1 - β2) ‖g‖², at first n = ‖g‖²",
            "d = g / (√n + ε)    (+ λ p with weight_decay_mode: update)",
            "m ← β1 m + d, with grad_averaging β1 m + (1 - β1) d;  p ← p - lr m",
        ),
        buffers={"exp_avg": "", "sq_norm_avg": ""},
        reduced=frozenset({"sq_norm_avg"}),
        decay="update",
        in_rule=True,
    ),
    _ours(
        "adamp",
        "AdamP",
        {
            "lr": lr(1e-3),
            "betas": betas(),
            "eps": eps(),
            "weight_decay": weight_decay(),
            "delta": Number(default=0.1, low=0, help="how far from right angles to its gradient a weight may be"),
            "wd_ratio": Number(default=0.1, low=0, high=1, help="part of the decay that scale-invariant weights have"),
            "nesterov": Flag(default=False, help="Nesterov's momentum"),
        },
        summary="Adam that does not let weights grow whose scale does not matter.",
        paper="arXiv:2006.08217",
        equations=(
            _MOMENTS,
            "d = m / (√v / √(1 - β2^t) + ε);  with nesterov β1 m + (1 - β1) g in place of m",
            "where |cos(g, p)| < δ / √n in all rows, or else in the whole tensor, of n elements:",
            "    d ← d - (p·d) p / ‖p‖² there, and λ is multiplied by wd_ratio",
            "p ← p - lr / (1 - β1^t) · d",
        ),
        buffers={"exp_avg": "", "exp_avg_sq": ""},
        decay="decoupled",
    ),
    _ours(
        "signum",
        "Signum",
        {
            "lr": lr(1e-4),
            "momentum": _momentum(0.9, "decay rate of the running average; 0: signSGD"),
            "weight_decay": weight_decay(),
        },
        summary="Steps by the sign of a running average of gradients; without momentum signSGD.",
        paper="arXiv:1802.04434",
        equations=("m ← momentum m + (1 - momentum) g", "p ← p - lr sign(m)"),
        buffers={"exp_avg": "momentum"},
        decay="decoupled",
    ),
    _ours(
        "adam_mini",
        "AdamMini",
        {
            "lr": lr(1e-3),
            "betas": betas(),
            "eps": eps(),
            "weight_decay": weight_decay(),
            "num_blocks": Number(
                default=1, low=1, integer=True, optional=True, help="second moments of a tensor; null: one a row"
            ),
        },
        summary="Adam with one second moment for a block of each tensor: half of Adam's state.",
        paper="arXiv:2406.16793",
        equations=(
            "m ← β1 m + (1 - β1) g;  for each block  v ← β2 v + (1 - β2) mean(g²)",
            "p ← p - lr / (1 - β1^t) · m / (√v / √(1 - β2^t) + ε)",
        ),
        buffers={"exp_avg": "", "block_sq_avg": ""},
        reduced=frozenset({"block_sq_avg"}),
        decay="decoupled",
    ),
    _ours(
        "optimistic_adam",
        "OptimisticAdam",
        {"lr": lr(1e-3), "betas": betas(), "eps": eps(), "weight_decay": weight_decay(), "amsgrad": AMSGRAD},
        clash=_taken_back_clash,
        summary="Adam that takes each step twice and the one before it back; for games, as GANs are.",
        paper="arXiv:1711.00141",
        equations=(
            _MOMENTS,
            "v̂ = the maximum of all v so far with amsgrad, else v",
            "d_t = m / (1 - β1^t) / (√v̂ / √(1 - β2^t) + ε)",
            "p ← p - 2 lr d_t + lr d_{t-1}, with d_0 = 0",
        ),
        buffers={"exp_avg": "", "exp_avg_sq": "", "previous": "", "max_exp_avg_sq": "amsgrad"},
    ),
    _ours(
        "omd",
        "OMD",
        {"lr": lr(1e-3), "weight_decay": weight_decay()},
        clash=_taken_back_clash,
        summary="Gradient descent by twice the gradient less the one before; for games, as GANs are.",
        paper="arXiv:1711.00141",
        equations=("p ← p - 2 lr g_t + lr g_{t-1}, with g_0 = 0",),
        buffers={"previous": ""},
    ),
    _ours(
        "ef_sgd",
        "EFSGD",
        {
            "lr": lr(1e-3),
            "momentum": _momentum(0.0, "factor of the running sum of gradients; 0: none is kept"),
            "weight_decay": weight_decay(),
            "comp": Choice(
                default="scaled_sign", options=("scaled_sign", "sign"), help="what each step is compressed to"
            ),
            "memory": Flag(default=True, help="make up for what the compression left out"),
        },
        clash=_memory_clash,
        summary="Steps by the sign, that make up for what the sign left out.",
        paper="arXiv:1901.09847",
        equations=(
            "c = lr g + e, with momentum lr b + e, b ← momentum b + g",
            "d = mean|c| sign(c), with comp: sign lr sign(c)",
            "p ← p - d;  e ← c - d    (0 with memory: false)",
        ),
        buffers={"error": "memory", "momentum_buffer": "momentum"},
    ),
    _ours(
        "sophia_g",
        "SophiaG",
        {
            "lr": lr(1e-4),
            "betas": replace(betas(0.965, 0.99), help="decay rates of the averages of gradient and Hessian"),
            "rho": Number(default=0.04, low=0, help="how much of the Hessian counts"),
            "eps": eps(1e-15),
            "weight_decay": weight_decay(0.1),
        },
        summary="Momentum over an estimate of the Hessian's diagonal, clipped to lr.",
        paper="arXiv:2305.14342",
        equations=(
            "m ← β1 m + (1 - β1) g",
            "p ← p - lr clamp(m / (ρ h + ε), -1, 1)",
            "update_hessian(B), g of the loss with sampled labels:  h ← β2 h + (1 - β2) B g²",
        ),
        buffers={"exp_avg": "", "hessian": ""},
        decay="decoupled",
    ),
    _ours(
        "extra_sgd",
        "ExtraSGD",
        {
            "lr": lr(1e-3),
            "momentum": _momentum(0.0, "factor of the running sum of gradients; 0: none is kept"),
            "weight_decay": weight_decay(),
            "nesterov": Flag(default=False, help="Nesterov's momentum"),
        },
        clash=_nesterov_clash,
        summary="SGD by the gradient where a first step leads to: two evaluations a step; for games, as GANs are.",
        paper="arXiv:1802.10551",
        equations=(
            "q = p - lr d(∇f(p));  p ← p - lr d(∇f(q))",
            "d(g) = g;  with momentum  b ← momentum b + g, d = b, with nesterov g + momentum b",
        ),
        evaluations=2,
        buffers={"origin": "", "momentum_buffer": "momentum"},
    ),
    _ours(
        "extra_adam",
        "ExtraAdam",
        {
            "lr": lr(1e-3),
            "betas": betas(),
            "eps": eps(),
            "weight_decay": weight_decay(),
            "amsgrad": AMSGRAD,
            "optimized_update": OPTIMIZED_UPDATE,
        },
        summary="Adam by the gradient where a first step leads to: two evaluations a step; for games, as GANs are.",
        paper="arXiv:1802.10551",
        equations=("q = p - Adam's step by ∇f(p);  p ← p - Adam's step by ∇f(q)", "Adam's moments and t take both"),
        evaluations=2,
        buffers={"origin": "", "exp_avg": "", "exp_avg_sq": "", "max_exp_avg_sq": "amsgrad"},
    ),
    _ours(
        "storm",
        "STORM",
        {
            "lr": replace(lr(1.0), help="learning rate, the paper's k; with a schedule, its peak"),
            "w": Number(default=10.0, low=0, open_low=True, help="what the sum of squares begins with"),
            "c": Number(default=100.0, low=0, help="how much of the momentum is forgotten"),
            "weight_decay": weight_decay(),
        },
        summary="Momentum that takes the gradients' noise away: two evaluations a step, of one batch.",
        paper="arXiv:1905.10018",
        equations=(
            "a = min(1, c η²);  s ← s + g_t²;  η = lr / (w + s)^(1/3)",
            "d ← g_t + (1 - a) (d - ∇f_t(p_{t-1})), g_t = ∇f_t(p_t), at first d = g_t",
            "p ← p - η d",
        ),
        evaluations=2,
        buffers={"previous": "", "gradient": "", "sum": "", "estimate": ""},
    ),
    _ours(
        "prodigy",
        "Prodigy",
        {
            "lr": replace(lr(1.0), help="factor on d, which all groups share; leave it at 1"),
            "betas": betas(),
            "beta3": replace(beta(0.0), default=None, optional=True, help="of the estimate; null: √β2"),
            "eps": eps(help="added to the denominator, times d"),
            "weight_decay": weight_decay(),
            "d0": Number(default=1e-6, low=0, open_low=True, per_group=False, help="the first d, smaller than right"),
            "d_coef": Number(default=1.0, low=0, open_low=True, per_group=False, help="factor of the estimate of d"),
            "growth_rate": Number(
                default=None, low=1, open_low=True, optional=True, per_group=False, help="bound on d's growth in a step"
            ),
            "bias_correction": Flag(default=False, help="Adam's"),
            "safeguard_warmup": Flag(default=False, help="leave the lr out of the denominator of d's estimate"),
        },
        summary="Adam that finds its lr by itself: d, one for all groups, of which lr is a factor.",
        paper="arXiv:2306.06101",
        equations=(
            "m ← β1 m + (1 - β1) d g;  v ← β2 v + (1 - β2) d² g²",
            "p ← p - lr d m / (√v + d ε);  with bias_correction lr √(1 - β2^t) / (1 - β1^t) in place of lr",
            "r ← β3 r + lr d²/d0 ⟨g, p0 - p⟩;  s ← β3 s + lr d²/d0 g, with safeguard_warmup d²/d0 g",
            "d ← max(d, d_coef Σ r / Σ ‖s‖₁), summed over all groups, but at most growth_rate d",
            "weight_decay_mode decoupled and corrected: with lr d in place of lr, as the step",
        ),
        buffers={"exp_avg": "", "exp_avg_sq": "", "s": "", "p0": "", "r": ""},
        reduced=frozenset({"r"}),
        decay="decoupled",
    ),
)
