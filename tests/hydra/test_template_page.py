"""docs/template.md, as it stands, on an app with the structure of lightning-hydra-template (`apps/mnist`)."""

from __future__ import annotations

import logging
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

from lightning_optim import OptimizerMonitor
from tests.support.apps import APPS, App
from tests.support.documentation import PAGES, apply_diffs, find_blocks, find_files, split_commands
from tests.support.short_runs import lr_by_group

pytestmark = pytest.mark.filterwarnings("default")  # what Lightning warns of in such short runs

PAGE = "docs/template.md"
IN_THE_MODEL, IN_AN_EXPERIMENT = (split_commands(block) for block in find_blocks("bash", PAGE))
WITH_VARIABLE = IN_AN_EXPERIMENT[-1]
MODULE, DATA, MODEL = "src/models/mnist_module.py", "configs/data/mnist.yaml", "configs/model/mnist.yaml"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """Runs commands in a copy of the app, in this process, as a shell would."""
    shutil.copytree(APPS / "mnist", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, logger="lightning.pytorch")  # other tests may have silenced it

    def run_command(words: list[str]) -> None:
        with monkeypatch.context() as patch:
            patch.setenv("HYDRA_FULL_ERROR", "1")
            patch.setattr(sys, "path", [*sys.path])
            while "=" in words[0]:
                patch.setenv(*words[0].split("=", 1))
                words = words[1:]
            assert words[0] == "python"
            patch.setattr(sys, "argv", words[1:])
            runpy.run_path(words[1], run_name="__main__")

    forget_src()  # other apps of the tests have a package of this name too
    yield run_command
    forget_src()


def forget_src() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "src"]:
        del sys.modules[name]


@pytest.fixture
def prepare(run, tmp_path: Path) -> Callable[..., None]:
    """Edits the copy as the page says, except the files that are named, and writes the page's files."""

    def edit(*left_alone: str) -> None:
        originals = {name: (tmp_path / name).read_bytes() for name in left_alone}
        apply_diffs(PAGE, tmp_path)
        for name, content in originals.items():
            (tmp_path / name).write_bytes(content)
        for name, text in find_files(PAGE).items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8")

    return edit


@pytest.mark.slow
def test_what_the_commands_for_the_models_config_configure(prepare, tmp_path: Path, monkeypatch) -> None:
    prepare()
    monkeypatch.syspath_prepend(str(tmp_path))
    app = App(tmp_path, "configs", "train")
    commands = [words[2:] for words in IN_THE_MODEL if words[1] == "src/train.py" and "-m" not in words]
    lr, rule, other, monitor, stages = (app.compose(*overrides) for overrides in commands[2:])
    for job, groups in (
        (lr, {"default": 3e-4, "no_decay": 3e-4}),
        (rule, {"default": 1e-3, "no_decay": 1e-3, "head": 1e-2, "head.no_decay": 1e-2}),
    ):
        assert lr_by_group(instantiate(job.model.optimizer)(instantiate(job.model))) == groups
    assert instantiate(other.model.optimizer).name == "sgd"
    assert type(instantiate(monitor.callbacks.optim)) is OptimizerMonitor
    assert monitor.logger.tensorboard._target_.endswith("TensorBoardLogger")
    rows = instantiate(stages.callbacks.unfreeze).explain(instantiate(stages.model)).rows()
    assert [(row["group"], row["thaws"]) for row in rows[:2]] == [("head", "from the start"), ("backbone", "epoch 1")]


def saved_groups(checkpoint: Path) -> list[str]:
    (state,) = torch.load(checkpoint, weights_only=True)["optimizer_states"]
    return [group["name"] for group in state["param_groups"]]


def check_resume(output: str, checkpoint: str) -> None:
    """The one command with 12 epochs went on from the checkpoint."""
    _, restored, rest = output.partition(f"Restored all states from the checkpoint at {checkpoint}")
    assert restored and "`max_epochs=12` reached" in rest


@pytest.mark.slow
def test_the_commands_for_the_models_config(run, prepare, capfd, tmp_path: Path) -> None:
    prepare()
    for words in IN_THE_MODEL:
        run(words)
    assert saved_groups(tmp_path / "logs/first/checkpoints/last.ckpt") == ["default", "no_decay"]
    check_resume(capfd.readouterr().out, "logs/first/checkpoints/last.ckpt")
    assert len(list(tmp_path.glob("logs/train/multiruns/*/*/checkpoints/last.ckpt"))) == 2
    assert list(tmp_path.glob("logs/train/runs/*/tensorboard/**/optim/no_decay/events.out.tfevents.*"))


@pytest.mark.slow
def test_the_commands_for_an_experiment_file(run, prepare, capfd, tmp_path: Path) -> None:
    """The module's config keeps its own optimizer."""
    prepare(MODEL)
    for words in IN_AN_EXPERIMENT:
        run(words)
    # Not the groups in `last.ckpt`: it is written only when the accuracy, which is random here, has risen.
    output = capfd.readouterr().out
    assert "'backbone' thaws (backbone, backbone.no_decay)" in output
    check_resume(output, "logs/second/checkpoints/last.ckpt")
    assert len(list(tmp_path.glob("logs/train/multiruns/*/*/checkpoints/last.ckpt"))) == 2


@pytest.mark.parametrize(
    ("left_alone", "refused"),
    [
        pytest.param(MODULE, "SimpleDenseNet", id="module"),
        pytest.param(DATA, "ListConfig", marks=pytest.mark.slow, id="data"),
        pytest.param(MODEL, "_DeferredTarget|functools.partial", marks=pytest.mark.slow, id="scheduler"),
    ],
)
def test_each_edit_is_needed_to_load_the_best_checkpoint(left_alone: str, refused: str, run, prepare) -> None:
    prepare(left_alone)
    with pytest.raises(Exception, match=refused):
        run(["python", "src/train.py", "trainer.max_epochs=1"])


@pytest.mark.slow
def test_a_schedule_with_a_length_in_epochs(run, prepare) -> None:
    prepare()
    (overrides,) = re.findall(r"`(scheduler@model\.scheduler=[^`]+)`", PAGES[PAGE])
    run(["python", "src/train.py", *overrides.split()])


@pytest.mark.slow
def test_the_variable_alone_loads_checkpoints_of_the_template_as_it_is(run, prepare) -> None:
    prepare(MODEL, MODULE, DATA)
    run([*WITH_VARIABLE, "trainer.max_epochs=1"])
