"""The group table at fit start: printed once, by whichever part of ours sees the optimizer first, and true."""

from __future__ import annotations

import pytest
import torch

import lightning_optim.callbacks.announce
from lightning_optim import (
    OptimizerFactory,
    OptimizerMonitor,
    OptimizerOverride,
    SchedulerFactory,
    StagedUnfreeze,
    configure_optimizers,
)
from tests.support.training import Net, fit

FACTORY = OptimizerFactory("adamw", lr=0.01, groups={"head": {"params": "head", "lr_scale": 0.5}})
COSINE = SchedulerFactory("warmup_cosine", warmup_steps=2)
STAGES = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.1}}


@pytest.fixture
def said(monkeypatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(lightning_optim.callbacks.announce, "rank_zero_info", lines.append)
    return lines


def tables(said: list[str]) -> list[str]:
    return [line for line in said if "┃ group" in line]


def by_hand(module: Net) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.1)


def ours(module: Net) -> object:
    return configure_optimizers(module, FACTORY, COSINE)


def from_the_template(module: Net) -> object:
    return FACTORY(params=module.parameters())


@pytest.mark.parametrize(
    ("configure", "make_callbacks"),
    [
        pytest.param(ours, list, id="configure_optimizers"),
        pytest.param(ours, lambda: [OptimizerMonitor(to_callback_metrics=True)], id="and a monitor"),
        pytest.param(by_hand, lambda: [OptimizerOverride(FACTORY, COSINE)], id="an override"),
        pytest.param(from_the_template, lambda: [OptimizerMonitor(to_callback_metrics=True)], id="the template's line"),
    ],
)
def test_it_is_printed_once_with_each_group_at_its_peak(configure, make_callbacks, said, tmp_path) -> None:
    module = Net(configure)
    fit(module, tmp_path, *make_callbacks(), epochs=1)
    (table,) = tables(said)
    assert table.startswith("\nParam groups")
    assert table.strip() == str(FACTORY.explain(module)).strip()


def test_a_hand_made_optimizer_s_groups_are_printed_by_the_monitor(said, tmp_path) -> None:
    fit(Net(by_hand), tmp_path, OptimizerMonitor(to_callback_metrics=True), epochs=1)
    (table,) = tables(said)
    assert "default" in table and "sgd" in table


@pytest.mark.parametrize("monitor", [False, True], ids=["", "and a monitor"])
def test_stages_print_their_plan_too(monitor, said, tmp_path) -> None:
    module, unfreeze = Net(ours), StagedUnfreeze(STAGES)
    monitors = [OptimizerMonitor(to_callback_metrics=True)] if monitor else []
    fit(module, tmp_path, unfreeze, *monitors, epochs=1)
    groups, plan = tables(said)
    assert groups.startswith("\nParam groups") and plan.startswith("\nUnfreeze plan")
    assert plan.strip() == str(unfreeze.explain(module, FACTORY)).strip()


def test_the_monitor_prints_no_table_of_a_part_of_the_groups(said, tmp_path) -> None:
    """The template's line says nothing itself, and under stages the live groups are only the first."""
    unfreeze = StagedUnfreeze(STAGES)
    fit(Net(from_the_template), tmp_path, unfreeze, OptimizerMonitor(to_callback_metrics=True), epochs=1)
    (plan,) = tables(said)
    assert plan.startswith("\nUnfreeze plan")


def test_a_second_fit_prints_its_new_optimizer_s(said, tmp_path) -> None:
    module = Net(ours)
    fit(module, tmp_path, epochs=1)
    fit(module, tmp_path, epochs=1)
    assert len(tables(said)) == 2
