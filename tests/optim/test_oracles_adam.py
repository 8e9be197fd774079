"""Adam, its best-known variants, Lion and LAMB against the papers' equations, pytorch_optimizer and optax."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest

from tests.support.oracles import (
    ALL_MODES,
    BETAS,
    DECAY,
    DEFAULT_DECAY,
    PEAK_LR,
    SHORT,
    SOME_MODES,
    Case,
    Options,
    adam,
    cases,
    check_equations,
    check_optax,
    check_same_trajectory,
    combine,
    decay,
    each_branch,
    each_class,
    either,
    lion,
    optax_with_decay,
    rho,
    root,
    torch_trajectory,
)

# Options

AT_FIVE = {"betas": (0.8, 0.8397685748659791), "eps": 1e-3}  # ρ_6 is 5.0 exactly
LION_BETAS = [{"betas": (0.9, 0.99)}, {"betas": (0.8, 0.5)}]
BELIEF = combine([*BETAS, AT_FIVE], either("amsgrad"), either("rectify"), either("degenerate_to_sgd"))
# Between the bounds; at the upper bound; at the lower bound.
BOUND = combine(BETAS, [{"final_lr": final, "gamma": gamma} for final, gamma in ((0.1, 1e-3), (0.02, 0.1), (0.5, 0.1))])
HAT = [{"optimized_update": True}]


# The papers' equations. Each gives the step; t counts from 1, s is the state.


def adabelief(p, g, t, s, *, rectify, **others):
    """Where the authors' code rectifies, it adds eps to the uncorrected root, like ours, and ignores amsgrad."""
    return adam(p, g, t, s, belief=True, rectify=rectify, optimized_update=rectify, **others)


def adabound(p, g, t, s, *, lr, betas, eps, final_lr, gamma, amsbound=False):
    """arXiv:1902.09843, with the bounds of the authors' code."""
    (b1, b2), final = betas, final_lr * lr / PEAK_LR
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
    """Dozat 2016, algorithm 2, with the schedule of μ; v̂ without the factor β2, as in torch and optax."""
    mus = [betas[0] * (1 - 0.5 * 0.96 ** (i * momentum_decay)) for i in range(1, t + 2)]
    s["m"], s["v"] = betas[0] * s["m"] + (1 - betas[0]) * g, betas[1] * s["v"] + (1 - betas[1]) * g**2
    m_bar = (1 - mus[-2]) * g / (1 - math.prod(mus[:-1])) + mus[-1] * s["m"] / (1 - math.prod(mus))
    return lr * m_bar / (np.sqrt(s["v"] / (1 - betas[1] ** t)) + eps)


RADAM = combine(BETAS, either("amsgrad"), either("degenerate_to_sgd"), either("optimized_update"), decay("decoupled"))
EQUATIONS = [
    *cases("Adam", combine(BETAS, either("optimized_update"), SOME_MODES), adam),
    *cases("AMSGrad", combine(BETAS, either("optimized_update"), DEFAULT_DECAY), adam, {"amsgrad": True}),
    *cases("RAdam", RADAM, adam, {"rectify": True}),
    *cases("AdaBelief", combine(BELIEF, DEFAULT_DECAY), adabelief),
    *cases("AdaBound", combine(BOUND, either("amsbound"), DEFAULT_DECAY), adabound),
    *cases("AdaBoundW", combine(BOUND, either("amsbound"), DEFAULT_DECAY), adabound),
    *cases("AMSBound", combine(BOUND, DEFAULT_DECAY), adabound, {"amsbound": True}),
    *cases("Lion", combine(LION_BETAS, [*DEFAULT_DECAY, *ALL_MODES]), lion),
    *cases("LAMB", combine(BETAS, ALL_MODES), lamb),
    *cases("LAMB", combine(BETAS, DEFAULT_DECAY), lamb, {"inside": DECAY}),
    *cases("NAdamW", combine(BETAS, [{"momentum_decay": 4e-3}, {"momentum_decay": 0.1}], DEFAULT_DECAY), nadam),
]


@each_branch(EQUATIONS)
def test_equations_in_each_branch(case: Case):
    check_equations(case)


@each_class(EQUATIONS)
def test_equations_with_all_options(cases: list[Case]):
    for case in cases:
        check_equations(case)


def decay_in_steps(o: Options, lr: float, t: int) -> Options:
    return {"weight_decay": DECAY if o["degenerate_to_sgd"] or rho(t, o["betas"][1]) >= 5 else 0.0}


JUST_OVER_FIVE = {"n_sma_threshold": math.nextafter(5.0, 6.0), "degenerated_to_sgd": True}
NO_EPS = {"betas": (0.8, 0.9), "eps": 0.0, "weight_decay": DECAY}
LAMB = partial(Case, "LAMB", theirs="Lamb", their_options={"adam_debias": True}, growing=True)
PYTORCH_OPTIMIZER = [
    *cases(
        "AdaBelief", [*combine(BELIEF, DEFAULT_DECAY), *combine([SHORT], either("rectify"), SOME_MODES)], "AdaBelief"
    ),
    # AdaBound and AdamC add 1e-15 under the root: too little to see, as no gradient is tiny.
    *cases("AdaBound", combine(BOUND, either("amsbound"), SOME_MODES), "AdaBound"),
    *cases("AdaBoundW", combine(BOUND, either("amsbound"), DEFAULT_DECAY), "AdaBound"),
    *cases("AMSBound", combine(BOUND, DEFAULT_DECAY), "AdaBound", {"ams_bound": True}),
    *cases("Lion", combine(LION_BETAS, either("maximize"), SOME_MODES), "Lion"),
    # AdamC adds eps to the uncorrected root.
    *cases("Adam", combine(BETAS, HAT, [*SOME_MODES, *decay("corrected")]), "AdamC"),
    *cases("AMSGrad", combine(BETAS, HAT, [*SOME_MODES, *decay("corrected")]), "AdamC", {"ams_bound": True}),
    # Its RAdam rectifies from ρ = 5 on, and does not decay while it takes no step. It lacks l2.
    *cases("RAdam", combine(BETAS, either("degenerate_to_sgd"), decay("decoupled")), "RAdam", at=decay_in_steps),
    *cases("RAdam", [AT_FIVE], "RAdam", JUST_OVER_FIVE),
    # Its LAMB does not correct bias inside the ratio (hence eps 0), and takes ‖p‖ after the decay, clipped at 10.
    LAMB(NO_EPS, at=lambda o, lr, t: {"weight_decay": DECAY * root(o, t) / (1 - o["betas"][0] ** t)}),
    LAMB(NO_EPS | {"weight_decay_mode": "absolute"}, at=lambda o, lr, t: {"lr": lr * (1 - DECAY)}),
    LAMB(
        NO_EPS | {"weight_decay_mode": "decoupled"},
        at=lambda o, lr, t: {"lr": lr * (1 - lr * DECAY), "weight_decay": DECAY / (1 - lr * DECAY)},
    ),
]
THEIR_NAMES = {"amsgrad": "ams_bound", "amsbound": "ams_bound", "degenerate_to_sgd": "degenerated_to_sgd"}


@each_class(PYTORCH_OPTIMIZER)
def test_pytorch_optimizer(cases: list[Case]):
    library = pytest.importorskip("pytorch_optimizer")
    for case in cases:
        options = {THEIR_NAMES.get(key, key): value for key, value in case.options.items()}
        options |= {"weight_decouple": case.mode not in ("l2", "update"), "fixed_decay": case.mode == "absolute"}
        options |= {"normalized": case.mode == "corrected", **case.their_options}
        build = partial(getattr(library, case.theirs), **options)
        theirs = torch_trajectory(build, case.growing, lambda lr, t: {"lr": lr})
        check_same_trajectory(case.our_trajectory(), theirs, case)


def lamb_around(ox: Any, lr: Callable[[Any], float], mode: str, o: Options) -> Any:
    return optax_with_decay(ox, ox.chain(ox.scale_by_adam(**o), ox.scale_by_trust_ratio()), lr, mode)


def uncorrected(ox: Any, lr: Callable[[Any], float], mode: str, o: Options) -> Any:
    return ox.amsgrad(lr, **o, bias_correction_nu=False)


NO_SCHEDULE = [{"momentum_decay": 1e6, "weight_decay": DECAY}]
OPTAX = [
    *cases(
        "AdaBelief", combine(BETAS, [{"rectify": False}]), lambda ox, lr, _, o: ox.adabelief(lr, **o, eps_root=o["eps"])
    ),
    *cases("Lion", combine(LION_BETAS, DEFAULT_DECAY), lambda ox, lr, _, o: ox.lion(lr, **o, weight_decay=DECAY)),
    *cases("LAMB", combine(BETAS, DEFAULT_DECAY), lambda ox, lr, _, o: ox.lamb(lr, **o, weight_decay=DECAY)),
    *cases("LAMB", combine([SHORT], ALL_MODES), lamb_around),
    # Its AMSGrad takes the maximum of corrected moments, which is ours where that is the last; or it corrects none.
    *cases("AMSGrad", BETAS, lambda ox, lr, _, o: ox.amsgrad(lr, **o), growing=True),
    *cases("AMSGrad", combine(BETAS, HAT), uncorrected, at=lambda o, lr, t: {"lr": lr / root(o, t)}),
    # Adam's eps is √(1 - β2^t) of that of optimized_update.
    *cases(
        "Adam",
        combine(BETAS, HAT),
        lambda ox, lr, _, o: ox.adam(lr, **o),
        at=lambda o, lr, t: {"eps": o["eps"] * root(o, t)},
    ),
    # Its NAdam has no schedule of μ, like ours once that has ended.
    *cases("NAdamW", combine(BETAS, NO_SCHEDULE), lambda ox, lr, _, o: ox.nadamw(lr, **o, weight_decay=DECAY)),
    *cases("RAdam", combine(BETAS, [{"optimized_update": False}]), lambda ox, lr, _, o: ox.radam(lr, **o)),
]


@each_class(OPTAX)
def test_optax(cases: list[Case], jax_process: ProcessPoolExecutor):
    pytest.importorskip("optax")
    for case in cases:
        check_optax(case, __name__, OPTAX, jax_process)
