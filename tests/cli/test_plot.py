"""`explain --plot`: which optimizer, schedule and stages it draws over which length, and what it refuses."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_optim.cli import plot as cli_plot
from lightning_optim.cli.simulate import Simulation
from tests.cli.test_explain import CODE
from tests.support.user_environments import HERE

RECIPES = ("--config-dir", str(HERE.parents[1] / "recipes" / "conf"), "--config-name", "finetune", "--module", "model")
SGD = "{_target_: lightning_optim.OptimizerFactory, name: sgd, lr: 1}"
HALVED = "{_target_: lightning_optim.SchedulerFactory, name: step, step_size: 1, gamma: 0.5}"
TENTHED = "{_target_: lightning_optim.SchedulerFactory, name: step, step_size: 1, gamma: 0.1}"
TORCHS = "{_target_: torch.optim.lr_scheduler.StepLR, _partial_: true, step_size: 1}"
UNFREEZE = "{_target_: lightning_optim.StagedUnfreeze, stages: {head: {params: head}}}"
NET = "model: {_target_: mine.Net}"
THREE = "trainer: {max_steps: 3}"


@pytest.fixture
def drawn(monkeypatch) -> list[tuple[Simulation, list[str]]]:
    """What is drawn, instead of drawing it."""
    calls: list[Any] = []
    monkeypatch.setattr(cli_plot, "draw", lambda simulation, path, titles: calls.append((simulation, titles)))
    return calls


@pytest.fixture
def app(write_app, monkeypatch, tmp_path: Path) -> Callable[[str], tuple[str, ...]]:
    """The arguments that plot a user's app with this config."""

    def write(config: str) -> tuple[str, ...]:
        (tmp_path / "mine.py").write_text(CODE, encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        write_app({"train.yaml": config})
        place = ("--config-dir", "conf", "--config-name", "train", "--module", "model")
        return ("explain", *place, "--plot", "plot.svg")

    return write


def config(*lines: str) -> str:
    return "\n".join((NET, THREE, *lines))


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_recipe(printed, tmp_path, suffix) -> None:
    path = tmp_path / f"plot.{suffix}"
    out = printed("explain", *RECIPES, "--steps-per-epoch", "20", "--plot", str(path))
    assert out.endswith(f"plot: {path}\n")
    assert out.count("Param groups") == 2 and out.count("Unfreeze plan") == 1
    if suffix == "png":
        assert path.read_bytes().startswith(b"\x89PNG")
        return
    said = re.findall(r"<text [^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))
    assert "optimizer: adamw, scheduler: cosine_annealing, unfreeze: 2 stages" in said
    assert "300 optimizer steps: 15 epochs of 20" in said
    assert [said.count(text) for text in ("head", "head.no_decay", "backbone", "backbone.no_decay")] == [1, 1, 2, 1]


def test_why_and_a_plot(printed, drawn, tmp_path) -> None:
    plot = ("--steps-per-epoch", "20", "--plot", str(tmp_path / "plot.png"))
    out = printed("explain", *RECIPES, *plot, "--why", "head.1.bias")
    assert "Param groups" not in out and out.endswith(f"plot: {tmp_path}/plot.png\n")
    assert dict(drawn[0][0].thaws) == {"backbone": 20}


def test_overrides_are_heard(printed, drawn, tmp_path) -> None:
    plot = ("--steps-per-epoch", "10", "--plot", str(tmp_path / "plot.png"))
    preset = (
        "unfreeze=gradual",
        'unfreeze.stages.top.layers="backbone.{i}"',
        "unfreeze.stages.rest=null",
        "trainer.max_epochs=9",
    )
    printed("explain", *RECIPES, *plot, *preset, "optimizer.lr=0.5")
    ((simulation, _),) = drawn
    layers = {f"top.{layer}": 10 * epoch for epoch, layer in enumerate((7, 6, 4, 3, 1, 0), start=1)}
    assert dict(simulation.thaws) == layers
    assert simulation.curves[0].lr[0] == 0.5
    assert simulation.length.total("step") == 90


# Which.


def test_of_several_the_optimizer_nearest_the_top_or_the_one_asked_for(printed, drawn, tmp_path) -> None:
    plot = ("explain", *RECIPES, "--steps-per-epoch", "20", "--plot", str(tmp_path / "plot.png"))
    printed(*plot)
    printed(*plot, "--node", "pretrain.optimizer", "trainer.max_epochs=8")
    printed(*plot, "--node", "pretrain.optimizer", "~scheduler@pretrain.scheduler")
    printed(*plot, "~scheduler", "model.scheduler=null")
    assert [titles for _, titles in drawn] == [
        ["optimizer: adamw, scheduler: cosine_annealing, unfreeze: 2 stages"],
        ["pretrain.optimizer: adamw, pretrain.scheduler: cosine_annealing"],
        ["pretrain.optimizer: adamw, no schedule"],
        ["optimizer: adamw, no schedule, unfreeze: 2 stages"],
    ]
    assert [len(simulation.curves) for simulation, _ in drawn] == [4, 1, 1, 4]


@pytest.mark.parametrize(
    ("text", "lrs"),
    [
        (config(f"optimizer: {SGD}"), [1, 1, 1]),
        (config(f"optimizer: {SGD}", f"scheduler: {HALVED}"), [1, 0.5, 0.25]),
        (config(f"optimizer: {SGD}", "later: {scheduler: '${once}'}", f"once: {HALVED}"), [1, 0.5, 0.25]),
        (config("fit:", f"  optimizer: {SGD}", "  scheduler: '${once}'", f"once: {HALVED}"), [1, 0.5, 0.25]),
        (
            config(f"optimizer: {SGD}", f"scheduler: {HALVED}", "other:", f"  scheduler: {TENTHED}"),
            [1, 0.5, 0.25],
        ),
        (
            config(f"optimizer: {SGD}", "other:", f"  optimizer: {SGD}", f"  scheduler: {TENTHED}"),
            [1, 1, 1],
        ),
        (config(f"optimizer: {SGD}", f"scheduler: {HALVED}", "broken: '${nowhere}'"), [1, 0.5, 0.25]),
        (config("both:", f"- {SGD}", f"- {HALVED}"), [1, 0.5, 0.25]),
    ],
    ids=["none", "beside", "elsewhere", "referred to", "nearer", "another's", "beside a broken one", "in a list"],
)
def test_the_schedule_that_goes_with_it(printed, drawn, app, text, lrs) -> None:
    printed(*app(text))
    assert drawn[0][0].curves[0].lr.tolist() == lrs


def test_a_length_in_steps_needs_no_epochs(printed, drawn, app) -> None:
    printed(*app(f"{NET}\ntrainer: {{max_steps: 7, max_epochs: -1}}\noptimizer: {SGD}"))
    assert drawn[0][0].length.total("step") == 7


# What is wrong, and what to type.


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (
            config("a:", f"  optimizer: {SGD}", "b:", f"  optimizer: {SGD}"),
            [],
            "--plot: it draws one optimizer, and there are a.optimizer, b.optimizer. Type --node a.optimizer",
        ),
        (
            config(f"optimizer: {SGD}"),
            ["--node", "optimiser"],
            "--node: optimiser is no optimizer here. There are: optimizer. Did you mean 'optimizer'?",
        ),
        (
            config(f"optimizer: {SGD}", f"one: {HALVED}", f"two: {HALVED}"),
            [],
            "--plot: which of one, two goes with optimizer? Leave the others out, for example with ~two",
        ),
        (
            config(f"optimizer: {SGD}", f"scheduler: {TORCHS}"),
            [],
            "scheduler is torch.optim.lr_scheduler.StepLR, whose steps only your code knows. "
            "Type +scheduler@scheduler=cosine_annealing",
        ),
        (
            config(f"optimizer: {SGD}", f"scheduler: {HALVED[:-1]}, _partial_: true}}"),
            [],
            "scheduler: a _partial_: true is left over in the config. Type scheduler._partial_=false",
        ),
        (
            config(f"optimizer: {SGD}", f"one: {UNFREEZE}", f"two: {UNFREEZE}"),
            [],
            "--plot: it draws one unfreeze, and there are one, two. Leave one out: ~two",
        ),
        (f"{NET}\noptimizer: {SGD}", [], "trainer: the config has no end to take it from. Type trainer.max_epochs=10"),
        (
            f"{NET}\ntrainer: {{max_epochs: many}}\noptimizer: {SGD}",
            [],
            "trainer.max_epochs: got 'many', which is not a whole number",
        ),
        (
            f"{NET}\ntrainer: {{max_epochs: '${{epochs}}'}}\noptimizer: {SGD}",
            [],
            "trainer.max_epochs: it refers to ${epochs}, and there is no such key",
        ),
        (
            f"{NET}\ntrainer: {{max_epochs: 3}}\noptimizer: {SGD}",
            [],
            "--steps-per-epoch: the run ends after 3 epochs, and how long one is stands in no config. "
            "Type --steps-per-epoch N",
        ),
        (
            config(f"optimizer: {SGD}", f"scheduler: {HALVED[:-1]}, warmup_steps: 3, total_steps: 2}}"),
            [],
            "scheduler: total_steps",
        ),
        (
            config(
                f"optimizer: {SGD}",
                "other: {_target_: lightning_optim.SchedulerFactory, name: cosine_annealing, warmup_steps: 3}",
            ),
            [],
            "other: warmup_steps: 3 leaves nothing of the run's 3 steps",
        ),
        (config(f"optimizer: {SGD}"), ["--steps-per-epoch", "0"], "--steps-per-epoch: got 0"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) and not value.startswith("model") else "",
)
def test_mistakes(refused, app, text, arguments, message) -> None:
    assert message in refused(*app(text), *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps-per-epoch", "20"], "--steps-per-epoch: it belongs to a plot. Type --plot FILE.png too"),
        (["--node", "optimizer"], "--node: it belongs to a plot. Type --plot FILE.png too"),
        (["--plot", "plot.jpg"], "--plot: got plot.jpg. Type a name that ends in .png, .svg, .pdf"),
        (["--plot", "nowhere/plot.png"], "--plot: there is no folder nowhere"),
    ],
)
def test_what_is_found_before_anything_is_made(refused, arguments, message) -> None:
    assert message in refused("explain", "--config-dir", "no", "--config-name", "no", "--module", "no", *arguments)


def test_without_matplotlib_the_tables_are_there_and_a_plot_says_what_to_type(printed, refused, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "Unfreeze plan" in printed("explain", *RECIPES)
    said = refused("explain", *RECIPES, "--steps-per-epoch", "20", "--plot", "plot.png")
    assert said == '--plot: matplotlib draws it. Type pip install "lightning-optim[plot]"\n'
