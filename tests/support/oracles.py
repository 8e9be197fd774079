"""Ours against other people's code and the papers' equations: the same script in float64, compared after every step."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from lightning_optim import optim

# Another order of roundings differs by 4e-14 at most; the 1e-15 that pytorch_optimizer adds under a root, by 2e-11.
TOLERANCE = 1e-10
SHAPES = ((3, 4), (5,), (), (2, 3, 2))
NUM_STEPS, WARMUP_STEPS, PEAK_LR, DECAY = 20, 5, 0.05, 0.04
DEFAULT_MODES = {"AdaBoundW": "absolute", "LAMB": "update"} | dict.fromkeys(
    ("AdaBelief", "AdaMod", "Adan", "AdEMAMix", "LaProp", "Lion", "MARS", "NAdamW", "StableAdamW"), "decoupled"
)

Options = dict[str, Any]
Arrays = list[np.ndarray]


class Case(NamedTuple):
    """One of our classes with options, and what computes the same elsewhere."""

    ours: str | type[torch.optim.Optimizer]  # by name if it is in `optim`
    options: Options
    theirs: Any
    their_options: Options = {}
    at: Callable[[Options, float, int], Options] = lambda o, lr, t: {}
    """What to set in our param group at step t, given its options and lr, to compute the same as theirs."""
    growing: bool = False
    """Whether the gradients grow, so that every maximum is the last value."""
    nonfinite_steps: tuple[int, ...] = ()

    @property
    def mode(self) -> str:
        return self.options.get("weight_decay_mode", DEFAULT_MODES.get(self.ours, "l2"))

    def our_trajectory(self) -> Iterator[Arrays]:
        cls = getattr(optim, self.ours) if isinstance(self.ours, str) else self.ours
        build = partial(cls, **self.options)
        at = partial(self.at, self.options)
        return torch_trajectory(build, self.growing, lambda lr, t: {"lr": lr, **at(lr, t)}, self.nonfinite_steps)

    def equations_trajectory(self) -> Iterator[Arrays]:
        options = {key: value for key, value in self.options.items() if not key.startswith("weight_decay")}
        return equations_trajectory(partial(self.theirs, **options, **self.their_options), self.mode, self.growing)

    @property
    def name(self) -> str:
        return self.ours if isinstance(self.ours, str) else self.ours.__name__

    def __str__(self) -> str:
        options = [f"{key}={value}".replace(" ", "") for key, value in self.options.items()]
        return ",".join([self.name, *options, *(["growing"] if self.growing else [])])


# Tables of cases


def cases(ours: str, options: list[Options], *args: Any, **kwargs: Any) -> list[Case]:
    return [Case(ours, each, *args, **kwargs) for each in options]


def optax_cases(ours: str, options: list[Options], theirs: Any, *names: str, **kwargs: Any) -> list[Case]:
    """Cases in which these hyperparameters, besides betas and eps, have the same names in optax."""
    return [Case(ours, each, theirs, {name: each[name] for name in names}, **kwargs) for each in options]


def combine(*choices: list[Options]) -> list[Options]:
    """All combinations."""
    return [{key: value for options in chosen for key, value in options.items()} for chosen in product(*choices)]


def either(key: str) -> list[Options]:
    return [{key: False}, {key: True}]


def decay(*modes: str) -> list[Options]:
    return [{"weight_decay": DECAY, "weight_decay_mode": mode} for mode in modes]


LONG, SHORT = {"betas": (0.9, 0.999), "eps": 1e-8}, {"betas": (0.8, 0.9), "eps": 1e-3}
BETAS = [LONG, SHORT]
DEFAULT_DECAY = [{"weight_decay": DECAY}]  # in the class's default mode
SOME_MODES = decay("l2", "decoupled", "absolute")
ALL_MODES = [*SOME_MODES, *decay("l1", "relative", "corrected")]
TWO_MODES = decay("l2", "decoupled")  # for optax, which is slow; LAMB is compared in all modes


def each_branch(table: Sequence[Case]) -> pytest.MarkDecorator:
    """Parametrizes a fast test with one case of a table for each value of the options that choose a branch.

    Betas, eps and the decay choose none: of the cases that differ only in these, the one with the largest eps is used.
    """
    ignored = ("betas", "eps", "weight_decay", "weight_decay_mode")
    by_branch: dict[str, Case] = {}
    for case in table:
        branch = {key: value for key, value in case.options.items() if key not in ignored}
        key = str((case.ours, branch, case.their_options, case.growing, bool(case.nonfinite_steps)))
        best = by_branch.setdefault(key, case)
        if case.options.get("eps", 0.0) > best.options.get("eps", 0.0):
            by_branch[key] = case
    return pytest.mark.parametrize("case", list(by_branch.values()), ids=str)


def each_class(table: Sequence[Case]) -> Callable[[Any], Any]:
    """Parametrizes a slow test with the cases of each class in a table: thousands of tests take longer than a loop."""
    by_class: dict[str, list[Case]] = {}
    for case in table:
        by_class.setdefault(case.name, []).append(case)

    def mark(test: Any) -> Any:
        return pytest.mark.slow(pytest.mark.parametrize("cases", list(by_class.values()), ids=list(by_class))(test))

    return mark


# The script


def lr_at(t: int) -> float:
    """Up for five steps, then down."""
    return PEAK_LR * min(t / WARMUP_STEPS, (NUM_STEPS + WARMUP_STEPS - t) / NUM_STEPS)


def initial_params(growing: bool) -> Arrays:
    """One tensor is zero, for LAMB's ratio; none where gradients grow."""
    return [values if growing or i != 1 else np.zeros_like(values) for i, values in enumerate(_random(0))]


def gradients(growing: bool, nonfinite_steps: tuple[int, ...] = ()) -> Iterator[Arrays]:
    """Standard normal with one element that is always 0; or growing, so that each maximum is the last value.

    In the non-finite steps one element of one tensor is NaN or infinite.
    """
    sizes = [np.abs(size) + 0.1 for size in _random(1)]
    for t in range(1, NUM_STEPS + 1):
        drawn = _random(1 + t)
        if growing:
            drawn = [np.sign(g) * size * 1.1**t for g, size in zip(drawn, sizes, strict=True)]
        else:
            drawn[1][2] = 0.0
        if t in nonfinite_steps:
            drawn[t % len(SHAPES)].flat[0] = (math.nan, math.inf, -math.inf)[t % 3]
        yield drawn


def _random(seed: int) -> Arrays:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).numpy() for shape in SHAPES]


# Three ways to run it: each gives the parameters after every step.


def torch_trajectory(
    build: Callable[..., Any],
    growing: bool,
    at: Callable[[float, int], Options],
    nonfinite_steps: tuple[int, ...] = (),
) -> Iterator[Arrays]:
    """Of an optimizer with torch's interface; `at(lr, t)` is set in its param group."""
    params = [torch.tensor(values, requires_grad=True) for values in initial_params(growing)]
    optimizer = build(params, lr=PEAK_LR)
    for t, drawn in enumerate(gradients(growing, nonfinite_steps), 1):
        optimizer.param_groups[0].update(at(lr_at(t), t))
        for param, g in zip(params, drawn, strict=True):
            param.grad = torch.tensor(g)  # a copy: pytorch_optimizer writes into it
        optimizer.step()
        yield [param.detach().numpy().copy() for param in params]


def equations_trajectory(rule: Callable[..., Any], mode: str, growing: bool) -> Iterator[Arrays]:
    """Of equations in numpy, with weight decay around them."""
    params, states = initial_params(growing), [defaultdict(float) for _ in SHAPES]
    penalty = {"l2": lambda p: p, "l1": np.sign}.get(mode, np.zeros_like)
    for t, drawn in enumerate(gradients(growing), 1):
        lr = lr_at(t)
        for i, (p, g) in enumerate(zip(params, drawn, strict=True)):
            params[i] = (1 - shrinkage(mode, lr)) * p - rule(p, g + DECAY * penalty(p), t, states[i], lr=lr)
        yield list(params)


def shrinkage(mode: str, lr: float) -> float:
    """The fraction of itself that a parameter loses to weight decay in a step."""
    return {"decoupled": lr, "absolute": 1, "relative": lr / PEAK_LR, "corrected": lr**2 / PEAK_LR}.get(mode, 0) * DECAY


def optax_trajectory(module: str, row: int) -> list[Arrays]:
    """Of the optax chain in row `row` of a module's `OPTAX`; runs in `jax_process`."""
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)
    case = import_module(module).OPTAX[row]
    names = {f"b{i}": beta for i, beta in enumerate(case.options.get("betas", ()), 1)}
    names |= {"eps": case.options["eps"]} if "eps" in case.options else {}
    chain = case.theirs(optax, lambda count: lr_at(int(count) + 1), case.mode, names | case.their_options)
    params = [jax.numpy.asarray(values) for values in initial_params(case.growing)]
    state, trajectory = chain.init(params), []
    for drawn in gradients(case.growing, case.nonfinite_steps):
        updates, state = chain.update([jax.numpy.asarray(g) for g in drawn], state, params)
        params = optax.apply_updates(params, updates)
        trajectory.append([np.asarray(p) for p in params])
    return trajectory


def check_same_trajectory(ours: Iterable[Arrays], theirs: Iterable[Arrays], case: Case | None = None) -> None:
    before = torch.get_default_dtype()
    if case is not None and case.ours == "NAdamW":
        # It stores its product of μ in the default dtype, as torch's does; with float32 it is 4e-10 off.
        torch.set_default_dtype(torch.float64)
    try:
        pairs = zip(ours, theirs, strict=True)
        distances = [[np.abs(p - q).max() for p, q in zip(*pair, strict=True)] for pair in pairs]
    finally:
        torch.set_default_dtype(before)
    assert np.shape(distances) == (NUM_STEPS, len(SHAPES))
    assert np.max(distances) < TOLERANCE, str(case)  # false for NaN


def check_equations(case: Case) -> None:
    check_same_trajectory(case.our_trajectory(), case.equations_trajectory(), case)


def check_optax(case: Case, module: str, table: Sequence[Case], jax_process: ProcessPoolExecutor) -> None:
    """Compare with the chain of a case, which `jax_process` finds in the module's `OPTAX`."""
    theirs = jax_process.submit(optax_trajectory, module, table.index(case)).result()
    check_same_trajectory(case.our_trajectory(), theirs, case)


# Equations that several tables use. Each gives the step; t counts from 1, s is the state of one parameter.


def root(o: Options, t: int) -> float:
    return math.sqrt(1 - o["betas"][1] ** t)


def corrected_eps(o: Options, lr: float, t: int) -> Options:
    """For Yogi, whose eps others add to the corrected root."""
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
        rho_inf, rho_t = 2 / (1 - b2) - 1, rho(t, b2)
        if rho_t < 5:
            return lr * m_hat * labml_nn["degenerate_to_sgd"]
        lr *= math.sqrt((rho_t - 4) * (rho_t - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho_t))
    if labml_nn.get("optimized_update"):
        return lr * root * m_hat / (root_v + eps)
    return lr * m_hat / (root_v / root + eps)


def lion(p, g, t, s, *, lr, betas):
    """arXiv:2302.06675, algorithm 2."""
    (b1, b2), m = betas, s["m"]
    s["m"] = b2 * m + (1 - b2) * g
    return lr * np.sign(b1 * m + (1 - b1) * g)


def adan(p, g, t, s, *, lr, betas, eps):
    """arXiv:2208.06677, algorithm 1, with 1 - β for its β, and the bias correction of the authors' code."""
    b1, b2, b3 = (1 - beta for beta in betas)
    diff = g - (s["before"] if t > 1 else g)
    s["before"], s["m"], s["d"] = g, (1 - b1) * s["m"] + b1 * g, (1 - b2) * s["d"] + b2 * diff
    s["n"] = (1 - b3) * s["n"] + b3 * (g + (1 - b2) * diff) ** 2
    m, d, n = (s[key] / (1 - beta**t) for key, beta in zip("mdn", betas, strict=True))
    return lr * (m + (1 - b2) * d) / (np.sqrt(n) + eps)


# Sophia-G, which gets its Hessian from outside


class SophiaWithOwnGradients(optim.SophiaG):
    """Uses its gradients as those of sampled labels too, in every third step: a Hessian of 20 g²."""

    def step(self, closure=None):
        (count,) = {int(state["step"]) for state in self.state.values()} or {0}
        if count % 3 == 0:
            self.update_hessian(num_samples=20)
        return super().step(closure)


# A part that several optax chains use


def optax_with_decay(ox: Any, rule: Any, lr: Callable[[Any], float], mode: str) -> Any:
    """A chain of a rule, the lr and the decay, in the order that gives the mode."""
    add_decay, scale = ox.add_decayed_weights, ox.scale_by_learning_rate(lr)
    parts = {
        "l2": (add_decay(DECAY), rule, scale),
        "l1": (ox.stateless(lambda gs, ps: [g + DECAY * np.sign(p) for g, p in zip(gs, ps, strict=True)]), rule, scale),
        "decoupled": (rule, add_decay(DECAY), scale),
        "absolute": (rule, scale, add_decay(-DECAY)),
        "relative": (rule, add_decay(DECAY / PEAK_LR), scale),
        "corrected": (rule, add_decay(lambda count: DECAY * lr(count) / PEAK_LR), scale),
    }
    return ox.chain(*parts[mode])
