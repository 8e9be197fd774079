"""What steps by norms, signs or the last gradient, against the papers' equations, pytorch_optimizer and optax."""

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
    NUM_STEPS,
    SHAPES,
    SHORT,
    TWO_MODES,
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
    equations_trajectory,
    optax_cases,
    optax_with_decay,
    torch_trajectory,
)

DECOUPLED, INSIDE = decay("decoupled"), decay("update")
MOMENTA = [{"momentum": momentum} for momentum in (0.0, 0.5, 0.9)]


# The papers' equations. Each gives the step; t counts from 1, s is the state.


def lars(p, g, t, s, *, lr, momentum, trust_coefficient, inside=0.0):
    """arXiv:1708.03888, algorithm 1; the ratio is 1 where a norm is 0."""
    w, below = np.linalg.norm(np.ravel(p)), np.linalg.norm(np.ravel(g)) + inside * np.linalg.norm(np.ravel(p))
    s["v"] = momentum * s["v"] + lr * (trust_coefficient * w / below if w and below else 1) * (g + inside * p)
    return s["v"]


def novograd(p, g, t, s, *, lr, betas, eps, grad_averaging, inside=0.0):
    """arXiv:1905.11286, algorithm 1; the authors' code averages the first gradient too."""
    b1, b2 = betas
    s["v"] = np.sum(g**2) if t == 1 else b2 * s["v"] + (1 - b2) * np.sum(g**2)
    s["m"] = b1 * s["m"] + (1 - b1 if grad_averaging else 1) * (g / (np.sqrt(s["v"]) + eps) + inside * p)
    return lr * s["m"]


def adamp(p, g, t, s, *, lr, betas, eps, delta, wd_ratio, nesterov, decoupled):
    """arXiv:2006.08217, algorithm 3, with the authors' choice of tensors: view by view, with a loop over rows."""
    b1, b2 = betas
    s["m"], s["v"] = b1 * s["m"] + (1 - b1) * g, b2 * s["v"] + (1 - b2) * g**2
    d = (b1 * s["m"] + (1 - b1) * g if nesterov else s["m"]) / (np.sqrt(s["v"]) / math.sqrt(1 - b2**t) + eps)
    size, given_back = lr / (1 - b1**t), 0.0
    for rows in (len(p), 1) if p.ndim > 1 else ():
        triples = list(zip(*(x.reshape(rows, -1) for x in (p, g, d)), strict=True))
        cosines = [abs(a @ b) / max(np.linalg.norm(a), eps) / max(np.linalg.norm(b), eps) for a, b, _ in triples]
        if max(cosines) < delta / math.sqrt(p.size / rows):
            units = [a / (np.linalg.norm(a) + eps) for a, _, _ in triples]
            d = np.stack([c - u * (u @ c) for u, (_, _, c) in zip(units, triples, strict=True)]).reshape(p.shape)
            given_back = (
                lr * DECAY * (1 - wd_ratio) * p if decoupled else 0.0
            )  # the decay around the rule removed all of it
            s["projected"] += 1
            break
    return size * d - given_back


def signum(p, g, t, s, *, lr, momentum):
    """arXiv:1802.04434, algorithm 2."""
    s["m"] = momentum * s["m"] + (1 - momentum) * g
    return lr * np.sign(s["m"])


def adam_mini(p, g, t, s, *, lr, betas, eps, num_blocks):
    """arXiv:2406.16793, algorithm 1, block by block."""
    (b1, b2), rows = betas, len(p) if p.ndim else 1
    s["m"], step = b1 * s["m"] + (1 - b1) * g, np.zeros_like(p).reshape(rows, -1)
    for block in np.split(np.arange(rows), rows if num_blocks is None else num_blocks):
        key = f"v{block[0]}"
        s[key] = b2 * s[key] + (1 - b2) * np.mean(g.reshape(rows, -1)[block] ** 2)
        below = math.sqrt(s[key] / (1 - b2**t)) + eps
        step[block] = lr * s["m"].reshape(rows, -1)[block] / (1 - b1**t) / below
    return step.reshape(p.shape)


def optimistic_adam(p, g, t, s, *, lr, betas, eps, amsgrad):
    """arXiv:1711.00141, algorithm 1."""
    now = adam(p, g, t, s, lr=1, betas=betas, eps=eps, amsgrad=amsgrad)
    before, s["step"] = s["step"], now
    return 2 * lr * now - lr * before


def omd(p, g, t, s, *, lr):
    """arXiv:1711.00141, eq. 4."""
    before, s["g"] = s["g"], g
    return 2 * lr * g - lr * before


def ef_sgd(p, g, t, s, *, lr, comp, memory, momentum):
    """arXiv:1901.09847, algorithm 1 with the compressions of the authors' code."""
    s["b"] = momentum * s["b"] + g
    total = lr * s["b"] + s["e"]
    step = np.sign(total) * (np.sum(np.abs(total)) / total.size if comp == "scaled_sign" else lr)
    s["e"] = (total - step) * memory
    return step


LARS = combine(MOMENTA, [{"trust_coefficient": 1e-3}, {"trust_coefficient": 0.5}])
NOVOGRAD = combine(
    [{"betas": (0.95, 0.98), "eps": 1e-8}, {"betas": (0.8, 0.25), "eps": 1e-2}], either("grad_averaging")
)
# The authors' threshold; all rows and some tensors are projected; nothing is.
ADAMP = combine(
    BETAS,
    [{"delta": 0.1, "wd_ratio": 0.1}, {"delta": 1.0, "wd_ratio": 0.5}, {"delta": 10.0, "wd_ratio": 0.0}],
    either("nesterov"),
)
BLOCKS = [{"num_blocks": num} for num in (1, None)]
EF = combine(either("memory"), [{"comp": "scaled_sign"}, {"comp": "sign"}], MOMENTA)
EQUATIONS = [
    *cases("LARS", combine(LARS, ALL_MODES), lars),
    *cases("LARS", combine(LARS, INSIDE), lars, {"inside": DECAY}),
    *cases("NovoGrad", combine(NOVOGRAD, ALL_MODES), novograd),
    *cases("NovoGrad", combine(NOVOGRAD, INSIDE), novograd, {"inside": DECAY}),
    *cases("AdamP", combine(ADAMP, DECOUPLED), adamp, {"decoupled": True}),
    *cases("AdamP", combine(ADAMP, decay("l2")), adamp, {"decoupled": False}),
    *cases("Signum", combine(MOMENTA, ALL_MODES), signum),
    # pytorch_optimizer stores Adam-mini's averages in float32 whatever the parameters are; see test_oracles_adapted.py.
    *cases("AdamMini", combine(BETAS, BLOCKS, ALL_MODES), adam_mini),
    *cases("OptimisticAdam", combine(BETAS, either("amsgrad"), ALL_MODES), optimistic_adam),
    *cases("OMD", ALL_MODES, omd),
    # No library here has error feedback.
    *cases("EFSGD", combine(EF, ALL_MODES), ef_sgd),
]


@each_branch(EQUATIONS)
def test_equations_in_each_branch(case: Case):
    check_equations(case)


@each_class(EQUATIONS)
def test_equations_with_all_options(cases: list[Case]):
    for case in cases:
        check_equations(case)


# pytorch_optimizer


NO_EPS = {"betas": (0.8, 0.9), "eps": 0.0}  # it adds AdamP's eps to the uncorrected root
NO_AVERAGING = [{**options, "grad_averaging": False} for options in NOVOGRAD[::2]]
PYTORCH_OPTIMIZER = [
    # Its l2 is NovoGrad's decay inside the rule. It averages all gradients but the first.
    *cases("NovoGrad", combine(NO_AVERAGING, decay("update", "decoupled", "absolute")), "NovoGrad"),
    # The decay that it adds to AdamP's gradient comes after the moments, so it has no effect.
    *[
        Case("AdamP", {**NO_EPS, **options}, "AdamP", growing=True)
        for options in combine(
            [{"delta": delta, "wd_ratio": 0.3} for delta in (0.1, 0.5, 1.0, 10.0)],
            either("nesterov"),
            decay("decoupled", "absolute"),
        )
    ],
    *cases("Signum", combine(MOMENTA, decay("l2", "decoupled")), "SignSGD"),
]


@each_class(PYTORCH_OPTIMIZER)
def test_pytorch_optimizer(cases: list[Case]):
    library = pytest.importorskip("pytorch_optimizer")
    for case in cases:
        options = {key: value for key, value in case.options.items() if key != "weight_decay_mode"}
        options |= {"weight_decouple": case.mode not in ("l2", "update"), "fixed_decay": case.mode == "absolute"}
        build = partial(getattr(library, case.theirs), **options, **case.their_options)
        theirs = torch_trajectory(build, case.growing, lambda lr, t: {"lr": lr})
        check_same_trajectory(case.our_trajectory(), theirs, case)


# optax


def halved_at_first(o: Options, lr: float, t: int) -> Options:
    """It takes an optimistic method's first step once; ours takes it twice."""
    return {"lr": lr / 2 if t == 1 else lr}


def optax_lars(ox: Any, lr: Callable[[Any], float], mode: str, o: Options) -> Any:
    return ox.lars(lr, DECAY, **o)


def optax_novograd(ox: Any, lr: Callable[[Any], float], mode: str, o: Options) -> Any:
    if mode == "update":
        return ox.novograd(lr, **o, weight_decay=DECAY)
    return optax_with_decay(ox, ox.scale_by_novograd(**o), lr, mode)


def optax_signum(ox: Any, lr: Callable[[Any], float], mode: str, o: Options) -> Any:
    return optax_with_decay(ox, ox.chain(ox.ema(o["momentum"], debias=False), ox.scale_by_sign()), lr, mode)


def optax_optimistic_adam(ox: Any, lr: Callable[[Any], float], mode: str, o: Options) -> Any:
    parts = ox.scale_by_adam(**o), ox.scale_by_optimistic_gradient()
    return optax_with_decay(ox, ox.chain(*parts), lr, mode)


def optax_omd(ox: Any, lr: Callable[[Any], float], mode: str, o: Options) -> Any:
    return optax_with_decay(ox, ox.scale_by_optimistic_gradient(), lr, mode)


WITHOUT_LR, NO_MAXIMUM = decay("l2", "l1", "absolute"), [{"amsgrad": False}]
OPTAX = [
    # Its ‖g + λ p‖ is our l2.
    *optax_cases("LARS", combine(LARS, decay("l2")), optax_lars, "momentum", "trust_coefficient"),
    *cases("NovoGrad", combine(NO_AVERAGING, [*TWO_MODES, *INSIDE]), optax_novograd),
    *optax_cases("Signum", combine(MOMENTA, TWO_MODES), optax_signum, "momentum"),
    # With the modes that do not use the lr, which differs in the first step.
    *cases("OptimisticAdam", combine(BETAS, NO_MAXIMUM, WITHOUT_LR), optax_optimistic_adam, at=halved_at_first),
    *cases("OMD", WITHOUT_LR, optax_omd, at=halved_at_first),
]


@each_class(OPTAX)
def test_optax(cases: list[Case], jax_process: ProcessPoolExecutor):
    pytest.importorskip("optax")
    for case in cases:
        check_optax(case, __name__, OPTAX, jax_process)


def test_adamp_projects_some_tensors_and_not_others_in_this_script():
    states = []

    def rule(p, g, t, s, *, lr):
        states.append(s)
        return adamp(p, g, t, s, lr=lr, decoupled=True, **{**SHORT, "delta": 1.0, "wd_ratio": 0.5, "nesterov": False})

    list(equations_trajectory(rule, "decoupled", False))
    assert [len(SHAPES[i]) > 1 for i in range(4)] == [0 < states[i]["projected"] < NUM_STEPS for i in range(4)]
