"""`explain` makes the model and nothing else, whatever the config names in other places."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from torch import nn

from lightning_optim import ConfigError
from lightning_optim.cli import main
from lightning_optim.cli.explain import describe_explanation
from lightning_optim.cli.explain import explain as explain_config
from lightning_optim.cli.planned_run import RunOptions, find_run
from tests.support.cases import every
from tests.support.hostile_targets import MARK, MODULE, hostile_targets, write_hostile_files

CONFIG: dict[str, Any] = {
    "model": {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2},
    "optimizer": {
        "_target_": "lightning_optim.OptimizerFactory",
        "name": "adamw",
        "lr": 0.1,
        "betas": [0.9, 0.99],
        "groups": {"late": {"params": "weight", "lr": 0.01, "schedule": {"name": "constant", "factor": 1.0}}},
    },
    "scheduler": {"_target_": "lightning_optim.SchedulerFactory", "name": "cosine_annealing", "T_max": 10},
    "unfreeze": {
        "_target_": "lightning_optim.StagedUnfreeze",
        "stages": {"head": {"params": "bias"}, "body": {"params": "weight", "at": {"epoch": 1}, "lr_scale": 0.5}},
    },
    "callbacks": {"monitor": {"_target_": "lightning_optim.OptimizerMonitor", "every_n_steps": 5}},
    "trainer": {"_target_": "lightning.pytorch.Trainer", "max_epochs": 2},
}
PLACES = {
    "a hyperparameter": "optimizer.lr",
    "within a list": "optimizer.betas.0",
    "the name": "optimizer.name",
    "the rules": "optimizer.groups",
    "a rule": "optimizer.groups.late",
    "a value of a rule": "optimizer.groups.late.lr",
    "a selector": "optimizer.groups.late.params",
    "a rule's schedule": "optimizer.groups.late.schedule",
    "a value of a schedule": "scheduler.T_max",
    "the stages": "unfreeze.stages",
    "a trigger": "unfreeze.stages.body.at",
    "a value of a stage": "unfreeze.stages.body.lr_scale",
    "positional arguments": "optimizer._args_",
    "a callback": "callbacks.monitor",
    "a value of a callback": "callbacks.monitor.every_n_steps",
    "the trainer": "trainer",
    "a node of its own": "other",
    "an interpolation": "other",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Holds the app and the hostile files, and is on the import path."""
    write_hostile_files(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop(MODULE, None)


@pytest.fixture
def explain(folder: Path) -> Callable[[dict[str, Any]], int]:
    """Runs `explain` for a config."""

    def run(config: dict[str, Any]) -> int:
        OmegaConf.save(OmegaConf.create(config), folder / "c.yaml")
        options = ["--config-dir", str(folder), "--config-name", "c", "--module", "model", "--steps-per-epoch", "10"]
        return main(["explain", *options])

    return run


def replace(place: str, node: dict[str, Any]) -> dict[str, Any]:
    """The config with a node at a place."""
    config: Any = OmegaConf.create(deepcopy(CONFIG))
    key = PLACES[place]
    OmegaConf.update(config, key, [node] if key.endswith("_args_") else node, merge=False, force_add=True)
    if place == "an interpolation":
        config.optimizer.lr = "${other}"
    container: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
    return container


def assert_unmarked(folder: Path, what: object) -> None:
    assert not (folder / MARK).exists(), what
    assert MODULE not in sys.modules, what


def test_there_are_sixty_targets(folder):
    targets = [node["_target_"] for node in hostile_targets(folder)]
    assert len(targets) == len(set(targets)) >= 60


@pytest.mark.parametrize("place", every(PLACES, fast=["a hyperparameter", "a trigger", "an interpolation"]))
def test_explain_runs_nothing_but_the_model(place, folder, explain, capsys):
    fast = [node for node in hostile_targets(folder) if node["_target_"] in ("torch.load", f"{MODULE}.Thing")]
    for node in fast:
        explain(replace(place, node))
        assert_unmarked(folder, node)
    output = capsys.readouterr()
    assert "Traceback" not in output.err + output.out


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_explain_runs_none_of_them(place, folder):
    """A third of the targets in each place, by turns: each in six places."""
    for node in hostile_targets(folder)[list(PLACES).index(place) % 3 :: 3]:
        config = OmegaConf.create(replace(place, node))
        with suppress(ConfigError):
            describe_explanation(explain_config(config, "c", "model", None))
            find_run(config, nn.Linear(3, 2), RunOptions(steps_per_epoch=10), "--plot")
        assert_unmarked(folder, node)


def test_the_marks_are_made_where_something_runs(folder):
    """The detector: in the model's own node, which `explain` does make."""
    for node in ({"_target_": "pathlib.Path.touch", "_args_": [str(folder / MARK)]}, {"_target_": f"{MODULE}.Thing"}):
        OmegaConf.save(OmegaConf.create({**CONFIG, "model": node}), folder / "c.yaml")
        main(["explain", "--config-dir", str(folder), "--config-name", "c", "--module", "model"])
        assert (folder / MARK).exists()
        (folder / MARK).unlink()


def test_a_trigger_of_the_app_is_shown_and_not_called(folder, explain, capsys):
    assert explain(replace("a trigger", {"_target_": f"{MODULE}.Thing", "_partial_": True})) == 0
    assert f"{MODULE}.Thing()" in capsys.readouterr().out
    assert_unmarked(folder, "a trigger")
