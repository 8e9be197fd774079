"""The checkpoints of the recipe: which of them can be resumed, and what the others are refused with."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_optim import ConfigError
from recipes.checkpoints import AtomicCheckpointIO, RecordRun, read_phase_and_step

SETTINGS = {"seed": 0, "task.noise": 0.5}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A checkpoint of step 3, with the seed and the noise of `SETTINGS`."""
    checkpoint: dict[str, Any] = {"global_step": 3}
    RecordRun("finetune", SETTINGS).on_save_checkpoint(None, None, checkpoint)
    torch.save(checkpoint, tmp_path / "step=3.ckpt")
    return tmp_path / "step=3.ckpt"


def test_phase_and_step_are_read(path) -> None:
    assert read_phase_and_step(str(path), SETTINGS) == ("finetune", 3)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 3}, "seed: 3, but .* Type seed=0"),
        ({"task.noise": 0.1}, r"task\.noise: 0\.1, but .* Type task\.noise=0\.5"),
    ],
    ids=["seed", "task"],
)
def test_checkpoint_of_other_data_is_refused(path, changed, message) -> None:
    with pytest.raises(ConfigError, match=message):
        read_phase_and_step(str(path), {**SETTINGS, **changed})


def test_missing_or_foreign_checkpoint_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"ckpt_path: .*none\.ckpt: there is no such file"):
        read_phase_and_step(str(tmp_path / "none.ckpt"), {})
    (tmp_path / "text.ckpt").write_text("no checkpoint at all")
    with pytest.raises(ConfigError, match=r"ckpt_path: .*text\.ckpt: this is no checkpoint"):
        read_phase_and_step(str(tmp_path / "text.ckpt"), {})
    torch.save({"epoch": 1}, tmp_path / "other.ckpt")
    with pytest.raises(ConfigError, match="is no checkpoint of this recipe"):
        read_phase_and_step(str(tmp_path / "other.ckpt"), {})


def test_a_damaged_checkpoint_is_refused(path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"finetune")] ^= 1
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"ckpt_path: .*step=3\.ckpt: the file is damaged"):
        read_phase_and_step(str(path), SETTINGS)


@pytest.mark.parametrize(
    "changed", [{"recipe": 1}, {"recipe": {"phase": "finetune"}}, {"global_step": None}, {"global_step": "x"}], ids=str
)
def test_a_record_of_wrong_types_is_refused(path, changed) -> None:
    torch.save({**torch.load(path), **changed}, path)
    with pytest.raises(ConfigError, match="its record of phase, settings and step is damaged"):
        read_phase_and_step(str(path), SETTINGS)


class Unsaved:
    """Fails while it is being pickled."""

    def __reduce__(self) -> str:
        raise OSError("No space left on device")


def test_nothing_is_left_of_a_write_that_fails(tmp_path: Path) -> None:
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, tmp_path / "last.ckpt")
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({"epoch": 2, "x": Unsaved()}, tmp_path / "last.ckpt")
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    assert torch.load(tmp_path / "last.ckpt") == {"epoch": 1}


def test_the_next_write_removes_what_a_killed_process_has_left(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    host = platform.node()
    removed = [f".a.ckpt.{host}.{child}.tmp", f".b.ckpt.{host}.{os.getpid()}.tmp"]
    others = [f".a.ckpt.{host}.{os.getppid()}.tmp", f".a.ckpt.another-{host}.{child}.tmp", ".notes.tmp"]
    for name in (*removed, *others):
        (tmp_path / name).touch()
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, tmp_path / "last.ckpt")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*others, "last.ckpt"])
