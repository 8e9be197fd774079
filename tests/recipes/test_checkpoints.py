"""The checkpoints of the recipe: which of them can be resumed, and what the others are refused with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_optim import ConfigError
from recipes.checkpoints import RecordRun, read_phase_and_step

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
    with pytest.raises(ConfigError, match=r"ckpt_path: there is no file .*none\.ckpt"):
        read_phase_and_step(str(tmp_path / "none.ckpt"), {})
    (tmp_path / "text.ckpt").write_text("no checkpoint at all")
    with pytest.raises(ConfigError, match="cannot be read as a checkpoint"):
        read_phase_and_step(str(tmp_path / "text.ckpt"), {})
    torch.save({"epoch": 1}, tmp_path / "other.ckpt")
    with pytest.raises(ConfigError, match="is no checkpoint of this recipe"):
        read_phase_and_step(str(tmp_path / "other.ckpt"), {})
