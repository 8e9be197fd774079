"""`torch.compile` around a step gives the numbers of a step without it, and says once that it is left out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_optim import OptimizerFactory
from tests.support.cases import every

FACTORIES = {
    "own": OptimizerFactory("adamw", implementation="own"),
    "adan": OptimizerFactory("adan"),
    "prodigy": OptimizerFactory("prodigy"),
    "cautious": OptimizerFactory("adamw", cautious_update=True),
    "composite": OptimizerFactory("sgd", groups={"b": {"kinds": ["bias"], "optimizer": "radam"}}),
    "skipping composite": OptimizerFactory(
        "adamw", skip_nonfinite=True, groups={"b": {"kinds": ["bias"], "optimizer": "adabelief"}}
    ),
}
KINDS = ("step", "function", "closure", "hooks")
IN_TURN = [
    ("prodigy", "step"),
    ("prodigy", "closure"),
    ("adan", "function"),
    ("cautious", "step"),
    ("composite", "hooks"),
]
compiled = torch.compile(backend="eager")
pytestmark = pytest.mark.filterwarnings("ignore")  # Dynamo's own


def run(name: str, kind: str, compile: Callable[[Any], Any]) -> tuple[list[Tensor], list[float]]:
    """The parameters after each of some steps, and what the hook after each has seen."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    net, counts = nn.Linear(2, 2), []
    optimizer = FACTORIES[name](net)
    if kind == "hooks":
        optimizer.register_step_pre_hook(lambda *_: [param.grad.mul_(0.5) for param in net.parameters()].clear())
        optimizer.register_step_post_hook(lambda *_: counts.append(float(next(iter(optimizer.state.values()))["step"])))
    steps: dict[str, Callable[[], Any]] = {
        "step": optimizer.step,
        "closure": lambda: optimizer.step(lambda: net(torch.ones(2)).square().sum()),
    }
    step, weights = compile(steps.get(kind, lambda: optimizer.step())), []
    for i in range(1, 5):
        optimizer.zero_grad()
        (net(torch.tensor([1.0, -2.0]) * i).square().sum()).backward()
        step()
        weights += [param.detach().clone() for param in net.parameters()]
    return weights, counts


@pytest.mark.parametrize(
    ("name", "kind"),
    every(
        [*product(("own", "skipping composite"), KINDS), *IN_TURN],
        fast=["own,function", "composite,hooks"],
        id=",".join,
    ),
)
def test_a_compiled_step_gives_the_eager_numbers(name: str, kind: str) -> None:
    expected = run(name, kind, lambda function: function)
    weights, counts = run(name, kind, compiled)
    assert counts == expected[1]
    assert all(torch.equal(a, b) for a, b in zip(weights, expected[0], strict=True))


def test_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    class Named(type(FACTORIES["adan"](nn.Linear(2, 2)))):  # type: ignore[misc]
        pass

    net = nn.Linear(2, 2)
    optimizer = Named(net.parameters())
    net(torch.ones(2)).sum().backward()
    step = compiled(lambda: optimizer.step())
    with caplog.at_level(logging.WARNING, logger="lightning_optim"):
        step(), step()
    assert [r.message for r in caplog.records if "Named" in r.message] == [
        "torch.compile: Named takes its steps uncompiled, with the same numbers as without it"
    ]


def test_a_compiled_model_stays_so_in_a_closure() -> None:
    torch._dynamo.reset()
    runs = []

    def backend(graph: Any, inputs: Any) -> Any:
        del inputs
        return lambda *args: (runs.append(1), graph(*args))[1]

    net = nn.Linear(2, 2)
    model, optimizer = torch.compile(net, backend=backend), FACTORIES["own"](net)
    for _ in range(2):
        optimizer.step(lambda: model(torch.ones(2)).sum().backward())
    assert runs == [1, 1]
