"""`explain --steps-per-epoch` prints the steps at which something happens in a run."""

from __future__ import annotations

import json

import pytest

from tests.support.apps import EXPLAIN_RECIPE

RECIPE = (*EXPLAIN_RECIPE, "model", "--steps-per-epoch", "20")
SGD = "{_target_: lightning_optim.OptimizerFactory, name: sgd, lr: 1}"


def events(out: str) -> list[list[str]]:
    """The rows of the last table."""
    lines = out[out.rindex("┏") :].splitlines()
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]


def test_warm_up_schedule_and_thaws_are_listed_in_order(cli_output) -> None:
    out = cli_output(*RECIPE, "scheduler.warmup_epochs=2", "+unfreeze.stages.backbone.warmup_steps=50")
    assert "steps of optimizer: adamw, scheduler: cosine_annealing, unfreeze: 2 stages\n" in out
    assert "assumed: scheduler steps once per optimizer step" in out
    assert "300 optimizer steps: 15 epochs of 20" in out
    assert events(out) == [
        ["head thaws", "0", "0", "from the start"],
        ["backbone thaws", "20", "1", "epoch 1"],
        ["the warm-up of cosine_annealing ends", "40", "2", ""],
        ["the warm-up of backbone ends", "70", "3.5", ""],
        ["cosine_annealing ends", "300", "15", ""],
        ["the run ends", "300", "15", ""],
    ]


def test_what_has_no_step_is_listed_last(cli_output) -> None:
    stages = (
        "~unfreeze.stages.backbone.at.epoch",
        "+unfreeze.stages.backbone.at.plateau.monitor=loss",
        "+unfreeze.stages.none={params: x, at: {epoch: 99}, allow_empty: true}",
    )
    out = cli_output(*RECIPE, "scheduler=exponential", *stages)
    assert events(out)[-4:] == [
        ["the run ends", "300", "15", ""],
        ["exponential has no end", "", "", ""],
        ["backbone thaws", "", "", "not known before the run: plateau of loss, patience 3"],
        ["none thaws", "", "", "not in this run: epoch 99"],
    ]


def test_the_length_of_the_run_may_be_given(cli_output) -> None:
    assert events(cli_output(*RECIPE, "--max-epochs", "3"))[-1] == ["the run ends", "60", "3", ""]


def test_a_rules_schedule_names_its_groups_and_a_late_end_is_said(cli_output) -> None:
    rule = "+optimizer.groups.b={params: '*bias', schedule: {warmup_steps: 30}}"
    out = cli_output(*RECIPE, "unfreeze=none", "scheduler.T_max=400", rule)
    found = {tuple(row[:2]): row[3] for row in events(out)}
    assert "groups: b" in found["the warm-up of cosine_annealing ends", "30"]
    assert "after the end of the run" in found["cosine_annealing ends", "400"]
    out = cli_output(*RECIPE, "unfreeze=none", "scheduler.T_max=200")
    assert events(out)[0] == ["cosine_annealing ends", "200", "10", "then its lr rises again"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            f"{{model: {{_target_: mine.Net}}, a: {SGD}, b: {SGD}}}",
            "--steps-per-epoch: it takes one optimizer, and the config has a, b. Type --node a",
        ),
        (f"{{model: {{_target_: mine.Net}}, optimizer: {SGD}}}", "or --max-epochs 10"),
    ],
    ids=["several optimizers", "no end"],
)
def test_a_run_that_is_not_clear_is_refused(cli_error, explain_arguments, config, message) -> None:
    assert message in cli_error(*explain_arguments(config, "--steps-per-epoch", "5"))


def test_the_templates_module_steps_by_epochs(cli_error, cli_output, copy_app, monkeypatch) -> None:
    monkeypatch.chdir(copy_app("template"))
    command = ("explain", "--config-dir", "configs", "--config-name", "train_top", "--module", "model")
    run = ("--steps-per-epoch", "5", "--max-epochs", "4", "scheduler=warmup_cosine", "scheduler.warmup_steps=1")
    message = (
        "scheduler.interval: it is step, but LitModule.configure_optimizers steps the schedule once an epoch. Type"
    )
    assert message in cli_error(*command, *run)
    out = cli_output(*command, *run, "scheduler.interval=epoch")
    assert "scheduler steps once an epoch, as LitModule.configure_optimizers says" in out
    assert [row[:2] for row in events(out)] == [
        ["the warm-up of warmup_cosine ends", "5"],
        ["warmup_cosine ends", "20"],
        ["the run ends", "20"],
    ]


def test_steps_in_json(cli_output) -> None:
    steps = json.loads(cli_output(*RECIPE, "--json", "scheduler.warmup_epochs=2"))["steps"]
    assert steps.pop("stepping").startswith("assumed: scheduler steps once per optimizer step")
    assert steps == {
        "optimizer": "optimizer",
        "scheduler": "scheduler",
        "unfreeze": "unfreeze",
        "total_steps": 300,
        "steps_per_epoch": 20,
        "schedules": [
            {"groups": ["default", "no_decay"], "schedule": "cosine_annealing", "warmup_ends": 40, "ends": 300}
        ],
        "stages": [
            {"stage": "head", "at": "from the start", "thaws": 0, "warmup_steps": 0, "is_predictable": True},
            {"stage": "backbone", "at": "epoch 1", "thaws": 20, "warmup_steps": 0, "is_predictable": True},
        ],
    }


def test_what_the_schedule_drives_besides_lr_is_in_the_table_and_the_steps(cli_output, explain_arguments) -> None:
    also = "also: {weight_decay: {name: linear, final: 0.4, steps: 2}}"
    config = "\n".join(
        (
            "model: {_target_: mine.Net}",
            "trainer: {max_steps: 3}",
            "optimizer: {_target_: lightning_optim.OptimizerFactory, name: adamw, weight_decay: 0.04}",
            f"scheduler: {{_target_: lightning_optim.SchedulerFactory, name: exponential, gamma: 0.5, {also}}}",
        )
    )
    out = cli_output(*explain_arguments(config, "--steps-per-epoch", "3"))
    assert "0.04 → 0.4" in out and "weight_decay: linear over 2 steps" in out
    assert "weight_decay (linear) ends" in out
