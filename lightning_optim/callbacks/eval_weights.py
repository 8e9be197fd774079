"""EvalWeights: the evaluation weights of schedule-free optimizers stand in wherever a model is evaluated or saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from ..core.errors import checks_arguments
from ..core.hyperparameters import Flag
from ..core.short_repr import format_call
from ..optim.schedule_free import has_averages, show_evaluation_weights, show_training_weights
from ..schedule.lowering import lowers_lr
from ..stages.sharded import reshard
from .configure_hook import ConfigureOptimizersHook
from .eval_weights_checks import check_callbacks, check_schedule_free
from .load_checkpoint_hook import LoadCheckpointHook
from .resumed_epoch import ResumedEpochCallback
from .save_checkpoint_hook import SaveCheckpointHook
from .strategies import check_strategy_for_eval_weights
from .verify_checkpoint import OPTION, VerifyCheckpointHook


class EvalWeights(ResumedEpochCallback):
    """Swaps the evaluation weights x of `schedule_free` in where a model is evaluated or saved.

    In a fit the module holds the training weights y. It holds x from `on_validation_start` to `on_validation_end`,
    while a checkpoint is written, and from the end of the fit on, however it ends: so `validate`, `test`, `predict`,
    `load_from_checkpoint` and checkpoints of weights only have x. A checkpoint's optimizer state has y too, from which
    a run resumes bitwise.

    BatchNorm's running statistics are those of y. Where that matters, compute them anew for x before a validation: see
    docs/schedule-free.md.

    Args:
        verify_checkpoints: False: load a checkpoint without a check of its checksums and contents.

    Raises:
        ConfigError: no param group has `schedule_free`; another callback averages the weights too; or a `ModelPruning`
            stands before this one. Raised when a fit starts.

    Examples:
        >>> callback = EvalWeights()
    """

    __module__ = "lightning_optim"  # where users import it from: pickles survive a move of this file

    @checks_arguments
    def __init__(self, *, verify_checkpoints: bool = True) -> None:
        self.verify_checkpoints: bool = Flag(default=True).check(verify_checkpoints, OPTION)
        self._trainer: Trainer | None = None
        """Of the last fit: a checkpoint may be saved after it."""
        self._load_hook: LoadCheckpointHook | None = None
        """For strategies that load the optimizers after setup: FSDP2's."""

    def __repr__(self) -> str:
        return format_call(self, **({} if self.verify_checkpoints else {OPTION: False}))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check what goes along with averaged weights; wrap the trainer's `save_checkpoint`."""
        VerifyCheckpointHook.install(trainer)
        self._trainer = None
        if stage != "fit":
            return
        check_strategy_for_eval_weights(trainer)
        check_callbacks(trainer, self)
        ConfigureOptimizersHook.install(trainer, pl_module).run_after(
            lambda configured: check_schedule_free(configured, trainer)
        )
        SaveCheckpointHook.install(trainer, lambda: self.around_saving(trainer, pl_module))
        if trainer.strategy.restore_checkpoint_after_setup:
            self._load_hook = LoadCheckpointHook(trainer.strategy, self.state_key, self._around_sharded_load)
        self._trainer = trainer

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn of a schedule that lowers the lr."""
        for config in trainer.lr_scheduler_configs:
            groups = getattr(getattr(config.scheduler, "optimizer", None), "param_groups", [])
            if any(group.get("schedule_free") for group in groups) and lowers_lr(config.scheduler):
                rank_zero_warn(
                    f"EvalWeights: {type(config.scheduler).__name__} lowers the lr of groups with schedule_free, whose "
                    "average takes the place of a schedule: type scheduler=constant, or remove the scheduler. For a "
                    "warm-up, type schedule_free: {warmup_steps: 500}"
                )

    # The training weights are back before the next batch.

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A checkpoint has loaded the evaluation weights."""
        super().on_train_start(trainer, pl_module)
        self._train(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """A tuner in the middle of a fit loads a checkpoint too."""
        self._train(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the evaluation weights."""
        if trainer.state.fn == "fit":
            self._eval(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train on."""
        if trainer.state.fn == "fit":
            self._train(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the evaluation weights in the module."""
        self._eval(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave them there after an error too. Checkpoints may be written after this."""
        with suppress(RuntimeError):  # from a lost device: it must not hide the exception
            if self._trainer is not None:
                self._eval(trainer, pl_module)
        self._close(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the trainer's and the strategy's own methods."""
        self._close(trainer)

    # Saving and restoring.

    def state_dict(self) -> dict[str, Any]:
        """Whether the optimizers' states have training weights."""
        return {"has_averages": self._trainer is not None and any(map(has_averages, self._trainer.optimizers))}

    @contextmanager
    def around_saving(self, trainer: Trainer, module: LightningModule) -> Iterator[None]:
        """Show the evaluation weights while a checkpoint is written; nothing changes where they are shown already."""
        is_training = self._eval(trainer, module)
        try:
            yield
        finally:
            if is_training:
                self._train(trainer, module)

    @contextmanager
    def _around_sharded_load(self, state: dict[str, Any] | None) -> Iterator[None]:
        """Torch loads into what the optimizer's state has: so it needs the training weights there."""
        trainer = self._trainer
        if trainer is None or not (state or {}).get("has_averages"):
            yield
            return
        hooks = [optimizer.register_state_dict_pre_hook(_show_evaluation_weights) for optimizer in trainer.optimizers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    # Swapping.

    def _eval(self, trainer: Trainer, module: LightningModule) -> bool:
        """Show the evaluation weights; returns whether the training weights were shown."""
        changed = [show_evaluation_weights(optimizer.param_groups, optimizer.state) for optimizer in trainer.optimizers]
        if any(changed):
            reshard(module)  # FSDP2 may have gathered the other weights
        return any(changed)

    def _train(self, trainer: Trainer, module: LightningModule) -> None:
        changed = [show_training_weights(optimizer.param_groups, optimizer.state) for optimizer in trainer.optimizers]
        if any(changed):
            reshard(module)

    def _close(self, trainer: Trainer) -> None:
        VerifyCheckpointHook.remove(trainer)
        ConfigureOptimizersHook.remove(trainer)
        SaveCheckpointHook.remove(trainer)
        if self._load_hook:
            self._load_hook.remove()
        self._load_hook = None

    def __getstate__(self) -> dict[str, Any]:
        """The callback as configured: a copy or a pickle has no trainer and no hooks of a fit."""
        return {**vars(self), "_trainer": None, "_load_hook": None}


def _show_evaluation_weights(optimizer: Any) -> None:
    show_evaluation_weights(optimizer.param_groups, optimizer.state)
