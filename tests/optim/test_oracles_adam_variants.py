"""Adam's less-known variants against the papers' equations, pytorch_optimizer and optax."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.oracles import (
    ALL_MODES,
    BETAS,
    DECAY,
    DEFAULT_DECAY,
    LONG,
    PEAK_LR,
    SHORT,
    SOME_MODES,
    TWO_MODES,
    Case,
    Options,
    adan,
    cases,
    check_equations,
    check_optax,
    check_same_trajectory,
    combine,
    corrected_eps,
    decay,
    each_branch,
    each_class,
    either,
    gradients,
    initial_params,
    lr_at,
    optax_cases,
    optax_with_decay,
    root,
    shrinkage,
    torch_trajectory,
)

# Options

ALL = [*DEFAULT_DECAY, *ALL_MODES]
YOGI = combine(BETAS, [{"initial_accumulator_value": first} for first in (1e-6, 0.5)])
YOGI_FROM_0 = combine(BETAS, [{"initial_accumulator_value": 0.0}])
NUS = [{"nus": nus} for nus in ((1.0, 1.0), (0.7, 1.0), (0.4, 0.3), (0.0, 0.0))]
BETA3 = [{"beta3": beta3} for beta3 in (0.999, 0.5, 0.0)]
POWERS = [{"partial": power} for power in (0.25, 0.1, 0.5)]
ADAI = [{"betas": betas, "eps": eps} for betas, eps in (((0.1, 0.99), 1e-3), ((0.7, 0.8), 0.01), ((3.0, 0.9), 0.2))]
ADAN = [{"betas": (0.98, 0.92, 0.99), "eps": 1e-8}, {"betas": (0.8, 0.6, 0.9), "eps": 1e-3}]
THREE = [{"betas": (0.9, 0.999, 0.9999), "eps": 1e-8}, {"betas": (0.8, 0.9, 0.99), "eps": 1e-3}]
ALPHA = [{"alpha": alpha} for alpha in (2.0, 8.0)]
WARMUPS = [{"alpha_warmup": alpha, "beta3_warmup": beta3} for alpha, beta3 in ((None, None), (8, 30), (30, 8))]
CLIP = combine([{"betas": (0.9, 0.9999), "eps": 1e-6}, SHORT, {"betas": (0.5, 0.2), "eps": 0.8}], either("clip"))
STABLE = [*BETAS, SHORT | {"eps": 0.5}]  # the last one: where v is clipped at eps²
GAMMA = combine(BETAS, [{"gamma": gamma} for gamma in (0.025, 0.5, 0.0)])
MADGRAD = [{"momentum": momentum, "eps": eps} for momentum, eps in ((0.9, 1e-6), (0.5, 0.1), (0.0, 1e-3))]


# The papers' equations. Each gives the step; t counts from 1, s is the state.


def moments(g, s, betas) -> None:
    s["m"], s["v"] = betas[0] * s["m"] + (1 - betas[0]) * g, betas[1] * s["v"] + (1 - betas[1]) * g**2


def size(lr, betas, t) -> float:
    """Adam's, where eps is added to the uncorrected root."""
    return lr * math.sqrt(1 - betas[1] ** t) / (1 - betas[0] ** t)


def yogi(p, g, t, s, *, lr, betas, eps, initial_accumulator_value):
    """NIPS 2018, algorithm 2, with the bias correction and initial value of TensorFlow Addons."""
    v = s["v"] if t > 1 else np.full_like(g, initial_accumulator_value)
    s["m"], s["v"] = betas[0] * s["m"] + (1 - betas[0]) * g, v - (1 - betas[1]) * np.sign(v - g**2) * g**2
    return size(lr, betas, t) * s["m"] / (np.sqrt(s["v"]) + eps)


def laprop(p, g, t, s, *, lr, betas, eps):
    """arXiv:2002.04839, algorithm 1; others put the lr inside the average."""
    s["v"] = betas[1] * s["v"] + (1 - betas[1]) * g**2
    s["m"] = betas[0] * s["m"] + (1 - betas[0]) * g / (np.sqrt(s["v"] / (1 - betas[1] ** t)) + eps)
    return lr * s["m"] / (1 - betas[0] ** t)


def qhadam(p, g, t, s, *, lr, betas, nus, eps):
    """arXiv:1810.06801, equation 15; pytorch_optimizer's weights are rounded to float32."""
    moments(g, s, betas)
    m = (1 - nus[0]) * g + nus[0] * s["m"] / (1 - betas[0] ** t)
    return lr * m / (np.sqrt((1 - nus[1]) * g**2 + nus[1] * s["v"] / (1 - betas[1] ** t)) + eps)


def diffgrad(p, g, t, s, *, lr, betas, eps):
    """arXiv:1909.11015, eps as in the authors' code."""
    moments(g, s, betas)
    friction, s["before"] = 1 / (1 + np.exp(-np.abs(s["before"] - g))), g
    return size(lr, betas, t) * friction * s["m"] / (np.sqrt(s["v"]) + eps)


def adamod(p, g, t, s, *, lr, betas, beta3, eps):
    """arXiv:1910.12249, algorithm 1, bias correction as in the authors' code."""
    moments(g, s, betas)
    eta = size(lr, betas, t) / (np.sqrt(s["v"]) + eps)
    s["s"] = beta3 * s["s"] + (1 - beta3) * eta
    return np.minimum(eta, s["s"]) * s["m"]


def padam(p, g, t, s, *, lr, betas, eps, partial, amsgrad):
    """arXiv:1806.06763, algorithm 1, bias correction as in the authors' code; pytorch_optimizer has no maximum."""
    moments(g, s, betas)
    s["max"] = np.maximum(s["max"], s["v"])
    return size(lr, betas, t) * s["m"] / (np.sqrt(s["max"] if amsgrad else s["v"]) + eps) ** (2 * partial)


def ademamix(p, g, t, s, *, lr, betas, eps, alpha, alpha_warmup, beta3_warmup):
    """arXiv:2409.03137, algorithm 1; other code warms up both over the same number of steps."""
    b1, b2, b3 = betas
    if alpha_warmup:
        alpha = min(t * alpha / alpha_warmup, alpha)
    if beta3_warmup and t < beta3_warmup:
        part, log1, log3 = t / beta3_warmup, math.log(b1 or 1), math.log(b3)
        # With β1 = 0, the limit for β1 → 0.
        b3 = math.exp(log1 * log3 / ((1 - part) * log3 + part * log1)) if b1 else b3 ** (1 / part)
    moments(g, s, (b1, b2))
    s["slow"] = b3 * s["slow"] + (1 - b3) * g
    return lr * (s["m"] / (1 - b1**t) + alpha * s["slow"]) / (np.sqrt(s["v"] / (1 - b2**t)) + eps)


def adopt(p, g, t, s, *, lr, betas, eps, clip):
    """arXiv:2411.02853, algorithm 2; the paper counts from the second step."""
    if t == 1:
        s["v"] = g**2
        return np.zeros_like(g)
    step, bound = g / np.maximum(np.sqrt(s["v"]), eps), (t - 1) ** 0.25
    s["m"] = betas[0] * s["m"] + (1 - betas[0]) * (np.clip(step, -bound, bound) if clip else step)
    s["v"] = betas[1] * s["v"] + (1 - betas[1]) * g**2
    return lr * s["m"]


def mars(p, g, t, s, *, lr, betas, eps, gamma):
    """arXiv:2411.10438, algorithm 2 (MARS-AdamW), approximate."""
    c = g + gamma * betas[0] / (1 - betas[0]) * (g - s["before"])
    s["before"], norm = g, np.sqrt((c**2).sum())
    moments(c / norm if norm > 1 else c, s, betas)
    return lr * s["m"] / (1 - betas[0] ** t) / (np.sqrt(s["v"] / (1 - betas[1] ** t)) + eps)


def stable_adamw(p, g, t, s, *, lr, betas, eps, decay=lambda lr: 0.0):
    """arXiv:2304.13013, algorithm 2, where decay uses the clipped lr; `decay` is what is applied around the rule."""
    b1, b2 = (beta * (1 - beta ** (t - 1)) / (1 - beta**t) for beta in betas)
    moments(g, s, (b1, b2))
    clip = 1 / max(1, math.sqrt((g**2 / np.maximum(s["v"], eps**2)).mean()))
    return lr * clip * s["m"] / (np.sqrt(s["v"]) + eps) - decay(lr) * (1 - clip) * p


def madgrad(p, g, t, s, *, lr, momentum, eps):
    """arXiv:2101.11075, algorithm 1, with ε in the lr. With momentum 0, x0 follows the decayed parameter."""
    if t == 1 or momentum == 0:
        s["x0"] = p + s["s"] / (np.cbrt(s["v"]) + eps)
    weight = (lr + eps) * math.sqrt(t)
    s["s"], s["v"] = s["s"] + weight * g, s["v"] + weight * g**2
    z = s["x0"] - s["s"] / (np.cbrt(s["v"]) + eps)
    return (1 - momentum) * (p - z)


NO_FAST = [{"betas": (0.0, 0.9, 0.99), "eps": 1e-8, "alpha": 2.0, "alpha_warmup": 8, "beta3_warmup": 12}]
EQUATIONS = [
    *cases("Yogi", combine(YOGI, ALL), yogi),
    *cases("LaProp", combine([*BETAS, LONG | {"eps": 1e-15}], ALL), laprop),
    *cases("QHAdam", combine(BETAS, NUS, ALL), qhadam),
    *cases("DiffGrad", combine(BETAS, ALL), diffgrad),
    *cases("AdaMod", combine(BETAS, BETA3, ALL), adamod),
    *cases("Padam", combine(BETAS, POWERS, either("amsgrad"), ALL), padam),
    *cases("Adan", combine(ADAN, ALL), adan),
    *cases("AdEMAMix", combine(THREE, ALPHA, WARMUPS, DEFAULT_DECAY), ademamix),
    *cases("AdEMAMix", combine(NO_FAST, ALL), ademamix),
    *cases("ADOPT", combine(CLIP, ALL), adopt),
    *cases("MARS", combine(GAMMA, ALL), mars),
    *cases("StableAdamW", combine(STABLE, decay("l2", "l1", "absolute", "relative")), stable_adamw),
    *cases("StableAdamW", combine(STABLE, DEFAULT_DECAY), partial(stable_adamw, decay=lambda lr: lr * DECAY)),
    *cases(
        "StableAdamW",
        combine(STABLE, decay("corrected")),
        partial(stable_adamw, decay=lambda lr: lr**2 / PEAK_LR * DECAY),
    ),
    *cases(
        "StableAdamW", combine(BETAS, DEFAULT_DECAY), partial(stable_adamw, decay=lambda lr: lr * DECAY), growing=True
    ),
    *cases("MADGRAD", combine(MADGRAD, ALL), madgrad),
]


@each_branch(EQUATIONS)
def test_equations_in_each_branch(case: Case):
    check_equations(case)


@each_class(EQUATIONS)
def test_equations_with_all_options(cases: list[Case]):
    for case in cases:
        check_equations(case)


# Other people's code


def divided_eps(o: Options, lr: float, t: int) -> Options:
    """There eps of LaProp and MARS is divided by √(1 - β2^t), and LaProp's lr is in the average, so it is constant."""
    return {"eps": o["eps"] / root(o, t), **({} if "gamma" in o else {"lr": PEAK_LR})}


def decay_with_eps(o: Options, lr: float, t: int) -> Options:
    """MADGRAD's decay uses lr + ε too."""
    return {"weight_decay": DECAY * (lr + o["eps"]) / lr} if o["weight_decay_mode"] == "decoupled" else {}


NO_CLIP, THE_AUTHORS_CLIP = {"clip_lambda": None}, {"clip_lambda": lambda step: (step - 1) ** 0.25}
TOGETHER = [{"alpha_warmup": steps, "beta3_warmup": steps} for steps in (None, 12, 32)]
PYTORCH_OPTIMIZER = [
    # It starts both of Yogi's moments at initial_accumulator.
    *cases("Yogi", combine(YOGI_FROM_0, SOME_MODES), "Yogi", at=corrected_eps),
    # Its L2 has no effect in LaProp and MARS: it comes after the moments; LaProp's other decay comes after the step.
    # With foreach it rounds LaProp's step to float32. Its 1e-15 under the root is 1.3e-10 where a gradient is tiny.
    *cases("LaProp", [*BETAS, LONG | {"eps": 1e-15}], "LaProp", {"foreach": False}, divided_eps, True),
    *cases("DiffGrad", combine(BETAS, SOME_MODES), "DiffGrad"),
    *cases("AdaMod", combine(BETAS, BETA3, SOME_MODES), "AdaMod"),
    *cases("Padam", combine(BETAS, POWERS, [{"amsgrad": False}], SOME_MODES), "PAdam"),
    *cases("Padam", combine(BETAS, POWERS, [{"amsgrad": True}]), "PAdam", growing=True),
    *cases("Adan", combine(ADAN, decay("decoupled")), "Adan"),
    *cases("AdEMAMix", combine(THREE, ALPHA, TOGETHER, SOME_MODES), "AdEMAMix"),
    *cases("ADOPT", combine(CLIP[::2], SOME_MODES), "ADOPT", NO_CLIP),
    *cases("ADOPT", combine(CLIP[1::2], SOME_MODES), "ADOPT", THE_AUTHORS_CLIP),
    *cases("MARS", combine(GAMMA, decay("decoupled", "absolute")), "MARS", {"optimize_1d": True}, divided_eps),
    *cases("StableAdamW", combine(STABLE, decay("l2", "decoupled")), "StableAdamW"),
    *cases("StableAdamW", combine(BETAS, DEFAULT_DECAY), "StableAdamW", growing=True),
    # Where no mean square is below eps, with which it would replace it.
    *cases("Adai", combine(ADAI[:2], SOME_MODES), "Adai"),
    *cases("MADGRAD", combine(MADGRAD, decay("l2", "decoupled")), "MADGRAD", at=decay_with_eps),
]
THEIR_NAMES = {"initial_accumulator_value": "initial_accumulator", "alpha_warmup": "t_alpha_beta3"}
NOT_THEIRS = ("weight_decay_mode", "amsgrad", "clip", "beta3", "beta3_warmup")


def of_pytorch_optimizer(case: Case) -> Callable[..., Any]:
    library = pytest.importorskip("pytorch_optimizer")
    options = {THEIR_NAMES.get(key, key): value for key, value in case.options.items() if key not in NOT_THEIRS}
    if "beta3" in case.options:
        options["betas"] = (*options["betas"], case.options["beta3"])
    options |= {"weight_decouple": case.mode != "l2", "fixed_decay": case.mode == "absolute"}
    return partial(getattr(library, case.theirs), **{"weight_decay": 0.0, **options, **case.their_options})


@each_class(PYTORCH_OPTIMIZER)
def test_pytorch_optimizer(cases: list[Case]):
    for case in cases:
        schedule = {"LaProp": lambda lr, t: {"lr": PEAK_LR}}.get(case.ours, lambda lr, t: {"lr": lr})
        theirs = torch_trajectory(of_pytorch_optimizer(case), case.growing, schedule)
        check_same_trajectory(case.our_trajectory(), theirs, case)


ADAI_CASES = cases("Adai", combine(ADAI, ALL), None)


def check_adai(case: Case) -> None:
    theirs = adai_trajectory(case.mode, case.options["betas"], case.options["eps"])
    check_same_trajectory(case.our_trajectory(), theirs, case)


@each_branch(ADAI_CASES)
def test_adais_equations_with_the_mean_over_all_tensors(case: Case):
    check_adai(case)


@each_class(ADAI_CASES)
def test_adais_equations_with_all_options(cases: list[Case]):
    for case in cases:
        check_adai(case)


def adai_trajectory(mode: str, betas: tuple[float, float], eps: float) -> Iterator[list[np.ndarray]]:
    """arXiv:2006.15815, algorithm 2, with the states of all tensors in lists."""
    params = initial_params(growing=False)
    m, v, product = ([np.full_like(p, first) for p in params] for first in (0.0, 0.0, 1.0))
    penalty = {"l2": lambda p: p, "l1": np.sign}.get(mode, np.zeros_like)
    for t, drawn in enumerate(gradients(growing=False), 1):
        lr = lr_at(t)
        grads = [g + DECAY * penalty(p) for p, g in zip(params, drawn, strict=True)]
        v = [betas[1] * old + (1 - betas[1]) * g**2 for old, g in zip(v, grads, strict=True)]
        corrected = [each / (1 - betas[1] ** t) for each in v]
        mean = np.concatenate([each.ravel() for each in corrected]).mean()
        b1 = [np.clip(1 - betas[0] * each / mean, 0, 1 - eps) for each in corrected]
        m = [b * old + (1 - b) * g for b, old, g in zip(b1, m, grads, strict=True)]
        product = [old * b for old, b in zip(product, b1, strict=True)]
        kept = 1 - shrinkage(mode, lr)
        params = [kept * p - lr * each / (1 - part) for p, each, part in zip(params, m, product, strict=True)]
        yield list(params)


@pytest.mark.parametrize("case", cases("QHAdam", combine(BETAS, NUS[:1], TWO_MODES), torch.optim.Adam), ids=str)
def test_qhadam_with_nus_of_1_is_torchs_adam(case: Case):
    names = {key: case.options[key] for key in ("betas", "eps", "weight_decay")}
    make = partial(case.theirs, **names, decoupled_weight_decay=case.mode == "decoupled")
    check_same_trajectory(case.our_trajectory(), torch_trajectory(make, case.growing, lambda lr, t: {"lr": lr}))


def scaled(rule: str) -> Callable[..., Any]:
    """A chain around `scale_by_...` of optax or optax.contrib."""

    def chain(ox: Any, lr: Callable[[Any], float], mode: str, o: Options) -> Any:
        namespace = ox if hasattr(ox, rule) else import_module("optax.contrib")
        return optax_with_decay(ox, getattr(namespace, rule)(**o), lr, mode)

    return chain


HALF = [{"betas": (0.98, 0.5, 0.99), "eps": 1e-8}, {"betas": (0.8, 0.5, 0.9), "eps": 1e-3}]
OPTAX = [
    *[
        Case("Yogi", each, scaled("scale_by_yogi"), {"initial_accumulator_value": 0.0}, corrected_eps)
        for each in combine(YOGI_FROM_0, TWO_MODES)
    ],
    # It weights Adan's difference by 1 - β2, which is β2 only with these betas.
    *optax_cases("Adan", combine(HALF, TWO_MODES), scaled("scale_by_adan")),
    *optax_cases("AdEMAMix", combine(THREE, ALPHA, TWO_MODES), scaled("scale_by_ademamix"), "alpha"),
    *[
        Case("ADOPT", each, scaled("scale_by_adopt"), {"use_clipping": each["clip"]})
        for each in combine(CLIP, TWO_MODES)
    ],
]


@each_class(OPTAX)
def test_optax(cases: list[Case], jax_process: ProcessPoolExecutor):
    pytest.importorskip("optax")
    for case in cases:
        check_optax(case, __name__, OPTAX, jax_process)
