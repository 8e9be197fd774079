"""The execution that the group table names is the one that steps the group."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_optim import OptimizerFactory, optim, register_optimizer
from lightning_optim.build.executions import read_executions
from lightning_optim.optim.bucket import Bucket
from lightning_optim.optim.fused.compiler import CompileError
from lightning_optim.optim.fused.execution import FusedExecution
from tests.support.example_rules import DeclaredMomentum

SMALL, LARGE = nn.Linear(10, 10), nn.Linear(1100, 1000)
EXECUTIONS = {
    "torch's fused kernel": (SMALL, {"name": "adamw"}, "torch, fused"),
    "torch's loop": (SMALL, {"name": "adamw", "fused": False}, "torch, loop"),
    "torch's lists": (SMALL, {"name": "adamw", "foreach": True}, "torch, lists"),
    "no flags": (SMALL, {"name": "lbfgs"}, "torch, loop"),
    "few elements": (SMALL, {"name": "lion"}, "ours, loop"),
    "many elements": (LARGE, {"name": "lion"}, "ours, kernel (C)"),
    "many, but no kernel": (LARGE, {"name": "lion", "fused": False}, "ours, loop"),
    "few, but a kernel": (SMALL, {"name": "lion", "fused": True}, "ours, kernel (C)"),
    "lists": (LARGE, {"name": "lion", "foreach": True}, "ours, lists"),
}


@pytest.mark.parametrize("case", EXECUTIONS)
def test_the_table_names_the_execution(case, monkeypatch):
    module, config, expected = EXECUTIONS[case]
    factory = OptimizerFactory(**config)
    rows = factory.explain(module).rows()
    assert rows[0]["execution"] == expected
    assert f"stepped by: {expected}" in str(factory.explain(module))

    taken = set()
    for cls, method in ((Bucket, "run"), (FusedExecution, "run")):
        original = getattr(cls, method)

        def spy(self, *args, _original=original, _cls=cls, **kwargs):
            taken.add(_cls.__name__ + (" in lists" if kwargs.get("foreach") else ""))
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(cls, method, spy)
    optimizer = factory(module)
    for param in module.parameters():
        param.grad = torch.ones_like(param)
    optimizer.step(lambda: torch.tensor(0.0))
    ours = {"ours, loop": {"Bucket"}, "ours, lists": {"Bucket in lists"}, "ours, kernel (C)": {"FusedExecution"}}
    assert taken == ours.get(expected, set())


class Untraceable(DeclaredMomentum):
    """With an operation that a kernel does not have."""

    @staticmethod
    def update(p, g, m, *, mu, size):
        return optim.Update(m.mul_(mu).add_(g).cumsum(0), size)


def test_a_rule_without_a_kernel_is_not_said_to_have_one():
    register_optimizer("traceable", DeclaredMomentum)
    register_optimizer("untraceable", Untraceable)
    for name, expected in {"traceable": "ours, kernel (C)", "untraceable": "ours, loop"}.items():
        factory = OptimizerFactory(name)
        plan = factory.explain(LARGE)
        for found in (plan, read_executions(plan, factory(LARGE))):
            assert found.rows()[0]["execution"] == expected


def test_without_a_compiler_there_is_no_kernel(monkeypatch):
    def none():
        raise CompileError("there is no C compiler. Install gcc or clang, or set CC")

    monkeypatch.setattr("lightning_optim.optim.fused.available.find_compiler", none)
    assert OptimizerFactory("lion").explain(LARGE).rows()[0]["execution"] == "ours, loop"
    with pytest.raises(
        ValueError, match="fused: there is no C compiler. Install gcc or clang, or set CC. Type fused: null"
    ):
        OptimizerFactory("lion", fused=True)(LARGE)


def test_groups_of_several_executions_have_a_column():
    module = nn.Sequential(LARGE, SMALL)
    rows = OptimizerFactory(
        "lion", groups={"few": {"params": "1.*", "lr": 1.0e-3}, "adamw": {"params": "*.bias", "optimizer": "adamw"}}
    )
    table = rows.explain(module)
    assert "execution" in table.columns()
    assert {row["group"]: row["execution"] for row in table.rows()[:-1]} == {
        "default": "ours, kernel (C)",
        "few": "ours, loop",
        "adamw": "torch, fused",
        "adamw.few": "torch, fused",
    }
