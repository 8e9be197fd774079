"""The main job: it runs, shows what it claims, and carries on bitwise from whatever it wrote."""

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
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_optim import ConfigError
from recipes.checkpoints import peek
from recipes.digits import Digits, EpochLoader
from recipes.finetune import finetune, pretrain, quiet, settings
from tests.support.processes import ROOT, run_module
from tests.support.training import same

SMALL = [
    "pretrain.max_epochs=1",
    "trainer.max_epochs=3",
    "task.labels_per_class=4",
    "trainer.enable_progress_bar=false",
]
STEPS_PER_EPOCH, STEPS = 4, 12


def _config(*overrides: str) -> Any:
    with initialize_config_dir(str(ROOT / "recipes" / "conf"), version_base="1.3"):
        return compose("finetune", [*SMALL, *overrides])


def _recipe(run_dir: Path, *overrides: str) -> str:
    """What the recipe prints."""
    _, out, _ = run_module("recipes.finetune", f"hydra.run.dir={run_dir}", *overrides)
    return out


def _scalars(folder: Path) -> dict[str, list[int]]:
    events = EventAccumulator(str(next(folder.glob("events.*"))), size_guidance={"scalars": 0}).Reload()
    return {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that kept a checkpoint of each step."""
    quiet()
    folder = tmp_path_factory.mktemp("run")
    config = _config("checkpoint.save_top_k=-1", "checkpoint.every_n_train_steps=1", "checkpoint.filename='{step}'")
    finetune(config, folder, pretrain(config, folder))
    return folder / "checkpoints"


def _weights_and_state(checkpoint: Path) -> Any:
    loaded = torch.load(checkpoint, weights_only=True)
    return [loaded[key] for key in ("state_dict", "optimizer_states", "lr_schedulers")]


@pytest.mark.filterwarnings("ignore")
def test_resumes_bitwise_from_every_checkpoint_of_the_finetuning(saved, tmp_path) -> None:
    last = _weights_and_state(saved / "finetune" / f"step={STEPS}.ckpt")
    config = _config("checkpoint.every_n_train_steps=1", "checkpoint.filename='{step}'", "checkpoint.save_top_k=-1")
    checkpoints = sorted((saved / "finetune").glob("*.ckpt"))
    assert len(checkpoints) == STEPS
    for checkpoint in checkpoints:
        if checkpoint.stem == f"step={STEPS}":
            continue
        folder = tmp_path / checkpoint.stem
        phase, step = peek(str(checkpoint), settings(config))
        assert (phase, f"step={step}") == ("finetune", checkpoint.stem)
        finetune(config, folder, None, str(checkpoint), step)
        assert same(_weights_and_state(folder / "checkpoints" / "finetune" / f"step={STEPS}.ckpt"), last), (
            checkpoint.stem
        )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("step", [7, 20])
def test_resumes_bitwise_from_a_checkpoint_of_the_pretraining(saved, tmp_path, step) -> None:
    config = _config("checkpoint.every_n_train_steps=1", "checkpoint.filename='{step}'")
    pretrained = pretrain(config, tmp_path, str(saved / "pretrain" / f"step={step}.ckpt"), step)
    finetune(config, tmp_path, pretrained)
    resumed = _weights_and_state(tmp_path / "checkpoints" / "finetune" / f"step={STEPS}.ckpt")
    assert same(resumed, _weights_and_state(saved / "finetune" / f"step={STEPS}.ckpt"))


def test_curves_of_the_backbone_begin_at_the_unfreeze(saved) -> None:
    scalars = _scalars(saved.parent / "tensorboard" / "finetune")
    for name in ("lr", "norm/exp_avg", "norm/exp_avg_sq", "norm/grad", "norm/param", "weight_decay"):
        assert scalars[f"optim/{name}/head"] == list(range(STEPS))
        for group in ("backbone", "backbone.no_decay"):
            assert scalars[f"optim/{name}/{group}"] == list(range(STEPS_PER_EPOCH, STEPS))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seed=3"], "seed: 3, but .* Type seed=0"),
        (["task.noise=0.1"], r"task\.noise: 0\.1, but .* Type task\.noise=0\.5"),
    ],
    ids=["seed", "task"],
)
def test_a_checkpoint_of_other_data_is_refused(saved, overrides, message) -> None:
    with pytest.raises(ConfigError, match=message):
        peek(str(saved / "finetune" / "step=3.ckpt"), settings(_config(*overrides)))


def test_a_missing_or_foreign_checkpoint_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"ckpt_path: there is no file .*none\.ckpt"):
        peek(str(tmp_path / "none.ckpt"), {})
    (tmp_path / "text.ckpt").write_text("no checkpoint at all")
    with pytest.raises(ConfigError, match="cannot be read as a checkpoint"):
        peek(str(tmp_path / "text.ckpt"), {})
    torch.save({"epoch": 1}, tmp_path / "other.ckpt")
    with pytest.raises(ConfigError, match="is no checkpoint of this recipe"):
        peek(str(tmp_path / "other.ckpt"), {})


def test_the_command_prints_its_plan_first_and_ends_with_what_to_type(tmp_path) -> None:
    out = _recipe(tmp_path / "run", *SMALL)
    assert (
        out.index("Param groups") < out.index("no_decay") < out.index("Unfreeze plan") < out.index("backbone.no_decay")
    )
    assert "Test accuracy on noisy digits: 0." in out
    assert out.rstrip().endswith(f"tensorboard --logdir {tmp_path / 'run' / 'tensorboard'}")
    assert len(list(tmp_path.rglob("*.ckpt"))) == 2
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.slow
def test_killed_at_any_moment_it_carries_on_bitwise(tmp_path) -> None:
    whole = tmp_path / "whole"
    _recipe(whole)
    expected = _weights_and_state(whole / "checkpoints" / "finetune" / "last.ckpt")
    for number, (sent, phase, past) in enumerate(
        [(signal.SIGKILL, "pretrain", 0), (signal.SIGINT, "finetune", 1), (signal.SIGTERM, "finetune", 40)]
    ):
        run = tmp_path / f"stopped{number}"
        checkpoint = run / "checkpoints" / phase / "last.ckpt"
        command = [sys.executable, "-m", "recipes.finetune", f"hydra.run.dir={run}"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        while not checkpoint.exists() or torch.load(checkpoint, weights_only=True)["global_step"] < past:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(sent)
        out, _ = process.communicate(timeout=60)
        assert process.returncode != 0
        assert ("Carry on with: python -m recipes.finetune ckpt_path=" in out) == (sent != signal.SIGKILL)
        rest = tmp_path / f"rest{number}"
        _recipe(rest, f"ckpt_path={checkpoint}")
        assert same(_weights_and_state(rest / "checkpoints" / "finetune" / "last.ckpt"), expected), number


@pytest.mark.slow
def test_two_processes(tmp_path) -> None:
    witness = "+callbacks.witness._target_=tests.support.runs.recipe_replicas.Replicas"
    arguments = [
        "trainer.devices=2",
        "trainer.strategy=ddp",
        "trainer.accelerator=cpu",
        witness,
        f"+callbacks.witness.folder={tmp_path}",
    ]
    _recipe(tmp_path / "run", *arguments)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert len(first) == 150
    assert same(first, second)


def test_the_loader_takes_up_mid_epoch_and_shares_between_ranks() -> None:
    images, labels = torch.arange(10.0).view(10, 1), torch.arange(10)
    whole = EpochLoader(images, labels, 3, seed=5)
    epochs = [[batch[1].tolist() for batch in whole] for _ in range(3)]
    assert epochs[0] != epochs[1] and all(sorted(sum(epoch, [])) == list(range(10)) for epoch in epochs)
    for epoch in range(3):
        for batch in range(5):
            again = EpochLoader(images, labels, 3, seed=5)
            again.load_state_dict({"epoch": epoch, "batch": batch})
            expected = epochs[epoch][batch:] if batch < 4 else (epochs[epoch + 1] if epoch < 2 else None)
            if expected is not None:
                assert [labels.tolist() for _, labels in again] == expected
    shares = [sum((b[1].tolist() for b in EpochLoader(images, labels, 3, 5, rank, 2)), []) for rank in range(2)]
    assert sorted(shares[0] + shares[1]) == list(range(10))


def test_splits_are_apart_and_labels_few() -> None:
    data = Digits(seed=1, noise=0.0, labels_per_class=20, batch_size=10, test_size=500, val_size=297)
    parts = {name: {image.numpy().tobytes() for image in images} for name, (images, _) in data._parts.items()}
    assert not parts["train"] & parts["test"] and not parts["val"] & parts["test"] and not parts["train"] & parts["val"]
    assert data._parts["train"][1].bincount().tolist() == [20] * 10
