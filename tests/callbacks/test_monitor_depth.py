"""Pictures of depth: at which steps there is one, for which runs, and what a run without matplotlib says."""

from __future__ import annotations

import importlib.util
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from lightning_optim import ConfigError, OptimizerFactory, OptimizerMonitor, StagedUnfreeze
from lightning_optim.telemetry import depth_pictures
from tests.support.training import BATCHES, fit

DEPTH = {"depth": {"layers": "layer.{i}", "layer_decay": 0.5}}
PLAN = {
    "head": {"params": "head"},
    "blocks": {"layers": "layer.{i}", "at": {"epoch": 1}, "each": {"epochs": 1}},
}
TAG = "optim/depth/layers"


class Layered(LightningModule):
    """Three layers and a head; `groups` are those of the factory."""

    def __init__(self, groups: Any = None, num_optimizers: int = 1) -> None:
        super().__init__()
        self.layer = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        self.head = nn.Linear(4, 3)
        self.groups, self.num_optimizers = groups, num_optimizers
        self.automatic_optimization = num_optimizers == 1

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Any:
        hidden = batch[0]
        for layer in self.layer:
            hidden = hidden + layer(hidden).tanh()
        loss = nn.functional.cross_entropy(self.head(hidden), batch[1])
        if self.automatic_optimization:
            return loss
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()
        return None

    def configure_optimizers(self) -> Any:
        factory = OptimizerFactory("adamw", lr=0.01, groups=self.groups)
        return [factory(self) for _ in range(self.num_optimizers)]


def fit_and_read(folder: Path, module: LightningModule, *callbacks: Any, **arguments: Any) -> dict[str, list[Any]]:
    """`(step, picture)` by tag."""
    logger = TensorBoardLogger(folder)
    fit(module, folder, *callbacks, **{"logger": logger, "log_every_n_steps": 1, **arguments})
    found: dict[str, list[Any]] = {}
    for file in folder.rglob("events.*"):
        events = EventAccumulator(str(file), size_guidance={"images": 0}).Reload()
        for tag in events.Tags()["images"]:
            found[tag] = [
                (event.step, np.asarray(Image.open(io.BytesIO(event.encoded_image_string))))
                for event in events.Images(tag)
            ]
    return found


def steps(pictures: dict[str, list[Any]], tag: str = TAG) -> list[int]:
    return [step for step, _ in pictures[tag]]


@pytest.fixture
def any_share(monkeypatch) -> None:
    """Drawing may take all the time of a run."""
    monkeypatch.setattr(depth_pictures, "_MAX_SHARE", float("inf"))


def test_a_picture_is_drawn_every_n_logged_steps_and_at_the_end(any_share, tmp_path) -> None:
    monitor = OptimizerMonitor(update_norm=True, depth_every=3)
    pictures = fit_and_read(tmp_path, Layered(), StagedUnfreeze(PLAN), monitor, log_every_n_steps=2)
    assert list(pictures) == [TAG]
    assert steps(pictures) == [5, 11, 15]  # logged are 1, 3, 5, ...
    grey = [(picture == 212).all(axis=2).mean() for _, picture in pictures[TAG]]
    assert grey[0] > grey[-1] > 0.02  # layer 0 is frozen until the last epoch


@pytest.mark.slow
def test_drawing_takes_a_hundredth_of_the_time(tmp_path) -> None:
    pictures = fit_and_read(tmp_path, Layered(DEPTH), OptimizerMonitor(depth_every=2))
    assert steps(pictures) == [1, 4 * BATCHES - 1]  # each takes longer than this run


@pytest.mark.parametrize(
    ("groups", "every"), [(DEPTH, None), (None, 2), ({"head": {"params": "head", "lr": 0.1}}, 2)],
    ids=["none asked for", "one group", "no layers"],
)  # fmt: skip
def test_a_run_without_layers_has_no_picture(tmp_path, groups, every) -> None:
    assert not fit_and_read(tmp_path, Layered(groups), OptimizerMonitor(depth_every=every), epochs=1)


def test_a_logger_of_curves_only_costs_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(depth_pictures, "find_depth_rows", lambda *_: pytest.fail("looked for layers"))
    fit(Layered(DEPTH), tmp_path, OptimizerMonitor(), logger=CSVLogger(tmp_path), log_every_n_steps=1, epochs=1)


@pytest.mark.slow
def test_each_optimizer_has_a_picture(any_share, tmp_path) -> None:
    torch.manual_seed(0)
    pictures = fit_and_read(tmp_path, Layered(DEPTH, num_optimizers=2), OptimizerMonitor(depth_every=100), epochs=1)
    assert set(pictures) == {"optim_adamw-1/depth/layers", "optim_adamw-2/depth/layers"}


def test_a_run_without_matplotlib_says_so_once_and_goes_on(tmp_path, monkeypatch, caplog) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(depth_pictures, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    with caplog.at_level(logging.INFO, logger="lightning_optim"):
        assert not fit_and_read(tmp_path, Layered(DEPTH), OptimizerMonitor(depth_every=1))
    assert [record.message for record in caplog.records if "matplotlib" in record.message] == [
        'no pictures of depth: matplotlib is not installed. Type pip install "lightning-optim[plot]"'
    ]


@pytest.mark.parametrize("every", [0, -1, 1.5, "often"])
def test_a_wrong_number_is_refused(every) -> None:
    with pytest.raises(ConfigError, match=r"^depth_every: "):
        OptimizerMonitor(depth_every=every)
