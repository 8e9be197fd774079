"""The main recipe: it runs, prints what it promises, and resumes bitwise from every checkpoint that it writes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch.utilities.exceptions import SIGTERMException
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recipes import finetune as recipe
from recipes.checkpoints import read_phase_and_step
from tests.support.cases import every
from tests.support.equality import equal
from tests.support.processes import ROOT, run_module
from tests.support.tensorboard_events import read_curves

SMALL = [
    "pretrain.max_epochs=1",
    "trainer.max_epochs=3",
    "task.labels_per_class=4",
    "trainer.enable_progress_bar=false",
]
STEPS_PER_EPOCH, STEPS = 4, 12
LAST_STEP_ONLY = [f"checkpoint.every_n_train_steps={STEPS}", "checkpoint.filename='{step}'"]


def compose_config(*overrides: str) -> Any:
    with initialize_config_dir(str(ROOT / "recipes" / "conf"), version_base="1.3"):
        return compose("finetune", [*SMALL, *overrides])


def logged_steps(folder: Path) -> dict[str, list[int]]:
    return {tag: [step for step, _ in points] for tag, points in read_curves(folder).items()}


def training_state(checkpoint: Path) -> Any:
    loaded = torch.load(checkpoint, weights_only=True)
    return [loaded[key] for key in ("state_dict", "optimizer_states", "lr_schedulers")]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of a run that keeps one for each step."""
    recipe.silence_warnings()
    folder = tmp_path_factory.mktemp("run")
    config = compose_config(
        "checkpoint.save_top_k=-1", "checkpoint.every_n_train_steps=1", "checkpoint.filename='{step}'"
    )
    recipe.finetune(config, folder, recipe.pretrain(config, folder))
    assert len(list((folder / "checkpoints" / "finetune").glob("*.ckpt"))) == STEPS
    return folder / "checkpoints"


# Step 3 is in the middle of the frozen epoch, step 4 at its end, step 6 after the thaw.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("step", every([3, 4, 6], fast=["3"]))
def test_finetuning_resumes_bitwise(checkpoints, tmp_path, step) -> None:
    config = compose_config(*LAST_STEP_ONLY)
    checkpoint = str(checkpoints / "finetune" / f"step={step}.ckpt")
    assert read_phase_and_step(checkpoint, recipe.data_settings(config)) == ("finetune", step)
    recipe.finetune(config, tmp_path, None, checkpoint, step)
    resumed = training_state(tmp_path / "checkpoints" / "finetune" / f"step={STEPS}.ckpt")
    assert equal(resumed, training_state(checkpoints / "finetune" / f"step={STEPS}.ckpt"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "step", [pytest.param(7, id="in mid-epoch"), pytest.param(20, id="at the end", marks=pytest.mark.slow)]
)
def test_pretraining_resumes_bitwise(checkpoints, tmp_path, step) -> None:
    config = compose_config(*LAST_STEP_ONLY)
    pretrained = recipe.pretrain(config, tmp_path, str(checkpoints / "pretrain" / f"step={step}.ckpt"), step)
    recipe.finetune(config, tmp_path, pretrained)
    resumed = training_state(tmp_path / "checkpoints" / "finetune" / f"step={STEPS}.ckpt")
    assert equal(resumed, training_state(checkpoints / "finetune" / f"step={STEPS}.ckpt"))


def test_finetuning_starts_from_the_pretrained_backbone(checkpoints) -> None:
    pretrained, frozen = (
        torch.load(checkpoints / phase, weights_only=True)["state_dict"]
        for phase in ("pretrain/step=20.ckpt", "finetune/step=1.ckpt")
    )
    backbone = [key for key in frozen if key.startswith("backbone.")]
    assert backbone and equal({key: frozen[key] for key in backbone}, {key: pretrained[key] for key in backbone})


def test_resumed_run_drops_the_steps_logged_after_its_checkpoint(tmp_path) -> None:
    folder = tmp_path / "tensorboard" / "finetune"
    for number, (start, end) in enumerate([(0, 5), (3, 6)]):
        logger = recipe.build_trainer(compose_config(), "finetune", tmp_path, [], start).logger
        for step in range(start, end):
            logger.log_metrics({"start": float(start)}, step)
        logger.finalize("success")
        (file,) = folder.glob("events.*")
        file.rename(folder / f"tfevents.{number}")  # files are read in the order of their names
    events = EventAccumulator(str(folder)).Reload()
    points = [(event.step, event.value) for event in events.Scalars("start")]
    assert points == [(0, 0), (1, 0), (2, 0), (3, 3), (4, 3), (5, 3)]


def test_curves_of_the_backbone_start_at_the_thaw(checkpoints) -> None:
    steps = logged_steps(checkpoints.parent / "tensorboard" / "finetune")
    for name in ("lr", "norm/exp_avg", "norm/exp_avg_sq", "norm/grad", "norm/param"):
        assert steps[f"optim/{name}/head"] == list(range(STEPS))
        for group in ("backbone", "backbone.no_decay"):
            assert steps[f"optim/{name}/{group}"] == list(range(STEPS_PER_EPOCH, STEPS))
    assert steps["optim/weight_decay/head"] == [0] and steps["optim/weight_decay/backbone"] == [STEPS_PER_EPOCH]


def check_output(out: str, run_dir: Path) -> None:
    """The plan comes before the training, the TensorBoard command at the end."""
    expected = ["Param groups", "no_decay", "Unfreeze plan", "backbone.no_decay", "Test accuracy on noisy digits: 0."]
    assert sorted(expected, key=out.index) == expected
    assert out.rstrip().endswith(f"tensorboard --logdir {run_dir / 'tensorboard'}")


@pytest.mark.filterwarnings("ignore")
def test_command_prints_its_plan_first_and_the_tensorboard_command_last(run_main, tmp_path, capsys) -> None:
    run_main(tmp_path / "run", *SMALL)
    check_output(capsys.readouterr().out, tmp_path / "run")
    assert len(list(tmp_path.rglob("*.ckpt"))) == 2
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("stop", "status"), [(KeyboardInterrupt, None), (SIGTERMException, 128 + signal.SIGTERM)], ids=["Ctrl-C", "SIGTERM"]
)
def test_stopped_command_prints_how_to_resume(run_main, tmp_path, monkeypatch, capsys, stop, status) -> None:
    folder = tmp_path / "checkpoints" / "pretrain"

    def stopped(*_: Any) -> None:
        folder.mkdir(parents=True)
        (folder / "last.ckpt").touch()
        raise stop

    monkeypatch.setattr(recipe, "pretrain", stopped)
    with pytest.raises((KeyboardInterrupt, SystemExit)) as caught:
        run_main(tmp_path)
    assert getattr(caught.value, "code", None) == status
    assert (
        capsys.readouterr()
        .out.rstrip()
        .endswith(f"Stopped. Carry on with: python -m recipes.finetune ckpt_path={folder / 'last.ckpt'}")
    )


KILLED = ["pretrain.max_epochs=2", "trainer.max_epochs=8", "trainer.enable_progress_bar=false"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The state at the end of the run that the next test interrupts, as the command itself leaves it."""
    run_dir = tmp_path_factory.mktemp("uninterrupted")
    _, out, _ = run_module("recipes.finetune", f"hydra.run.dir={run_dir}", *KILLED)
    check_output(out, run_dir)
    return training_state(run_dir / "checkpoints" / "finetune" / "last.ckpt")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("sent", "phase", "min_step"),
    [(signal.SIGKILL, "pretrain", 0), (signal.SIGTERM, "finetune", 40)],
    ids=["SIGKILL in pretraining", "SIGTERM after the thaw"],
)
def test_stopped_run_resumes_bitwise(uninterrupted, run_main, tmp_path, sent, phase, min_step) -> None:
    checkpoint = tmp_path / "stopped" / "checkpoints" / phase / "last.ckpt"
    command = [sys.executable, "-m", "recipes.finetune", f"hydra.run.dir={tmp_path / 'stopped'}", *KILLED]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    while not checkpoint.exists() or torch.load(checkpoint, weights_only=True)["global_step"] < min_step:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(sent)
    out, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert ("Carry on with: python -m recipes.finetune ckpt_path=" in out) == (sent != signal.SIGKILL)
    run_main(tmp_path / "resumed", *KILLED, f"ckpt_path={checkpoint}")
    assert equal(training_state(tmp_path / "resumed" / "checkpoints" / "finetune" / "last.ckpt"), uninterrupted)


@pytest.mark.slow
def test_two_processes_keep_equal_weights(tmp_path) -> None:
    run_module(
        "recipes.finetune",
        f"hydra.run.dir={tmp_path / 'run'}",
        "pretrain.max_epochs=1",
        "trainer.max_epochs=3",
        "trainer.devices=2",
        "trainer.strategy=ddp",
        "trainer.accelerator=cpu",
        "+callbacks.recorder._target_=tests.support.runs.recipe_replicas.RecordParameters",
        f"+callbacks.recorder.folder={tmp_path}",
    )
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert len(first) == 30
    assert equal(first, second)
