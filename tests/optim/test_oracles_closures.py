"""Rules whose gradients must depend on the parameters, or that need a Hessian, against equations and libraries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from lightning_optim import optim
from tests.support.oracles import (
    BETAS,
    DECAY,
    PEAK_LR,
    SHAPES,
    Arrays,
    Options,
    SophiaWithOwnGradients,
    check_same_trajectory,
    combine,
    decay,
    either,
    equations_trajectory,
    gradients,
    initial_params,
    lr_at,
    torch_trajectory,
)

DECOUPLED = decay("decoupled")


def slopes(params: Arrays, drawn: Arrays) -> Arrays:
    """The gradient of Σ (p² / 2 - cos(p) + g p) with the batch's g."""
    return [p + np.sin(p) + g for p, g in zip(params, drawn, strict=True)]


def closure_trajectory(make: Callable[..., Any], steps: Callable[..., None], zero: bool = True) -> Iterator[Arrays]:
    params = [torch.tensor(values, requires_grad=True) for values in initial_params(not zero)]
    optimizer = make(params, lr=PEAK_LR)
    for t, drawn in enumerate(gradients(False), 1):
        optimizer.param_groups[0]["lr"] = lr_at(t)

        def closure(drawn: Arrays = drawn) -> None:
            for param, slope in zip(params, slopes([p.detach().numpy() for p in params], drawn), strict=True):
                param.grad = torch.tensor(slope)

        steps(optimizer, params, closure)
        yield [param.detach().numpy().copy() for param in params]


def in_one(optimizer: Any, params: Any, closure: Any) -> None:
    optimizer.step(closure)


def in_two(optimizer: Any, params: Any, closure: Any) -> None:
    """Without a closure."""
    for _ in range(2):
        closure()
        optimizer.step()


def ahead_and_back(optimizer: Any, params: list[torch.Tensor], closure: Any) -> None:
    """Extragradient by hand, with any optimizer of torch's."""
    before = [param.detach().clone() for param in params]
    closure()
    optimizer.step()
    closure()
    for param, value in zip(params, before, strict=True):
        param.data.copy_(value)
    optimizer.step()


SGD, ADAM, ADAMW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW
EXTRA = [
    *[("ExtraSGD", options, SGD) for options in ({}, {"momentum": 0.9}, {"momentum": 0.5, "nesterov": True})],
    *[("ExtraAdam", options, ADAM) for options in combine(BETAS, either("amsgrad"))],
    *[("ExtraAdam", {**options, **DECOUPLED[0]}, ADAMW) for options in BETAS],
]


@pytest.mark.parametrize("steps", [in_one, in_two])
@pytest.mark.parametrize(("ours", "options", "theirs"), EXTRA, ids=str)
def test_extragradient_is_torchs_optimizer_ahead_and_back(ours, options, theirs, steps):
    their_options = {key: value for key, value in options.items() if key != "weight_decay_mode"}
    check_same_trajectory(
        closure_trajectory(partial(getattr(optim, ours), **options), steps),
        closure_trajectory(partial(theirs, **their_options), ahead_and_back),
    )


def storm_trajectory(w: float, c: float, mode: str) -> Iterator[Arrays]:
    """arXiv:1905.10018, algorithm 1, per element as in the authors' code; no library here has it."""
    params, before, d, total = initial_params(False), None, None, [0.0] * len(SHAPES)
    for t, drawn in enumerate(gradients(False), 1):
        lr, now = lr_at(t), slopes(params, drawn)
        if mode == "l2":
            now = [g + DECAY * p for g, p in zip(now, params, strict=True)]
        if before is None:
            d = now
        else:
            old = slopes(before, drawn)
            if mode == "l2":
                old = [g + DECAY * p for g, p in zip(old, before, strict=True)]
            a = [np.minimum(1, c * (lr / (w + each) ** (1 / 3)) ** 2) for each in total]
            d = [g + (1 - a) * (d - o) for g, a, d, o in zip(now, a, d, old, strict=True)]
        total = [each + g**2 for each, g in zip(total, now, strict=True)]
        shrinkage = lr * DECAY if mode == "decoupled" else 0.0
        etas = [lr / (w + each) ** (1 / 3) for each in total]
        before, params = params, [(1 - shrinkage) * p - e * g for p, e, g in zip(params, etas, d, strict=True)]
        yield list(params)


@pytest.mark.parametrize("steps", [in_one, in_two])
@pytest.mark.parametrize("mode", ["l2", "decoupled"])
@pytest.mark.parametrize(("w", "c"), [(10.0, 100.0), (0.1, 20.0), (0.1, 1e5)])
def test_storms_equations(w, c, mode, steps):
    options = {"w": w, "c": c, "weight_decay": DECAY, "weight_decay_mode": mode}
    check_same_trajectory(closure_trajectory(partial(optim.STORM, **options), steps), storm_trajectory(w, c, mode))


# Prodigy, whose d is one for all tensors; from this d0 it grows within the script.

PRODIGY = {"d0": 1e-2, "betas": (0.9, 0.99)}
PRODIGY_OPTIONS = [
    {},
    {"bias_correction": True},
    {"safeguard_warmup": True, "d_coef": 2.0},
    {"beta3": 0.8, "growth_rate": 1.1},
]


def prodigy(o: Options, mode: str = "decoupled") -> Iterator[Arrays]:
    """arXiv:2306.06101, algorithm 4, with the options of the authors' code."""
    (b1, b2), d, d_max = o["betas"], o["d0"], o["d0"]
    b3, growth = o.get("beta3") or math.sqrt(b2), o.get("growth_rate") or math.inf
    params, first, r = initial_params(True), initial_params(True), 0.0
    m, v, s = ([np.zeros_like(p) for p in params] for _ in range(3))
    for t, drawn in enumerate(gradients(False), 1):
        lr, unit = lr_at(t) / PEAK_LR, d * (math.sqrt(1 - b2**t) / (1 - b1**t) if o.get("bias_correction") else 1)
        shrinkage = {"decoupled": lr * unit, "absolute": 1.0, "corrected": lr**2 * unit}.get(mode, 0.0) * DECAY
        grads = [g + DECAY * p if mode == "l2" else g for p, g in zip(params, slopes(params, drawn), strict=True)]
        r = b3 * r + d / o["d0"] * lr * unit * sum(
            np.sum(g * (q - p)) for p, q, g in zip(params, first, grads, strict=True)
        )
        for i, g in enumerate(grads):
            m[i], v[i] = b1 * m[i] + (1 - b1) * d * g, b2 * v[i] + (1 - b2) * (d * g) ** 2
            s[i] = b3 * s[i] + d / o["d0"] * (d if o.get("safeguard_warmup") else lr * unit) * g
        estimate = o.get("d_coef", 1.0) * r / sum(np.sum(np.abs(each)) for each in s)
        before, d_max = d, max(d_max, estimate)
        d = min(d_max, growth * (max(d, estimate) if d == o["d0"] else d))
        below = o["eps"] * before
        params = [
            (1 - shrinkage) * p - lr * unit * m / (np.sqrt(v) + below) for p, m, v in zip(params, m, v, strict=True)
        ]
        yield list(params)
    assert d > 1.5 * o["d0"]


def one_by_one(optimizer: Any, params: Any, closure: Any) -> None:
    optimizer.param_groups[0]["lr"] /= PEAK_LR  # Prodigy's is 1
    closure()
    optimizer.step()


def prodigy_trajectory(o: Options, make: Callable[..., Any] = optim.Prodigy, **more: Any) -> Iterator[Arrays]:
    def at_1(params: Any, lr: float) -> Any:
        return make(params, lr=1.0, weight_decay=DECAY, **o, **more)

    return closure_trajectory(at_1, one_by_one, zero=False)


@pytest.mark.parametrize("mode", ["decoupled", "l2", "absolute", "corrected"])
@pytest.mark.parametrize("options", PRODIGY_OPTIONS, ids=str)
def test_prodigys_equations(options, mode):
    o = {**PRODIGY, **options, "eps": 1e-3}
    check_same_trajectory(prodigy_trajectory(o, weight_decay_mode=mode), prodigy(o, mode))


@pytest.fixture
def double() -> Iterator[None]:
    """pytorch_optimizer sums in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


# It multiplies eps by the next d.
@pytest.mark.slow
@pytest.mark.parametrize("options", PRODIGY_OPTIONS, ids=str)
def test_prodigy_of_pytorch_optimizer(options, double):
    library = pytest.importorskip("pytorch_optimizer")
    o = {**PRODIGY, **options, "eps": 0.0}
    check_same_trajectory(prodigy_trajectory(o), prodigy_trajectory(o, library.Prodigy))


def prodigy_of_optax(safeguard: bool) -> list[Arrays]:
    import jax
    from optax import apply_updates, contrib

    jax.config.update("jax_enable_x64", True)
    given = {"betas": PRODIGY["betas"], "estim_lr0": PRODIGY["d0"], "eps": 0.0, "weight_decay": DECAY}
    rule = contrib.prodigy(lambda count: lr_at(int(count) + 1) / PEAK_LR, **given, safeguard_warmup=safeguard)
    params = [jax.numpy.asarray(values) for values in initial_params(True)]
    state, path = rule.init(params), []
    for drawn in gradients(False):
        grads = [jax.numpy.asarray(g) for g in slopes([np.asarray(p) for p in params], drawn)]
        updates, state = rule.update(grads, state, params)
        params = apply_updates(params, updates)
        path.append([np.asarray(p) for p in params])
    return path


@pytest.mark.slow
@pytest.mark.parametrize("safeguard", [False, True])
def test_prodigy_of_optax(safeguard, jax_process: ProcessPoolExecutor):
    pytest.importorskip("optax")
    o = {**PRODIGY, "eps": 0.0, "bias_correction": True, "safeguard_warmup": safeguard}
    check_same_trajectory(prodigy_trajectory(o), jax_process.submit(prodigy_of_optax, safeguard).result())


# Sophia-G, which gets the Hessian from outside


def sophia_g(p, g, t, s, *, lr, betas, rho, eps):
    """arXiv:2305.14342, algorithm 3 as in the authors' code; optax's corrects for bias."""
    (b1, b2), raw = betas, s["raw"].pop()
    s["m"] = b1 * s["m"] + (1 - b1) * g
    if t % 3 == 1:
        s["h"] = b2 * s["h"] + (1 - b2) * 20 * raw**2
    return lr * np.sign(s["m"]) * np.minimum(np.abs(s["m"]) / (rho * s["h"] + eps), 1)


@pytest.mark.parametrize("mode", ["decoupled", "l2"])
@pytest.mark.parametrize("rho", [0.04, 0.5])
@pytest.mark.parametrize("eps", [1e-15, 0.01])
def test_sophias_equations(mode, rho, eps):
    options = {"betas": (0.9, 0.95), "rho": rho, "eps": eps}
    script = list(gradients(False))
    clipped = []

    def rule(p, g, t, s, *, lr):
        s["raw"] = [script[t - 1][SHAPES.index(p.shape)]]
        step = sophia_g(p, g, t, s, lr=lr, **options)
        clipped.extend(np.ravel(np.abs(step) == lr))
        return step

    make = partial(SophiaWithOwnGradients, **options, weight_decay=DECAY, weight_decay_mode=mode)
    check_same_trajectory(
        torch_trajectory(make, False, lambda lr, t: {"lr": lr}), equations_trajectory(rule, mode, False)
    )
    assert 0.01 < np.mean(clipped) < 0.99  # so that both branches are tried
