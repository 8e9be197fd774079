"""`ROWS`: every callback that Lightning exports, with its modes that change training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch import callbacks as lightning

from .runs import Outcome, Recorder, Side, Stop
from .setups import Setup


@dataclass(frozen=True, kw_only=True)
class Row:
    """A callback in one of its modes."""

    callback: str
    """The name under which Lightning exports it."""
    mode: str = ""
    build: Callable[[Path], list[Callback]]
    """New ones of it; the folder is for what they write."""
    produced: Callable[[Sequence[Callback], Recorder], Any] = lambda row, recorder: None
    """What of it is compared besides the training."""
    change: Callable[[Setup], Setup] = lambda setup: setup
    writes: bool = False
    """Whether its own checkpoints are those to resume from."""
    stops: Mapping[str, Callable[[], Callback]] = field(default_factory=dict)
    """Callbacks that stop the run, by name, where that is when it writes."""
    without: Callable[[Outcome, Side], Side] | None = None
    """For a tuner: the run by hand that does not have it, with what it has found in ours."""
    reason: str = ""
    """Why some resumed runs differ under Lightning alone; without one, such a difference is a failure."""

    @property
    def name(self) -> str:
        return f"{self.callback}, {self.mode}" if self.mode else self.callback


# Subclasses: minimal ones of what Lightning exports to be subclassed.


class Finetuning(lightning.BaseFinetuning):
    """Freezes the backbone and adds it at epoch 1, at half the lr."""

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        self.freeze(pl_module.backbone, train_bn=False)

    def finetune_function(self, pl_module: LightningModule, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.backbone, optimizer, initial_denom_lr=2.0)


class Writer(lightning.BasePredictionWriter):
    """Writes nothing: there are no predictions in a fit."""


class Saver(lightning.Checkpoint):
    """Saves after every third batch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        number = trainer.fit_loop.total_batch_idx + 1
        if number % 6 == 0:
            trainer.save_checkpoint(self.folder / f"batch={number}.ckpt")


class OwnProgressBar(lightning.ProgressBar):
    """Counts the batches."""

    def disable(self) -> None:
        """Nothing is shown anyway."""

    def enable(self) -> None:
        """Nothing is shown anyway."""


class BatchTimer(lightning.Timer):
    """Its clock shows the batches done, not the time, so that it stops at the same batch every time."""

    batches = 0

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self.batches = trainer.fit_loop.total_batch_idx + 1
        super().on_train_batch_end(trainer, *args, **kwargs)

    def time_elapsed(self, stage: Any = "train") -> float:
        return float(self.batches)


def stop_at(hook: str, epoch: int, batch: int = 0) -> Callable[[], Callback]:
    """What builds a callback that raises in a hook of this epoch, in the `batch`-th call."""

    def build() -> Callback:
        calls = [0]

        def raise_stop(self: Any, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
            if trainer.current_epoch == epoch:
                calls[0] += 1
                if calls[0] == batch + 1:
                    raise Stop

        callback: Callback = type("StopAt", (Callback,), {hook: raise_stop})()
        return callback

    return build


STOPS = {
    "in a validation": stop_at("on_validation_batch_start", 1),
    "at the end of a validation": stop_at("on_validation_end", 1),
    "at the start of an epoch": stop_at("on_train_epoch_start", 2),
    "at the end of an epoch": stop_at("on_train_epoch_end", 2),
    "at the end of a batch": stop_at("on_train_batch_end", 1, 1),
    "at the start of a batch": stop_at("on_train_batch_start", 1, 2),
}


_STOP_IS_FORGOTTEN = (
    "a checkpoint does not record that the run is to stop, and what remained to be done at the end of an epoch is not "
    "done after a resume: the resumed run continues"
)
_NO_EPOCH_START = (
    "after a resume inside an epoch, Lightning does not call `on_train_epoch_start` for that epoch, and the callback "
    "does its work there"
)
_STAYS_FROZEN = "Lightning leaves the backbone frozen in a run that resumes after the thaw (#21901)"
_MASKS = "Lightning saves the pruned weights without the masks, so the resumed run trains what was pruned"
_ON_EXCEPTION = (
    "after an exception in `on_train_batch_start`, the loader's state is past a batch that was not trained; after one "
    "in `on_train_epoch_start`, Lightning assumes that the epoch has had its batches (with stages, it does not)"
)


def _simple(callback: str, mode: str = "", *, reason: str = "", **options: Any) -> Row:
    """A row of a callback that takes only these options."""
    cls = getattr(lightning, callback)
    return Row(callback=callback, mode=mode, build=lambda folder: [cls(**options)], reason=reason)


def _checkpoints(mode: str, *, stops: Any = None, **options: Any) -> Row:
    return Row(
        callback="ModelCheckpoint",
        mode=mode,
        build=lambda folder: [lightning.ModelCheckpoint(folder, **{"save_top_k": -1, **options})],
        produced=lambda row, recorder: sorted(Path(path).name for path in row[0].best_k_models),  # type: ignore[attr-defined]
        writes=True,
        stops=stops or {},
        reason=_ON_EXCEPTION if stops else "",
    )


def _logged(prefix: str) -> Callable[[Sequence[Callback], Recorder], Any]:
    """The values that were logged under tags with this prefix, at each step: the tags themselves name the groups."""
    return lambda row, recorder: [
        (step, sorted(value for tag, value in metrics.items() if tag.startswith(prefix)))
        for step, metrics in recorder.metrics
        if any(tag.startswith(prefix) for tag in metrics)
    ]


def _with_suggestion(ours: Outcome, side: Side) -> Side:
    return replace(side, setup=replace(side.setup, lr=float(ours.module.lr)))


def _with_batch_size(ours: Outcome, side: Side) -> Side:
    return replace(side, batch_size=int(ours.module.batch_size))


def _trainable_only(setup: Setup) -> Setup:
    return replace(setup, trainable_only=True)


def _one_batch_a_step(setup: Setup) -> Setup:
    return replace(setup, accumulate=1)


def _on_plateau(setup: Setup) -> Setup:
    return replace(setup, schedule="on plateau")


def _between_accumulated_batches(setup: Setup) -> Setup:
    return replace(setup, accumulate=2, stops=("batch=3", "batch=9"))


ROWS: tuple[Row, ...] = (
    Row(callback="Callback", build=lambda folder: [Callback()]),
    Row(
        callback="Callback",
        mode="under ReduceLROnPlateau",
        build=lambda folder: [Callback()],
        change=_on_plateau,
        reason="Lightning loses the scheduler's step (#7877, #14702); StagedUnfreeze takes it",
    ),
    Row(
        callback="Callback",
        mode="stopped between accumulated batches",
        build=lambda folder: [Callback()],
        change=_between_accumulated_batches,
    ),
    Row(
        callback="BackboneFinetuning",
        build=lambda folder: [lightning.BackboneFinetuning(unfreeze_backbone_at_epoch=1)],
        change=_trainable_only,
        reason=_STAYS_FROZEN,
    ),
    Row(
        callback="BaseFinetuning",
        mode="subclass",
        build=lambda folder: [Finetuning()],
        change=_trainable_only,
        reason=_STAYS_FROZEN,
    ),
    Row(callback="BasePredictionWriter", mode="subclass", build=lambda folder: [Writer("batch")]),
    *(
        Row(
            callback="BatchSizeFinder",
            mode=mode,
            build=lambda folder, mode=mode, trials=trials: [  # type: ignore[misc,arg-type]
                lightning.BatchSizeFinder(mode, init_val=4, max_trials=trials)
            ],
            without=_with_batch_size,
        )
        for mode, trials in (("power", 1), ("binsearch", 2))
    ),
    Row(callback="Checkpoint", mode="subclass", build=lambda folder: [Saver(folder)], writes=True),
    _simple("DeviceStatsMonitor", cpu_stats=None if find_spec("psutil") else False),
    _simple(
        "EarlyStopping", "of a metric of the validation", reason=_STOP_IS_FORGOTTEN, monitor="val/flat", patience=2
    ),
    _simple(
        "EarlyStopping",
        "of a metric of the training",
        reason=_STOP_IS_FORGOTTEN,
        monitor="train/loss",
        stopping_threshold=1.0,
        patience=9,
    ),
    Row(
        callback="GradientAccumulationScheduler",
        build=lambda folder: [lightning.GradientAccumulationScheduler({0: 1, 1: 2, 3: 4})],
        change=_one_batch_a_step,
        reason=_NO_EPOCH_START,
    ),
    Row(
        callback="LambdaCallback",
        build=lambda folder: [lightning.LambdaCallback(on_train_batch_end=lambda *args: None)],
    ),
    *(
        Row(
            callback="LearningRateFinder",
            mode=f"update_attr={update}",
            build=lambda folder, update=update: [  # type: ignore[misc,arg-type]
                lightning.LearningRateFinder(
                    num_training_steps=20, max_lr=0.1, early_stop_threshold=None, update_attr=update
                )
            ],
            without=_with_suggestion,
        )
        for update in (True, False)
    ),
    *(
        Row(
            callback="LearningRateMonitor",
            mode=f"by {interval}",
            build=lambda folder, interval=interval: [  # type: ignore[misc,arg-type]
                lightning.LearningRateMonitor(interval, log_momentum=True, log_weight_decay=True)
            ],
            produced=_logged("lr-"),
        )
        for interval in ("step", "epoch")
    ),
    _checkpoints("by epoch", filename="{epoch}"),
    _checkpoints("by epoch, monitored, with last", filename="{epoch}", monitor="val/jumping", save_last=True),
    _checkpoints("at the end of training's epoch", filename="{epoch}", save_on_train_epoch_end=True),
    _checkpoints("by steps", filename="{step}", every_n_train_steps=3),
    _checkpoints("by time", filename="{step}", train_time_interval=timedelta(0)),
    _checkpoints("weights only", filename="{epoch}", save_weights_only=True),
    _checkpoints("on an exception", filename="{epoch}-{step}", save_on_exception=True, every_n_epochs=9, stops=STOPS),
    Row(
        callback="ModelPruning",
        mode="every epoch",
        build=lambda folder: [lightning.ModelPruning("l1_unstructured", amount=0.25)],
        reason=_MASKS,
    ),
    Row(
        callback="ModelPruning",
        mode="lottery ticket at epoch 1",
        build=lambda folder: [
            lightning.ModelPruning(
                "l1_unstructured",
                amount=0.5,
                apply_pruning=lambda epoch: epoch == 1,
                use_lottery_ticket_hypothesis=True,
            )
        ],
        reason=_MASKS,
    ),
    _simple("ModelSummary"),
    Row(
        callback="OnExceptionCheckpoint",
        build=lambda folder: [lightning.OnExceptionCheckpoint(folder)],
        writes=True,
        stops=STOPS,
        reason=_ON_EXCEPTION,
    ),
    Row(callback="ProgressBar", mode="subclass", build=lambda folder: [OwnProgressBar()]),
    _simple("RichModelSummary"),
    _simple("RichProgressBar"),
    _simple(
        "StochasticWeightAveraging", "from the second epoch", reason=_NO_EPOCH_START, swa_lrs=0.03125, swa_epoch_start=2
    ),
    _simple(
        "StochasticWeightAveraging", "from the last epoch", reason=_NO_EPOCH_START, swa_lrs=0.03125, swa_epoch_start=4
    ),
    Row(callback="SpikeDetection", build=lambda folder: [lightning.SpikeDetection()]),
    Row(
        callback="ThroughputMonitor",
        build=lambda folder: [lightning.ThroughputMonitor(lambda batch: len(batch[0]), window_size=2)],
    ),
    _simple("Timer", "with time left", duration=timedelta(days=1)),
    *(
        Row(
            callback="Timer",
            mode=f"stops by {interval}",
            build=lambda folder, interval=interval: [BatchTimer(timedelta(seconds=10), interval)],  # type: ignore[misc,arg-type]
            reason=_STOP_IS_FORGOTTEN,
        )
        for interval in ("step", "epoch")
    ),
    _simple("TQDMProgressBar"),
    _simple("EMAWeightAveraging", "every step", decay=0.75),
    _simple(
        "EMAWeightAveraging",
        "every third step from step 5",
        decay=0.75,
        update_every_n_steps=3,
        update_starting_at_step=5,
    ),
    _simple("WeightAveraging"),
)
