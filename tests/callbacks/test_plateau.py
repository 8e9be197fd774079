"""ReduceLROnPlateau with stages: a run resumes bitwise whatever it monitors and whenever it was saved.

On several ranks: `test_ddp.py`.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_optim import OptimizerFactory, RNGState, SchedulerFactory, StagedUnfreeze, configure_optimizers
from tests.support.cases import each_value
from tests.support.equality import equal
from tests.support.training import BATCHES, Loader, Net, StepTrace, fit

EPOCHS = 5
PLAN = {
    "head": {"params": "head"},
    "backbone": {"params": "backbone", "at": {"epoch": 2}, "lr_scale": 0.25, "warmup_steps": 3},
}
METRICS = {
    "train/loss": "in training_step, each step",
    "train/mean": "in training_step, over the epoch",
    "val/loss": "in validation_step",
    "end/loss": "in on_train_epoch_end",
}
"""Where each metric is logged."""
PLATEAU = {"mode": "max", "patience": 0, "factor": 0.75, "threshold": 1e-4}  # the loss falls, so it reduces often


class LoggingNet(Net):
    """Logs its loss at every place that a scheduler can monitor."""

    def __init__(self, configure: Any) -> None:
        super().__init__(configure, dropout=0.3)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train/loss", loss)
        self.log("train/mean", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val/loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def val_dataloader(self) -> Any:
        return Loader()

    def on_train_epoch_end(self) -> None:
        self.log("end/loss", -sum(p.detach().square().sum() for p in self.head.parameters()))


def by_factory(metric: str, interval: str) -> Any:
    optimizer = OptimizerFactory("adamw", lr=0.05, groups={"no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0}})
    scheduler = SchedulerFactory("reduce_on_plateau", interval=interval, monitor=metric, **PLATEAU)
    return lambda module: configure_optimizers(module, optimizer, scheduler)


def by_hand(metric: str, interval: str) -> Any:
    def configure(module: Net) -> Any:
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
        config = {"scheduler": ReduceLROnPlateau(optimizer, **PLATEAU), "monitor": metric, "interval": interval}
        return {"optimizer": optimizer, "lr_scheduler": config}

    return configure


SAVING = {
    "each step": {"every_n_train_steps": 1},
    "validation end": {"every_n_epochs": 1, "save_on_train_epoch_end": False},
    "epoch end": {"every_n_epochs": 1, "save_on_train_epoch_end": True},
}
"""Arguments of ModelCheckpoint."""
# From all batches of the second epoch to the first after the thaw's, which has the warm-up; then from the last one.
NOT_RESUMED = (2, 3, *range(14, 19))
"""Batches; the epochs around them are like those that are resumed."""


def run(
    folder: Path, configure: Any, accumulate: int, saving: str, ckpt_path: Path | None = None
) -> tuple[Trainer, Net, StepTrace]:
    module = LoggingNet(configure)
    trace = StepTrace(lambda trainer, _: [(g["name"], g["lr"]) for g in trainer.optimizers[0].param_groups])
    checkpoints = ModelCheckpoint(folder, "{step}", save_top_k=-1, **SAVING[saving])
    callbacks = [StagedUnfreeze(PLAN), RNGState(), trace, *([] if ckpt_path else [checkpoints])]
    trainer = fit(
        module, folder, *callbacks, epochs=EPOCHS, ckpt_path=ckpt_path, seed=2 if ckpt_path else 1,
        accumulate_grad_batches=accumulate, num_sanity_val_steps=0, enable_checkpointing=not ckpt_path,
    )  # fmt: skip
    return trainer, module, trace


def read_state(trainer: Trainer, module: Net) -> Any:
    return copy.deepcopy(
        [
            module.state_dict(),
            trainer.optimizers[0].state_dict(),
            trainer.lr_scheduler_configs[0].scheduler.state_dict(),
        ]
    )


# With interval `step`, the metric must exist after the first step.
MONITORED = [("train/loss", "step"), *((metric, "epoch") for metric in METRICS)]
# Every metric with every way of saving and of accumulating, configured by hand and by the factory in turn.
CASES = [
    ((by_hand, by_factory)[(row + column + accumulate) % 2], *monitored, accumulate, saving)
    for row, monitored in enumerate(MONITORED)
    for accumulate in (1, 2)
    for column, saving in enumerate(SAVING)
]


def case_id(case: tuple[Any, str, str, int, str]) -> str:
    configure, metric, interval, accumulate, saving = case
    return f"{configure.__name__}, {metric}, {interval}, accumulate {accumulate}, {saving}"


@pytest.mark.parametrize(
    ("configure", "metric", "interval", "accumulate", "saving"),
    each_value(
        CASES,
        fast=[
            "by_hand, train/loss, step, accumulate 2, each step",
            "by_hand, train/mean, epoch, accumulate 2, each step",
        ],
        id=case_id,
    ),
)
def test_resumes_bitwise(configure, metric, interval, accumulate, saving, tmp_path) -> None:
    torch.manual_seed(0)
    trainer, module, trace = run(tmp_path, configure(metric, interval), accumulate, saving)
    lrs = [dict(groups)[trace.steps[0][0][0]] for groups in trace.steps]
    assert len(set(lrs)) > 1, "the lr was never reduced"
    checkpoints = sorted(tmp_path.glob("*.ckpt"), key=lambda path: int(path.stem.split("=")[1]))
    num_steps = EPOCHS * BATCHES // accumulate
    assert len(checkpoints) == (num_steps if saving == "each step" else EPOCHS)
    wrong = []
    for checkpoint in checkpoints[:-1]:
        step = int(checkpoint.stem.split("=")[1])
        if step * accumulate in NOT_RESUMED and saving == "each step":
            continue
        other, resumed, rest = run(tmp_path / "resumed", configure(metric, interval), accumulate, saving, checkpoint)
        states_equal = equal(read_state(trainer, module), read_state(other, resumed))
        wrong += [] if rest.steps == trace.steps[step:] and states_equal else [step]
    assert wrong == []
