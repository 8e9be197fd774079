"""Adam's other relatives beside other people's code and the papers' equations, as in `test_oracles.py`."""

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

from tests.support import oracles
from tests.support.oracles import (
    AROUND,
    BETAS,
    COMMON,
    DECAY,
    LONG,
    PEAK,
    PLAIN,
    SHORT,
    Case,
    Options,
    adan,
    around,
    assert_together,
    both,
    cases,
    corrected_eps,
    decay,
    drive,
    drive_optax,
    every,
    gradients,
    lr_at,
    optax_s,
    root,
    start,
)

pytestmark = pytest.mark.slow

elsewhere = oracles.elsewhere

# What the classes are driven with.

ALL = [*PLAIN, *AROUND]
YOGI = every(BETAS, [{"initial_accumulator_value": first} for first in (1e-6, 0.5)])
YOGI_FROM_0 = every(BETAS, [{"initial_accumulator_value": 0.0}])
NUS = [{"nus": nus} for nus in ((1.0, 1.0), (0.7, 1.0), (0.4, 0.3), (0.0, 0.0))]
BETA3 = [{"beta3": beta3} for beta3 in (0.999, 0.5, 0.0)]
POWERS = [{"partial": power} for power in (0.25, 0.1, 0.5)]
ADAI = [{"betas": betas, "eps": eps} for betas, eps in (((0.1, 0.99), 1e-3), ((0.7, 0.8), 0.01), ((3.0, 0.9), 0.2))]
ADAN = [{"betas": (0.98, 0.92, 0.99), "eps": 1e-8}, {"betas": (0.8, 0.6, 0.9), "eps": 1e-3}]
THREE = [{"betas": (0.9, 0.999, 0.9999), "eps": 1e-8}, {"betas": (0.8, 0.9, 0.99), "eps": 1e-3}]
ALPHA = [{"alpha": alpha} for alpha in (2.0, 8.0)]
WARMUPS = [{"alpha_warmup": alpha, "beta3_warmup": beta3} for alpha, beta3 in ((None, None), (20, 60), (60, 20))]
CLIP = every([{"betas": (0.9, 0.9999), "eps": 1e-6}, SHORT, {"betas": (0.5, 0.2), "eps": 0.8}], both("clip"))
STABLE = [*BETAS, SHORT | {"eps": 0.5}]  # the last: at the least v
GAMMA = every(BETAS, [{"gamma": gamma} for gamma in (0.025, 0.5, 0.0)])
MADGRAD = [{"momentum": momentum, "eps": eps} for momentum, eps in ((0.9, 1e-6), (0.5, 0.1), (0.0, 1e-3))]


# The papers' equations; where a third party is right, it comes after them.


def moments(g, s, betas) -> None:
    s["m"], s["v"] = betas[0] * s["m"] + (1 - betas[0]) * g, betas[1] * s["v"] + (1 - betas[1]) * g**2


def size(lr, betas, t) -> float:
    """Adam's, where eps is added to the uncorrected root."""
    return lr * math.sqrt(1 - betas[1] ** t) / (1 - betas[0] ** t)


def yogi(p, g, t, s, *, lr, betas, eps, initial_accumulator_value):
    """NIPS 2018, algorithm 2, with the bias correction and the start of TensorFlow Addons, which nobody else has."""
    v = s["v"] if t > 1 else np.full_like(g, initial_accumulator_value)
    s["m"], s["v"] = betas[0] * s["m"] + (1 - betas[0]) * g, v - (1 - betas[1]) * np.sign(v - g**2) * g**2
    return size(lr, betas, t) * s["m"] / (np.sqrt(s["v"]) + eps)


def laprop(p, g, t, s, *, lr, betas, eps):
    """arXiv:2002.04839, algorithm 1; others have the lr inside the average."""
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
    """arXiv:2409.03137, algorithm 1; other code warms up both over as many steps."""
    b1, b2, b3 = betas
    if alpha_warmup:
        alpha = min(t * alpha / alpha_warmup, alpha)
    if beta3_warmup and t < beta3_warmup:
        part, log1, log3 = t / beta3_warmup, math.log(b1 or 1), math.log(b3)
        # Without a fast average, the limit for β1 → 0.
        b3 = math.exp(log1 * log3 / ((1 - part) * log3 + part * log1)) if b1 else b3 ** (1 / part)
    moments(g, s, (b1, b2))
    s["slow"] = b3 * s["slow"] + (1 - b3) * g
    return lr * (s["m"] / (1 - b1**t) + alpha * s["slow"]) / (np.sqrt(s["v"] / (1 - b2**t)) + eps)


def adopt(p, g, t, s, *, lr, betas, eps, clip):
    """arXiv:2411.02853, algorithm 2; the paper counts from the step after the first."""
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
    """arXiv:2304.13013, algorithm 2, where the decay is by the clipped lr: here what `drive_equations` has too much."""
    b1, b2 = (beta * (1 - beta ** (t - 1)) / (1 - beta**t) for beta in betas)
    moments(g, s, (b1, b2))
    clip = 1 / max(1, math.sqrt((g**2 / np.maximum(s["v"], eps**2)).mean()))
    return lr * clip * s["m"] / (np.sqrt(s["v"]) + eps) - decay(lr) * (1 - clip) * p


def madgrad(p, g, t, s, *, lr, momentum, eps):
    """arXiv:2101.11075, algorithm 1, with ε in the lr. Without momentum x0 moves as decay of the parameter has it."""
    if t == 1 or momentum == 0:
        s["x0"] = p + s["s"] / (np.cbrt(s["v"]) + eps)
    weight = (lr + eps) * math.sqrt(t)
    s["s"], s["v"] = s["s"] + weight * g, s["v"] + weight * g**2
    z = s["x0"] - s["s"] / (np.cbrt(s["v"]) + eps)
    return (1 - momentum) * (p - z)


NO_FAST = [{"betas": (0.0, 0.9, 0.99), "eps": 1e-8, "alpha": 2.0, "alpha_warmup": 20, "beta3_warmup": 30}]
EQUATIONS = [
    *cases("Yogi", every(YOGI, ALL), yogi),
    *cases("LaProp", every([*BETAS, LONG | {"eps": 1e-15}], ALL), laprop),
    *cases("QHAdam", every(BETAS, NUS, ALL), qhadam),
    *cases("DiffGrad", every(BETAS, ALL), diffgrad),
    *cases("AdaMod", every(BETAS, BETA3, ALL), adamod),
    *cases("Padam", every(BETAS, POWERS, both("amsgrad"), ALL), padam),
    *cases("Adan", every(ADAN, ALL), adan),
    *cases("AdEMAMix", every(THREE, ALPHA, WARMUPS, PLAIN), ademamix),
    *cases("AdEMAMix", every(NO_FAST, ALL), ademamix),
    *cases("ADOPT", every(CLIP, ALL), adopt),
    *cases("MARS", every(GAMMA, ALL), mars),
    *cases("StableAdamW", every(STABLE, decay("l2", "l1", "absolute", "relative")), stable_adamw),
    *cases("StableAdamW", every(STABLE, PLAIN), partial(stable_adamw, decay=lambda lr: lr * DECAY)),
    *cases(
        "StableAdamW", every(STABLE, decay("corrected")), partial(stable_adamw, decay=lambda lr: lr**2 / PEAK * DECAY)
    ),
    *cases("StableAdamW", every(BETAS, PLAIN), partial(stable_adamw, decay=lambda lr: lr * DECAY), growing=True),
    *cases("MADGRAD", every(MADGRAD, ALL), madgrad),
]


@pytest.mark.parametrize("case", EQUATIONS, ids=str)
def test_equations(case: Case):
    assert_together(case.drive_ours(), case.drive_equations())


# Other people's code.


def divided_eps(o: Options, lr: float, t: int) -> Options:
    """LaProp's and MARS's eps is divided by √(1 - β2^t) there; LaProp's lrs stand in its average, so they are equal."""
    return {"eps": o["eps"] / root(o, t), **({} if "gamma" in o else {"lr": PEAK})}


def decay_with_eps(o: Options, lr: float, t: int) -> Options:
    """MADGRAD's decay is by lr + ε too."""
    return {"weight_decay": DECAY * (lr + o["eps"]) / lr} if o["weight_decay_mode"] == "decoupled" else {}


NO_CLIP, THE_AUTHORS_CLIP = {"clip_lambda": None}, {"clip_lambda": lambda step: (step - 1) ** 0.25}
TOGETHER = [{"alpha_warmup": steps, "beta3_warmup": steps} for steps in (None, 30, 80)]
PYTORCH_OPTIMIZER = [
    # It starts both of Yogi's moments there.
    *cases("Yogi", every(YOGI_FROM_0, COMMON), "Yogi", at=corrected_eps),
    # Its L2 has no effect in LaProp and MARS, where it comes after the moments; LaProp's other decay after the step.
    # Over lists it rounds LaProp's step to float32; its 1e-15 under the root is 1.3e-10 where a first gradient is tiny.
    *cases("LaProp", [*BETAS, LONG | {"eps": 1e-15}], "LaProp", {"foreach": False}, divided_eps, True),
    *cases("DiffGrad", every(BETAS, COMMON), "DiffGrad"),
    *cases("AdaMod", every(BETAS, BETA3, COMMON), "AdaMod"),
    *cases("Padam", every(BETAS, POWERS, [{"amsgrad": False}], COMMON), "PAdam"),
    *cases("Padam", every(BETAS, POWERS, [{"amsgrad": True}]), "PAdam", growing=True),
    *cases("Adan", every(ADAN, decay("decoupled")), "Adan"),
    *cases("AdEMAMix", every(THREE, ALPHA, TOGETHER, COMMON), "AdEMAMix"),
    *cases("ADOPT", every(CLIP[::2], COMMON), "ADOPT", NO_CLIP),
    *cases("ADOPT", every(CLIP[1::2], COMMON), "ADOPT", THE_AUTHORS_CLIP),
    *cases("MARS", every(GAMMA, decay("decoupled", "absolute")), "MARS", {"optimize_1d": True}, divided_eps),
    *cases("StableAdamW", every(STABLE, decay("l2", "decoupled")), "StableAdamW"),
    *cases("StableAdamW", every(BETAS, PLAIN), "StableAdamW", growing=True),
    # Where no mean square is below eps, which it would take instead.
    *cases("Adai", every(ADAI[:2], COMMON), "Adai"),
    *cases("MADGRAD", every(MADGRAD, decay("l2", "decoupled")), "MADGRAD", at=decay_with_eps),
]
IN_THEIR_WORDS = {"initial_accumulator_value": "initial_accumulator", "alpha_warmup": "t_alpha_beta3"}
NOT_THEIRS = ("weight_decay_mode", "amsgrad", "clip", "beta3", "beta3_warmup")


def of_pytorch_optimizer(case: Case) -> Callable[..., Any]:
    library = pytest.importorskip("pytorch_optimizer")
    options = {IN_THEIR_WORDS.get(key, key): value for key, value in case.options.items() if key not in NOT_THEIRS}
    if "beta3" in case.options:
        options["betas"] = (*options["betas"], case.options["beta3"])
    options |= {"weight_decouple": case.mode != "l2", "fixed_decay": case.mode == "absolute"}
    return partial(getattr(library, case.theirs), **{"weight_decay": 0.0, **options, **case.their_options})


@pytest.mark.parametrize("case", PYTORCH_OPTIMIZER, ids=str)
def test_pytorch_optimizer(case: Case):
    make = of_pytorch_optimizer(case)
    schedule = {"LaProp": lambda lr, t: {"lr": PEAK}}.get(case.ours, lambda lr, t: {"lr": lr})
    assert_together(case.drive_ours(), drive(make, case.growing, schedule))


@pytest.mark.parametrize("case", cases("Adai", every(ADAI, ALL), None), ids=str)
def test_adai_s_mean_is_over_all_tensors(case: Case):
    assert_together(case.drive_ours(), drive_adai(case.mode, case.options["betas"], case.options["eps"]))


def drive_adai(mode: str, betas: tuple[float, float], eps: float) -> Iterator[list[np.ndarray]]:
    """arXiv:2006.15815, algorithm 2; every tensor has its state of each step at the same index."""
    params = start(growing=False)
    m, v, product = ([np.full_like(p, first) for p in params] for first in (0.0, 0.0, 1.0))
    penalty = {"l2": lambda p: p, "l1": np.sign}.get(mode, np.zeros_like)
    for t, drawn in enumerate(gradients(growing=False), 1):
        lr = lr_at(t)
        shrink = {"decoupled": lr, "absolute": 1, "relative": lr / PEAK, "corrected": lr**2 / PEAK}.get(mode, 0) * DECAY
        grads = [g + DECAY * penalty(p) for p, g in zip(params, drawn, strict=True)]
        v = [betas[1] * old + (1 - betas[1]) * g**2 for old, g in zip(v, grads, strict=True)]
        corrected = [each / (1 - betas[1] ** t) for each in v]
        mean = np.concatenate([each.ravel() for each in corrected]).mean()
        b1 = [np.clip(1 - betas[0] * each / mean, 0, 1 - eps) for each in corrected]
        m = [b * old + (1 - b) * g for b, old, g in zip(b1, m, grads, strict=True)]
        product = [old * b for old, b in zip(product, b1, strict=True)]
        params = [(1 - shrink) * p - lr * each / (1 - part) for p, each, part in zip(params, m, product, strict=True)]
        yield list(params)


@pytest.mark.parametrize(
    "case", cases("QHAdam", every(BETAS, NUS[:1], decay("l2", "decoupled")), torch.optim.Adam), ids=str
)
def test_qhadam_is_torch_s_adam_where_it_should(case: Case):
    names = {key: case.options[key] for key in ("betas", "eps", "weight_decay")}
    make = partial(case.theirs, **names, decoupled_weight_decay=case.mode == "decoupled")
    assert_together(case.drive_ours(), drive(make, case.growing, lambda lr, t: {"lr": lr}))


def scaled(rule: str) -> Callable[..., Any]:
    """A chain around `optax.scale_by_...`, of optax itself or of its contrib."""

    def chain(ox: Any, lr: Callable[[Any], float], mode: str, o: Options) -> Any:
        home = ox if hasattr(ox, rule) else import_module("optax.contrib")
        return around(ox, getattr(home, rule)(**o), lr, mode)

    return chain


HALF = [{"betas": (0.98, 0.5, 0.99), "eps": 1e-8}, {"betas": (0.8, 0.5, 0.9), "eps": 1e-3}]
OPTAX = [
    *[
        Case("Yogi", each, scaled("scale_by_yogi"), {"initial_accumulator_value": 0.0}, corrected_eps)
        for each in every(YOGI_FROM_0, AROUND)
    ],
    # It weighs Adan's difference by 1 - β2, which is β2 only here.
    *optax_s("Adan", every(HALF, AROUND), scaled("scale_by_adan")),
    *optax_s("AdEMAMix", every(THREE, ALPHA, AROUND), scaled("scale_by_ademamix"), "alpha"),
    *[Case("ADOPT", each, scaled("scale_by_adopt"), {"use_clipping": each["clip"]}) for each in every(CLIP, AROUND)],
]


@pytest.mark.parametrize("case", OPTAX, ids=str)
def test_optax(case: Case, elsewhere: ProcessPoolExecutor):
    pytest.importorskip("optax")
    assert_together(case.drive_ours(), elsewhere.submit(drive_optax, __name__, OPTAX.index(case)).result())
