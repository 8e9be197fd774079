"""Every private or undocumented name of Lightning that this package uses, each behind a function that says why.

`tests/callbacks/test_lightning_internals.py` fails when Lightning drops or renames one. Checked with Lightning 2.6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.utilities.data import sized_len
from lightning.pytorch.trainer.connectors.data_connector import (
    _parse_num_batches,
    _process_dataloader,
    _request_dataloader,
)
from lightning.pytorch.trainer.states import RunningStage, TrainerFn
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import Tensor

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

# The file in a distributed checkpoint's folder that holds everything but tensors
# (lightning.fabric.strategies.model_parallel._METADATA_FILENAME).
_METADATA_FILE = "meta.pt"

# The attributes of a `_ResultMetric` that accumulate over an epoch; the second one exists only for a mean.
_PARTIALS = ("value", "cumulated_batch_size")


# The trainer and its module.


def attached_trainer(module: LightningModule) -> Trainer | None:
    """The trainer of a module, or None; `module.trainer` raises if there is none."""
    return module._trainer


def initial_hyperparameters(trainer: Trainer) -> dict[str, Any]:
    """The hyperparameters that Lightning logs at the start of a fit: the module's and the datamodule's."""
    parts: list[Any] = [trainer.lightning_module, getattr(trainer, "datamodule", None)]
    return {
        key: value for part in parts if part and part._log_hyperparams for key, value in part.hparams_initial.items()
    }


# The position of the training loop.


def logger_step(trainer: Trainer) -> int:
    """The step under which Lightning logs the current batch: optimizer steps so far, at most one counted per batch."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def logs_this_step(trainer: Trainer) -> bool:
    """Whether Lightning logs in the current batch, by `log_every_n_steps`."""
    return bool(trainer._logger_connector.should_update_logs)


def is_accumulating(trainer: Trainer) -> bool:
    """Whether the current batch only adds to the gradients, without an optimizer step."""
    return trainer.fit_loop.epoch_loop._should_accumulate()


def is_last_batch(trainer: Trainer) -> bool:
    """Whether the last batch that was started is the last one of its epoch."""
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


def is_between_epochs(trainer: Trainer) -> bool:
    """Whether the next batch is the first of an epoch."""
    return is_last_batch(trainer) or not trainer.fit_loop.epoch_loop.batch_progress.current.ready


def is_within_epoch(trainer: Trainer) -> bool:
    """Whether an epoch has started and its `on_train_epoch_end` has not finished."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return bool(progress.processed < progress.ready)


def create_epoch_iterator(trainer: Trainer) -> None:
    """Create the training loader's iterator again, which draws from the random generators as a new epoch does."""
    iter(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]


# The length of an epoch.


def batches_per_epoch(trainer: Trainer) -> float:
    """The number of batches per epoch on this rank, `inf` if unknown.

    Creates a loader just for this: the trainer's own must not be set up before a checkpoint is restored.
    """
    loader = _request_dataloader(trainer.fit_loop._data_source)
    combined = loader if isinstance(loader, CombinedLoader) else CombinedLoader(loader, "max_size_cycle")
    lengths = []
    for part in combined.flattened:
        part = _process_dataloader(trainer, TrainerFn.FITTING, RunningStage.TRAINING, part)
        length = sized_len(part)
        limit = trainer.limit_train_batches
        lengths.append(_parse_num_batches(RunningStage.TRAINING, float("inf") if length is None else length, limit))
    return min(lengths) if combined._mode == "min_size" else max(lengths)


# Metrics that are reduced over an epoch.


@dataclass(frozen=True)
class EpochMetric:
    """A metric that `training_step` logs with `on_epoch=True`, in the middle of the epoch (a `_ResultMetric`)."""

    name: str
    reduction: str
    """`mean`, `sum`, `max` or `min`."""
    is_synced: bool
    """Whether Lightning reduces it over ranks too: `sync_dist=True` and not `rank_zero_only`."""
    _result: Any

    @property
    def partials(self) -> dict[str, Tensor]:
        """What it has accumulated on this rank: `value` (for a mean, the weighted sum) and `cumulated_batch_size`."""
        return {name: getattr(self._result, name) for name in _PARTIALS if hasattr(self._result, name)}

    def set_partial(self, name: str, partial: Tensor) -> None:
        """Replace one of the partials."""
        setattr(self._result, name, partial)


def epoch_metrics(trainer: Trainer) -> Iterator[tuple[str, EpochMetric]]:
    """The metrics that Lightning is reducing over the current epoch, by its key: `training_step.<name>`."""
    for key, result in (trainer.fit_loop.epoch_loop._results or {}).items():
        meta = result.meta
        if result.is_tensor and meta.on_epoch:
            is_synced = meta.sync.should and not meta.sync.rank_zero_only
            yield key, EpochMetric(meta.name, meta.reduce_fx.__name__, is_synced, result)


# Resuming after a batch: Lightning continues with the next batch, and skips what was still to run before it.


def validation_is_due(trainer: Trainer) -> bool:
    """Whether a validation follows the batch that was trained last."""
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def is_between_batch_and_validation(trainer: Trainer) -> bool:
    """Whether a batch has been processed, and the loop has not counted it as completed."""
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.total
    return trainer.fit_loop._data_fetcher is not None and batches.completed == batches.processed - 1


def resume_in_validation(checkpoint: MutableMapping[str, Any]) -> None:
    """Edit a checkpoint's loop state so that Lightning runs the validation that was due when it was saved."""
    state = _complete_batch(checkpoint)
    # As if the run had stopped in the first batch of the validation.
    validation = state["epoch_loop.val_loop.batch_progress"]
    done = validation["total"]["completed"]
    for counts, before in ((validation["total"], done), (validation["current"], 0)):
        counts.update(ready=before + 1, started=before + 1, processed=before, completed=before)


def resume_at_epoch_end(checkpoint: MutableMapping[str, Any]) -> None:
    """Edit a checkpoint's loop state so that Lightning counts the saved batch as done and ends the epoch."""
    _complete_batch(checkpoint)["epoch_loop.state_dict"]["_batches_that_stepped"] += 1


def has_loader_state(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint holds the training loader's position; without it, a resumed epoch starts over."""
    return bool(checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader"))


def skip_remaining_batches(trainer: Trainer) -> None:
    """Let the resumed epoch end without another batch."""
    trainer.fit_loop.epoch_loop.val_loop._has_run = True


def stop_skipping_batches(trainer: Trainer) -> None:
    """Undo `skip_remaining_batches` at the epoch's end: a loop that ran no batch still counts as restarting."""
    trainer.fit_loop.epoch_loop.restarting = False


def _complete_batch(checkpoint: MutableMapping[str, Any]) -> Any:
    state = checkpoint["loops"]["fit_loop"]
    progress = state["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        counts["completed"] = counts["processed"]
    return state


# Checkpoint files.


def callback_state(path: Any, key: str, weights_only: bool | None) -> dict[str, Any] | None:
    """A callback's state in a checkpoint file or in a distributed checkpoint's folder; None if it has none.

    Args:
        path: the checkpoint.
        key: the callback's `state_key`.
        weights_only: passed on to `torch.load`.
    """
    path = Path(path)
    file = path / _METADATA_FILE if path.is_dir() else path
    checkpoint = torch.load(file, map_location="cpu", mmap=file == path, weights_only=weights_only)
    state: dict[str, Any] | None = checkpoint.get("callbacks", {}).get(key)
    return state
