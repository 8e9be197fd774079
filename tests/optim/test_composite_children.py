"""Composite: every algorithm can be a child, steps as it does alone and resumes."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from lightning_optim import OptimizerFactory, list_optimizers, optimizer_info
from tests.support.cases import every
from tests.support.composites import (
    check_children_share,
    weights_of,
)
from tests.support.equality import equal
from tests.support.models import model_for
from tests.support.save_and_load import save_and_load

CHILDREN = [name for name in list_optimizers() if not optimizer_info(name).is_exclusive]
CHILDREN_AND_CLASSES = [
    *((name, "auto") for name in CHILDREN),
    *((name, "own") for name in CHILDREN if optimizer_info(name).own and not optimizer_info(name).is_native_only),
]
each_child = pytest.mark.parametrize(
    ("name", "implementation"),
    every(
        CHILDREN_AND_CLASSES,
        fast=["adamw-auto", "adamw-own", "lion-auto", "prodigy-auto", "sparse_adam-auto", "adagrad-auto", "muon-auto"],
        id="-".join,
    ),
)


def child_factory(name: str, implementation: str) -> OptimizerFactory:
    mains = ("adadelta", "nadam") if implementation == "own" else ("sgd", "adamw")
    main = mains[0] if name != mains[0] else mains[1]
    selected = {"params": "backbone"} if name == "sparse_adam" else {"params": "backbone", "kinds": ["matrix"]}
    return OptimizerFactory(
        main, lr=0.05, groups={"hidden": {**selected, "optimizer": name, "lr": 0.03}}, implementation=implementation
    )


def child_model(name: str) -> Any:
    return model_for("sparse_adam" if name == "sparse_adam" else "adamw")


def steps(model: Any, optimizers: list[Any], num_steps: int) -> list[list[Tensor]]:
    weights = []
    for _ in range(num_steps):
        model.zero_grad()
        model.loss().backward()
        for optimizer in optimizers:
            optimizer.step()
        weights.append(weights_of(model))
    return weights


@each_child
def test_every_algorithm_can_be_a_child(name, implementation) -> None:
    info = optimizer_info(name)
    own = info.is_native_only or implementation == "own"
    model, other = child_model(name), child_model(name)
    optimizer = child_factory(name, implementation)(model)
    assert {key: type(child) for key, child in optimizer.children.items()}[name] is info.load(own=own)
    matrices = [other.backbone.weight]
    rest = [p for p in other.parameters() if p is not matrices[0]]
    main = optimizer_info(next(key for key in optimizer.children if key != name))
    all_dense = name != "sparse_adam"  # no fused kernel takes sparse gradients
    flags = {"fused": True} if main.fused and implementation == "auto" and all_dense else {}
    two = [
        main.load(own=implementation == "own")(rest, lr=0.05, **flags),
        info.load(own=own)(matrices, lr=0.03, **({"fused": True} if info.fused and not own else {})),
    ]
    assert equal(steps(model, [optimizer], 5), steps(other, two, 5))


@each_child
def test_every_child_resumes_from_a_file(name, implementation) -> None:
    factory, model, again = child_factory(name, implementation), child_model(name), child_model(name)
    optimizer, resumed = factory(model), factory(again)
    steps(model, [optimizer], 3)
    again.load_state_dict(model.state_dict())
    resumed.load_state_dict(save_and_load(optimizer.state_dict()))
    check_children_share(resumed)
    assert equal(steps(model, [optimizer], 4), steps(again, [resumed], 4))
    assert equal(optimizer.state_dict(), resumed.state_dict())
