"""Modifiers beside other people's code and the papers' equations: one by one, and all of them in their order."""

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
from tests.support import oracles
from tests.support.oracles import (
    DECAY,
    SHAPES,
    SHORT,
    STEPS,
    Arrays,
    Case,
    Options,
    adam,
    adan,
    around,
    assert_together,
    decay,
    drive,
    drive_optax,
    every,
    gradients,
    lion,
    lr_at,
    shrink,
    start,
)

pytestmark = pytest.mark.slow

elsewhere = oracles.elsewhere


class HeavyBall(optim.AdaptiveOptimizer):
    """SGD with momentum, as torch's: unlike Lion's and AdamW's, its step is as large as the gradients are."""

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


# What is around them. Of the rows some are clipped and some are not.

SIGNS, THREE = {"betas": (0.8, 0.5)}, {"betas": (0.8, 0.6, 0.9), "eps": 1e-3}
RULES: dict[Any, tuple[Options, Callable[..., Any]]] = {
    "AdamW": (SHORT, adam),
    "Lion": (SIGNS, lion),
    HeavyBall: ({}, heavy_ball),
    "Adan": (THREE, adan),  # its step is the sum of two
}
SINGLE = list(RULES)[:3]  # of which other people have the same
CENTRALIZE, CLIP, CAUTIOUS, FINITE = (
    {"centralize_gradients": True},
    {"adaptive_clip": 0.9},
    {"cautious_update": True},
    {"skip_nonfinite": True},
)
AHEAD = {"lookahead": {"k": 4, "alpha": 0.3}}
EITHER, SHRINKING = decay("l2", "decoupled"), decay("decoupled", "absolute", "relative", "corrected")
CAUTIOUS_DECAY = every(SHRINKING, [{"cautious_decay": True}])
ALL = {"maximize": True, **CENTRALIZE, **CLIP, **CAUTIOUS, **FINITE, **AHEAD}
SPOILT = (1, 4, 5, 6, 31)


def around_each(rules: list[Any], modifier: Options, modes: list[Options], theirs: Any = None, **kw: Any) -> list[Case]:
    return [Case(rule, {**RULES[rule][0], **modifier, **mode}, theirs, **kw) for rule in rules for mode in modes]


# The papers' equations.


def centralized(g):
    """arXiv:2004.01461, eq. 1: each row (output channel) less its mean; a vector is left alone."""
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
    """arXiv:2411.16085, algorithm 1, with the bound of the authors' code on the share that is left."""
    mask = u * g > 0
    return u * mask / max(np.mean(mask), 1e-3)


def drive_all(case: Case) -> Iterator[Arrays]:
    """A rule with all that may stand around it, a line each.

    The order is the design's: `skip_nonfinite`, `centralize_gradients`, `adaptive_clip`, rule, `cautious_update`,
    `lookahead`; and that of `around.py` in what it leaves open: the sign of `maximize` comes first, L2 and L1 last into
    the gradient, which the mask sees too; the step as it is taken says where a parameter shrinks (arXiv:2510.12402,
    algorithm 1); and the slow weights follow what has shrunk (arXiv:1907.08610, algorithm 1).
    """
    o, (own, rule), ahead = case.options, RULES[case.ours], case.options.get("lookahead")
    params, states = start(False), [defaultdict(float) for _ in SHAPES]
    slow, t = list(params), 0
    for step, drawn in enumerate(gradients(False, case.spoilt), 1):
        lr, finite = lr_at(step), all(np.isfinite(g).all() for g in drawn)
        t += finite
        for i, (p, g) in enumerate(zip(params, drawn, strict=True) if finite else ()):
            g = -g if o.get("maximize") else g
            g = centralized(g) if o.get("centralize_gradients") else g
            g = clipped(g, p, o["adaptive_clip"]) if o.get("adaptive_clip") else g
            g = g + DECAY * {"l2": p, "l1": np.sign(p)}.get(case.mode, 0)
            u = rule(p, g, t, states[i], lr=lr, **own)
            u = cautious(u, g) if o.get("cautious_update") else u
            p = p - shrink(case.mode, lr) * p * (u * p >= 0 if o.get("cautious_decay") else 1) - u
            if ahead and t % ahead["k"] == 0:
                p = slow[i] = slow[i] + ahead["alpha"] * (p - slow[i])
            params[i] = p
        yield list(params)


EQUATIONS = [
    *around_each(list(RULES), ALL, [*decay("l2", "l1"), *SHRINKING, *CAUTIOUS_DECAY], spoilt=SPOILT),
    *around_each(list(RULES), CENTRALIZE, EITHER),
    *around_each(list(RULES), CLIP, EITHER),
    *around_each(list(RULES), CAUTIOUS, EITHER),
    *around_each(list(RULES), FINITE, EITHER, spoilt=SPOILT),
    *around_each(list(RULES), AHEAD, EITHER),
    # Nobody else here has it; optax's main branch does, with the same mask.
    *around_each(list(RULES), {}, CAUTIOUS_DECAY),
]


@pytest.mark.parametrize("case", EQUATIONS, ids=str)
def test_equations(case: Case):
    assert_together(case.drive_ours(), drive_all(case))


@pytest.mark.parametrize("key", [*ALL, "weight_decay", "cautious_decay"])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_each_of_all_is_seen(rule: Any, key: str):
    """Without it the parameters go somewhere else."""
    (case,) = around_each([rule], ALL, CAUTIOUS_DECAY[:1], spoilt=SPOILT)
    without = {name: value for name, value in case.options.items() if name != key}
    without |= {"weight_decay": 0.0} if key == "weight_decay" else {}
    *_, end = case.drive_ours()
    *_, other = case._replace(options=without).drive_ours()
    apart = [np.abs(p - q).max() for p, q in zip(end, other, strict=True)]
    assert not np.max(apart) < 0.01  # nan is not


def test_what_nearly_nothing_agrees_with_is_enlarged_a_thousandfold():
    """The bound of the authors' code, which only a larger tensor than those above comes to."""
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
    """The rule without modifiers, as other people have it."""
    decoupled = case.mode == "decoupled"
    if case.ours == "AdamW":
        return partial(torch.optim.Adam, **SHORT, weight_decay=weight_decay, decoupled_weight_decay=decoupled)
    cls, given = (library.Lion, SIGNS) if case.ours == "Lion" else (library.SGDW, {"momentum": 0.9})
    return partial(cls, **given, weight_decay=weight_decay, weight_decouple=decoupled)


class Prepared:
    """An optimizer of torch's kind; before its step something is done to each gradient."""

    def __init__(self, optimizer: Any, prepare: Callable[[Any, Any], Any]) -> None:
        self.optimizer, self.param_groups, self.prepare = optimizer, optimizer.param_groups, prepare

    def step(self) -> None:
        for p in self.param_groups[0]["params"]:
            p.grad = self.prepare(p.detach(), p.grad)
        self.optimizer.step()


class Cautious:
    """An optimizer of torch's kind without decay: of its step it takes what a mask leaves."""

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
    """It counts the steps of a group; ours are each parameter's, the same while all have gradients."""
    make = plain(library, case)
    return lambda params, lr: library.Lookahead(make(params, lr=lr), **case.options["lookahead"])


def agc(library: Any, case: Case) -> Callable[..., Any]:
    """In three dimensions its norms are over the second only, in four over all but the first, as the paper's and ours.

    Below 1e-6 it takes a gradient's norm for that, which here none is that would be clipped.
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
    """Its mask, which has d / (nnz + 1) as algorithm 2 of the paper, with the d / nnz of the authors' code."""

    def mask(step: Any, grad: Any) -> None:
        apply_cautious(step, grad)
        left = int(step.count_nonzero())
        step.mul_((left + 1) / max(left, 1))

    return mask


def masked(library: Any, case: Case) -> Callable[..., Any]:
    make, mask = plain(library, case, weight_decay=0.0), in_full(library.Lion.apply_cautious)
    return lambda params, lr: Cautious(make(params, lr=lr), case.mode, mask)


def built_in(library: Any, case: Case) -> Callable[..., Any]:
    """Its own `cautious`; without the slow average, which its mask does not touch, its AdEMAMix is AdamW."""
    no_slow = {"betas": (*SHORT["betas"], 0.9), "eps": SHORT["eps"], "alpha": 0.0}
    cls, given = (library.Lion, SIGNS) if case.ours == "Lion" else (library.AdEMAMix, no_slow)
    theirs = type(cls.__name__, (cls,), {"apply_cautious": staticmethod(in_full(cls.apply_cautious))})
    return partial(theirs, **given, weight_decay=DECAY, weight_decouple=case.mode == "decoupled", cautious=True)


PYTORCH_OPTIMIZER = [
    *around_each(SINGLE, CENTRALIZE, EITHER, centralization),
    *around_each(SINGLE, CLIP, EITHER, agc),
    *around_each(SINGLE, CAUTIOUS, EITHER, masked),
    *around_each(SINGLE[:2], CAUTIOUS, EITHER, built_in),
    *around_each(SINGLE, AHEAD, EITHER, lookahead),
]


@pytest.mark.parametrize("case", PYTORCH_OPTIMIZER, ids=lambda case: f"{case.theirs.__name__},{case}")
def test_pytorch_optimizer(case: Case):
    make = case.theirs(pytest.importorskip("pytorch_optimizer"), case)
    assert_together(case.drive_ours(), drive(make, False, lambda lr, t: {"lr": lr}))


# optax


def optax_centralize(ox: Any, rule: Any, lr: Callable[[Any], float], mode: str) -> Any:
    return ox.chain(ox.centralize(), around(ox, rule, lr, mode))


def optax_clip(ox: Any, rule: Any, lr: Callable[[Any], float], mode: str) -> Any:
    """Its rows are those of JAX's layouts, slices along the last dimension; here `axis` says what torch's are.

    Without it, in three dimensions its norms are over the first only, and a matrix of one column is a vector.
    """

    def rows(g: Any, p: Any) -> Any:
        clip = ox.adaptive_grad_clip(CLIP["adaptive_clip"], axis=tuple(range(1, g.ndim)) or None)
        return clip.update(g, clip.init(p), p)[0]

    clip = ox.stateless(lambda gs, ps: [rows(g, p) for g, p in zip(gs, ps, strict=True)])
    return ox.chain(clip, around(ox, rule, lr, mode))


def optax_finite(ox: Any, rule: Any, lr: Callable[[Any], float], mode: str) -> Any:
    """The lr stands outside: inside, a schedule would not count the steps that are left out. And `STEPS` of them may be
    in succession, where ours knows no limit.
    """
    import jax

    finite = ox.apply_if_finite(around(ox, rule, lambda count: 1.0, mode), STEPS)
    return ox.chain(finite._replace(update=jax.jit(finite.update)), ox.scale_by_schedule(lr))


def optax_lookahead(ox: Any, rule: Any, lr: Callable[[Any], float], mode: str) -> Any:
    """With its slow weights in the state, as ours."""
    k, alpha = AHEAD["lookahead"].values()
    pair = ox.lookahead(around(ox, rule, lr, mode), sync_period=k, slow_step_size=alpha)

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
        *around_each(SINGLE, CENTRALIZE, EITHER, optax_centralize),
        *around_each(SINGLE, CLIP, EITHER, optax_clip),
        *around_each(SINGLE, FINITE, EITHER, optax_finite, spoilt=SPOILT),
        *around_each(SINGLE, AHEAD, EITHER, optax_lookahead),
    )
]


@pytest.mark.parametrize("case", OPTAX, ids=str)
def test_optax(case: Case, elsewhere: ProcessPoolExecutor):
    pytest.importorskip("optax")
    assert_together(case.drive_ours(), elsewhere.submit(drive_optax, __name__, OPTAX.index(case)).result())
