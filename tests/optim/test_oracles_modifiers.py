"""Modifiers against the papers' equations, pytorch_optimizer and optax: one by one, and all in their order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from lightning_optim import optim
from tests.support.cases import every
from tests.support.oracles import (
    DECAY,
    NUM_STEPS,
    SHAPES,
    SHORT,
    Arrays,
    Case,
    Options,
    adam,
    adan,
    check_optax,
    check_same_trajectory,
    combine,
    decay,
    each_branch,
    each_class,
    gradients,
    initial_params,
    lion,
    lr_at,
    optax_with_decay,
    shrinkage,
    torch_trajectory,
)


class HeavyBall(optim.AdaptiveOptimizer):
    """SGD with momentum, as torch's: unlike Lion's and AdamW's, its step grows with the gradients."""

    def __init__(self, params, lr=0.01, **options):
        super().__init__(params, {"lr": lr}, **options)

    def buffers(self, group):
        return ("m",)

    def coefficients(self, t, group):
        return {"lr": group["lr"]}

    @staticmethod
    def update(p, g, m, *, lr):
        return optim.Update(m.mul_(0.9).add_(g), lr)


def heavy_ball(p, g, t, s, *, lr):
    s["m"] = 0.9 * s["m"] + g
    return lr * s["m"]


# The rules, and the modifiers with their values: some rows are clipped and some are not.

SIGNS, THREE = {"betas": (0.8, 0.5)}, {"betas": (0.8, 0.6, 0.9), "eps": 1e-3}
RULES: dict[Any, tuple[Options, Callable[..., Any]]] = {
    "AdamW": (SHORT, adam),
    "Lion": (SIGNS, lion),
    HeavyBall: ({}, heavy_ball),
    "Adan": (THREE, adan),  # its step is the sum of two
}
SINGLE = list(RULES)[:3]  # that other libraries have too
CENTRALIZE, CLIP, CAUTIOUS, FINITE = (
    {"centralize_gradients": True},
    {"adaptive_clip": 0.9},
    {"cautious_update": True},
    {"skip_nonfinite": True},
)
AHEAD = {"lookahead": {"k": 4, "alpha": 0.3}}
EITHER, SHRINKING = decay("l2", "decoupled"), decay("decoupled", "absolute", "relative", "corrected")
CAUTIOUS_DECAY = combine(SHRINKING, [{"cautious_decay": True}])
ALL = {"maximize": True, **CENTRALIZE, **CLIP, **CAUTIOUS, **FINITE, **AHEAD}
NONFINITE_STEPS = (1, 4, 5, 6, 13)


def modifier_cases(
    rules: list[Any], modifier: Options, modes: list[Options], theirs: Any = None, **kw: Any
) -> list[Case]:
    return [Case(rule, {**RULES[rule][0], **modifier, **mode}, theirs, **kw) for rule in rules for mode in modes]


# The papers' equations.


def centralized(g):
    """arXiv:2004.01461, eq. 1: each row (output channel) minus its mean; a vector is unchanged."""
    return np.stack([row - np.mean(row) for row in g]) if g.ndim > 1 else g


def clipped(g, p, part):
    """arXiv:2102.06171, eq. 3, by rows; ε of its section 4."""
    if g.ndim > 1:
        return np.stack(
            [clipped(row.ravel(), over.ravel(), part).reshape(row.shape) for row, over in zip(g, p, strict=True)]
        )
    norm, most = np.sqrt(np.sum(g**2)), part * max(np.sqrt(np.sum(p**2)), 1e-3)
    return g * most / norm if norm > most else g


def cautious(u, g):
    """arXiv:2411.16085, algorithm 1, with the authors' lower bound on the share of elements that remain."""
    mask = u * g > 0
    return u * mask / max(np.mean(mask), 1e-3)


def modified_trajectory(case: Case) -> Iterator[Arrays]:
    """A rule with everything that can be around it, a line each.

    The order: `skip_nonfinite`, the sign of `maximize`, `centralize_gradients`, `adaptive_clip`, L2 or L1 decay, the
    rule, `cautious_update`, whose mask uses the gradient with its decay, the decay of the parameter, which compares
    with the masked step (arXiv:2510.12402, algorithm 1), the step, and `lookahead` (arXiv:1907.08610, algorithm 1).
    """
    o, (own, rule), ahead = case.options, RULES[case.ours], case.options.get("lookahead")
    params, states = initial_params(False), [defaultdict(float) for _ in SHAPES]
    slow, t = list(params), 0
    for step, drawn in enumerate(gradients(False, case.nonfinite_steps), 1):
        lr, finite = lr_at(step), all(np.isfinite(g).all() for g in drawn)
        t += finite
        for i, (p, g) in enumerate(zip(params, drawn, strict=True) if finite else ()):
            g = -g if o.get("maximize") else g
            g = centralized(g) if o.get("centralize_gradients") else g
            g = clipped(g, p, o["adaptive_clip"]) if o.get("adaptive_clip") else g
            g = g + DECAY * {"l2": p, "l1": np.sign(p)}.get(case.mode, 0)
            u = rule(p, g, t, states[i], lr=lr, **own)
            u = cautious(u, g) if o.get("cautious_update") else u
            p = p - shrinkage(case.mode, lr) * p * (u * p >= 0 if o.get("cautious_decay") else 1) - u
            if ahead and t % ahead["k"] == 0:
                p = slow[i] = slow[i] + ahead["alpha"] * (p - slow[i])
            params[i] = p
        yield list(params)


EQUATIONS = [
    *modifier_cases(
        list(RULES), ALL, [*decay("l2", "l1"), *SHRINKING, *CAUTIOUS_DECAY], nonfinite_steps=NONFINITE_STEPS
    ),
    *modifier_cases(list(RULES), CENTRALIZE, EITHER),
    *modifier_cases(list(RULES), CLIP, EITHER),
    *modifier_cases(list(RULES), CAUTIOUS, EITHER),
    *modifier_cases(list(RULES), FINITE, EITHER, nonfinite_steps=NONFINITE_STEPS),
    *modifier_cases(list(RULES), AHEAD, EITHER),
    # No release here has cautious decay; optax's main branch does, with the same mask.
    *modifier_cases(list(RULES), {}, CAUTIOUS_DECAY),
]


def check_modified(case: Case) -> None:
    check_same_trajectory(case.our_trajectory(), modified_trajectory(case), case)


@each_branch(EQUATIONS)
def test_equations_around_each_rule(case: Case):
    check_modified(case)


@each_class(EQUATIONS)
def test_equations_with_all_decay_modes(cases: list[Case]):
    for case in cases:
        check_modified(case)


@pytest.mark.parametrize("key", [*ALL, "weight_decay", "cautious_decay"])
@pytest.mark.parametrize("rule", every(RULES, fast=["AdamW"]))
def test_leaving_out_one_of_all_modifiers_changes_the_result(rule: Any, key: str):
    (case,) = modifier_cases([rule], ALL, CAUTIOUS_DECAY[:1], nonfinite_steps=NONFINITE_STEPS)
    options = {name: value for name, value in case.options.items() if name != key}
    options |= {"weight_decay": 0.0} if key == "weight_decay" else {}
    *_, last = case.our_trajectory()
    *_, other = case._replace(options=options).our_trajectory()
    distances = [np.abs(p - q).max() for p, q in zip(last, other, strict=True)]
    assert not np.max(distances) < 1e-3  # true for NaN; the tests above would see 1e-10


def test_a_cautious_update_enlarges_at_most_a_thousandfold():
    """The bound of the authors' code, which only a tensor larger than those above reaches."""
    param = torch.nn.Parameter(torch.zeros(2000, dtype=torch.float64))
    optimizer = HeavyBall([param], lr=1.0, cautious_update=True)
    first, then = torch.ones(2000), torch.full((2000,), -0.1)
    then[7] = 1.0
    for grad in (first, then):
        param.grad = grad.double()
        optimizer.step()
    expected = -first.double()
    expected[7] -= 1.9 * 1000
    torch.testing.assert_close(param.detach(), expected, rtol=1e-15, atol=0)


# pytorch_optimizer


def plain(library: Any, case: Case, weight_decay: float = DECAY) -> Callable[..., Any]:
    """The rule without modifiers, in torch or pytorch_optimizer."""
    decoupled = case.mode == "decoupled"
    if case.ours == "AdamW":
        return partial(torch.optim.Adam, **SHORT, weight_decay=weight_decay, decoupled_weight_decay=decoupled)
    cls, given = (library.Lion, SIGNS) if case.ours == "Lion" else (library.SGDW, {"momentum": 0.9})
    return partial(cls, **given, weight_decay=weight_decay, weight_decouple=decoupled)


class Prepared:
    """An optimizer with torch's interface; each gradient is transformed before its step."""

    def __init__(self, optimizer: Any, prepare: Callable[[Any, Any], Any]) -> None:
        self.optimizer, self.param_groups, self.prepare = optimizer, optimizer.param_groups, prepare

    def step(self) -> None:
        for p in self.param_groups[0]["params"]:
            p.grad = self.prepare(p.detach(), p.grad)
        self.optimizer.step()


class Cautious:
    """An optimizer with torch's interface and without decay; its step is masked."""

    def __init__(self, optimizer: Any, mode: str, mask: Callable[[Any, Any], None]) -> None:
        self.optimizer, self.param_groups, self.mode, self.mask = optimizer, optimizer.param_groups, mode, mask

    @torch.no_grad()
    def step(self) -> None:
        (group,) = self.param_groups
        for p in group["params"]:
            if self.mode == "l2":
                p.grad.add_(p, alpha=DECAY)
            else:
                p.mul_(1 - group["lr"] * DECAY)
        before = [(p.clone(), p.grad.clone()) for p in group["params"]]
        self.optimizer.step()
        for p, (old, grad) in zip(group["params"], before, strict=True):
            step = old - p
            self.mask(step, grad)
            p.copy_(old - step)


def lookahead(library: Any, case: Case) -> Callable[..., Any]:
    """It counts steps per group, ours per parameter: the same while all have gradients."""
    make = plain(library, case)
    return lambda params, lr: library.Lookahead(make(params, lr=lr), **case.options["lookahead"])


def agc(library: Any, case: Case) -> Callable[..., Any]:
    """In three dimensions its norms are over the second only; in four over all but the first, as in the paper and ours.

    It raises norms of gradients below 1e-6 to that; here none of those would be clipped.
    """
    from pytorch_optimizer.optimizer.agc import agc as theirs

    def prepare(p: Any, g: Any) -> Any:
        last = (..., None) if p.ndim == 3 else ()
        return theirs(p[last], g[last], agc_clip_val=case.options["adaptive_clip"]).view_as(g)

    return lambda params, lr: Prepared(plain(library, case)(params, lr=lr), prepare)


def centralization(library: Any, case: Case) -> Callable[..., Any]:
    def prepare(p: Any, g: Any) -> Any:
        library.centralize_gradient(g)
        return g

    return lambda params, lr: Prepared(plain(library, case)(params, lr=lr), prepare)


def in_full(apply_cautious: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """Its mask has d / (nnz + 1), as algorithm 2 of the paper; this gives it the d / nnz of the authors' code."""

    def mask(step: Any, grad: Any) -> None:
        apply_cautious(step, grad)
        left = int(step.count_nonzero())
        step.mul_((left + 1) / max(left, 1))

    return mask


def masked(library: Any, case: Case) -> Callable[..., Any]:
    make, mask = plain(library, case, weight_decay=0.0), in_full(library.Lion.apply_cautious)
    return lambda params, lr: Cautious(make(params, lr=lr), case.mode, mask)


def built_in(library: Any, case: Case) -> Callable[..., Any]:
    """Its own `cautious`. Without the slow average, which its mask does not affect, its AdEMAMix is AdamW."""
    no_slow = {"betas": (*SHORT["betas"], 0.9), "eps": SHORT["eps"], "alpha": 0.0}
    cls, given = (library.Lion, SIGNS) if case.ours == "Lion" else (library.AdEMAMix, no_slow)
    theirs = type(cls.__name__, (cls,), {"apply_cautious": staticmethod(in_full(cls.apply_cautious))})
    return partial(theirs, **given, weight_decay=DECAY, weight_decouple=case.mode == "decoupled", cautious=True)


PYTORCH_OPTIMIZER = [
    *modifier_cases(SINGLE, CENTRALIZE, EITHER, centralization),
    *modifier_cases(SINGLE, CLIP, EITHER, agc),
    *modifier_cases(SINGLE, CAUTIOUS, EITHER, masked),
    *modifier_cases(SINGLE[:2], CAUTIOUS, EITHER, built_in),
    *modifier_cases(SINGLE, AHEAD, EITHER, lookahead),
]


@each_class(PYTORCH_OPTIMIZER)
def test_pytorch_optimizer(cases: list[Case]):
    library = pytest.importorskip("pytorch_optimizer")
    for case in cases:
        theirs = torch_trajectory(case.theirs(library, case), False, lambda lr, t: {"lr": lr})
        check_same_trajectory(case.our_trajectory(), theirs, case)


# optax


def optax_centralize(ox: Any, rule: Any, lr: Callable[[Any], float], mode: str) -> Any:
    return ox.chain(ox.centralize(), optax_with_decay(ox, rule, lr, mode))


def optax_clip(ox: Any, rule: Any, lr: Callable[[Any], float], mode: str) -> Any:
    """Its rows are slices along the last dimension, as in JAX; `axis` selects torch's.

    Without it, in three dimensions its norms are over the first only, and a matrix of one column is a vector.
    """

    def rows(g: Any, p: Any) -> Any:
        clip = ox.adaptive_grad_clip(CLIP["adaptive_clip"], axis=tuple(range(1, g.ndim)) or None)
        return clip.update(g, clip.init(p), p)[0]

    clip = ox.stateless(lambda gs, ps: [rows(g, p) for g, p in zip(gs, ps, strict=True)])
    return ox.chain(clip, optax_with_decay(ox, rule, lr, mode))


def optax_finite(ox: Any, rule: Any, lr: Callable[[Any], float], mode: str) -> Any:
    """The lr is outside: inside, a schedule would not count skipped steps. It skips at most `NUM_STEPS` steps in a row;
    ours has no limit.
    """
    import jax

    finite = ox.apply_if_finite(optax_with_decay(ox, rule, lambda count: 1.0, mode), NUM_STEPS)
    return ox.chain(finite._replace(update=jax.jit(finite.update)), ox.scale_by_schedule(lr))


def optax_lookahead(ox: Any, rule: Any, lr: Callable[[Any], float], mode: str) -> Any:
    """With its slow weights in the state, like ours."""
    k, alpha = AHEAD["lookahead"].values()
    pair = ox.lookahead(optax_with_decay(ox, rule, lr, mode), sync_period=k, slow_step_size=alpha)

    def init(params: Any) -> Any:
        return pair.init(ox.LookaheadParams.init_synced(params)), params

    def update(grads: Any, state: Any, params: Any) -> Any:
        step, inner = pair.update(grads, state[0], ox.LookaheadParams(params, state[1]))
        return step.fast, (inner, ox.apply_updates(state[1], step.slow))

    return ox.GradientTransformation(init, update)


def chain(ours: Any, modifier: Callable[..., Any], ox: Any, lr: Callable[[Any], float], mode: str, o: Options) -> Any:
    rules = {"AdamW": ox.scale_by_adam, "Lion": ox.scale_by_lion, HeavyBall: partial(ox.trace, 0.9)}
    return modifier(ox, rules[ours](**o), lr, mode)


OPTAX = [
    case._replace(theirs=partial(chain, case.ours, case.theirs))
    for case in (
        *modifier_cases(SINGLE, CENTRALIZE, EITHER, optax_centralize),
        *modifier_cases(SINGLE, CLIP, EITHER, optax_clip),
        *modifier_cases(SINGLE, FINITE, EITHER, optax_finite, nonfinite_steps=NONFINITE_STEPS),
        *modifier_cases(SINGLE, AHEAD, EITHER, optax_lookahead),
    )
]


@each_class(OPTAX)
def test_optax(cases: list[Case], jax_process: ProcessPoolExecutor):
    pytest.importorskip("optax")
    for case in cases:
        check_optax(case, __name__, OPTAX, jax_process)
