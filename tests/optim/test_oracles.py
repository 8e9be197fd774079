"""Ours beside other people's code and the papers' equations: 50 steps in float64, together after every one."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from itertools import product
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from lightning_optim import optim

TOLERANCE = 1e-10  # another order of roundings is 4e-14 at most; 1e-15 under a root, as pytorch_optimizer has it, 2e-11
SHAPES = ((3, 4), (5,), (), (2, 3, 2))
STEPS, PEAK, DECAY = 50, 0.05, 0.04
DEFAULT_MODE = {"AdaBoundW": "absolute", "LAMB": "update"} | dict.fromkeys(
    ("AdaBelief", "AdaMod", "Adan", "AdEMAMix", "LaProp", "Lion", "MARS", "NAdamW", "StableAdamW"), "decoupled"
)

Options = dict[str, Any]
Arrays = list[np.ndarray]


class Case(NamedTuple):
    """One of our classes, its options, and the same of somebody else's."""

    ours: str
    options: Options
    theirs: Any
    their_options: Options = {}
    at: Callable[[Options, float, int], Options] = lambda o, lr, t: {}
    """What our param group must hold in step t to mean what theirs means: the difference of the two definitions."""
    growing: bool = False

    @property
    def mode(self) -> str:
        return self.options.get("weight_decay_mode", DEFAULT_MODE.get(self.ours, "l2"))

    def drive_ours(self) -> Iterator[Arrays]:
        make = partial(getattr(optim, self.ours), **self.options)
        return drive(make, self.growing, lambda lr, t: {"lr": lr, **self.at(self.options, lr, t)})

    def __str__(self) -> str:
        options = [f"{key}={value}".replace(" ", "") for key, value in self.options.items()]
        return ",".join([self.ours, *options, *(["growing"] if self.growing else [])])


def cases(ours: str, options: list[Options], *args: Any, **kwargs: Any) -> list[Case]:
    return [Case(ours, each, *args, **kwargs) for each in options]


def every(*choices: list[Options]) -> list[Options]:
    """All combinations."""
    return [{key: value for options in chosen for key, value in options.items()} for chosen in product(*choices)]


def both(key: str) -> list[Options]:
    return [{key: False}, {key: True}]


def decay(*modes: str) -> list[Options]:
    return [{"weight_decay": DECAY, "weight_decay_mode": mode} for mode in modes]


LONG, SHORT = {"betas": (0.9, 0.999), "eps": 1e-8}, {"betas": (0.8, 0.9), "eps": 1e-3}
AT_FIVE = {"betas": (0.8, 0.8397685748659791), "eps": 1e-3}  # ρ_6 is 5.0 exactly
BETAS, LION_BETAS = [LONG, SHORT], [{"betas": (0.9, 0.99)}, {"betas": (0.8, 0.5)}]
BELIEF = every([*BETAS, AT_FIVE], both("amsgrad"), both("rectify"), both("degenerate_to_sgd"))
# Between the bounds; at the upper one; at the lower one.
BOUND = every(BETAS, [{"final_lr": final, "gamma": gamma} for final, gamma in ((0.1, 1e-3), (0.02, 0.1), (0.5, 0.1))])
HAT = [{"optimized_update": True}]
PLAIN = [{"weight_decay": DECAY}]  # in the class's own mode
COMMON = decay("l2", "decoupled", "absolute")
AROUND = [*COMMON, *decay("l1", "relative", "corrected")]


# What all are driven with.


def lr_at(t: int) -> float:
    """Up for ten steps, then down."""
    return PEAK * min(t / 10, (STEPS + 10 - t) / STEPS)


def start(growing: bool) -> Arrays:
    """One tensor is zero, for LAMB's ratio; none where gradients grow."""
    return [values if growing or i != 1 else np.zeros_like(values) for i, values in enumerate(_random(0))]


def gradients(growing: bool) -> Iterator[Arrays]:
    """Standard normal with a coordinate that is always 0; or of sizes that grow, so that each maximum is the last."""
    sizes = [np.abs(size) + 0.1 for size in _random(1)]
    for t in range(1, STEPS + 1):
        drawn = _random(1 + t)
        if growing:
            drawn = [np.sign(g) * size * 1.1**t for g, size in zip(drawn, sizes, strict=True)]
        else:
            drawn[1][2] = 0.0
        yield drawn


def _random(seed: int) -> Arrays:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).numpy() for shape in SHAPES]


# Three drivers: each gives the parameters after every step.


def drive(make: Callable[..., Any], growing: bool, at: Callable[[float, int], Options]) -> Iterator[Arrays]:
    """An optimizer of torch's kind."""
    params = [torch.tensor(values, requires_grad=True) for values in start(growing)]
    optimizer = make(params, lr=PEAK)
    for t, drawn in enumerate(gradients(growing), 1):
        optimizer.param_groups[0].update(at(lr_at(t), t))
        for param, g in zip(params, drawn, strict=True):
            param.grad = torch.tensor(g)  # a copy, since pytorch_optimizer writes into it
        optimizer.step()
        yield [param.detach().numpy().copy() for param in params]


def drive_equations(rule: Callable[..., Any], mode: str, growing: bool) -> Iterator[Arrays]:
    """Equations in numpy, with weight decay around them."""
    params, states = start(growing), [defaultdict(float) for _ in SHAPES]
    penalty = {"l2": lambda p: p, "l1": np.sign}.get(mode, np.zeros_like)
    for t, drawn in enumerate(gradients(growing), 1):
        lr = lr_at(t)
        shrink = {"decoupled": lr, "absolute": 1, "relative": lr / PEAK, "corrected": lr**2 / PEAK}.get(mode, 0) * DECAY
        for i, (p, g) in enumerate(zip(params, drawn, strict=True)):
            params[i] = (1 - shrink) * p - rule(p, g + DECAY * penalty(p), t, states[i], lr=lr)
        yield list(params)


def drive_optax(module: str, row: int) -> list[Arrays]:
    """A chain of optax's, from the table of a module; it runs in a process of its own."""
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)
    case = import_module(module).OPTAX[row]
    names = {f"b{i}": beta for i, beta in enumerate(case.options.get("betas", ()), 1)}
    names |= {"eps": case.options["eps"]} if "eps" in case.options else {}
    chain = case.theirs(optax, lambda count: lr_at(int(count) + 1), case.mode, names | case.their_options)
    params = [jax.numpy.asarray(values) for values in start(case.growing)]
    state, path = chain.init(params), []
    for drawn in gradients(case.growing):
        updates, state = chain.update([jax.numpy.asarray(g) for g in drawn], state, params)
        params = optax.apply_updates(params, updates)
        path.append([np.asarray(p) for p in params])
    return path


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[ProcessPoolExecutor]:
    """A process for jax: where jax has run, every os.fork() warns, in any test that comes later."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield pool


@pytest.fixture(autouse=True)
def double_product(case: Case) -> Iterator[None]:
    """NAdam keeps its product of μ in the default dtype, as torch's does: 4e-10 apart where that is float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if case.ours == "NAdamW" else before)
    yield
    torch.set_default_dtype(before)


def assert_together(ours: Iterable[Arrays], theirs: Iterable[Arrays]) -> None:
    apart = [[np.abs(p - q).max() for p, q in zip(*pair, strict=True)] for pair in zip(ours, theirs, strict=True)]
    assert np.shape(apart) == (STEPS, len(SHAPES))
    assert np.max(apart) < TOLERANCE  # nan is not


# The papers' equations. Each gives the step; t counts from 1, s is the state.


def rho(t: int, b2: float) -> float:
    return 2 / (1 - b2) - 1 - 2 * t * b2**t / (1 - b2**t)


def adam(p, g, t, s, *, lr, betas, eps, belief=False, amsgrad=False, rectify=False, **labml_nn):
    """arXiv:1412.6980 (optimized_update: end of section 2), 1904.09237, 1908.03265, 2010.07468."""
    b1, b2 = betas
    s["m"] = b1 * s["m"] + (1 - b1) * g
    s["v"] = b2 * s["v"] + (1 - b2) * ((g - s["m"]) ** 2 if belief else g**2) + (eps if belief else 0)
    s["max"] = np.maximum(s["max"], s["v"])
    root_v, root, m_hat = np.sqrt(s["max"] if amsgrad else s["v"]), math.sqrt(1 - b2**t), s["m"] / (1 - b1**t)
    if rectify:
        far, now = 2 / (1 - b2) - 1, rho(t, b2)
        if now < 5:
            return lr * m_hat * labml_nn["degenerate_to_sgd"]
        lr *= math.sqrt((now - 4) * (now - 2) * far / ((far - 4) * (far - 2) * now))
    if labml_nn.get("optimized_update"):
        return lr * root * m_hat / (root_v + eps)
    return lr * m_hat / (root_v / root + eps)


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


def lion(p, g, t, s, *, lr, betas):
    """arXiv:2302.06675, algorithm 2."""
    (b1, b2), m = betas, s["m"]
    s["m"] = b2 * m + (1 - b2) * g
    return lr * np.sign(b1 * m + (1 - b1) * g)


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
    options = {key: value for key, value in case.options.items() if not key.startswith("weight_decay")}
    rule = partial(case.theirs, **options, **case.their_options)
    assert_together(case.drive_ours(), drive_equations(rule, case.mode, case.growing))


def root(o: Options, t: int) -> float:
    return math.sqrt(1 - o["betas"][1] ** t)


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


def around(ox: Any, rule: Any, lr: Callable[[Any], float], mode: str) -> Any:
    """optax's parts in the order that makes a mode."""
    shrink, scale = ox.add_decayed_weights, ox.scale_by_learning_rate(lr)
    parts = {
        "l2": (shrink(DECAY), rule, scale),
        "l1": (ox.stateless(lambda gs, ps: [g + DECAY * np.sign(p) for g, p in zip(gs, ps, strict=True)]), rule, scale),
        "decoupled": (rule, shrink(DECAY), scale),
        "absolute": (rule, scale, shrink(-DECAY)),
        "relative": (rule, shrink(DECAY / PEAK), scale),
        "corrected": (rule, shrink(lambda count: DECAY * lr(count) / PEAK), scale),
    }
    return ox.chain(*parts[mode])


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
