"""F8, F10, F14: param groups, models, algorithms and configs that change between runs; rules that match nothing."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory, StagedUnfreeze
from tests.reliability.scoreboard.outcome import REFUSED, Cell, Outcome, Tier, Verdict, compare, refusal
from tests.support.equality import equal
from tests.support.loading_runs import (
    CHANGES,
    CONFIGS,
    SAME_VALUES,
    SAVED,
    OtherModel,
    build,
    build_factory,
    run,
    saved_states,
    states_by_name,
    values_by_name,
)
from tests.support.misfits import MODELS, OTHER_ALGORITHMS
from tests.support.models import Deep, Tied, weights_of
from tests.support.save_and_load import save_and_load
from tests.support.schedule_resumes import KINDS, expected_outcome, resume

SCALARS = ("lr", "betas", "momentum", "weight_decay", "eps", "algorithm")


def regrouped(config: str, change: str, folder: Path) -> Outcome:
    """F8: other rules: each parameter has its own state, and the values that its new group configures."""
    del folder
    state_dict, states = saved_states(config, "same")
    model = Deep()
    optimizer = build(config, change, model)
    expected_values = _values(build(config, change, other := Deep()), other)
    optimizer.load_state_dict(state_dict)
    loaded = compare([states, expected_values], [states_by_name(model, optimizer), _values(optimizer, model)])
    if loaded.verdict is not Verdict.EXACT or change not in SAME_VALUES:
        return loaded
    return compare(*_continue_both(config, change))


def _values(optimizer: Any, model: nn.Module) -> dict[str, list[Any]]:
    return values_by_name(model, optimizer, *SCALARS)


def _continue_both(config: str, change: str) -> tuple[Any, Any]:
    """The weights of the next steps: of the uninterrupted run, and of one with other groups."""
    model = Deep()
    optimizer = build(config, "same", model)
    run(model, optimizer, 0, 4)
    resumed_model = Deep()
    resumed = build(config, change, resumed_model)
    resumed_model.load_state_dict(model.state_dict())
    resumed.load_state_dict(save_and_load(optimizer.state_dict()))
    return run(model, optimizer, 4, 8), run(resumed_model, resumed, 4, 8)


def refused_load(build_saved: Callable[[], Any], build_own: Callable[[], Any], folder: Path) -> Outcome:
    """F8: a load that must be refused, and must change nothing.

    Args:
        build_saved: a model and its optimizer, after a few steps.
        build_own: those that the state is loaded into.
        folder: unused.
    """
    del folder
    state_dict = save_and_load(build_saved()[1].state_dict())
    model, optimizer = build_own()
    run(model, optimizer, 0, 2)
    before = copy.deepcopy([optimizer.state_dict(), weights_of(model)])
    try:
        optimizer.load_state_dict(state_dict)
    except ConfigError as error:
        outcome = refusal(error)
    else:
        return Outcome(Verdict.SILENT_WRONG, "it was loaded")
    if not equal(before, [optimizer.state_dict(), weights_of(model)]):
        return Outcome(Verdict.SILENT_WRONG, f"it was refused, and has changed the optimizer: {outcome.detail}")
    return outcome


def trained(factory: OptimizerFactory, make_model: Callable[[], Any] = Deep, num_steps: int = 4) -> tuple[Any, Any]:
    """A model and its optimizer, after a few steps."""
    model = make_model()
    optimizer = factory(model)
    run(model, optimizer, 0, num_steps)
    return model, optimizer


EDITS: dict[str, tuple[dict[str, Any], str, Any]] = {
    "lr": ({"lr": 0.08}, "lr", 0.08),
    "betas": ({"betas": [0.5, 0.75]}, "betas", (0.5, 0.75)),
    "eps": ({"eps": 1e-3}, "eps", 1e-3),
    "weight_decay": ({"weight_decay": 0.5}, "weight_decay", 0.5),
    "maximize": ({"maximize": True}, "maximize", True),
}
EDITED = {"torch's adamw": {}, "our adamw": {"implementation": "own"}, "lookahead": {"lookahead": {"k": 2}}}


def edited(setting: str, edit: str, folder: Path) -> Outcome:
    """F10: the edited value wins and no other changes: as if it had been set in the running optimizer."""
    del folder
    given, key, value = EDITS[edit]
    base = {"lr": 0.04, **EDITED[setting]}
    model, optimizer = trained(OptimizerFactory("adamw", **base))
    resumed_model = Deep()
    resumed = OptimizerFactory("adamw", **{**base, **given})(resumed_model)
    resumed_model.load_state_dict(model.state_dict())
    resumed.load_state_dict(save_and_load(optimizer.state_dict()))
    for group in optimizer.param_groups:
        group[key] = value
    return compare(run(model, optimizer, 4, 8), run(resumed_model, resumed, 4, 8))


def reordered_rules(config: str, seed: int, folder: Path) -> Outcome:
    """F10: the order of the rules in the config means nothing."""
    del folder
    top, always = CONFIGS[config]
    rules = list({**always, **SAVED}.items())
    random.Random(seed).shuffle(rules)
    model, optimizer = trained(build_factory(config, SAVED))
    resumed_model = Deep()
    resumed = OptimizerFactory(**top, groups=dict(reversed(rules)))(resumed_model)
    resumed_model.load_state_dict(model.state_dict())
    resumed.load_state_dict(save_and_load(optimizer.state_dict()))
    return compare(run(model, optimizer, 4, 8), run(resumed_model, resumed, 4, 8))


def other_schedule(saved: tuple[str, str], own: tuple[str, str], on_resume: str, folder: Path) -> Outcome:
    """F10: another schedule: refused under `continue`, else the config's curve from here or from its start."""
    del folder
    outcome = resume(saved, own, on_resume)
    return Outcome(Verdict(outcome)) if outcome in ("exact", "refused") else Outcome(Verdict.SILENT_WRONG, outcome)


class Frozen(Deep):
    """Requires no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


EMPTY: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], str]] = {
    "a rule matches nothing": (Deep, {"x": {"params": "decoder", "lr": 0.1}}, "refused"),
    "a rule may match nothing": (Deep, {"x": {"params": "decoder", "allow_empty": True, "lr": 0.1}}, "exact"),
    "a rule matches only frozen parameters": (Frozen, {"x": {"params": "head", "lr": 0.1}}, "warned"),
    "a rule freezes everything": (Deep, {"x": {"params": "*", "frozen": True}}, "refused"),
    "a rule takes everything": (Deep, {"x": {"params": "*", "lr_scale": 1.0}}, "exact"),
    "a tied parameter under two rules": (
        Tied, {"a": {"params": "embed.weight", "lr": 0.1}, "b": {"params": "head.weight", "lr": 0.2}}, "refused",
    ),
    "a parameter twice": (Deep, {}, "exact"),
    "no parameters": (nn.Module, {}, "refused"),
}  # fmt: skip
"""By fault: the model, the rules, and how it must end; in `warned` the model trains as without the rule."""


def empty(fault: str, algorithm: str, folder: Path) -> Outcome:
    """F14: refused or warned as documented; else the model trains as without the rule."""
    del folder
    make_model, rules, must = EMPTY[fault]
    torch.manual_seed(0)
    model = make_model()
    params: Any = model
    if fault == "a parameter twice":
        params = [*model.named_parameters(), *model.named_parameters()]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer = OptimizerFactory(algorithm, lr=0.01, groups=rules)(params)
    if must == "refused":
        return Outcome(Verdict.SILENT_WRONG, "it was built")
    if bool(caught) != (must == "warned"):
        return Outcome(Verdict.SILENT_WRONG, f"warnings: {[str(warning.message) for warning in caught]}")
    if must == "warned":
        return Outcome(Verdict.REFUSED, f"warned: {caught[0].message}")
    other = make_model()
    other.load_state_dict(model.state_dict())
    expected = run(other, OptimizerFactory(algorithm, lr=0.01)(other), 0, 4)
    return compare(expected, run(model, optimizer, 0, 4))


STAGES: dict[str, dict[str, Any]] = {
    "a stage claims nothing": {"head": {"params": "head"}, "x": {"params": "decoder", "at": {"epoch": 1}}},
    "a parameter that no stage claims": {"head": {"params": "head"}},
    "no stage is trained from the start": {"all": {"params": "*", "at": {"epoch": 1}}},
    "two stages claim all": {"a": {"params": "*"}, "b": {"params": "*", "at": {"epoch": 1}}},
}


def wrong_stages(fault: str, folder: Path) -> Outcome:
    """F14: a plan that does not fit the model."""
    del folder
    StagedUnfreeze(STAGES[fault]).explain(Deep())
    return Outcome(Verdict.SILENT_WRONG, "the plan was made")


def cells(seed: int) -> Iterator[Cell]:
    """The cells of F8, F10 and F14; the seed shuffles rules."""
    for position, (config, change) in enumerate(product(CONFIGS, CHANGES)):
        run_cell = partial(regrouped, config, change)
        yield _cell("F8", f"groups: {change}", config, run_cell, slow=position % 4 == 0, fast=position % 16 == 2)
    for position, (config, (name, (given, _)), into) in enumerate(product(CONFIGS, MODELS.items(), (True, False))):
        other, own = partial(OtherModel, **given), Deep
        saved, loaded = (own, other) if into else (other, own)
        factory = build_factory(config, SAVED)
        load = partial(refused_load, partial(trained, factory, saved), partial(_untrained, factory, loaded))
        fault = f"{'into' if into else 'of'} a model with {name}"
        yield _cell("F8", fault, config, load, slow=position % 8 == 0, fast=position == 3, allowed=REFUSED)
    for position, (name, ((saved_name, saved_given), (own_name, own_given), _)) in enumerate(OTHER_ALGORITHMS.items()):
        load = partial(
            refused_load,
            partial(trained, OptimizerFactory(saved_name, **saved_given)),
            partial(_untrained, OptimizerFactory(own_name, **own_given), Deep),
        )
        yield _cell("F8", "another algorithm", name, load, slow=position % 4 == 0, fast=position == 1, allowed=REFUSED)
    for setting, edit in product(EDITED, EDITS):
        yield _cell("F10", f"{edit} edited", setting, partial(edited, setting, edit), slow=True, fast=edit == "lr")
    for config in CONFIGS:
        fault = f"rules in another order, seed {seed}"
        yield _cell("F10", fault, config, partial(reordered_rules, config, seed), slow=config == "muon + adamw")
    ends = [(kind, interval) for kind in KINDS for interval in ("step", "epoch")]
    for position, (saved, own, how) in enumerate(product(ends, ends, ("continue", "extend", "restart"))):
        fault, mechanism = f"{' by '.join(saved)} edited to {' by '.join(own)}", f"SchedulerFactory, on_resume: {how}"
        allowed = frozenset({Verdict(expected_outcome(saved, own, how))})
        edit_cell = partial(other_schedule, saved, own, how)
        yield _cell("F10", fault, mechanism, edit_cell, slow=position % 40 == 0, allowed=allowed)
    for fault, algorithm in product(EMPTY, ("adamw", "lion", "sgd")):
        allowed = frozenset({Verdict.EXACT if EMPTY[fault][2] == "exact" else Verdict.REFUSED})
        run_cell = partial(empty, fault, algorithm)
        yield _cell("F14", fault, algorithm, run_cell, slow=True, fast=algorithm == "adamw", allowed=allowed)
    for fault in STAGES:
        yield _cell("F14", fault, "StagedUnfreeze", partial(wrong_stages, fault), slow=True, fast=True, allowed=REFUSED)


def _untrained(factory: OptimizerFactory, make_model: Callable[[], Any]) -> tuple[Any, Any]:
    return trained(factory, make_model, num_steps=0)


def _cell(
    family: str,
    fault: str,
    mechanism: str,
    run: Callable[[Path], Outcome],
    *,
    slow: bool = False,
    fast: bool = False,
    allowed: frozenset[Verdict] = frozenset({Verdict.EXACT}),
) -> Cell:
    tier: Tier = "fast" if fast else "slow" if slow else "full"
    return Cell(family=family, fault=fault, mechanism=mechanism, run=run, tier=tier, allowed=allowed)
