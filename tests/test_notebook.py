"""In a notebook, and in a log, what the library builds shows as a table or as one short line."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

from lightning_optim import (
    OptimizerFactory,
    OptimizerMonitor,
    OptimizerOverride,
    SchedulerFactory,
    SophiaHessian,
    StagedUnfreeze,
    optim,
)
from tests.support.models import Net

GROUPS = {"head": {"params": "head", "lr_scale": 0.1}, "no_decay": {"kinds": ["bias"], "weight_decay": 0}}
FACTORY = OptimizerFactory("adamw", lr=3.2768e-05, groups=GROUPS)
STAGES = {"head": {"params": "head"}, "rest": {"params": "*", "at": {"epoch": 1}}}


def cells(shown: Any) -> list[str]:
    """The body cells of an object's HTML table."""
    html = shown._repr_html_()
    assert html.startswith("<table>") and html.count("<table>") == 1
    return [part.partition("</td>")[0].partition(">")[2] for part in html.split("<td")[1:]]


@pytest.mark.parametrize("show", [FACTORY.explain, FACTORY.plan, FACTORY], ids=["table", "plan", "optimizer"])
def test_groups_show_as_a_table(show) -> None:
    shown = cells(show(Net()))
    assert {"default", "head", "head.no_decay", "no_decay", "all", "3.277e-05", "3.277e-06"} <= set(shown)
    assert len(shown) == 5 * 6, "four groups and the total; algorithm is said below"


def test_an_unfreeze_plan_shows_as_a_table() -> None:
    assert "epoch 1" in cells(StagedUnfreeze(STAGES).explain(Net(), FACTORY))


def test_the_settings_of_a_parameter_show_as_a_table() -> None:
    assert "lr × groups.head.lr_scale" in cells(FACTORY.plan(Net()).settings_of("head.weight"))


@pytest.mark.parametrize("remake", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["copy", "pickle"])
def test_a_copied_optimizer_shows_as_a_table_too(remake) -> None:
    assert "head.no_decay" in cells(remake(FACTORY(Net())))


@pytest.mark.parametrize(
    "factory",
    [
        OptimizerFactory("lion"),
        OptimizerFactory("adamw", groups={"hidden": {"kinds": ["matrix"], "optimizer": "muon"}}),
        lambda module: optim.Lion(module.parameters()),
    ],
    ids=["ours", "composite", "by hand"],
)
def test_other_optimizers_show_as_a_table(factory) -> None:
    assert {"default", "all"} <= set(cells(factory(Net())))


def test_an_optimizer_shows_its_present_lr() -> None:
    optimizer = FACTORY(Net())
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(0.25)
    assert "lr 0.25" in optimizer._repr_html_()  # type: ignore[attr-defined]
    optimizer.param_groups.clear()
    assert cells(optimizer)[0] == "all"


def test_configs_show_as_tables_of_settings() -> None:
    assert cells(FACTORY)[:2] == ["lr", "3.277e-05"] and "groups.head" in cells(FACTORY)
    assert cells(OptimizerFactory("adamw", implementation="own")) == ["implementation", "own"]
    assert cells(SchedulerFactory("warmup_cosine", warmup_steps=3))[2:4] == ["warmup_steps", "3"]
    assert cells(StagedUnfreeze(STAGES))[2:4] == ["stages.rest", "{params: *, at: {epoch: 1}}"]


def test_html_is_escaped() -> None:
    rule = {"head": {"params": "re:(?P<x>head).*", "lr": 0.5}}
    assert "re:(?P&lt;x&gt;head).*" in OptimizerFactory("sgd", groups=rule)._repr_html_()
    optimizer = optim.Lion([{"params": list(Net().parameters()), "name": "<b>&"}])
    assert "&lt;b&gt;&amp;" in optimizer._repr_html_() and "<b>" not in optimizer._repr_html_()


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (FACTORY, f"OptimizerFactory('adamw', lr=3.2768e-05, groups={GROUPS})"),
        (
            SchedulerFactory("cosine_annealing"),
            "SchedulerFactory('cosine_annealing', interval='step', warmup_steps=0, total_steps=None)",
        ),
        (OptimizerMonitor(), "OptimizerMonitor()"),
        (OptimizerMonitor(5, layout=False), "OptimizerMonitor(every_n_steps=5, layout=False)"),
        (StagedUnfreeze(STAGES), f"StagedUnfreeze({STAGES})"),
        (StagedUnfreeze(STAGES, frozen_norm="train"), f"StagedUnfreeze({STAGES}, frozen_norm='train')"),
        (SophiaHessian(), "SophiaHessian(every_n_steps=10)"),
        (OptimizerOverride(OptimizerFactory("sgd")), "OptimizerOverride(OptimizerFactory('sgd'))"),
    ],
    ids=lambda value: value.partition("(")[0] if isinstance(value, str) else "",
)
def test_configured_objects_show_as_the_call_that_makes_them(shown, text) -> None:
    assert repr(shown) == text
    assert type(eval(text)) is type(shown) and repr(eval(text)) == text


def test_a_plan_is_one_line_and_its_tables_print() -> None:
    plan = FACTORY.plan(Net())
    assert repr(plan) == f"Plan(4 groups, 11 tensors, {sum(p.numel() for p in Net().parameters()):,} parameters)"
    assert repr(plan.table()) == str(plan.table())
    assert repr(plan.settings_of("head.weight")) == str(plan.settings_of("head.weight"))
