"""ReduceLROnPlateau under stages: whatever it watches and whenever it was saved, a run goes on as if never stopped."""

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
from tests.support.training import BATCHES, Loader, Net, Witness, fit, same

EPOCHS = 5
PLAN = {
    "head": {"params": "head"},
    "backbone": {"params": "backbone", "at": {"epoch": 2}, "lr_scale": 0.25, "warmup_steps": 3},
}
# metric -> where it is logged.
METRICS = {
    "train/loss": "in training_step, each step",
    "train/mean": "in training_step, over the epoch",
    "val/loss": "in validation_step",
    "end/loss": "in on_train_epoch_end",
}
WAITING = {"mode": "max", "patience": 0, "factor": 0.75, "threshold": 1e-4}  # a falling loss: reduces often


class Logged(Net):
    """Logs its loss in every way there is."""

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
    scheduler = SchedulerFactory("reduce_on_plateau", interval=interval, monitor=metric, **WAITING)
    return lambda module: configure_optimizers(module, optimizer, scheduler)


def by_hand(metric: str, interval: str) -> Any:
    def configure(module: Net) -> Any:
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
        config = {"scheduler": ReduceLROnPlateau(optimizer, **WAITING), "monitor": metric, "interval": interval}
        return {"optimizer": optimizer, "lr_scheduler": config}

    return configure


# when -> the checkpoint callback that saves then.
SAVES = {
    "each step": {"every_n_train_steps": 1},
    "validation end": {"every_n_epochs": 1, "save_on_train_epoch_end": False},
    "epoch end": {"every_n_epochs": 1, "save_on_train_epoch_end": True},
}


class Saves(ModelCheckpoint):
    """Keeps every checkpoint under the step at which it was saved."""

    def __init__(self, folder: Path, when: str) -> None:
        super().__init__(folder, "{step}", save_top_k=-1, **SAVES[when])


def run(folder: Path, configure: Any, accumulate: int, when: str, ckpt_path: Any = None) -> Any:
    module = Logged(configure)
    witness = Witness(lambda trainer, _: [(g["name"], g["lr"]) for g in trainer.optimizers[0].param_groups])
    callbacks = [StagedUnfreeze(PLAN), RNGState(), witness, *([] if ckpt_path else [Saves(folder, when)])]
    trainer = fit(
        module, folder, *callbacks, epochs=EPOCHS, ckpt_path=ckpt_path, seed=2 if ckpt_path else 1,
        accumulate_grad_batches=accumulate, num_sanity_val_steps=0, enable_checkpointing=not ckpt_path,
    )  # fmt: skip
    return trainer, module, witness


def state_of(trainer: Trainer, module: Net) -> Any:
    return copy.deepcopy(
        [
            module.state_dict(),
            trainer.optimizers[0].state_dict(),
            trainer.lr_scheduler_configs[0].scheduler.state_dict(),
        ]
    )


def possible(metric: str, interval: str) -> bool:
    """By step, the metric must be there after the first step."""
    return interval == "epoch" or metric == "train/loss"


@pytest.mark.parametrize("when", SAVES)
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("configure", [pytest.param(by_factory, marks=pytest.mark.slow), by_hand])
@pytest.mark.parametrize(
    ("metric", "interval"), [(m, i) for m in METRICS for i in ("step", "epoch") if possible(m, i)], ids=str
)
def test_it_resumes_bitwise(metric, interval, configure, accumulate, when, tmp_path) -> None:
    torch.manual_seed(0)
    trainer, module, witness = run(tmp_path, configure(metric, interval), accumulate, when)
    lrs = [dict(groups)[witness.seen[0][0][0]] for groups in witness.seen]
    assert len(set(lrs)) > 1, "it must have something to lose"
    checkpoints = sorted(tmp_path.glob("*.ckpt"), key=lambda path: int(path.stem.split("=")[1]))
    num_steps = EPOCHS * BATCHES // accumulate
    assert len(checkpoints) == (num_steps if when == "each step" else EPOCHS)
    wrong = []
    for checkpoint in checkpoints[:-1]:
        step = int(checkpoint.stem.split("=")[1])
        again, resumed, saw = run(tmp_path / "again", configure(metric, interval), accumulate, when, checkpoint)
        good = saw.seen == witness.seen[step:] and same(state_of(trainer, module), state_of(again, resumed))
        wrong += [] if good else [step]
    assert wrong == []
