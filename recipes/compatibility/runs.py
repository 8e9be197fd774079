"""`run`: one fit of one side of a comparison, and what is compared of it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers.logger import Logger
from torch import Tensor

from lightning_optim import OptimizerMonitor, RNGState, StagedUnfreeze

from . import by_hand
from .model import BATCH_SIZE, LR, Net
from .setups import Setup

EPOCHS = 4


class Stop(Exception):  # noqa: N818
    """Raised by a row that stops its run on purpose."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """Ours or by hand."""

    is_ours: bool
    staged: bool
    setup: Setup
    batch_size: int = BATCH_SIZE

    def module(self) -> Net:
        """A new one, with the same weights on every call."""
        torch.manual_seed(0)
        if self.is_ours:
            return Net(self.setup.configure, LR, self.batch_size)
        return Net(partial(by_hand.configure, setup=self.setup, staged=self.staged), LR, self.batch_size)

    def callbacks(self, row: Sequence[Callback]) -> list[Callback]:
        """Those of this side, and those of the row."""
        own: list[Callback]
        staging: list[Callback]
        if self.is_ours:
            staging = [StagedUnfreeze(self.setup.stages), OptimizerMonitor(1)] if self.staged else []
            own = [*staging, RNGState()]
        else:
            plateau = self.setup.schedule == "on plateau"
            staging = [by_hand.ThawBackbone(self.setup.thaw)] if self.staged else []
            own = [
                *([by_hand.MissedPlateauStep()] if self.staged and plateau else []),
                *staging,
                by_hand.SavedGenerator(),
            ]
        return [*own, *row] if self.setup.is_first else [*row, *own]


@dataclass(kw_only=True)
class Outcome:
    """What a run ends with."""

    state: dict[str, Any]
    """Weights, optimizer state, lrs and position: all that is compared."""
    callbacks: list[Callback]
    """Of the row."""
    module: Net


class Recorder(Logger):
    """A logger that keeps the metrics in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics: list[tuple[int | None, dict[str, float]]] = []

    @property
    def name(self) -> str:
        return "recorder"

    @property
    def version(self) -> int:
        return 0

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.metrics.append((step, dict(metrics)))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Not kept."""


@dataclass
class SaveAt(Checkpoint):
    """Writes a checkpoint after some batches and at the end of some epochs; last of all callbacks, as Lightning's.

    Args:
        folder: of the checkpoints.
        names: `batch=n` or `epoch=n`.
    """

    folder: Path
    names: Sequence[str] = field(default_factory=tuple)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self._save(trainer, f"batch={trainer.fit_loop.total_batch_idx + 1}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer, f"epoch={trainer.current_epoch}")

    def _save(self, trainer: Trainer, name: str) -> None:
        if name in self.names:
            trainer.save_checkpoint(self.folder / f"{name}.ckpt")


def run(
    side: Side,
    folder: Path,
    row: Sequence[Callback],
    *,
    produced: Callable[[Sequence[Callback], Recorder], Any] = lambda row, recorder: None,
    ckpt_path: Path | None = None,
) -> Outcome:
    """Fit once, quietly, in a trainer of its own.

    Args:
        side: ours or by hand.
        folder: the trainer's.
        row: the callbacks of the row, new ones.
        produced: what else of the row is compared, besides the training.
        ckpt_path: to resume from; the random generators then start from another seed.
    """
    module, recorder = side.module(), Recorder()
    seed_everything(1 if ckpt_path is None else 2, verbose=False)
    with quiet():
        trainer = Trainer(
            max_epochs=EPOCHS,
            accelerator="cpu",
            devices=1,
            logger=recorder,
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=any("Progress" in type(callback).__name__ for callback in row),
            enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in row),
            default_root_dir=folder,
            callbacks=side.callbacks(row),
            gradient_clip_val=side.setup.clip,
            accumulate_grad_batches=side.setup.accumulate,
            **side.setup.arguments,
        )
        trainer.fit(module, ckpt_path=ckpt_path, weights_only=False)
    return Outcome(
        state={**snapshot(trainer, module), "produced": produced(row, recorder)}, callbacks=list(row), module=module
    )


def snapshot(trainer: Trainer, module: Net) -> dict[str, Any]:
    """A copy of weights and buffers, of state and lr by parameter, of the random generator and of the position."""
    (optimizer,) = trainer.optimizers
    names = {id(p): name for name, p in module.named_parameters()}
    return {
        "weights": {name: tensor.clone() for name, tensor in module.state_dict().items()},
        "optimizer state": {
            names[id(p)]: {key: value.clone() if isinstance(value, Tensor) else value for key, value in state.items()}
            for p, state in optimizer.state.items()
        },
        "lrs": {names[id(p)]: float(group["lr"]) for group in optimizer.param_groups for p in group["params"]},
        "random generator": torch.get_rng_state(),
        "position": (trainer.current_epoch, trainer.global_step),
    }


def find_difference(first: dict[str, Any], second: dict[str, Any]) -> str | None:
    """The first part in which two snapshots differ, bit by bit; None if they are equal."""
    return next((part for part in first if not is_equal(first[part], second[part])), None)


def is_equal(first: Any, second: Any) -> bool:
    """Whether two nested values are equal; tensors bit by bit."""
    if isinstance(first, Tensor):
        return isinstance(second, Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(is_equal(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(is_equal, first, second))
    return bool(first == second)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without warnings, logs and prints."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(io.StringIO()):
                yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Without threads of torch, which cost more than they save on tensors of this size."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
