"""Runs that stop with an exception in some hook, and resume from the checkpoint that Lightning writes then."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn

from lightning_optim import OptimizerFactory, SchedulerFactory, StagedUnfreeze, configure_optimizers
from tests.support.equality import equal
from tests.support.staged_plans import jumping
from tests.support.training import Net, StepTrace, fit

EPOCHS, BATCHES = 5, 3
PLATEAU = {"mode": "max", "patience": 0, "factor": 0.75, "threshold": 1e-4}
BY_EPOCH = {"epoch": 1}
ON_PLATEAU = {"plateau": {"monitor": "val/loss", "mode": "max", "patience": 1}}
SETUPS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "each step": ("train/loss", "step", BY_EPOCH),
    "training's mean": ("train/mean", "epoch", BY_EPOCH),
    "validation": ("val/loss", "epoch", BY_EPOCH),
    "module's epoch end": ("end/loss", "epoch", BY_EPOCH),
    "stage": ("train/mean_epoch", "epoch", ON_PLATEAU),
}
"""What the scheduler monitors, its interval, and when the backbone thaws."""
BATCH_HOOKS = [
    "on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward",
    "on_before_optimizer_step", "on_train_batch_end", "on_validation_batch_start", "on_validation_batch_end",
]  # fmt: skip
EPOCH_HOOKS = [
    "on_train_epoch_start", "on_validation_start", "on_validation_epoch_start", "on_validation_epoch_end",
    "on_validation_end", "on_train_epoch_end",
]  # fmt: skip
RUN_HOOKS = ["on_fit_start", "on_train_start", "on_train_end"]
HOOKS = [*BATCH_HOOKS, *EPOCH_HOOKS, *RUN_HOOKS]


class Stop(Exception):
    """What stops a run."""


class SaveOnException(Checkpoint):
    """As Lightning's OnExceptionCheckpoint, with which a fit without `ckpt_path` resumes and warns about it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_exception(self, trainer: Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)


class SameBatches:
    """A loader without a state whose batches are all the same, so that one that is run again changes nothing."""

    def __init__(self, batches: int = BATCHES) -> None:
        generator = torch.Generator().manual_seed(0)
        self.batch = torch.randn(8, 4, generator=generator), torch.randint(0, 3, (8,), generator=generator)
        self.batches = batches

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter([self.batch] * self.batches)


class LoggingNet(Net):
    """Logs wherever a scheduler can monitor it a metric that changes with every bit, so that each value counts.

    Without BatchNorm, whose statistics a repeated forward would change.
    """

    def __init__(self, setup: str) -> None:
        monitor, interval, _ = SETUPS[setup]
        optimizer = OptimizerFactory("sgd", lr=0.05, momentum=0.9)
        scheduler = SchedulerFactory("reduce_on_plateau", interval=interval, monitor=monitor, **PLATEAU)
        super().__init__(lambda module: configure_optimizers(module, optimizer, scheduler))
        self.backbone = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train/loss", jumping(loss))
        self.log("train/mean", jumping(loss * (1 + batch_idx)), on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val/loss", jumping(nn.functional.cross_entropy(self(batch[0]), batch[1]) * (1 + batch_idx)))

    def val_dataloader(self) -> Any:
        return SameBatches(2)

    def on_train_epoch_end(self) -> None:
        self.log("end/loss", jumping(self.head.weight.square().sum()))


def stop_at(hook: str, epoch: int, batch: int, exception: Callable[[], BaseException | None] = Stop) -> Callback:
    """A callback that raises in a hook, in this epoch, in the `batch`-th call there; or sends a signal, and goes on."""
    calls = [0]

    def run(self: Any, trainer: Trainer, *_: Any, **__: Any) -> None:
        if not trainer.sanity_checking and (hook in RUN_HOOKS or trainer.current_epoch == epoch):
            calls[0] += 1
            if calls[0] == batch + 1 and (raised := exception()) is not None:
                raise raised

    return type("StopAt", (Callback,), {hook: run})()


def stopped_and_resumed(
    folder: Path,
    setup: str,
    stop: Callback,
    *,
    stop_first: bool,
    loader: Callable[[], Any] = SameBatches,
    **arguments: Any,
) -> tuple[bool, bool]:
    """Whether a run was stopped, and whether its resumption ends bitwise as an uninterrupted run.

    Args:
        folder: for checkpoints.
        setup: one of `SETUPS`.
        stop: raises.
        stop_first: whether it comes before StagedUnfreeze in the trainer's list.
        loader: of the training.
        arguments: of the Trainer.
    """
    expected = _run(folder, setup, loader, [], **arguments)
    path = folder / "stopped.ckpt"
    try:
        _run(folder, setup, loader, [stop], stop_first=stop_first, saving=SaveOnException(path), **arguments)
    except (Stop, SystemExit, SIGTERMException):
        pass
    else:
        return False, False
    return True, equal(_run(folder, setup, loader, [], ckpt_path=path, **arguments), expected)


_EXPECTED: dict[Any, Any] = {}


def _run(
    folder: Path,
    setup: str,
    loader: Callable[[], Any],
    stops: list[Callback],
    *,
    stop_first: bool = False,
    saving: Callback | None = None,
    ckpt_path: Path | None = None,
    **arguments: Any,
) -> Any:
    key = (setup, loader, str(arguments))
    is_whole = saving is None and ckpt_path is None
    if is_whole and key in _EXPECTED:
        return _EXPECTED[key]
    torch.manual_seed(0)
    module, trace = LoggingNet(setup), StepTrace()
    stages = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": SETUPS[setup][2], "lr_scale": 0.5}}
    unfreeze = StagedUnfreeze(stages)
    callbacks = [*stops, unfreeze] if stop_first else [unfreeze, *stops]
    trainer = fit(
        module, folder, *callbacks, *([saving] if saving else []), trace, epochs=EPOCHS, ckpt_path=ckpt_path,
        loader=loader(), num_sanity_val_steps=0, enable_checkpointing=saving is not None, **arguments,
    )  # fmt: skip
    (config,) = trainer.lr_scheduler_configs
    state = [module.state_dict(), trainer.optimizers[0].state_dict(), config.scheduler.state_dict()]
    if is_whole:
        assert len({step["head"] for step in trace.steps}) > 1, "the lr was never reduced"
        assert "backbone" in trace.steps[-1] and "backbone" not in trace.steps[0]
        _EXPECTED[key] = copy.deepcopy(state)
    return state
