"""StagedUnfreeze: staged fine-tuning under Lightning, exact with any scheduler, across resumes and on every rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import nn
from torch.optim import Optimizer

from ..build.stage_optimizers import check_stage_optimizers
from ..core.config_values import to_plain
from ..core.errors import ConfigError, checks_arguments, format_choices, format_names, prefix_errors
from ..core.hyperparameters import Flag
from ..core.later_release import refuse_unknown
from ..core.short_repr import format_call, settings_html
from ..groups.parameter_settings import ParameterSettings
from ..groups.plan import Plan
from ..groups.table import Table
from ..stages.freezing import EvalModeLock, set_trainable
from ..stages.sharded import check_precision, reshard
from ..stages.split import split_by_stage
from ..stages.stage_steps import StageSteps
from ..stages.staged import StagedOptimizer
from ..stages.stages import Stage, claim, parse_stages
from ..stages.timetable import Timetable
from ..stages.triggers import Clock
from .configure_hook import ConfigureOptimizersHook
from .first_stage import first_stages_only
from .lightning_internals import LearningRateMonitorHook, has_optimizers, hook_learning_rate_monitors
from .load_checkpoint_hook import LoadCheckpointHook
from .plateau_tracker import PlateauTracker
from .print_table import print_table
from .run_clock import start_clock
from .run_fraction import get_fraction
from .saved_callback import refuse_wrong_state
from .saved_stages import check_scheduler_groups, check_stages_state, read_unstaged_groups
from .stage_claims import claim_trainable, drop_frozen_params
from .stage_plan import plan_stages
from .staged_optimizers import check_callbacks, check_not_split, check_schedulers_follow, split_optimizers
from .strategies import check_strategy_for_stages, rebuild_ddp_reducer
from .thaw_log import ThawLog
from .tuner_hook import hook_tuners
from .verify_checkpoint import OPTION, VerifyCheckpointHook

if TYPE_CHECKING:
    from ..build.factory import OptimizerFactory

_MODES = ("eval", "train")
_DEFAULTS = {"frozen_norm": "eval", "frozen_dropout": "train", OPTION: True}

_STATE_KEYS = ("plateaus", "thawed", "thaw_times", "stage_plateaus", "thaw_log", "optimizers")


class StagedUnfreeze(Callback):
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
        for key, mode in (("frozen_norm", frozen_norm), ("frozen_dropout", frozen_dropout)):
            if to_plain(mode, key) not in _MODES:
                raise ConfigError(f"{key}: there is no mode {mode!r}.{format_choices(str(mode), _MODES)}")
        self._config = to_plain(stages, "stages")
        self._parsed_stages = parse_stages(self._config)
        self.stages = self._parsed_stages
        """With the parameters they claim, once a fit has started."""
        self.frozen_norm = frozen_norm
        self.frozen_dropout = frozen_dropout
        self.verify_checkpoints: bool = Flag(default=True).check(verify_checkpoints, OPTION)
        self._timetable = Timetable(self.stages)
        self._staged: list[StagedOptimizer] = []
        self._plateaus = PlateauTracker()
        self._eval_mode_lock = EvalModeLock(norms=frozen_norm == "eval", dropouts=frozen_dropout == "eval")
        self._clock = Clock()
        self._steps = StageSteps(())
        self._is_tuning = False
        """Whether Lightning saves and loads a checkpoint around the steps of a tuner."""
        self._last_check: tuple[int, int] | None = None
        """Epoch and batch at which triggers were last checked."""
        self._loaded_state: dict[str, Any] | None = None
        self._unstaged: list[list[dict[str, Any]]] = []
        """The param groups of the optimizers in a checkpoint of a run without stages."""
        self._thaw_log = ThawLog()
        self._trainer: Trainer | None = None
        self._module: nn.Module | None = None
        self._load_hook: LoadCheckpointHook | None = None
        """For strategies that load the optimizers after setup: FSDP2's."""
        self._step_hooks: list[Any] = []
        self._monitor_hooks: list[LearningRateMonitorHook] = []

    def __repr__(self) -> str:
        modes = self._modes()
        return format_call(self, self._config, **{key: mode for key, mode in modes.items() if mode != _DEFAULTS[key]})

    def _repr_html_(self) -> str:
        stages = {f"stages.{name}": stage for name, stage in self._config.items()}
        return settings_html(type(self).__name__, {**stages, **self._modes()})

    def _modes(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in _DEFAULTS}

    def explain(self, module: nn.Module, optimizer: OptimizerFactory | Optimizer | None = None) -> Table:
        """The plan for a model: what thaws when, and with which peak lr; changes nothing.

        Args:
            module: the model.
            optimizer: a factory or a built optimizer, which gives the groups; without it, each stage is one group.

        Raises:
            ConfigError: the plan does not fit the model.
        """
        plan, thaw_times = self._plan(module, optimizer)
        return plan.table(thaw_times)

    def settings_of(
        self, parameter: str, module: nn.Module, optimizer: OptimizerFactory | Optimizer
    ) -> ParameterSettings:
        """Every setting of one parameter from its thaw on, with its stage and the config keys that set each value.

        Args:
            parameter: any of its clean names.
            module: the model.
            optimizer: a factory or a built optimizer; only a factory knows which rule set what.

        Raises:
            ConfigError: there is no such parameter, or the plan does not fit the model.
        """
        plan, thaw_times = self._plan(module, optimizer)
        return plan.settings_of(parameter, thaw_times)

    def _plan(
        self, module: nn.Module, optimizer: OptimizerFactory | Optimizer | None
    ) -> tuple[Plan, tuple[tuple[str, str], ...]]:
        """The groups split by stage, and `(stage, when it thaws)`."""
        plan, stages = plan_stages(self._parsed_stages, module, optimizer)
        return plan, _thaw_times(stages)

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
            print_table(staged.optimizer, staged.plan.table(_thaw_times(self.stages)), force=True)
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
        self._plateaus.on_train_start(trainer)
        self._lock_frozen_layers(pl_module)
        self._plateaus.step_schedulers("epoch")
        for staged in self._staged:
            staged.sync(reset=True)  # the optimizers' states have been loaded since `on_fit_start`
        self._thaw_log.write_plan(trainer, self._staged, _thaw_times(self.stages))

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

    def _sync_groups(self) -> None:
        for staged in self._staged:
            staged.sync()

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

    def _set_trainable(self, stage: Stage, trainable: bool) -> None:
        for staged in self._staged:
            set_trainable(staged.tensors(stage.name), trainable)

    # Saving and restoring.

    def state_dict(self) -> dict[str, Any]:
        """The thawed stages, the groups that the schedulers drive, and what the plateaus wait for."""
        if not self._staged:
            return {}  # the optimizers are not split yet
        self._sync_groups()  # the module may have stepped a scheduler by hand; Lightning saves the optimizers next
        return {
            "plateaus": self._plateaus.state_dict(self._trainer),  # first, since it may mark plateaus of stages
            **self._timetable.state_dict(),
            "thaw_log": list(self._thaw_log.rows),
            "optimizers": [staged.state_dict() for staged in self._staged],
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """If something waits for a metric, let Lightning run the end of the epoch that it would skip."""
        if self._is_tuning:
            return
        state = checkpoint["callbacks"].get(self.state_key)
        with refuse_wrong_state("StagedUnfreeze"):
            check_stages_state({} if state is None else state)
        if state:
            with refuse_wrong_state("StagedUnfreeze"):
                self._plateaus.on_load_checkpoint(checkpoint, state["plateaus"])
        elif checkpoint["global_step"] == 0:
            checkpoint["optimizer_states"] = []  # saved before the optimizers were split; they have no state yet
        elif trainer.state.fn == "fit" and any(checkpoint.get("optimizer_states", ())):
            self._refuse_unstaged()
            self._unstaged = read_unstaged_groups(checkpoint["optimizer_states"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Store the state until the optimizers are built; under FSDP2, `_load_sharded` gets it first."""
        if self._load_hook is None and not self._is_tuning:
            self._loaded_state = state_dict

    def _refuse_unstaged(self) -> None:
        """Raises if a stage waits: the checkpoint of a run without stages has already trained its parameters."""
        if waiting := [stage.name for stage in self._parsed_stages if not stage.trigger.from_start]:
            raise ConfigError(
                "stages: the checkpoint was saved by a run without StagedUnfreeze, which trained the stages that are "
                f"frozen here: {format_names(waiting)}. Resume it without stages (unfreeze=none), or start a new run "
                "from its weights"
            )

    @contextmanager
    def _load_sharded(self, state: dict[str, Any] | None) -> Iterator[None]:
        """Restore the stage first, since the checkpoint is loaded into the groups that it has; pause step hooks."""
        if self._is_tuning:
            yield
            return
        if state is None:
            self._refuse_unstaged()
        self._loaded_state = state
        self._restore([])
        for staged in self._staged:
            staged.ignore_steps = True
        with ExitStack() as stack:
            for staged in self._staged:
                stack.enter_context(staged.around_sharded_load())
            yield
        for staged in self._staged:
            staged.ignore_steps = False

    def _restore(self, previous: Sequence[StagedOptimizer]) -> None:
        """Restore a loaded state; without one, continue from the optimizers of the last fit, if there was one."""
        state, self._loaded_state = self._loaded_state, None
        unstaged, self._unstaged = self._unstaged, []
        if state is not None:
            with refuse_wrong_state("StagedUnfreeze"), prefix_errors("callbacks.StagedUnfreeze"):
                check_stages_state(state)
                refuse_unknown(state, _STATE_KEYS, "state")
                self._timetable.load_state_dict(state)
                self._thaw_log = ThawLog(state.get("thaw_log", ()))
                self._plateaus.load_state_dict(state["plateaus"])
        for staged in self._staged:
            staged.activate_stages(self._timetable.thawed)
        for stage in self.stages:
            self._set_trainable(stage, stage.name in self._timetable.thawed)
        if state is not None:
            with refuse_wrong_state("StagedUnfreeze"):
                self._load_optimizers(state["optimizers"])
        elif unstaged:
            for staged, groups in zip(self._staged, unstaged, strict=False):
                staged.load_unstaged(groups)
        elif previous:
            for staged, last in zip(self._staged, previous, strict=True):
                staged.resume_from(last)

    def _load_optimizers(self, saved: Sequence[dict[str, Any]]) -> None:
        if len(saved) != len(self._staged):
            raise ConfigError(
                f"stages: the checkpoint holds {len(saved)} optimizers, this run {len(self._staged)}. Use the "
                "optimizers the checkpoint was saved with"
            )
        for index, (staged, own) in enumerate(zip(self._staged, saved, strict=True)):
            check_scheduler_groups(staged.proxy, own["scheduler_groups"], f"optimizers[{index}].scheduler_groups")
            staged.load_state_dict(own)

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


def _thaw_times(stages: Sequence[Stage]) -> tuple[tuple[str, str], ...]:
    return tuple((stage.name, str(stage.trigger)) for stage in stages)
