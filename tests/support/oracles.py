"""How ours run beside other people's code and the papers' equations: in float64, together after every step."""

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

    ours: str | type[torch.optim.Optimizer]  # by name where it is one of `optim`
    options: Options
    theirs: Any
    their_options: Options = {}
    at: Callable[[Options, float, int], Options] = lambda o, lr, t: {}
    """What our param group must hold in step t to mean what theirs means: the difference of the two definitions."""
    growing: bool = False
    spoilt: tuple[int, ...] = ()

    @property
    def mode(self) -> str:
        return self.options.get("weight_decay_mode", DEFAULT_MODE.get(self.ours, "l2"))

    def drive_ours(self) -> Iterator[Arrays]:
        cls = getattr(optim, self.ours) if isinstance(self.ours, str) else self.ours
        make = partial(cls, **self.options)
        return drive(make, self.growing, lambda lr, t: {"lr": lr, **self.at(self.options, lr, t)}, self.spoilt)

    def drive_equations(self) -> Iterator[Arrays]:
        options = {key: value for key, value in self.options.items() if not key.startswith("weight_decay")}
        return drive_equations(partial(self.theirs, **options, **self.their_options), self.mode, self.growing)

    def __str__(self) -> str:
        name = self.ours if isinstance(self.ours, str) else self.ours.__name__
        options = [f"{key}={value}".replace(" ", "") for key, value in self.options.items()]
        return ",".join([name, *options, *(["growing"] if self.growing else [])])


# Tables of cases.


def cases(ours: str, options: list[Options], *args: Any, **kwargs: Any) -> list[Case]:
    return [Case(ours, each, *args, **kwargs) for each in options]


def optax_s(ours: str, options: list[Options], theirs: Any, *names: str, **kwargs: Any) -> list[Case]:
    """Cases with their hyperparameters under the same names, beside betas and eps."""
    return [Case(ours, each, theirs, {name: each[name] for name in names}, **kwargs) for each in options]


def every(*choices: list[Options]) -> list[Options]:
    """All combinations."""
    return [{key: value for options in chosen for key, value in options.items()} for chosen in product(*choices)]


def both(key: str) -> list[Options]:
    return [{key: False}, {key: True}]


def decay(*modes: str) -> list[Options]:
    return [{"weight_decay": DECAY, "weight_decay_mode": mode} for mode in modes]


LONG, SHORT = {"betas": (0.9, 0.999), "eps": 1e-8}, {"betas": (0.8, 0.9), "eps": 1e-3}
BETAS = [LONG, SHORT]
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


def gradients(growing: bool, spoilt: tuple[int, ...] = ()) -> Iterator[Arrays]:
    """Standard normal with a coordinate that is always 0; or of sizes that grow, so that each maximum is the last.

    In the steps that are `spoilt` one element is nan or infinite, of one tensor or another.
    """
    sizes = [np.abs(size) + 0.1 for size in _random(1)]
    for t in range(1, STEPS + 1):
        drawn = _random(1 + t)
        if growing:
            drawn = [np.sign(g) * size * 1.1**t for g, size in zip(drawn, sizes, strict=True)]
        else:
            drawn[1][2] = 0.0
        if t in spoilt:
            drawn[t % len(SHAPES)].flat[0] = (math.nan, math.inf, -math.inf)[t % 3]
        yield drawn


def _random(seed: int) -> Arrays:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).numpy() for shape in SHAPES]


# Three drivers: each gives the parameters after every step.


def drive(
    make: Callable[..., Any], growing: bool, at: Callable[[float, int], Options], spoilt: tuple[int, ...] = ()
) -> Iterator[Arrays]:
    """An optimizer of torch's kind."""
    params = [torch.tensor(values, requires_grad=True) for values in start(growing)]
    optimizer = make(params, lr=PEAK)
    for t, drawn in enumerate(gradients(growing, spoilt), 1):
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
        for i, (p, g) in enumerate(zip(params, drawn, strict=True)):
            params[i] = (1 - shrink(mode, lr)) * p - rule(p, g + DECAY * penalty(p), t, states[i], lr=lr)
        yield list(params)


def shrink(mode: str, lr: float) -> float:
    """By which part a parameter itself decays in a step."""
    return {"decoupled": lr, "absolute": 1, "relative": lr / PEAK, "corrected": lr**2 / PEAK}.get(mode, 0) * DECAY


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
    for drawn in gradients(case.growing, case.spoilt):
        updates, state = chain.update([jax.numpy.asarray(g) for g in drawn], state, params)
        params = optax.apply_updates(params, updates)
        path.append([np.asarray(p) for p in params])
    return path


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[ProcessPoolExecutor]:
    """A process for jax: where jax has run, every os.fork() warns, in any test that comes later."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield pool


def assert_together(ours: Iterable[Arrays], theirs: Iterable[Arrays]) -> None:
    apart = [[np.abs(p - q).max() for p, q in zip(*pair, strict=True)] for pair in zip(ours, theirs, strict=True)]
    assert np.shape(apart) == (STEPS, len(SHAPES))
    assert np.max(apart) < TOLERANCE  # nan is not


# What several tables need: equations, each of which gives the step, where t counts from 1 and s is the state.


def root(o: Options, t: int) -> float:
    return math.sqrt(1 - o["betas"][1] ** t)


def corrected_eps(o: Options, lr: float, t: int) -> Options:
    """Yogi's eps is added to the corrected root elsewhere."""
    return {"eps": o["eps"] * root(o, t)}


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


def lion(p, g, t, s, *, lr, betas):
    """arXiv:2302.06675, algorithm 2."""
    (b1, b2), m = betas, s["m"]
    s["m"] = b2 * m + (1 - b2) * g
    return lr * np.sign(b1 * m + (1 - b1) * g)


def adan(p, g, t, s, *, lr, betas, eps):
    """arXiv:2208.06677, algorithm 1, whose β are 1 less these, with the bias correction of the authors' code."""
    b1, b2, b3 = (1 - beta for beta in betas)
    diff = g - (s["before"] if t > 1 else g)
    s["before"], s["m"], s["d"] = g, (1 - b1) * s["m"] + b1 * g, (1 - b2) * s["d"] + b2 * diff
    s["n"] = (1 - b3) * s["n"] + b3 * (g + (1 - b2) * diff) ** 2
    m, d, n = (s[key] / (1 - beta**t) for key, beta in zip("mdn", betas, strict=True))
    return lr * (m + (1 - b2) * d) / (np.sqrt(n) + eps)


# And optax's parts.


def around(ox: Any, rule: Any, lr: Callable[[Any], float], mode: str) -> Any:
    """In the order that makes a mode."""
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
