"""StagedUnfreeze: staged fine-tuning under Lightning, exact with any scheduler, across resumes and on every rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import nn
from torch.optim import Optimizer

from ..build.stage_optimizers import check_stage_optimizers
from ..core.errors import checks_arguments, format_names
from ..groups.plan import Plan
from ..stages.freezing import EvalModeLock
from ..stages.sharded import check_precision, reshard
from ..stages.split import split_by_stage
from ..stages.stage_steps import StageSteps
from ..stages.stages import claim, parse_stages
from ..stages.timetable import Timetable
from ..stages.triggers import Clock
from .configure_hook import ConfigureOptimizersHook
from .first_stage import first_stages_only
from .lightning_internals import LearningRateMonitorHook, has_optimizers, hook_learning_rate_monitors
from .load_checkpoint_hook import LoadCheckpointHook
from .modifier_checks import check_modifiers
from .plateau_tracker import PlateauTracker
from .print_table import print_table
from .run_clock import start_clock
from .run_fraction import get_fraction
from .stage_claims import claim_trainable, drop_frozen_params
from .stage_settings import thaw_times
from .stage_state import StageState
from .staged_optimizers import check_callbacks, check_not_split, check_schedulers_follow, split_optimizers
from .strategies import check_strategy_for_stages, rebuild_ddp_reducer
from .thaw_log import ThawLog
from .tuner_hook import hook_tuners
from .verify_checkpoint import VerifyCheckpointHook


class StagedUnfreeze(StageState):
    """Freezes the parameters of later stages, and thaws each stage when its trigger is reached.

    Any `configure_optimizers` builds the optimizer and its schedulers over the whole model. The groups of later stages
    are then removed, and added as param groups of their own when they thaw, each at the lr that its configured group
    has by then, times `lr_scale`. A frozen stage has no optimizer state and no gradient.

    Args:
        stages: by name; a parameter belongs to the first stage that selects it. Selectors are those of rules. `at` says
            when the stage thaws: `{epoch: n}` (from 0), `{step: n}` (steps done by the optimizer that holds the
            stage, without batches for which `training_step` returns None), `{fraction: 0.3}` (of the run's batches, or
            of `max_steps`), `{after: {epochs: n}}`, `{after: {steps: n}}` or `{after: {fraction: 0.1}}` (since the
            previous stage thawed), `{plateau: {monitor: val/loss, patience: 2, mode: min, min_delta: 0}}` (counted
            since then), `{any: [...]}` of these, or in Python a callable `(trainer, module) -> bool`; without `at`, it
            is trained from the start. With `layers`, `each: {epochs: n}`, `{steps: n}`, `{fraction: 0.1}` or
            `{plateau: {...}}` thaws layer by layer, starting with the last. `lr_scale` and `warmup_steps` (optimizer
            steps) shape the lr curves of its groups; any hyperparameter of the optimizer applies to them from the thaw
            on. `optimizer` is another algorithm for its parameters, with that algorithm's own hyperparameters; it needs
            `configure_optimizers` or `OptimizerOverride`.
        frozen_norm: `eval`: BatchNorm in a frozen part normalises with its running statistics and does not update them.
        frozen_dropout: `train`: dropout in a frozen part stays active.
        verify_checkpoints: False: load a checkpoint without a check of its checksums and contents.

    Raises:
        ConfigError: the plan is wrong in itself. Errors that need the model are raised before the first step.

    Examples:
        >>> callback = StagedUnfreeze(
        ...     {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.1}}
        ... )
    """

    __module__ = "lightning_optim"  # where users import it from: pickles survive a move of this file

    @checks_arguments
    def __init__(
        self,
        stages: Mapping[str, Any],
        *,
        frozen_norm: str = "eval",
        frozen_dropout: str = "train",
        verify_checkpoints: bool = True,
    ) -> None:
        modes = {"frozen_norm": frozen_norm, "frozen_dropout": frozen_dropout}
        super().__init__(stages, **modes, verify_checkpoints=verify_checkpoints)
        self._eval_mode_lock = EvalModeLock(norms=frozen_norm == "eval", dropouts=frozen_dropout == "eval")
        self._clock = Clock()
        self._steps = StageSteps(())
        self._last_check: tuple[int, int] | None = None
        """Epoch and batch at which triggers were last checked."""
        self._module: nn.Module | None = None
        self._step_hooks: list[Any] = []
        self._monitor_hooks: list[LearningRateMonitorHook] = []

    def plan_of(self, optimizer: Optimizer, module: nn.Module) -> Plan:
        """The groups of a built optimizer, split by stage and including those still frozen; before or during a fit.

        Raises:
            ConfigError: the stages do not fit the model.
        """
        for staged in self._staged:
            if staged.optimizer is optimizer:
                return staged.plan
        return split_by_stage(Plan.from_optimizer(optimizer, module), claim(self._parsed_stages, module))

    # Before the optimizers are built: all claimed parameters are trainable, so they are built over the whole model.

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make all claimed parameters trainable, for the strategy's wrapper and for `configure_optimizers`."""
        VerifyCheckpointHook.install(trainer)
        if stage != "fit":
            return
        check_strategy_for_stages(trainer)
        check_callbacks(trainer)
        hook_tuners(trainer)
        self._start_fit(trainer, pl_module)
        # Modules created in `configure_model` do not exist yet, so for now a stage may claim nothing.
        if next(pl_module.parameters(), None) is not None:
            claim_trainable([replace(stage, allow_empty=True) for stage in self._parsed_stages], pl_module)
        hook = ConfigureOptimizersHook.install(trainer, pl_module)
        hook.run_before(lambda: self._claim(pl_module))
        hook.run_after(check_not_split)
        if trainer.strategy.restore_checkpoint_after_setup:
            self._load_hook = LoadCheckpointHook(trainer.strategy, self.state_key, self._load_sharded)

    def _start_fit(self, trainer: Trainer, module: nn.Module) -> None:
        """Continue where the last fit of this module ended; start over with another module."""
        self._trainer, self._loaded_state, self._last_check = trainer, None, None
        self._unstaged = []
        self._plateaus, self._thaw_log = PlateauTracker(), ThawLog()
        if self._module is module:
            self._timetable.reset_thaw_times()
        else:
            self._parsed_stages = parse_stages(self._config)
            self._timetable, self._staged = Timetable(self._parsed_stages), []
        self._module = module

    def _claim(self, module: nn.Module) -> None:
        self.stages = claim_trainable(self._parsed_stages, module)

    # Once the optimizers are built: split their groups by stage, remove the later stages, follow the schedulers.

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the later stages from the optimizers and freeze them; add back those that a checkpoint has thawed."""
        if not has_optimizers(trainer):
            rank_zero_info("StagedUnfreeze: configure_optimizers has returned None, so there is nothing to thaw")
            self.stages, self._timetable, self._staged = (), Timetable(), []
            return
        self.stages = drop_frozen_params(self.stages, pl_module, trainer.optimizers)
        self._timetable = self._timetable.with_stages(self.stages)
        previous, self._staged = self._staged, split_optimizers(trainer, pl_module, self.stages)
        check_stage_optimizers([group for staged in self._staged for group in staged.plan.groups], self.stages)
        for staged in self._staged:
            check_modifiers(staged.optimizer, [group.hyperparameters for group in staged.plan.groups], trainer)
            print_table(staged.optimizer, staged.plan.table(thaw_times(self.stages)), force=True)
        self._clock = start_clock(trainer, pl_module, self.stages)
        self._plateaus.start(trainer, self._timetable)
        self._restore(previous)
        self._monitor_hooks = hook_learning_rate_monitors(trainer, self._find_optimizer)
        for staged in self._staged:
            staged.by_hand = not pl_module.automatic_optimization
            self._step_hooks.append(staged.optimizer.register_step_pre_hook(staged.before_step))
            self._step_hooks.append(staged.optimizer.register_step_post_hook(staged.after_step))
        self._steps = StageSteps(self._staged)
        if self._load_hook:
            check_precision(pl_module)
        rebuild_ddp_reducer(trainer)

    def _find_optimizer(self, driven: Any) -> Any:
        """The optimizer whose groups follow a proxy, with their lrs of now; `driven` itself, where it is no proxy."""
        for staged in self._staged:
            if staged.proxy is driven:
                staged.sync()  # a callback before this one may ask between a scheduler's step and the next hook here
                return staged.optimizer
        return driven

    @contextmanager
    def around_tuning(self, trainer: Trainer, module: LightningModule) -> Iterator[dict[str, float]]:
        """For the steps of LearningRateFinder and BatchSizeFinder: train what the run trains at this moment."""
        self._is_tuning, is_running = True, bool(self._step_hooks)
        try:
            if is_running:
                for staged in self._staged:
                    staged.ignore_steps = True
                yield {staged.name: staged.lr_scale for own in self._staged for staged in own.plan.groups}
            else:
                stages = drop_frozen_params(self.stages, module, trainer.optimizers)
                with first_stages_only(trainer, module, stages, self._eval_mode_lock) as lr_scales:
                    yield lr_scales
        finally:
            self._is_tuning = False
            for staged in self._staged:
                staged.ignore_steps = False

    # During training: step pending plateau schedulers, follow the schedulers, thaw.

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put frozen layers into their mode; take scheduler steps that were pending in the checkpoint; log the plan."""
        super().on_train_start(trainer, pl_module)
        self._plateaus.on_train_start(trainer)
        self._lock_frozen_layers(pl_module)
        self._plateaus.step_schedulers("epoch")
        for staged in self._staged:
            staged.sync(reset=True)  # the optimizers' states have been loaded since `on_fit_start`
        self._thaw_log.write_plan(trainer, self._staged, thaw_times(self.stages))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the scheduler steps and observe the metrics of the last epoch."""
        self._plateaus.step_schedulers("epoch", "step")
        self._plateaus.observe_metrics(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the scheduler steps that were pending in a checkpoint of the end of the run; name waiting stages."""
        self._plateaus.on_fit_end(trainer)
        self._sync_groups()
        # Not in `on_train_end`, which a fit without batches or of a run that has ended does not call.
        if (waiting := [stage.name for stage in self._timetable.waiting]) and not getattr(trainer, "fast_dev_run", 0):
            rank_zero_info(f"StagedUnfreeze: the fit has ended before {format_names(waiting)} could thaw")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Thaw what is due before other callbacks run; lock frozen layers, which `module.train()` may have reset."""
        self._lock_frozen_layers(pl_module)
        self._plateaus.step_schedulers("epoch")
        self._sync_groups()
        check_schedulers_follow(trainer, self._staged)
        self._plateaus.observe_metrics(trainer)
        self._thaw_due(trainer, pl_module, 0)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Thaw what is due within the epoch; follow schedulers that step between batches."""
        if self._plateaus.has_schedulers:
            self._plateaus.step_schedulers("epoch", "step")
            self._sync_groups()
        if self._load_hook:
            reshard(pl_module)
        self._plateaus.observe_metrics(trainer)
        # In the middle of an accumulation, the gradient of a stage's first step would lack batches.
        if self._timetable.waiting and batch_idx % trainer.accumulate_grad_batches == 0:
            self._thaw_due(trainer, pl_module, batch_idx)
            self._steps.start_batch()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Follow the schedulers, which have just stepped, so that checkpoints hold the lr of the next step."""
        self._plateaus.after_batch(trainer, batch_idx)
        self._sync_groups()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the metrics before the validation."""
        if not trainer.sanity_checking:
            self._plateaus.before_validation(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mark the metrics that stages wait for and that this validation has logged."""
        if not trainer.sanity_checking:
            self._plateaus.after_validation(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mark the metrics that stages wait for and that training logs."""
        self._plateaus.after_epoch(trainer)

    def _thaw_due(self, trainer: Trainer, module: LightningModule, batch_idx: int) -> None:
        # Once per batch: a callable may count how often it is called. A resumed epoch may have no `epoch_start`.
        position = (trainer.current_epoch, batch_idx)
        if self._last_check == position:
            return
        self._last_check = position
        self._clock.epoch = trainer.current_epoch
        if self._clock.fraction is not None:
            self._clock.fraction = get_fraction(trainer, batch_idx)
        due = self._timetable.thaw_due(self._clock, self._steps)
        for stage in due:
            self._set_trainable(stage, True)
            groups = [group for staged in self._staged for group in staged.thaw(stage.name)]
            self._thaw_log.write_thaw(trainer, stage.name, [group.name for group in groups])
        if due:
            self._lock_frozen_layers(module)
            rebuild_ddp_reducer(trainer)

    def _lock_frozen_layers(self, module: LightningModule) -> None:
        waiting = self._timetable.waiting
        tensors = [tensor for staged in self._staged for stage in waiting for tensor in staged.tensors(stage.name)]
        self._eval_mode_lock.lock(module, frozenset().union(*(stage.params for stage in waiting)), tensors)

    # Cleaning up.

    def __getstate__(self) -> dict[str, Any]:
        """The callback as configured: a copy or a pickle has none of the optimizers and hooks of a fit."""
        unused = type(self).__new__(type(self))
        StagedUnfreeze.__init__(unused, self._config, **self._modes())
        return {**vars(self), **vars(unused)}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remove all hooks and release the trainer."""
        self._close(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Clean up after an error too: Lightning calls no teardown then. Checkpoints may be written after this."""
        with suppress(RuntimeError):  # from a lost device: it must not hide the exception
            self._plateaus.stop(trainer)
        self._close(trainer)

    def _close(self, trainer: Trainer) -> None:
        VerifyCheckpointHook.remove(trainer)
        ConfigureOptimizersHook.remove(trainer)
        self._eval_mode_lock.release()
        self._plateaus.close()
        for hook in (*self._step_hooks, *self._monitor_hooks):
            hook.remove()
        if self._load_hook:
            self._load_hook.remove()
        self._load_hook = None
        self._step_hooks, self._monitor_hooks, self._trainer, self._clock = [], [], None, Clock()
