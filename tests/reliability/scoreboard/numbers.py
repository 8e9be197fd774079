"""F11, F12, F13: gradients that are not finite, overflows of a GradScaler, gradients that are awkward."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_optim import ConfigError, OptimizerFactory
from tests.reliability.scoreboard.outcome import REFUSED, Cell, Outcome, Tier, Verdict, compare, refusal
from tests.support.composites import PAIRS
from tests.support.equality import equal
from tests.support.layouts import LAYOUTS, lay_out
from tests.support.models import Deep, Tied, weights_of
from tests.support.optimizer_runs import (
    MEMBERS,
    MEMBERS_WITH_TWO_GRADIENTS,
    give_hessian,
    native_class,
    new_grads,
    new_params,
    set_grads,
)

Script = list[list[Tensor | None]]
CONTROLS = ("adamw", "sgd", "lion", "prodigy", "sophia_g")
"""The members that the slow tests try."""
COMPOSITES = {
    "lion + adamw, both skip": {"skip_nonfinite": True, "hidden": {"optimizer": "lion", "skip_nonfinite": True}},
    "muon + adamw, one skips": {"skip_nonfinite": True, "hidden": {"optimizer": "muon"}},
}
NUM_STEPS = 12
SUMS = ("lamb", "lars", "novograd", "adamp", "adam_mini", "ef_sgd", "prodigy", "mars", "stable_adamw", "adai")
"""Members whose rule sums over a tensor, in the order of its memory: other layouts round differently."""


def step_through(optimizer: Optimizer, params: Sequence[nn.Parameter], script: Script) -> None:
    for grads in script:
        set_grads(params, grads)
        optimizer.step()


def read(optimizer: Optimizer, params: Sequence[Tensor]) -> tuple[list[Tensor], list[dict[str, Any]], list[int]]:
    """The parameters, their states, and how many steps each has skipped."""
    states = [dict(optimizer.state[param]) for param in params]
    skipped = [int(state.pop("skipped", 0)) for state in states]
    return [param.detach() for param in params], states, skipped


# F11


def build_skipping(name: str, params: list[nn.Parameter], foreach: bool) -> Optimizer:
    """An optimizer that skips steps with gradients that are not finite."""
    if name in COMPOSITES:
        given = dict(COMPOSITES[name])
        rule = {"params": "hidden*", "lr": 0.02, **given.pop("hidden")}
        named = [(f"{'hidden' if p.ndim == 2 else 'rest'}{i}", p) for i, p in enumerate(params)]
        return OptimizerFactory("adamw", lr=0.02, foreach=foreach, groups={"hidden": rule}, **given)(named)
    return native_class(name)(params, lr=0.02, skip_nonfinite=True, foreach=foreach)


def nonfinite(name: str, where: str, value: float, num_bad: int, foreach: bool, folder: Path) -> Outcome:
    """F11: as if the batches with such gradients did not exist; the skipped steps are counted."""
    del folder
    script = new_grads(num_steps=NUM_STEPS)
    bad = range(4, 4 + num_bad)
    poisoned = copy.deepcopy(script)
    for step in bad:
        grads = [grad for grad in poisoned[step] if grad is not None and grad.numel()]
        for grad in grads if where == "all parameters" else grads[:1]:
            (grad.view(-1)[-1:] if where == "one element" else grad).fill_(value)
    params, expected = new_params(), new_params()
    optimizer, reference = (build_skipping(name, own, foreach) for own in (params, expected))
    for one, own in ((optimizer, params), (reference, expected)):
        give_hessian(one, own)
    step_through(optimizer, params, poisoned)
    step_through(reference, expected, [grads for step, grads in enumerate(script) if step not in bad])
    weights, states, skipped = read(optimizer, params)
    # A parameter that had no gradient in a step has not skipped it; torch's classes do not count.
    due = [sum(script[step][index] is not None for step in bad) for index in range(len(params))]
    if "muon" in name:
        due = [0 if param.ndim == 2 else count for param, count in zip(params, due, strict=True)]
    if skipped != due:
        return Outcome(Verdict.SILENT_WRONG, f"{due} steps were skipped, and counted as {skipped}")
    return compare(read(reference, expected)[:2], (weights, states))


# F12


def build_scaled(name: str, model: nn.Module) -> Optimizer:
    """An optimizer of a factory, or our class of a member."""
    if name in PAIRS:
        return PAIRS[name][0](model)
    return OptimizerFactory(name, lr=0.01, implementation="own")(model)


def overflow(name: str, bad: tuple[int, ...], clip: bool, folder: Path) -> Outcome:
    """F12: as if the batches that overflow did not exist; powers of two scale without rounding."""
    del folder
    model, other = Deep(), Deep()
    optimizer, reference = build_scaled(name, model), build_scaled(name, other)
    for one, module in ((optimizer, model), (reference, other)):
        give_hessian(one, module.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for t in range(8):
        scaler.scale(model.loss(t)).backward()
        if t in bad:
            model.head.bias.grad[0] = torch.inf  # type: ignore[index]
        if clip:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if t not in bad:
            other.loss(t).backward()
            if clip:
                nn.utils.clip_grad_norm_(other.parameters(), 0.05)
            reference.step()
            reference.zero_grad()
    if scaler.get_scale() != 2.0 ** (10 - len(bad)):
        return Outcome(Verdict.SILENT_WRONG, f"the scale is {scaler.get_scale()}")
    return compare([weights_of(other), reference.state_dict()], [weights_of(model), optimizer.state_dict()])


def unscaled_twice(name: str, folder: Path) -> Outcome:
    """F12: torch refuses it, and nothing changes."""
    del folder
    model = Deep()
    optimizer = build_scaled(name, model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaler.scale(model.loss()).backward()
    scaler.unscale_(optimizer)
    before = copy.deepcopy([weights_of(model), optimizer.state_dict()])
    try:
        scaler.unscale_(optimizer)
    except RuntimeError as error:
        if not equal(before, [weights_of(model), optimizer.state_dict()]):
            return Outcome(Verdict.SILENT_WRONG, "it was refused, and something has changed")
        return Outcome(Verdict.REFUSED, f"by torch: {error}")
    return Outcome(Verdict.SILENT_WRONG, "it was unscaled twice")


# F13


def laid_out(name: str, layout: str, foreach: bool, folder: Path) -> Outcome:
    """F13: parameters and gradients in another memory layout move as contiguous ones do."""
    del folder
    script = new_grads(num_steps=6)
    expected = new_params()
    reference = native_class(name)(expected, lr=0.02, foreach=False)
    params = [nn.Parameter(lay_out(param.detach(), layout)) for param in new_params()]
    optimizer = native_class(name)(params, lr=0.02, foreach=foreach)
    for one, own in ((reference, expected), (optimizer, params)):
        give_hessian(one, own)
    step_through(reference, expected, script)
    for grads in script:
        for param, grad in zip(params, grads, strict=True):
            param.grad = None if grad is None else lay_out(grad, layout)
        optimizer.step()
    return compare([param.detach() for param in expected], [param.detach().contiguous() for param in params])


def with_zero_size(name: str, foreach: bool, folder: Path) -> Outcome:
    """F13: a parameter without elements changes nothing for the others."""
    del folder
    expected, params = new_params(), new_params()
    reference = native_class(name)(expected, lr=0.02, foreach=foreach)
    none = nn.Parameter(torch.zeros(0, 3))
    optimizer = native_class(name)([params[0], none, *params[1:]], lr=0.02, foreach=foreach)
    for one, own in ((reference, expected), (optimizer, params)):
        give_hessian(one, own)
    for grads in new_grads(num_steps=6):
        none.grad = torch.zeros(0, 3)
        for one, own in ((reference, expected), (optimizer, params)):
            set_grads(own, grads)
            one.step()
    return compare(read(reference, expected), read(optimizer, params))


def without_gradient(name: str, foreach: bool, folder: Path) -> Outcome:
    """F13: gradients that are None now and then or zero, 0-dim: lists are the loop, and None is no step."""
    del folder
    script = new_grads(num_steps=NUM_STEPS)
    expected, params = new_params(), new_params()
    reference = native_class(name)(expected, lr=0.02, foreach=False)
    optimizer = native_class(name)(params, lr=0.02, foreach=foreach)
    for one, own in ((reference, expected), (optimizer, params)):
        give_hessian(one, own)
    for grads in script:
        before = copy.deepcopy(read(optimizer, params))
        for one, own in ((reference, expected), (optimizer, params)):
            set_grads(own, grads)
            one.step()
        for index, grad in enumerate(grads):
            if grad is None and not equal([part[index] for part in before[:1]], [params[index].detach()]):
                return Outcome(Verdict.SILENT_WRONG, f"parameter {index} has moved without a gradient")
    return compare(read(reference, expected), read(optimizer, params))


def sparse(name: str, folder: Path) -> Outcome:
    """F13: a sparse gradient is refused, and nothing changes."""
    del folder
    params = [nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(4, 3))]
    optimizer = native_class(name)(params, lr=0.02)
    give_hessian(optimizer, params)
    params[0].grad = torch.ones(4, 3)
    params[1].grad = torch.ones(4, 3).to_sparse()
    before = copy.deepcopy([params, optimizer.state_dict()])
    try:
        optimizer.step()
    except ConfigError as error:
        if not equal([p.detach() for p in before[0]], [p.detach() for p in params]):  # type: ignore[attr-defined]
            return Outcome(Verdict.SILENT_WRONG, "it was refused, and a parameter has moved")
        return refusal(error)
    return Outcome(Verdict.SILENT_WRONG, "it was stepped")


def complex_numbers(name: str, foreach: bool, folder: Path) -> Outcome:
    """F13: a complex parameter is a pair of real ones."""
    del folder
    generator = torch.Generator().manual_seed(0)
    value, *grads = (torch.randn(5, dtype=torch.complex64, generator=generator) for _ in range(7))
    param, pair = nn.Parameter(value.clone()), nn.Parameter(torch.view_as_real(value.clone()))
    optimizer, reference = (native_class(name)([own], lr=0.02, foreach=foreach) for own in (param, pair))
    for grad in grads:
        param.grad, pair.grad = grad.clone(), torch.view_as_real(grad.clone())
        optimizer.step()
        reference.step()
    return compare(pair.detach(), torch.view_as_real(param.detach()))


def shared(name: str, folder: Path) -> Outcome:
    """F13: a matrix under two names is stepped once."""
    del folder
    model, other = Tied(), Tied()
    other.load_state_dict(model.state_dict())
    optimizer = OptimizerFactory(name, lr=0.02, implementation="own")(model)
    reference = native_class(name)(list(other.parameters()), lr=0.02)
    for one, module in ((optimizer, model), (reference, other)):
        give_hessian(one, module.parameters())
    for step in range(5):
        for one, module in ((optimizer, model), (reference, other)):
            one.zero_grad()
            rows = torch.tensor([step % 5, 2])
            module.head(module.embed(rows)).square().mean().backward()
            one.step()
    return compare(weights_of(other), weights_of(model))


AWKWARD: dict[str, Callable[[str, bool, Path], Outcome]] = {
    "zero-size parameter": with_zero_size,
    "None, zero, 0-dim, frozen for a while": without_gradient,
    "complex parameter": complex_numbers,
}


def cells(seed: int) -> Iterator[Cell]:
    """The cells of F11, F12 and F13."""
    del seed
    skipping = [*(name for name in MEMBERS if name not in MEMBERS_WITH_TWO_GRADIENTS), *COMPOSITES]
    places = ("one element", "one parameter", "all parameters")
    values = (math.nan, math.inf, -math.inf)
    for name, where, value, num_bad, foreach in product(skipping, places, values, (1, 5), (True, False)):
        fault = f"{value} in {where}, {num_bad} steps"
        run = partial(nonfinite, name, where, value, num_bad, foreach)
        is_slow = foreach and num_bad == 5 and where != "one parameter" and value != math.inf
        is_fast = is_slow and where == "one element" and name == "adamw"
        yield _cell("F11", fault, f"{name}, {_execution(foreach)}", run, name, slow=is_slow, fast=is_fast)
    for name in MEMBERS_WITH_TWO_GRADIENTS:
        run = partial(nonfinite, name, "one element", math.nan, 1, True)
        yield _cell("F11", "skipping where a step takes two gradients", name, run, name, slow=True, allowed=REFUSED)
    scaled = [*(name for name in MEMBERS if name not in MEMBERS_WITH_TWO_GRADIENTS), *PAIRS]
    for name, bad, clip in product(scaled, ((0,), (3,), (2, 3), (0, 4, 7)), (True, False)):
        fault = f"overflow in steps {bad}{', clipped' if clip else ''}"
        is_slow, is_fast = bad == (2, 3), bad == (2, 3) and clip and name == "adamw"
        yield _cell("F12", fault, name, partial(overflow, name, bad, clip), name, slow=is_slow, fast=is_fast)
    for name in scaled:
        yield _cell("F12", "unscaled twice", name, partial(unscaled_twice, name), name, slow=True, allowed=REFUSED)
    for name in (name for name in MEMBERS if name not in MEMBERS_WITH_TWO_GRADIENTS):
        for foreach in (True, False):
            mechanism = f"{name}, {_execution(foreach)}"
            for layout in LAYOUTS if name not in SUMS else ():
                run = partial(laid_out, name, layout, foreach)
                yield _cell("F13", f"memory layout: {layout}", mechanism, run, name, slow=layout == "slice")
            for fault, function in AWKWARD.items():
                is_fast = foreach and name == "adamw" and "None" in fault
                run = partial(function, name, foreach)
                yield _cell("F13", fault, mechanism, run, name, slow=foreach, fast=is_fast)
        is_fast = name == "adamw"
        yield _cell(
            "F13", "sparse gradient", name, partial(sparse, name), name, slow=True, fast=is_fast, allowed=REFUSED
        )
        yield _cell("F13", "tied parameters", name, partial(shared, name), name, slow=True)


def _execution(foreach: bool) -> str:
    return "lists" if foreach else "loop"


def _cell(
    family: str,
    fault: str,
    mechanism: str,
    run: Callable[[Path], Outcome],
    name: str,
    *,
    slow: bool = False,
    fast: bool = False,
    allowed: frozenset[Verdict] = frozenset({Verdict.EXACT}),
) -> Cell:
    is_slow = slow and (name in CONTROLS or name in COMPOSITES or name == "muon + adamw")
    tier: Tier = "fast" if fast else "slow" if is_slow else "full"
    return Cell(family=family, fault=fault, mechanism=mechanism, run=run, tier=tier, allowed=allowed)
