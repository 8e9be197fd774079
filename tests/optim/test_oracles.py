"""Ours beside other people's code and the papers' equations: 50 steps in float64, together after every one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
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
    PEAK,
    PLAIN,
    SHORT,
    Case,
    Options,
    adam,
    around,
    assert_together,
    both,
    cases,
    decay,
    drive,
    drive_optax,
    every,
    lion,
    rho,
    root,
)

elsewhere = oracles.elsewhere

# What the classes are driven with.

AT_FIVE = {"betas": (0.8, 0.8397685748659791), "eps": 1e-3}  # ρ_6 is 5.0 exactly
LION_BETAS = [{"betas": (0.9, 0.99)}, {"betas": (0.8, 0.5)}]
BELIEF = every([*BETAS, AT_FIVE], both("amsgrad"), both("rectify"), both("degenerate_to_sgd"))
# Between the bounds; at the upper one; at the lower one.
BOUND = every(BETAS, [{"final_lr": final, "gamma": gamma} for final, gamma in ((0.1, 1e-3), (0.02, 0.1), (0.5, 0.1))])
HAT = [{"optimized_update": True}]


@pytest.fixture(autouse=True)
def double_product(case: Case) -> Iterator[None]:
    """NAdam keeps its product of μ in the default dtype, as torch's does: 4e-10 apart where that is float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if case.ours == "NAdamW" else before)
    yield
    torch.set_default_dtype(before)


# The papers' equations. Each gives the step; t counts from 1, s is the state.


def adabelief(p, g, t, s, *, rectify, **others):
    """The authors' code adds eps to the uncorrected root where it rectifies, and forgets amsgrad there; we do not."""
    return adam(p, g, t, s, belief=True, rectify=rectify, optimized_update=rectify, **others)


def adabound(p, g, t, s, *, lr, betas, eps, final_lr, gamma, amsbound=False):
    """arXiv:1902.09843, with the bounds of the authors' code."""
    (b1, b2), final = betas, final_lr * lr / PEAK
    s["m"], s["v"] = b1 * s["m"] + (1 - b1) * g, b2 * s["v"] + (1 - b2) * g**2
    s["max"] = np.maximum(s["max"], s["v"])
    eta = lr * math.sqrt(1 - b2**t) / (1 - b1**t) / (np.sqrt(s["max"] if amsbound else s["v"]) + eps)
    return np.clip(eta, final * (1 - 1 / (gamma * t + 1)), final * (1 + 1 / (gamma * t))) * s["m"]


def lamb(p, g, t, s, *, lr, betas, eps, inside=0.0):
    """arXiv:1904.00962, algorithm 2, φ the identity."""
    r = adam(p, g, t, s, lr=1, betas=betas, eps=eps) + inside * p
    norms = np.linalg.norm(np.ravel(p)), np.linalg.norm(np.ravel(r))
    return lr * (norms[0] / norms[1] if all(norms) else 1) * r


def nadam(p, g, t, s, *, lr, betas, eps, momentum_decay):
    """Dozat 2016, algorithm 2, with the schedule of μ; v̂ without the factor β2, which torch and optax leave out."""
    mus = [betas[0] * (1 - 0.5 * 0.96 ** (i * momentum_decay)) for i in range(1, t + 2)]
    s["m"], s["v"] = betas[0] * s["m"] + (1 - betas[0]) * g, betas[1] * s["v"] + (1 - betas[1]) * g**2
    m_bar = (1 - mus[-2]) * g / (1 - math.prod(mus[:-1])) + mus[-1] * s["m"] / (1 - math.prod(mus))
    return lr * m_bar / (np.sqrt(s["v"] / (1 - betas[1] ** t)) + eps)


RADAM = every(BETAS, both("amsgrad"), both("degenerate_to_sgd"), both("optimized_update"), decay("decoupled"))
EQUATIONS = [
    *cases("Adam", every(BETAS, both("optimized_update"), COMMON), adam),
    *cases("AMSGrad", every(BETAS, both("optimized_update"), PLAIN), adam, {"amsgrad": True}),
    *cases("RAdam", RADAM, adam, {"rectify": True}),
    *cases("AdaBelief", every(BELIEF, PLAIN), adabelief),
    *cases("AdaBound", every(BOUND, both("amsbound"), PLAIN), adabound),
    *cases("AdaBoundW", every(BOUND, both("amsbound"), PLAIN), adabound),
    *cases("AMSBound", every(BOUND, PLAIN), adabound, {"amsbound": True}),
    *cases("Lion", every(LION_BETAS, [*PLAIN, *AROUND]), lion),
    *cases("LAMB", every(BETAS, AROUND), lamb),
    *cases("LAMB", every(BETAS, PLAIN), lamb, {"inside": DECAY}),
    *cases("NAdamW", every(BETAS, [{"momentum_decay": 4e-3}, {"momentum_decay": 0.1}], PLAIN), nadam),
]


@pytest.mark.parametrize("case", EQUATIONS, ids=str)
def test_equations(case: Case):
    assert_together(case.drive_ours(), case.drive_equations())


def decay_in_steps(o: Options, lr: float, t: int) -> Options:
    return {"weight_decay": DECAY if o["degenerate_to_sgd"] or rho(t, o["betas"][1]) >= 5 else 0.0}


JUST_OVER_FIVE = {"n_sma_threshold": math.nextafter(5.0, 6.0), "degenerated_to_sgd": True}
NO_EPS = {"betas": (0.8, 0.9), "eps": 0.0, "weight_decay": DECAY}
LAMB = partial(Case, "LAMB", theirs="Lamb", their_options={"adam_debias": True}, growing=True)
PYTORCH_OPTIMIZER = [
    *cases("AdaBelief", [*every(BELIEF, PLAIN), *every([SHORT], both("rectify"), COMMON)], "AdaBelief"),
    # AdaBound and AdamC add 1e-15 under the root: too little to see, while no gradient is tiny.
    *cases("AdaBound", every(BOUND, both("amsbound"), COMMON), "AdaBound"),
    *cases("AdaBoundW", every(BOUND, both("amsbound"), PLAIN), "AdaBound"),
    *cases("AMSBound", every(BOUND, PLAIN), "AdaBound", {"ams_bound": True}),
    *cases("Lion", every(LION_BETAS, both("maximize"), COMMON), "Lion"),
    # AdamC has eps beside the uncorrected root.
    *cases("Adam", every(BETAS, HAT, [*COMMON, *decay("corrected")]), "AdamC"),
    *cases("AMSGrad", every(BETAS, HAT, [*COMMON, *decay("corrected")]), "AdamC", {"ams_bound": True}),
    # Its RAdam adapts from ρ = 5 on, and does not decay while it takes no step. It leaves out l2.
    *cases("RAdam", every(BETAS, both("degenerate_to_sgd"), decay("decoupled")), "RAdam", at=decay_in_steps),
    *cases("RAdam", [AT_FIVE], "RAdam", JUST_OVER_FIVE),
    # Its LAMB corrects no bias inside the ratio (so with eps 0 only), and takes ‖p‖ after the decay, up to 10.
    LAMB(NO_EPS, at=lambda o, lr, t: {"weight_decay": DECAY * root(o, t) / (1 - o["betas"][0] ** t)}),
    LAMB(NO_EPS | {"weight_decay_mode": "absolute"}, at=lambda o, lr, t: {"lr": lr * (1 - DECAY)}),
    LAMB(
        NO_EPS | {"weight_decay_mode": "decoupled"},
        at=lambda o, lr, t: {"lr": lr * (1 - lr * DECAY), "weight_decay": DECAY / (1 - lr * DECAY)},
    ),
]
IN_THEIR_WORDS = {"amsgrad": "ams_bound", "amsbound": "ams_bound", "degenerate_to_sgd": "degenerated_to_sgd"}


@pytest.mark.parametrize("case", PYTORCH_OPTIMIZER, ids=str)
def test_pytorch_optimizer(case: Case):
    library = pytest.importorskip("pytorch_optimizer")
    options = {IN_THEIR_WORDS.get(key, key): value for key, value in case.options.items()}
    options |= {"weight_decouple": case.mode not in ("l2", "update"), "fixed_decay": case.mode == "absolute"}
    options |= {"normalized": case.mode == "corrected", **case.their_options}
    make = partial(getattr(library, case.theirs), **options)
    assert_together(case.drive_ours(), drive(make, case.growing, lambda lr, t: {"lr": lr}))


def lamb_around(ox: Any, lr: Callable[[Any], float], mode: str, o: Options) -> Any:
    return around(ox, ox.chain(ox.scale_by_adam(**o), ox.scale_by_trust_ratio()), lr, mode)


def uncorrected(ox: Any, lr: Callable[[Any], float], mode: str, o: Options) -> Any:
    return ox.amsgrad(lr, **o, bias_correction_nu=False)


NO_SCHEDULE = [{"momentum_decay": 1e6, "weight_decay": DECAY}]
OPTAX = [
    *cases(
        "AdaBelief", every(BETAS, [{"rectify": False}]), lambda ox, lr, _, o: ox.adabelief(lr, **o, eps_root=o["eps"])
    ),
    *cases("Lion", every(LION_BETAS, PLAIN), lambda ox, lr, _, o: ox.lion(lr, **o, weight_decay=DECAY)),
    *cases("LAMB", every(BETAS, PLAIN), lambda ox, lr, _, o: ox.lamb(lr, **o, weight_decay=DECAY)),
    *cases("LAMB", every([SHORT], AROUND), lamb_around),
    # Its AMSGrad takes the largest of corrected moments, which is ours where that is the last; or it corrects none.
    *cases("AMSGrad", BETAS, lambda ox, lr, _, o: ox.amsgrad(lr, **o), growing=True),
    *cases("AMSGrad", every(BETAS, HAT), uncorrected, at=lambda o, lr, t: {"lr": lr / root(o, t)}),
    # Adam's eps is √(1 - β2^t) of that of optimized_update.
    *cases(
        "Adam",
        every(BETAS, HAT),
        lambda ox, lr, _, o: ox.adam(lr, **o),
        at=lambda o, lr, t: {"eps": o["eps"] * root(o, t)},
    ),
    # Its NAdam has no schedule of μ, as ours where that has ended.
    *cases("NAdamW", every(BETAS, NO_SCHEDULE), lambda ox, lr, _, o: ox.nadamw(lr, **o, weight_decay=DECAY)),
    *cases("RAdam", every(BETAS, [{"optimized_update": False}]), lambda ox, lr, _, o: ox.radam(lr, **o)),
]


@pytest.mark.parametrize("case", OPTAX, ids=str)
def test_optax(case: Case, elsewhere: ProcessPoolExecutor):
    pytest.importorskip("optax")
    assert_together(case.drive_ours(), elsewhere.submit(drive_optax, __name__, OPTAX.index(case)).result())
