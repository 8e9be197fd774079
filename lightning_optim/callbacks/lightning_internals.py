"""Every private name of Lightning that this package touches, each behind a function that says what it is for.

`tests/callbacks/test_lightning_internals.py` fails when Lightning drops or renames one. Seen in Lightning 2.6.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
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

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

# In a distributed checkpoint's folder, the file that holds all but tensors
# (lightning.fabric.strategies.model_parallel._METADATA_FILENAME).
_METADATA_FILE = "meta.pt"


# The trainer and its module.


def attached_trainer(module: LightningModule) -> Trainer | None:
    """The trainer of a module, or None; `module.trainer` raises where there is none."""
    return module._trainer


def initial_hyperparameters(trainer: Trainer) -> dict[str, Any]:
    """The hyperparameters that Lightning logs at the start of a fit: the module's and the datamodule's."""
    parts: list[Any] = [trainer.lightning_module, getattr(trainer, "datamodule", None)]
    return {
        key: value for part in parts if part and part._log_hyperparams for key, value in part.hparams_initial.items()
    }


# Where the training loop is.


def logger_step(trainer: Trainer) -> int:
    """The step at which Lightning logs the metrics of the batch under way: optimizer steps, counted once a batch."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def logs_this_step(trainer: Trainer) -> bool:
    """Whether Lightning logs in the batch under way, by `log_every_n_steps`."""
    return bool(trainer._logger_connector.should_update_logs)


def is_accumulating(trainer: Trainer) -> bool:
    """Whether the batch under way only adds to the gradients, without an optimizer step."""
    return trainer.fit_loop.epoch_loop._should_accumulate()


def epoch_metrics(trainer: Trainer) -> Mapping[str, Any]:
    """The metrics that `training_step` logs, as Lightning reduces them over the epoch under way."""
    return trainer.fit_loop.epoch_loop._results or {}


def create_epoch_iterator(trainer: Trainer) -> None:
    """Start the training loader's iterator again, which draws from the random generators as a new epoch does."""
    iter(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]


# The length of an epoch.


def batches_per_epoch(trainer: Trainer) -> float:
    """Batches of an epoch on this rank, `inf` where unknown.

    From a loader that is made for this alone: the trainer's own must not be set up before a checkpoint is restored.
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


# Resuming after a batch: Lightning goes on with the next batch, and drops what was still to run before it.


def validation_is_due(trainer: Trainer) -> bool:
    """Whether a validation follows the batch that was trained last."""
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def is_between_batch_and_validation(trainer: Trainer) -> bool:
    """Whether a batch has been processed, and its end (validation, epoch end) is still running."""
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.total
    return trainer.fit_loop._data_fetcher is not None and batches.completed == batches.processed - 1


def resume_in_validation(checkpoint: MutableMapping[str, Any]) -> None:
    """Edit a checkpoint's loop state so that Lightning runs the validation that was due when it was saved."""
    state = _complete_batch(checkpoint)
    # As though the run had stopped in the validation's first batch.
    validation = state["epoch_loop.val_loop.batch_progress"]
    done = validation["total"]["completed"]
    for counts, before in ((validation["total"], done), (validation["current"], 0)):
        counts.update(ready=before + 1, started=before + 1, processed=before, completed=before)


def resume_at_epoch_end(checkpoint: MutableMapping[str, Any]) -> None:
    """Edit a checkpoint's loop state so that Lightning counts the saved batch as done and ends the epoch."""
    _complete_batch(checkpoint)["epoch_loop.state_dict"]["_batches_that_stepped"] += 1


def has_loader_state(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint holds the training loader's position; without, a resumed epoch begins anew."""
    return bool(checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader"))


def skip_remaining_batches(trainer: Trainer) -> None:
    """Let the resumed epoch end without another batch."""
    trainer.fit_loop.epoch_loop.val_loop._has_run = True


def stop_skipping_batches(trainer: Trainer) -> None:
    """Once that epoch has ended: a loop that ran no batch does not notice that it is no longer resuming."""
    trainer.fit_loop.epoch_loop.restarting = False


def _complete_batch(checkpoint: MutableMapping[str, Any]) -> Any:
    state = checkpoint["loops"]["fit_loop"]
    progress = state["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        counts["completed"] = counts["processed"]
    return state


# Checkpoint files.


def callback_state(path: Any, key: str, weights_only: bool | None) -> dict[str, Any] | None:
    """A callback's state in a checkpoint file, or in a distributed checkpoint's folder; None where it has none.

    Args:
        path: the checkpoint.
        key: the callback's `state_key`.
        weights_only: as `torch.load` takes it.
    """
    path = Path(path)
    file = path / _METADATA_FILE if path.is_dir() else path
    checkpoint = torch.load(file, map_location="cpu", mmap=file == path, weights_only=weights_only)
    state: dict[str, Any] | None = checkpoint.get("callbacks", {}).get(key)
    return state
