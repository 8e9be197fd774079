"""`explain --plot` draws the optimizer, schedule, stages and run length that the config means, or says what to type."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

from lightning_optim.cli import plot as plot_module
from lightning_optim.cli.simulate import Simulation
from tests.support.apps import EXPLAIN_RECIPE
from tests.support.cases import every_row

RECIPE = (*EXPLAIN_RECIPE, "model")
SGD = "{_target_: lightning_optim.OptimizerFactory, name: sgd, lr: 1}"
HALVING = "{_target_: lightning_optim.SchedulerFactory, name: step, step_size: 1, gamma: 0.5}"
DECIMATING = "{_target_: lightning_optim.SchedulerFactory, name: step, step_size: 1, gamma: 0.1}"
TORCH_SCHEDULER = "{_target_: torch.optim.lr_scheduler.StepLR, _partial_: true, step_size: 1}"
UNFREEZE = "{_target_: lightning_optim.StagedUnfreeze, stages: {head: {params: head}}}"
NET = "model: {_target_: mine.Net}"
THREE_STEPS = "trainer: {max_steps: 3}"


@pytest.fixture
def drawn(monkeypatch) -> list[tuple[Simulation, list[str]]]:
    """The simulations and titles that would be drawn."""
    calls: list[Any] = []
    monkeypatch.setattr(plot_module, "draw", lambda simulation, path, titles: calls.append((simulation, titles)))
    return calls


@pytest.fixture
def plot_arguments(explain_arguments) -> Callable[[str], tuple[str, ...]]:
    """Writes an app with this config, and returns the arguments that plot it."""
    return lambda config: explain_arguments(config, "--plot", "plot.svg")


def config(*lines: str) -> str:
    return "\n".join((NET, THREE_STEPS, *lines))


@pytest.mark.parametrize("suffix", [pytest.param("png", marks=pytest.mark.slow), "svg"])
def test_the_recipe_is_drawn_to_a_file(cli_output, tmp_path, suffix) -> None:
    path = tmp_path / f"plot.{suffix}"
    out = cli_output(*RECIPE, "--steps-per-epoch", "20", "--plot", str(path))
    assert out.endswith(f"plot: {path}\n")
    assert out.count("Param groups") == 2 and out.count("Unfreeze plan") == 1
    if suffix == "png":
        assert path.read_bytes().startswith(b"\x89PNG")
        return
    texts = re.findall(r"<text [^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))
    assert "optimizer: adamw, scheduler: cosine_annealing, unfreeze: 2 stages" in texts
    assert "300 optimizer steps: 15 epochs of 20" in texts
    assert [texts.count(text) for text in ("head", "head.no_decay", "backbone", "backbone.no_decay")] == [1, 1, 2, 1]


def test_why_replaces_the_tables_but_not_the_plot(cli_output, drawn, tmp_path) -> None:
    plot = ("--steps-per-epoch", "20", "--plot", str(tmp_path / "plot.png"))
    out = cli_output(*RECIPE, *plot, "--why", "head.1.bias")
    assert "Param groups" not in out and out.endswith(f"plot: {tmp_path}/plot.png\n")
    assert dict(drawn[0][0].thaws) == {"backbone": 20}


def test_overrides_change_the_run_that_is_drawn(cli_output, drawn, tmp_path) -> None:
    plot = ("--steps-per-epoch", "10", "--plot", str(tmp_path / "plot.png"))
    overrides = (
        "unfreeze=gradual",
        'unfreeze.stages.top.layers="backbone.{i}"',
        "unfreeze.stages.rest=null",
        "trainer.max_epochs=9",
    )
    cli_output(*RECIPE, *plot, *overrides, "optimizer.lr=0.5")
    ((simulation, _),) = drawn
    layers = {f"top.{layer}": 10 * epoch for epoch, layer in enumerate((7, 6, 4, 3, 1, 0), start=1)}
    assert dict(simulation.thaws) == layers
    assert simulation.curves[0].lr[0] == 0.5
    assert simulation.length.total("step") == 90


# What is drawn.


@pytest.mark.parametrize(
    ("arguments", "title", "num_curves"),
    [
        ([], "optimizer: adamw, scheduler: cosine_annealing, unfreeze: 2 stages", 4),
        (
            ["--node", "pretrain.optimizer", "trainer.max_epochs=8"],
            "pretrain.optimizer: adamw, pretrain.scheduler: cosine_annealing",
            1,
        ),
        (
            ["--node", "pretrain.optimizer", "~scheduler@pretrain.scheduler"],
            "pretrain.optimizer: adamw, no schedule",
            1,
        ),
        (["~scheduler", "model.scheduler=null"], "optimizer: adamw, no schedule, unfreeze: 2 stages", 4),
    ],
    ids=["nearest the top level", "by key", "by key without a schedule", "without a schedule"],
)
def test_the_optimizer_is_the_one_nearest_the_top_level_or_the_one_asked_for(
    cli_output, drawn, tmp_path, arguments, title, num_curves
) -> None:
    cli_output(*RECIPE, "--steps-per-epoch", "20", "--plot", str(tmp_path / "plot.png"), *arguments)
    ((simulation, titles),) = drawn
    assert titles == [title]
    assert len(simulation.curves) == num_curves


@pytest.mark.parametrize(
    ("text", "lrs"),
    [
        (config(f"optimizer: {SGD}"), [1, 1, 1]),
        (config(f"optimizer: {SGD}", "later: {scheduler: '${once}'}", f"once: {HALVING}"), [1, 0.5, 0.25]),
        (config("fit:", f"  optimizer: {SGD}", "  scheduler: '${once}'", f"once: {HALVING}"), [1, 0.5, 0.25]),
        (
            config(f"optimizer: {SGD}", f"scheduler: {HALVING}", "other:", f"  scheduler: {DECIMATING}"),
            [1, 0.5, 0.25],
        ),
        (
            config(f"optimizer: {SGD}", "other:", f"  optimizer: {SGD}", f"  scheduler: {DECIMATING}"),
            [1, 1, 1],
        ),
        (config(f"optimizer: {SGD}", f"scheduler: {HALVING}", "broken: '${nowhere}'"), [1, 0.5, 0.25]),
    ],
    ids=[
        *("none", "elsewhere", "interpolation", "nearer of two", "of another optimizer"),
        "beside a broken interpolation",
    ],
)
def test_the_schedule_is_the_one_beside_the_optimizer(cli_output, drawn, plot_arguments, text, lrs) -> None:
    cli_output(*plot_arguments(text))
    assert drawn[0][0].curves[0].lr.tolist() == lrs


def test_a_length_in_steps_needs_no_epochs(cli_output, drawn, plot_arguments) -> None:
    cli_output(*plot_arguments(f"{NET}\ntrainer: {{max_steps: 7, max_epochs: -1}}\noptimizer: {SGD}"))
    assert drawn[0][0].length.total("step") == 7


def test_how_often_the_schedule_steps_is_said_before_the_path(cli_output, drawn, plot_arguments) -> None:
    out = cli_output(*plot_arguments(config(f"optimizer: {SGD}", f"scheduler: {HALVING}")))
    assert out.splitlines()[-2:] == [
        "assumed: scheduler steps once per optimizer step (scheduler.interval: step), as with "
        "lightning_optim.configure_optimizers",
        "plot: plot.svg",
    ]


def test_a_curve_by_steps_is_not_drawn_for_an_app_that_steps_by_epochs(cli_error, drawn, plot_arguments) -> None:
    text = config(f"optimizer: {SGD}", f"lr_scheduler: {{scheduler: {HALVING}, interval: epoch}}")
    error = cli_error(*plot_arguments(text))
    assert "Type lr_scheduler.scheduler.interval=epoch, and give its lengths in epochs" in error
    assert not drawn


# What is wrong, and what to type.

MISTAKES = {
    "several optimizers": (
        config("a:", f"  optimizer: {SGD}", "b:", f"  optimizer: {SGD}"),
        [],
        "--plot: it takes one optimizer, and the config has a.optimizer, b.optimizer. Type --node a.optimizer",
    ),
    "unknown optimizer": (
        config(f"optimizer: {SGD}"),
        ["--node", "optimiser"],
        "--node: optimiser is not an optimizer in the config. Available: optimizer. Did you mean 'optimizer'?",
    ),
    "several schedules": (
        config(f"optimizer: {SGD}", f"one: {HALVING}", f"two: {HALVING}"),
        [],
        "--plot: it takes one schedule for optimizer, and the config has one, two. Remove the others, for example with "
        "~two",
    ),
    "torch's scheduler": (
        config(f"optimizer: {SGD}", f"scheduler: {TORCH_SCHEDULER}"),
        [],
        "scheduler: torch.optim.lr_scheduler.StepLR cannot be predicted, as only your code knows when it steps. Type "
        "+scheduler@scheduler=cosine_annealing",
    ),
    "partial schedule": (
        config(f"optimizer: {SGD}", f"scheduler: {HALVING[:-1]}, _partial_: true}}"),
        [],
        "scheduler: a _partial_: true is left over in the config. Type scheduler._partial_=false",
    ),
    "several unfreeze plans": (
        config(f"optimizer: {SGD}", f"one: {UNFREEZE}", f"two: {UNFREEZE}"),
        [],
        "--plot: it takes one unfreeze plan, and the config has one, two. Remove one: ~two",
    ),
    "no limit": (
        f"{NET}\noptimizer: {SGD}",
        [],
        "trainer: the config does not say where the run ends. Type trainer.max_epochs=10",
    ),
    "limit that is not a number": (
        f"{NET}\ntrainer: {{max_epochs: many}}\noptimizer: {SGD}",
        [],
        "trainer.max_epochs: got 'many', which is not an integer",
    ),
    "limit that cannot be resolved": (
        f"{NET}\ntrainer: {{max_epochs: '${{epochs}}'}}\noptimizer: {SGD}",
        [],
        "trainer.max_epochs: it refers to ${epochs}, and there is no such key",
    ),
    "epochs of unknown length": (
        f"{NET}\ntrainer: {{max_epochs: 3}}\noptimizer: {SGD}",
        [],
        "--steps-per-epoch: the run ends after 3 epochs, but the length of an epoch is not in the config. "
        "Type --steps-per-epoch N",
    ),
    "wrong schedule": (
        config(f"optimizer: {SGD}", f"scheduler: {HALVING[:-1]}, warmup_steps: 3, total_steps: 2}}"),
        [],
        "scheduler: total_steps",
    ),
    "warm-up as long as the run": (
        config(
            f"optimizer: {SGD}",
            "other: {_target_: lightning_optim.SchedulerFactory, name: cosine_annealing, warmup_steps: 3}",
        ),
        [],
        "other: warmup_steps: 3 is not less than the run's 3 steps",
    ),
    "epoch without steps": (config(f"optimizer: {SGD}"), ["--steps-per-epoch", "0"], "--steps-per-epoch: got 0"),
}


@pytest.mark.parametrize(("text", "arguments", "message"), every_row(MISTAKES, fast=4))
def test_a_mistake_is_refused(cli_error, plot_arguments, text, arguments, message) -> None:
    assert message in cli_error(*plot_arguments(text), *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--max-epochs", "20"],
            "--max-epochs: this option belongs to a run. Add --steps-per-epoch N or --plot FILE.png, or leave it out",
        ),
        (["--node", "optimizer"], "--node: this option belongs to a run. Add --steps-per-epoch N or --plot FILE.png"),
        (["--steps-per-epoch", "20", "--max-epochs", "0"], "--max-epochs: got 0, which is not an integer >= 1"),
        (["--plot", "plot.jpg"], "--plot: got plot.jpg. Type a name that ends in .png, .svg, .pdf"),
        (["--plot", "nowhere/plot.png"], "--plot: there is no folder nowhere"),
    ],
    ids=["epochs without a run", "node without a run", "no epochs", "unknown suffix", "missing folder"],
)
def test_wrong_options_are_refused_before_the_config_is_composed(cli_error, arguments, message) -> None:
    assert message in cli_error("explain", "--config-dir", "no", "--config-name", "no", "--module", "no", *arguments)


def test_without_matplotlib_tables_are_printed_and_a_plot_is_refused(cli_output, cli_error, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "Unfreeze plan" in cli_output(*RECIPE)
    error = cli_error(*RECIPE, "--steps-per-epoch", "20", "--plot", "plot.png")
    assert error == '--plot: matplotlib is not installed. Type pip install "lightning-optim[plot]"\n'
