"""A fit that is resumed under another schedule, or for longer (Lightning #5339): as `on_resume` says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lightning_optim import ConfigError, OptimizerFactory, OptimizerOverride, SchedulerFactory, StagedUnfreeze
from tests.support.cases import each_value, every
from tests.support.training import BATCHES, Net, StepTrace, fit

GROUPS = {"head": {"params": "head", "lr_scale": 0.5}}
STAGES = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.25}}
PLANS = ("plain", "staged")
COSINE = {"name": "warmup_cosine", "warmup_steps": 2}
BY_EPOCH = {"name": "warmup_linear", "interval": "epoch"}
EXPONENTIAL = {"name": "exponential", "gamma": 0.75}
CYCLE = {"name": "one_cycle"}
SCHEDULES = (COSINE, BY_EPOCH, EXPONENTIAL, CYCLE, None)
# Each change of the schedule with and without stages, within an epoch and at its end.
CHANGES = [
    (plan, before, after, step)
    for plan in PLANS
    for i, before in enumerate(SCHEDULES)
    for j, after in enumerate(SCHEDULES)
    for step in (6, 8)
    if before != after and (step == 8) == ((plan == "plain") == bool((i + j) % 2))
]


def train(
    folder: Path, scheduler: dict[str, Any] | None, epochs: int, *, plan: str = "plain", **arguments: Any
) -> list[dict[str, Any]]:
    """The lr and beta1 of each group at each step."""
    trace = StepTrace(lambda trainer, module: {
        group["name"]: (group["lr"], group["betas"][0]) for group in trainer.optimizers[0].param_groups
    })  # fmt: skip
    optimizer = OptimizerFactory("adamw", lr=0.01, groups=GROUPS)
    override = OptimizerOverride(optimizer, None if scheduler is None else SchedulerFactory(**scheduler))
    stages = [StagedUnfreeze(STAGES)] if plan == "staged" else []
    fit(Net(lambda module: None), folder, override, *stages, trace, epochs=epochs, **arguments)
    return trace.steps


def checkpoint(folder: Path, step: int) -> Path:
    return folder / f"step={step}.ckpt"


@pytest.mark.parametrize(
    ("plan", "step"),
    every([(p, s) for p in PLANS for s in (6, 8)], fast=["staged, 8"], id=lambda case: f"{case[0]}, {case[1]}"),
)
def test_a_longer_run_follows_on_resume(tmp_path, plan, step) -> None:
    train(tmp_path, COSINE, 2, plan=plan, save=True)
    longer = train(tmp_path / "longer", COSINE, 4, plan=plan)

    def resume(on_resume: str, **arguments: Any) -> list[dict[str, Any]]:
        given = {**COSINE, "on_resume": on_resume}
        return train(tmp_path / on_resume, given, 4, plan=plan, ckpt_path=checkpoint(tmp_path, step), **arguments)

    with pytest.raises(ConfigError, match=r"^scheduler: .*total_steps: 8 -> 16.*on_resume: extend.*on_resume: restart"):
        resume("continue")
    assert resume("extend") == longer[step:]
    restarted = resume("restart", save=True)
    if plan == "plain":  # with stages, other groups are live
        assert restarted == longer[: 16 - step]
    if step == 6:
        again = train(tmp_path, COSINE, 4, plan=plan, ckpt_path=checkpoint(tmp_path / "restart", step + 3))
        assert again == restarted[3:], "what was restarted continues as it was"


def test_a_fast_dev_run_resumes_though_its_length_is_made_up(tmp_path) -> None:
    train(tmp_path, COSINE, 1, save=True)
    assert train(tmp_path / "dev", COSINE, 2, fast_dev_run=True, ckpt_path=checkpoint(tmp_path, 3)) == []


@pytest.mark.parametrize(
    ("plan", "before", "after", "step"),
    each_value(
        CHANGES,
        fast=["plain, warmup_cosine -> warmup_linear, 8", "staged, one_cycle -> None, 6"],
        id=lambda case: f"{case[0]}, {case[1] and case[1]['name']} -> {case[2] and case[2]['name']}, {case[3]}",
    ),
)  # fmt: skip
def test_another_schedule_is_refused_or_as_though_it_had_been_there_from_the_start(
    tmp_path, plan, before, after, step
) -> None:
    """Lightning steps a schedule by epoch before it saves at the epoch's last batch, and counts the epoch later."""
    train(tmp_path, before, 2, plan=plan, save=True)
    arguments = {"epochs": 3, "plan": plan, "ckpt_path": checkpoint(tmp_path, step)}
    expected = train(tmp_path / "from the start", after, 3, plan=plan)
    if after is None:
        assert train(tmp_path / "without", None, **arguments) == expected[step:]
        return
    with pytest.raises(ConfigError, match=r"^scheduler: .*on_resume: extend.*on_resume: restart"):
        train(tmp_path / "continue", after, **arguments)
    assert train(tmp_path / "extend", {**after, "on_resume": "extend"}, **arguments) == expected[step:]
    restarted = train(tmp_path / "restart", {**after, "on_resume": "restart"}, **arguments)
    if plan == "plain" and after.get("interval") != "epoch":
        assert restarted == expected[: 3 * BATCHES - step]
