"""Every private or undocumented name of Lightning that this package uses, each behind a function that says why.

`tests/callbacks/test_lightning_internals.py` fails when Lightning drops or renames one. Checked with Lightning 2.6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.strategies import model_parallel
from lightning.fabric.utilities.data import sized_len
from lightning.pytorch.callbacks import BaseFinetuning, LearningRateFinder, LearningRateMonitor
from lightning.pytorch.core.optimizer import _MockOptimizer
from lightning.pytorch.plugins.io.wrapper import _WrappingCheckpointIO
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.connectors.data_connector import (
    _parse_num_batches,
    _process_dataloader,
    _request_dataloader,
)
from lightning.pytorch.trainer.states import RunningStage, TrainerFn
from lightning.pytorch.tuner.lr_finder import _determine_lr_attr_name
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning.pytorch.utilities.parsing import lightning_getattr, lightning_hasattr
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.strategies import DDPStrategy

# The file in a distributed checkpoint's folder that holds everything but tensors
# (lightning.fabric.strategies.model_parallel._METADATA_FILENAME).
METADATA_FILE = "meta.pt"

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


def has_optimizers(trainer: Trainer) -> bool:
    """Whether `configure_optimizers` has returned any; else Lightning steps a stand-in that does nothing."""
    return not any(isinstance(optimizer, _MockOptimizer) for optimizer in trainer.optimizers)


def purge_step(logger: Any) -> int | None:
    """The step from which a TensorBoardLogger lets TensorBoard hide what its folder has of an earlier run, if any.

    Its writer forgets it once it has written it.
    """
    options = getattr(logger, "_kwargs", None)
    # A DummyLogger, which stands in while lr and batch size are tuned, has every attribute.
    step = options.get("purge_step") if isinstance(options, dict) else None
    return step if isinstance(step, int) else None


# The position of the training loop.


def logger_step(trainer: Trainer) -> int:
    """The step under which Lightning logs the current batch: optimizer steps so far, at most one counted per batch."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def logs_this_step(trainer: Trainer) -> bool:
    """Whether Lightning logs in the current training batch, by `log_every_n_steps`.

    As `trainer._logger_connector.should_update_logs`, which takes three times as long to find that training is on.
    """
    every_n_steps: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return every_n_steps > 0 and ((logger_step(trainer) + 1) % every_n_steps == 0 or trainer.should_stop)


def is_accumulating(trainer: Trainer) -> bool:
    """Whether the current batch only adds to the gradients, without an optimizer step."""
    return trainer.fit_loop.epoch_loop._should_accumulate()


def accumulated_batches(trainer: Trainer) -> int:
    """How many batches have been added to the gradients of a step that has not been taken yet.

    Without one that is running: what is saved meanwhile resumes with it.
    """
    # Lightning steps after an epoch's last batch, however many came before it.
    if not is_within_batch(trainer) and has_run_all_batches(trainer):
        return 0
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    return int(batches.processed % trainer.accumulate_grad_batches)


def is_last_batch(trainer: Trainer) -> bool:
    """Whether the last batch that was started is the last one of its epoch."""
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


def has_run_all_batches(trainer: Trainer) -> bool:
    """Whether the epoch that ends has had all its batches; after another one, Lightning steps no scheduler."""
    return trainer.fit_loop.epoch_loop._num_ready_batches_reached()


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
    # Not the totals: a batch that `on_train_batch_start` has skipped with -1 is never completed.
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    return (
        is_within_epoch(trainer)
        and trainer.fit_loop._data_fetcher is not None
        and batches.ready == batches.started == batches.processed
        and batches.completed == batches.processed - 1
    )


def is_within_batch(trainer: Trainer) -> bool:
    """Whether a batch has been started and not been processed."""
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    return bool(is_within_epoch(trainer) and batches.processed < batches.ready)


def current_batch(trainer: Trainer) -> int:
    """The index of the batch that was started last, in its epoch."""
    return trainer.fit_loop.epoch_loop.batch_idx


def total_batches(trainer: Trainer) -> int:
    """How many batches of the run have been started."""
    return trainer.fit_loop.total_batch_idx + 1


def is_ending_epoch(trainer: Trainer) -> bool:
    """Whether the hooks at the end of an epoch have begun, and the loop has not counted it as completed."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return bool(progress.processed > progress.completed)


def has_validated_all_batches(trainer: Trainer) -> bool:
    """Whether the current validation has no batch left."""
    progress: Any = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    return bool(progress.is_last_batch and progress.current.completed == progress.current.ready)


def metrics_of_epoch(trainer: Trainer) -> set[str]:
    """The names of the metrics that training has logged since the epoch began."""
    results = trainer.fit_loop.epoch_loop._results
    names = {result.meta.name for _, result in results.valid_items()} if results else set()
    return {f"{name}{suffix}" for name in names for suffix in ("", "_step", "_epoch")}


def skip_remaining_batches(trainer: Trainer) -> None:
    """Let the resumed epoch end without another batch."""
    trainer.fit_loop.epoch_loop.val_loop._has_run = True


def stop_skipping_batches(trainer: Trainer) -> None:
    """Undo `skip_remaining_batches` at the epoch's end: a loop that ran no batch still counts as restarting."""
    trainer.fit_loop.epoch_loop.restarting = False


def begin_uncounted_epoch(trainer: Trainer) -> None:
    """Let an epoch begin that Lightning would run as the rest of the one before it (2.6); see `resumed_epoch.py`.

    Between a resume and its first batch. There is no rest where as many epochs are processed as have begun. Lightning's
    finetuning callbacks are left as they are: they cannot be resumed (#21901), and thaw in that hook.
    """
    if any(isinstance(callback, BaseFinetuning) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        return
    loop = trainer.fit_loop
    progress: Any = loop.epoch_progress.current
    if loop.restarted_mid_epoch and progress.ready == progress.started == progress.processed:
        loop.reset_restart_stage()


# Lightning's tuner callbacks.


def waits_for_training_state(trainer: Trainer) -> bool:
    """Whether a checkpoint's loops and optimizers have yet to be restored, which a tuner makes Lightning forget."""
    return bool(trainer._checkpoint_connector._loaded_checkpoint)


def tuned_lr(module: LightningModule, finder: LearningRateFinder) -> tuple[str, float] | None:
    """The attribute of the module that a LearningRateFinder has set, and its value; None if it has set none."""
    found = finder.optimal_lr
    if not finder._update_attr or found is None or found.suggestion() is None:
        return None
    attribute = _determine_lr_attr_name(module, finder._attr_name)
    value: Any = lightning_getattr(module, attribute)
    return attribute, float(value)


def has_tuned_lr(module: LightningModule, attribute: str, lr: float) -> bool:
    """Whether the attribute that a LearningRateFinder has set still has its value."""
    return bool(lightning_hasattr(module, attribute) and lightning_getattr(module, attribute) == lr)


def isolated_rng() -> AbstractContextManager[None]:
    """Restores the states of the random generators at its end."""
    return isolate_rng()


def forget_tuning(trainer: Trainer) -> None:
    """Reset what a tuner callback leaves in the trainer: its loaders and metrics, and that it seems to be resumed."""
    fit_loop = trainer.fit_loop
    if fit_loop._data_fetcher is not None:
        fit_loop._data_fetcher.teardown()
    fit_loop._data_fetcher = None
    fit_loop._combined_loader = fit_loop.epoch_loop.val_loop._combined_loader = None
    fit_loop.restarting = False
    for loop in (fit_loop, fit_loop.epoch_loop, fit_loop.epoch_loop.val_loop):
        loop._loaded_from_state_dict = loop._resuming_from_checkpoint = False
    trainer._checkpoint_connector._ckpt_path = None  # of the file that the tuner has removed
    trainer._logger_connector.reset_results()
    trainer._logger_connector.reset_metrics()


# DDP.


def ddp_comm_state(strategy: DDPStrategy) -> Any:
    """What the communication hook of a DDPStrategy keeps between steps; None without one."""
    return strategy._ddp_comm_state


def wrap_in_ddp_again(strategy: DDPStrategy) -> None:
    """Replace a DDPStrategy's wrapper around its module by a new one, during a fit.

    Rank zero's weights and buffers are not sent to the others, as a first wrapper does: each rank has its own by now.
    """
    arguments = strategy._ddp_kwargs
    strategy._ddp_kwargs = {**arguments, "init_sync": False}
    assert isinstance(strategy.model, DistributedDataParallel)
    strategy.model = strategy.model.module
    try:
        strategy.configure_ddp()
    finally:
        strategy._ddp_kwargs = arguments
    # Under manual optimization, Lightning averages the gradients of the first step of a static graph itself.
    strategy._pl_static_graph_delay_done = False


# Lightning's LearningRateMonitor.


def hook_learning_rate_monitors(
    trainer: Trainer, find_optimizer: Callable[[Any], Optimizer]
) -> list[LearningRateMonitorHook]:
    """A hook for each LearningRateMonitor of a trainer."""
    callbacks: list[Any] = getattr(trainer, "callbacks", [])
    monitors = [callback for callback in callbacks if isinstance(callback, LearningRateMonitor)]
    return [LearningRateMonitorHook(monitor, find_optimizer) for monitor in monitors]


class LearningRateMonitorHook:
    """Lets a LearningRateMonitor log an optimizer's own groups, where its schedulers drive a proxy of them.

    Args:
        monitor: the callback; it is changed until `remove` is called.
        find_optimizer: from what a scheduler drives to the optimizer whose groups are logged.
    """

    def __init__(self, monitor: LearningRateMonitor, find_optimizer: Callable[[Any], Optimizer]) -> None:
        self._monitor, self._find_optimizer = monitor, find_optimizer
        self._find_names, self._get_stats = monitor._find_names_from_schedulers, monitor._get_optimizer_stats
        monitor._find_names_from_schedulers = self.find_names  # type: ignore[method-assign, assignment]
        monitor._get_optimizer_stats = self.get_stats  # type: ignore[method-assign]

    def find_names(self, configs: Sequence[Any]) -> Any:
        """The curves of each scheduler's groups."""
        optimizers = [self._find_optimizer(config.scheduler.optimizer) for config in configs]
        stand_ins: list[Any] = [
            SimpleNamespace(name=config.name, scheduler=SimpleNamespace(optimizer=optimizer))
            for config, optimizer in zip(configs, optimizers, strict=True)
        ]
        return self._find_names(stand_ins)

    def get_stats(self, optimizer: Any, names: list[str]) -> dict[str, float]:
        """The value of each curve."""
        return self._get_stats(self._find_optimizer(optimizer), names)

    def remove(self) -> None:
        """Restore the callback's own methods."""
        del self._monitor._find_names_from_schedulers, self._monitor._get_optimizer_stats


# Checkpoint files.


def checkpoint_connector(trainer: Trainer) -> Any:
    """What loads a checkpoint for a trainer: its `resume_start(path, ...)` is called first. None in a stand-in."""
    return getattr(trainer, "_checkpoint_connector", None)


def reads_torch_files(trainer: Trainer) -> bool:
    """Whether the trainer's CheckpointIO is Lightning's own for files of `torch.save`, or wraps it."""
    checkpoint_io: Any = trainer.strategy.checkpoint_io
    while isinstance(checkpoint_io, _WrappingCheckpointIO):
        checkpoint_io = checkpoint_io.checkpoint_io
    return isinstance(checkpoint_io, TorchCheckpointIO)


def callback_state(path: Any, key: str, weights_only: bool | None) -> dict[str, Any] | None:
    """A callback's state in a checkpoint file or in a distributed checkpoint's folder; None if it has none.

    Args:
        path: the checkpoint.
        key: the callback's `state_key`.
        weights_only: passed on to `torch.load`.
    """
    path = Path(path)
    file = path / METADATA_FILE if path.is_dir() else path
    checkpoint = torch.load(file, map_location="cpu", mmap=file == path, weights_only=weights_only)
    state: dict[str, Any] | None = checkpoint.get("callbacks", {}).get(key)
    return state


@contextmanager
def optimizer_states_by_name() -> Iterator[None]:
    """Within it, ModelParallelStrategy finds the parameters of a checkpoint of another strategy by their saved names.

    Lightning (2.6) takes the order of `module.parameters()` for that of the optimizer, whose groups change it:
    it fails with a traceback, or gives a parameter the state of another one of its shape.
    """
    original = model_parallel._rekey_optimizer_state_if_needed

    def rekey(optimizer_state_dict: dict[str, Any], module: Any) -> dict[str, Any]:
        groups = optimizer_state_dict["param_groups"]
        if not all(len(group.get("param_names", ())) == len(group["params"]) for group in groups):
            return original(optimizer_state_dict, module)
        names = {key: name for group in groups for key, name in zip(group["params"], group["param_names"], strict=True)}
        state = {names.get(key, key): value for key, value in optimizer_state_dict["state"].items()}
        groups = [{**group, "params": list(group["param_names"])} for group in groups]
        return {**optimizer_state_dict, "state": state, "param_groups": groups}

    model_parallel._rekey_optimizer_state_if_needed = rekey
    try:
        yield
    finally:
        model_parallel._rekey_optimizer_state_if_needed = original


def load_optimizer_states_by_name(trainer: Trainer) -> None:
    """Let a ModelParallelStrategy load checkpoints within `optimizer_states_by_name`; for runs without callbacks."""
    strategy = trainer.strategy
    load = strategy.load_checkpoint
    if not isinstance(strategy, ModelParallelStrategy) or hasattr(load, "by_name"):
        return

    @wraps(load)
    def load_checkpoint(*args: Any, **kwargs: Any) -> Any:
        with optimizer_states_by_name():
            return load(*args, **kwargs)

    load_checkpoint.by_name = True  # type: ignore[attr-defined]
    strategy.load_checkpoint = load_checkpoint  # type: ignore[method-assign]
