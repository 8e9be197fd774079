"""The group table at fit start: printed once, by whichever callback sees the optimizer first, and correct."""

from __future__ import annotations

import pytest
import torch

import lightning_optim.callbacks.print_table
from lightning_optim import (
    OptimizerFactory,
    OptimizerMonitor,
    OptimizerOverride,
    SchedulerFactory,
    StagedUnfreeze,
    configure_optimizers,
)
from lightning_optim.groups.plan import Plan
from tests.support.training import Net, fit

FACTORY = OptimizerFactory("adamw", lr=0.01, groups={"head": {"params": "head", "lr_scale": 0.5}})
COSINE = SchedulerFactory("warmup_cosine", warmup_steps=2)
STAGES = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.1}}


@pytest.fixture
def printed(monkeypatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(lightning_optim.callbacks.print_table, "rank_zero_info", lines.append)
    return lines


def tables(printed: list[str]) -> list[str]:
    return [text for text in printed if "┃ group" in text]


def by_hand(module: Net) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.1)


def by_configure_optimizers(module: Net) -> object:
    return configure_optimizers(module, FACTORY, COSINE)


def by_template(module: Net) -> object:
    return FACTORY(params=module.parameters())


@pytest.mark.parametrize(
    ("configure", "make_callbacks"),
    [
        pytest.param(by_configure_optimizers, list, id="configure_optimizers"),
        pytest.param(
            by_configure_optimizers,
            lambda: [OptimizerMonitor(to_callback_metrics=True)],
            id="configure_optimizers and a monitor",
        ),
        pytest.param(by_hand, lambda: [OptimizerOverride(FACTORY, COSINE)], id="an override"),
        pytest.param(by_template, lambda: [OptimizerMonitor(to_callback_metrics=True)], id="template and monitor"),
    ],
)
def test_the_table_is_printed_once_with_each_group_at_its_peak(configure, make_callbacks, printed, tmp_path) -> None:
    module = Net(configure)
    fit(module, tmp_path, *make_callbacks(), epochs=1)
    (table,) = tables(printed)
    assert table.startswith("\nParam groups")
    assert table.strip() == str(FACTORY.explain(module)).strip()


def test_the_monitor_prints_the_groups_of_a_hand_made_optimizer(printed, tmp_path) -> None:
    fit(Net(by_hand), tmp_path, OptimizerMonitor(to_callback_metrics=True), epochs=1)
    (table,) = tables(printed)
    assert "default" in table and "sgd" in table


@pytest.mark.parametrize("with_monitor", [False, True], ids=["no monitor", "a monitor"])
def test_stages_print_their_plan_after_the_groups(with_monitor, printed, tmp_path) -> None:
    module, unfreeze = Net(by_configure_optimizers), StagedUnfreeze(STAGES)
    monitors = [OptimizerMonitor(to_callback_metrics=True)] if with_monitor else []
    fit(module, tmp_path, unfreeze, *monitors, epochs=1)
    groups, plan = tables(printed)
    assert groups.startswith("\nParam groups") and plan.startswith("\nUnfreeze plan")
    assert plan.strip() == str(unfreeze.explain(module, FACTORY)).strip()


def test_the_monitor_does_not_print_the_live_groups_alone(printed, tmp_path) -> None:
    """The template's line prints no table, and under stages only the first groups are live."""
    unfreeze = StagedUnfreeze(STAGES)
    fit(Net(by_template), tmp_path, unfreeze, OptimizerMonitor(to_callback_metrics=True), epochs=1)
    (plan,) = tables(printed)
    assert plan.startswith("\nUnfreeze plan")


def test_a_second_fit_prints_the_table_of_its_new_optimizer(printed, tmp_path) -> None:
    module = Net(by_configure_optimizers)
    fit(module, tmp_path, epochs=1)
    fit(module, tmp_path, epochs=1)
    assert len(tables(printed)) == 2


def test_the_groups_of_thawed_stages_have_their_rules(tmp_path) -> None:
    """The name of a live group begins with its stage, which is no rule."""
    module = Net(by_configure_optimizers)
    fit(module, tmp_path, StagedUnfreeze(STAGES), epochs=2)
    plan = Plan.from_optimizer(module.trainer.optimizers[0], module)
    assert {group.name: group.made_by for group in plan.groups} == {"head": ("head",), "backbone": ()}


def test_a_log_is_as_wide_as_stderr(printed, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    module = Net(by_configure_optimizers)
    fit(module, tmp_path, epochs=1)
    assert f"\n{FACTORY.explain(module).text(50)}" in printed
