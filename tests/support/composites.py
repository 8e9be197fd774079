"""A model with hidden matrices, factories of composites over it, and checks of what a composite shares."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_optim import ConfigError, OptimizerFactory, optim
from tests.support.equality import equal
from tests.support.models import Deep, weights_of

HIDDEN = {"params": "backbone", "kinds": ["matrix"]}
CLIP = 0.05


def is_hidden(name: str, parameter: Tensor) -> bool:
    return name.startswith("backbone") and parameter.ndim == 2


def parts_of(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters of the main algorithm, then those of the rule."""
    named = list(model.named_parameters())
    return [p for n, p in named if not is_hidden(n, p)], [p for n, p in named if is_hidden(n, p)]


# name -> the factory, then what builds the same two optimizers by hand: of its main parameters, of its hidden matrices.
PAIRS: dict[str, tuple[OptimizerFactory, Any, Any]] = {
    "muon + adamw": (
        OptimizerFactory("adamw", groups={"hidden": {**HIDDEN, "optimizer": "muon", "lr": 0.02}}),
        partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.01, fused=True),
        partial(torch.optim.Muon, lr=0.02),
    ),
    "lion + sgd": (
        OptimizerFactory("sgd", lr=0.05, momentum=0.9, groups={"hidden": {**HIDDEN, "optimizer": "lion", "lr": 0.01}}),
        partial(torch.optim.SGD, lr=0.05, momentum=0.9, fused=True),
        partial(optim.Lion, lr=0.01),
    ),
    "adabelief, ours, + adamw, torch's": (
        OptimizerFactory("adamw", lr=0.01, groups={"hidden": {**HIDDEN, "optimizer": "adabelief", "lr": 0.02}}),
        partial(torch.optim.AdamW, lr=0.01, weight_decay=0.01, fused=True),
        partial(optim.AdaBelief, lr=0.02),
    ),
    "rmsprop, torch's, + adam, ours": (
        OptimizerFactory(
            "adam",
            lr=0.01,
            weight_decay=0.1,
            weight_decay_mode="relative",
            groups={"hidden": {**HIDDEN, "optimizer": "rmsprop", "lr": 0.02, "momentum": 0.5}},
        ),
        partial(optim.Adam, lr=0.01, weight_decay=0.1, weight_decay_mode="relative"),
        partial(torch.optim.RMSprop, lr=0.02, momentum=0.5),
    ),
    "adagrad + muon": (
        OptimizerFactory(
            "muon", lr=0.02, groups={"rest": {"params": ["backbone.1", "head", "*.bias"], "optimizer": "adagrad"}}
        ),
        partial(torch.optim.Adagrad, lr=0.01, fused=True),
        partial(torch.optim.Muon, lr=0.02),
    ),
    "adagrad + lion": (
        OptimizerFactory(
            "lion",
            lr=0.01,
            groups={"hidden": {**HIDDEN, "optimizer": "adagrad", "lr": 0.1, "initial_accumulator_value": 0.5}},
        ),
        partial(optim.Lion, lr=0.01),
        partial(torch.optim.Adagrad, lr=0.1, initial_accumulator_value=0.5, fused=True),
    ),
}
MUON_ADAMW = PAIRS["muon + adamw"][0]
each_pair = pytest.mark.parametrize(("factory", "main", "hidden"), PAIRS.values(), ids=PAIRS)
each_factory = pytest.mark.parametrize("factory", [factory for factory, *_ in PAIRS.values()], ids=PAIRS)


def by_hand(model: nn.Module, main: Any, hidden: Any) -> list[Optimizer]:
    rest, matrices = parts_of(model)
    return [main(rest), hidden(matrices)]


def fit(model: Deep, optimizers: list[Any], first: int = 0, last: int = 6, accumulate: int = 4) -> list[list[Tensor]]:
    """The weights after each step, with `accumulate` batches a step and clipped gradients."""
    weights = []
    for t in range(first, last):
        for micro in range(accumulate):
            (model.loss(10 * t + micro) / accumulate).backward()
        assert nn.utils.clip_grad_norm_(model.parameters(), CLIP) > CLIP, "nothing to clip"
        for optimizer in optimizers:
            optimizer.step()
        for optimizer in optimizers:
            optimizer.zero_grad()
        weights.append(weights_of(model))
    return weights


def trained(factory: OptimizerFactory = MUON_ADAMW, num_steps: int = 3) -> tuple[Deep, Any]:
    model = Deep()
    optimizer = factory(model)
    fit(model, [optimizer], last=num_steps)
    return model, optimizer


def check_children_share(optimizer: Any) -> None:
    """The children have the composite's own group dicts and its state."""
    for name, child in optimizer.children.items():
        mine = [group for group in optimizer.param_groups if group["algorithm"] == name]
        assert len(mine) == len(child.param_groups)
        assert all(a is b for a, b in zip(mine, child.param_groups, strict=True))
        assert child.state is optimizer.state


def new_group(**given: Any) -> dict[str, Any]:
    return {"params": [("late", nn.Parameter(torch.ones(3, 2)))], **given}


def check_refused_and_unchanged(
    optimizer: Any, attempt: Any, error: type[Exception] = ConfigError
) -> pytest.ExceptionInfo:
    """The error that an attempt raises; checks that the optimizer is unchanged."""
    before = [*optimizer.param_groups], [copy.deepcopy(g) for g in optimizer.param_groups], dict(optimizer.state)
    with pytest.raises(error) as caught:
        attempt()
    assert len(optimizer.param_groups) == len(before[0])
    assert all(a is b for a, b in zip(optimizer.param_groups, before[0], strict=True))
    assert equal([*optimizer.param_groups], before[1])
    assert dict(optimizer.state) == before[2]
    check_children_share(optimizer)
    return caught
