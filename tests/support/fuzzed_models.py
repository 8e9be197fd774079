"""Small module trees of every kind, drawn from a seeded generator."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import torch
from lightning import LightningModule
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrizations

from tests.support.junk_values import draw_junk

NAMES = (
    *(
        "backbone",
        "head",
        "head2",
        "encoder",
        "layer",
        "layers",
        "blocks",
        "norm",
        "embed",
        "fc",
        "weight",
        "bias",
        "w",
    ),
    *("0", "1", "10", "a b", "été", "层", "\u202ex", "\ud800", "\x1b[31m", "a\nb", "[x]", "*", "{i}", "?", "re:", "-"),
    *("parametrizations", "module", "_orig_mod", "original0", "x" * 300, "²", "all", "default", "params", "<b>", "%s"),
)
PARAMETERS: tuple[Callable[[], nn.Parameter], ...] = (
    lambda: nn.Parameter(torch.ones(2, 2)),
    lambda: nn.Parameter(torch.ones(3)),
    lambda: nn.Parameter(torch.tensor(1.0)),
    lambda: nn.Parameter(torch.zeros(0)),
    lambda: nn.Parameter(torch.zeros(0, 3)),
    lambda: nn.Parameter(torch.ones(1, 2, 1, 2, 1)),
    lambda: nn.Parameter(torch.ones(2, 2), requires_grad=False),
    lambda: nn.Parameter(torch.ones(2, dtype=torch.int64), requires_grad=False),
    lambda: nn.Parameter(torch.ones(2, dtype=torch.bool), requires_grad=False),
    lambda: nn.Parameter(torch.ones(2, 2, dtype=torch.float64)),
    lambda: nn.Parameter(torch.ones(2, 2, dtype=torch.bfloat16)),
    lambda: nn.Parameter(torch.ones(2, 2, dtype=torch.float16)),
    lambda: nn.Parameter(torch.ones(2, 2, dtype=torch.complex64)),
    lambda: nn.Parameter(torch.ones(3, 2).T),
    lambda: nn.Parameter(torch.full((2,), float("nan"))),
)
LEAVES: tuple[Callable[[], nn.Module], ...] = (
    lambda: nn.Linear(2, 2),
    lambda: nn.Linear(2, 2, bias=False),
    lambda: nn.LayerNorm(2),
    lambda: nn.BatchNorm1d(2),
    lambda: nn.Embedding(3, 2),
    lambda: nn.Embedding(3, 2, sparse=True),
    lambda: nn.Conv1d(1, 2, 1),
    lambda: parametrizations.weight_norm(nn.Linear(2, 2)),
    lambda: nn.LazyLinear(2),
    nn.Tanh,
)


class Tree(nn.Module):
    """A module with children and parameters of its own."""


class LightningTree(LightningModule):
    """The same, for `configure_optimizers`."""


def draw_model(rng: Random, root: Callable[[], nn.Module] = Tree) -> nn.Module:
    """A tree with up to a dozen parameters, some shared, frozen or of an odd shape or dtype; seldom without any."""
    # Half of the models are what people have: so a case gets as far as its step.
    is_plain = rng.random() < 0.5
    model = root()
    if rng.random() < 0.03:
        return model
    if is_plain:
        model.add_module("backbone", nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2), nn.LayerNorm(2)))
        model.add_module("layers", nn.ModuleList([nn.Linear(2, 2) for _ in range(rng.randrange(1, 3))]))
        model.add_module("head", nn.Linear(2, 2))
        return model
    _fill(rng, model, 2)
    modules = [module for module in model.modules() if module._parameters.get("weight") is not None]
    if len(modules) > 1 and rng.random() < 0.3:
        first, second = rng.sample(modules, 2)
        second._parameters["weight"] = first._parameters["weight"]
    for parameter in model.parameters():
        if not is_lazy(parameter) and rng.random() < 0.1:
            parameter.requires_grad_(False)
    return model


def _fill(rng: Random, module: nn.Module, depth: int) -> None:
    for name in rng.sample(NAMES, rng.randrange(1, 4)):
        if hasattr(module, name) or "." in name:
            continue
        kind = rng.random()
        if kind < 0.4:
            module.register_parameter(name, rng.choice(PARAMETERS[:5] if kind < 0.2 else PARAMETERS)())
        elif kind < 0.7 or not depth:
            module.add_module(name, rng.choice(LEAVES if kind < 0.45 else LEAVES[:5])())
        elif kind < 0.8:
            module.add_module(name, nn.ModuleDict({rng.choice(NAMES[:20]): nn.Linear(2, 2)}))
        elif kind < 0.85:
            module.add_module(name, nn.ParameterList([rng.choice(PARAMETERS)(), rng.choice(PARAMETERS)()]))
        else:
            child = Tree()
            _fill(rng, child, depth - 1)
            module.add_module(name, child)


def draw_params(rng: Random, model: nn.Module) -> Any:
    """What an optimizer is built over: the model, or another form of its parameters, or junk."""
    kind = rng.random()
    if kind < 0.75:
        return model
    if kind < 0.8:
        return model.named_parameters()
    if kind < 0.85:
        return model.parameters()
    if kind < 0.9:
        return list(model.parameters())
    if kind < 0.93:
        return [*model.named_parameters(), *model.named_parameters()]
    if kind < 0.95:
        return [(draw_junk(rng), parameter) for parameter in model.parameters()]
    return draw_junk(rng)


def fill_gradients(rng: Random, model: nn.Module, *, sparse: bool) -> None:
    """Give most trainable parameters a gradient, some with NaN; sparse ones where an embedding has them."""
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding) and module.sparse]
    with_sparse = {id(module.weight) for module in embeddings} if sparse else set()
    for parameter in model.parameters():
        if is_lazy(parameter) or not parameter.requires_grad or rng.random() < 0.1:
            continue
        grad = torch.ones_like(parameter) * (float("nan") if rng.random() < 0.05 else 0.5)
        parameter.grad = grad.to_sparse(1) if id(parameter) in with_sparse else grad
