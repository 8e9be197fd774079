"""Staged fine-tuning under Lightning: a backbone thaws stage by stage, on every scheduler, resume and rank."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import nn
from torch.optim import Optimizer

from ..core.config_values import to_plain
from ..core.errors import ConfigError, choices, format_names
from ..groups.names import read_parameters
from ..groups.plan import Plan
from ..groups.table import Table
from ..stages.freezing import HeldLayers, set_trainable
from ..stages.scheduler_proxy import drives
from ..stages.sharded import check_precision, reshard
from ..stages.split import split
from ..stages.staged import StagedOptimizer
from ..stages.stages import Stage, check_unclaimed, claim, parse_stages
from ..stages.timetable import Timetable
from ..stages.triggers import Clock
from ..telemetry.loggers import write_text
from .announce import announce
from .configure_hook import ConfigureOptimizersHook
from .lightning_internals import callback_state, logger_step
from .plateau_metrics import PlateauTracker
from .run_length import run_length
from .strategies import check_strategy, rebuild_reducer

if TYPE_CHECKING:
    from ..build.factory import OptimizerFactory

_MODES = ("eval", "train")


class StagedUnfreeze(Callback):
    """Freezes what later stages claim, and thaws it when their triggers are reached.

    The optimizer and its schedulers are built over the whole model, by whatever `configure_optimizers` there is. Later
    stages' groups are then taken out, and added as param groups of their own when they thaw, each at the lr that its
    configured group has by then, times `lr_scale`. A frozen stage has no optimizer state and no gradient.

    Args:
        stages: by name; a parameter belongs to the first that selects it. Each has selectors as in rules. `at` says
            when it thaws: `{epoch: n}` (from 0), `{step: n}` (optimizer steps done), `{fraction: 0.3}` (of the run),
            `{after: {epochs: n}}` or `{after: {steps: n}}` (since the stage above thawed), `{plateau: {monitor:
            val/loss, patience: 2, mode: min, min_delta: 0}}` (watched since then), `{any: [...]}` of these, or in
            Python a callable `(trainer, module) -> bool`; without, it is trained from the start. With `layers`,
            `each: {epochs: n}`, `{steps: n}` or `{plateau: {...}}` thaws layer by layer from the last on. `lr_scale`
            and `warmup_steps` (optimizer steps) shape its groups' curves; any hyperparameter of the optimizer holds
            for them from the thaw on.
        frozen_norm: `eval`: BatchNorm in a frozen part normalises with its running statistics and leaves them alone.
        frozen_dropout: `train`: dropout in a frozen part goes on.

    Raises:
        ConfigError: the plan is wrong in itself. What needs the model is found before the first step.

    Example:
        >>> callback = StagedUnfreeze(
        ...     {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.1}}
        ... )
    """

    __module__ = "lightning_optim"  # where users import it from: pickles outlive a move of this file

    def __init__(self, stages: Mapping[str, Any], *, frozen_norm: str = "eval", frozen_dropout: str = "train") -> None:
        for key, mode in (("frozen_norm", frozen_norm), ("frozen_dropout", frozen_dropout)):
            if mode not in _MODES:
                raise ConfigError(f"{key}: there is no mode {mode!r}.{choices(str(mode), _MODES)}")
        self._given = to_plain(stages)
        self.stages = parse_stages(self._given)
        self.frozen_norm = frozen_norm
        self.frozen_dropout = frozen_dropout
        self._configured = self.stages
        self._timetable = Timetable(self.stages)
        self._staged: list[StagedOptimizer] = []
        self._waiting = PlateauTracker()
        self._held = HeldLayers(norms=frozen_norm == "eval", dropouts=frozen_dropout == "eval")
        self._clock = Clock()
        self._asked_at: tuple[int, int] | None = None
        self._loaded: dict[str, Any] | None = None
        self._trainer: Trainer | None = None
        self._sharded: Any = None
        self._module: nn.Module | None = None
        self._hooks: list[Any] = []

    def explain(self, module: nn.Module, optimizer: OptimizerFactory | Optimizer | None = None) -> Table:
        """The plan for a model: what thaws when, at which peak lr. Nothing is changed.

        Args:
            module: the model.
            optimizer: a factory or a built optimizer, for the groups; without, there is one group a stage.

        Raises:
            ConfigError: the plan does not fit the model.
        """
        parameters = read_parameters(module)
        claimed = claim(self._configured, parameters)
        if isinstance(optimizer, Optimizer):
            plan = Plan.of(optimizer, module)
        elif optimizer is not None:
            plan = optimizer.plan(parameters)
        else:
            plan = Plan.whole(module)
        check_unclaimed(claimed, parameters, but=frozenset(plan.frozen))
        thaw_times = tuple((stage.name, str(stage.trigger)) for stage in claimed)
        return split(plan, claimed).table(thaw_times)

    def plan_of(self, optimizer: Optimizer, module: nn.Module) -> Plan:
        """A built optimizer's groups by stage, those that wait among them, whether or not the fit has begun.

        Raises:
            ConfigError: the stages do not fit the model.
        """
        for staged in self._staged:
            if staged.optimizer is optimizer:
                return staged.plan
        return split(Plan.of(optimizer, module), claim(self._configured, read_parameters(module)))

    # Before the optimizer is built: everything claimed is trainable, so it and its scheduler see the whole model.

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make what the stages claim trainable, for the strategy's wrapper and for `configure_optimizers`."""
        if stage != "fit":
            return
        check_strategy(trainer)
        self._begin(trainer, pl_module)
        # Modules made in `configure_model` are not there yet: what is missing is an error only later.
        if next(pl_module.parameters(), None) is not None:
            self._free([replace(stage, allow_empty=True) for stage in self._configured], pl_module)
        ConfigureOptimizersHook.of(pl_module).before(lambda: self._claim(pl_module))
        if trainer.strategy.restore_checkpoint_after_setup:
            self._read_stage_first(trainer.strategy)

    def _begin(self, trainer: Trainer, module: nn.Module) -> None:
        """Go on where the last fit of this module ended; begin anew with another, whatever was loaded since."""
        self._trainer, self._loaded, self._asked_at, self._waiting = trainer, None, None, PlateauTracker()
        if self._module is module:
            self._timetable.reset_thaw_times()
        else:
            self._configured = parse_stages(self._given)
            self._timetable, self._staged = Timetable(self._configured), []
        self._module = module

    def _claim(self, module: nn.Module) -> None:
        self.stages = self._free(self._configured, module)

    def _free(self, stages: Sequence[Stage], module: nn.Module) -> tuple[Stage, ...]:
        """Make what they claim trainable."""
        parameters = read_parameters(module)
        claimed = claim(stages, parameters)
        names = frozenset().union(*(stage.params for stage in claimed))
        set_trainable([parameter.tensor for parameter in parameters if parameter.name in names], True)
        return claimed

    # Once it is built: split, withhold, follow.

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the later stages out of the optimizers, freeze them, and put back those a checkpoint has passed."""
        self._settle_claims(pl_module, trainer.optimizers)
        self._timetable = self._timetable.with_claims(self.stages)
        schedulers = _by_optimizer([config.scheduler for config in trainer.lr_scheduler_configs], trainer.optimizers)
        before, self._staged = (
            self._staged,
            [
                StagedOptimizer(optimizer, pl_module, self.stages, driving)
                for optimizer, driving in zip(trainer.optimizers, schedulers, strict=True)
            ],
        )
        thaw_times = tuple((stage.name, str(stage.trigger)) for stage in self.stages)
        for staged in self._staged:
            announce(staged.optimizer, staged.plan.table(thaw_times), again=True)
        self._look_ahead(trainer, pl_module)
        self._waiting.take_over_schedulers(trainer)
        self._restore(before)
        for staged in self._staged:
            self._hooks.append(staged.optimizer.register_step_pre_hook(staged.before_step))
            self._hooks.append(staged.optimizer.register_step_post_hook(staged.after_step))
        if self._sharded:
            check_precision(pl_module)
        rebuild_reducer(trainer)

    def _look_ahead(self, trainer: Trainer, module: LightningModule) -> None:
        """How long the run is, where a stage asks; and which stages it is too short for."""

        def ask(function: Callable[..., Any]) -> bool:
            decision = bool(function(trainer, module))
            return bool(trainer.strategy.reduce_boolean_decision(decision, all=False))

        self._clock = Clock(ask=ask)
        asking = next((stage for stage in self.stages if stage.trigger.needs_length), None)
        if asking is not None:
            instead = f"Type another trigger, for example {asking.key}.at: {{step: 500}}"
            self._clock.total_steps = run_length(trainer, "step", asking.trigger.length_key, instead)
        epochs, steps = (
            math.inf if limit in (None, -1) else limit for limit in (trainer.max_epochs, trainer.max_steps)
        )
        if beyond := [stage.name for stage in self.stages if not stage.trigger.reachable(epochs, steps)]:
            rank_zero_info(f"StagedUnfreeze: this run ends before {format_names(beyond)} can thaw")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put frozen layers into the mode asked for; step what an epoch before the checkpoint still owes."""
        self._waiting.on_train_start(trainer)
        self._hold_frozen(pl_module)
        self._waiting.step_schedulers("epoch")
        for staged in self._staged:
            staged.follow(reset=True)  # the optimizers have been loaded since

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Step what the last epoch owes; look at its metrics."""
        self._waiting.step_schedulers("epoch", "step")
        self._waiting.look(trainer, self._timetable.watched)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Thaw what is due, before other callbacks look; hold frozen layers, which a module's own `train()` frees."""
        self._hold_frozen(pl_module)
        self._waiting.step_schedulers("epoch")
        self._follow()
        for config in trainer.lr_scheduler_configs:
            if any(drives(config.scheduler, staged.optimizer) for staged in self._staged):
                raise ConfigError(
                    f"stages: a callback has put a {type(config.scheduler).__name__} of its own in the place of the "
                    "scheduler, where late groups cannot follow it. Leave that callback or the unfreeze out"
                )
        self._waiting.look(trainer, self._timetable.watched)
        self._thaw_due(trainer, pl_module, 0)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The same for what is due within the epoch; follow the schedulers that step between batches."""
        if self._waiting.any_scheduler:
            self._waiting.step_schedulers("epoch", "step")
            self._follow()
        if self._sharded:
            reshard(pl_module)
        self._waiting.look(trainer, self._timetable.watched)
        # In the middle of an accumulation, the gradient of a stage's first step would lack batches.
        if self._timetable.waiting and batch_idx % trainer.accumulate_grad_batches == 0:
            self._thaw_due(trainer, pl_module, batch_idx)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Follow the schedulers, which have just stepped, so that checkpoints hold the lr of the next step."""
        self._waiting.after_batch(trainer, batch_idx)
        self._follow()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what metrics there are."""
        self._waiting.before_validation(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See which metrics that a stage waits for are new."""
        if not trainer.sanity_checking:
            self._waiting.after_validation(trainer, self._timetable.watched)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same, for what training logs."""
        self._waiting.after_epoch(trainer, self._timetable.watched)

    def _follow(self) -> None:
        for staged in self._staged:
            staged.follow()

    def _thaw_due(self, trainer: Trainer, module: LightningModule, batch_idx: int) -> None:
        # Once for each batch: a callable may count how often it is asked. A resumed epoch may have had no start.
        if self._asked_at == (trainer.current_epoch, batch_idx):
            return
        self._asked_at = (trainer.current_epoch, batch_idx)
        self._clock.epoch, self._clock.step = trainer.current_epoch, trainer.global_step
        due = self._timetable.due(self._clock)
        for stage in due:
            self._set_trainable(stage, True)
            groups = [group for staged in self._staged for group in staged.thaw(stage.name)]
            self._announce(trainer, stage, [group.name for group in groups])
        if due:
            self._hold_frozen(module)
            rebuild_reducer(trainer)

    def _announce(self, trainer: Trainer, stage: Stage, groups: Sequence[str]) -> None:
        said = (
            f"epoch {trainer.current_epoch}, step {trainer.global_step}: '{stage.name}' thaws ({format_names(groups)})"
        )
        rank_zero_info(f"StagedUnfreeze: {said}")
        write_text(trainer.loggers, "optim/thaw", said, logger_step(trainer))

    def _hold_frozen(self, module: LightningModule) -> None:
        self._held.hold(module, frozenset().union(*(stage.params for stage in self._timetable.waiting)))

    def _settle_claims(self, module: nn.Module, optimizers: Sequence[Optimizer]) -> None:
        """Leave to `frozen: true` rules what they took, and see that nothing else is without optimizer or stage."""
        held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
        parameters = read_parameters(module)
        loose = {parameter.name: parameter.tensor for parameter in parameters if id(parameter.tensor) not in held}
        # All claimed were trainable a moment ago: what is not any more, a rule has frozen.
        missing = {name for name, tensor in loose.items() if tensor.requires_grad}
        settled = []
        for stage in self.stages:
            if without := [p.name for p in parameters if p.name in stage.params & missing] if missing else ():
                raise ConfigError(
                    f"{stage.key}: no optimizer holds {len(without)} of the parameters it claims: "
                    f"{format_names(without, 3)}. "
                    "Give configure_optimizers the whole model: optimizer(self.parameters())"
                )
            settled.append(replace(stage, params=stage.params - loose.keys()))
        self.stages = tuple(settled)
        check_unclaimed(self.stages, parameters)

    # Saved and restored.

    def state_dict(self) -> dict[str, Any]:
        """The stages that have thawed, what the schedulers made of the groups as configured, and what is still due."""
        plateaus = [plateau for stage in self._timetable.waiting for plateau in stage.trigger.plateaus]
        return {
            **self._timetable.state_dict(),
            "optimizers": [staged.state_dict() for staged in self._staged],
            "waiting": self._waiting.state_dict(self._trainer, {plateau.monitor for plateau in plateaus}),
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Where metrics decide something: run the end of the epoch that Lightning would pass over."""
        if state := checkpoint["callbacks"].get(self.state_key):
            self._waiting.on_load_checkpoint(checkpoint, state["waiting"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take all that from a checkpoint, once the optimizers are there."""
        if self._sharded:
            return  # it was read first
        self._loaded = state_dict

    def _read_stage_first(self, strategy: Any) -> None:
        """Have the stage restored before this strategy loads the optimizers, which it does with the weights."""
        load = strategy.load_checkpoint

        def load_checkpoint(checkpoint_path: Any, weights_only: bool | None = None) -> Any:
            path = strategy.broadcast(checkpoint_path)
            self._loaded = callback_state(path, self.state_key, weights_only)
            self._restore([])
            for staged in self._staged:
                staged.paused = True
            loaded = load(checkpoint_path, weights_only=weights_only)
            for staged in self._staged:
                staged.paused = False
            return loaded

        strategy.load_checkpoint = load_checkpoint
        self._sharded = strategy

    def _restore(self, before: Sequence[StagedOptimizer]) -> None:
        if self._loaded is not None:
            self._timetable.load_state_dict(self._loaded)
            self._waiting.load_state_dict(self._loaded["waiting"])
        for staged in self._staged:
            staged.activate_stages(self._timetable.thawed)
        for stage in self.stages:
            self._set_trainable(stage, stage.name in self._timetable.thawed)
        if self._loaded is not None:
            saved = self._loaded["optimizers"]
            if len(saved) != len(self._staged):
                raise ConfigError(f"stages: the checkpoint holds {len(saved)} optimizers, this run {len(self._staged)}")
            for staged, state in zip(self._staged, saved, strict=True):
                staged.load_state_dict(state)
        elif before:  # another fit of the same module
            for staged, last in zip(self._staged, before, strict=True):
                staged.resume_from(last)
        self._loaded = None

    def _set_trainable(self, stage: Stage, trainable: bool) -> None:
        for staged in self._staged:
            set_trainable(staged.tensors(stage.name), trainable)

    # Put back.

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the optimizers and of the module's hook."""
        self._detach(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The same: Lightning runs no teardown here."""
        self._detach(pl_module)

    def _detach(self, module: LightningModule) -> None:
        ConfigureOptimizersHook.undo(module)
        self._held.close()
        self._waiting.close()
        for hook in self._hooks:
            hook.remove()
        if self._sharded:
            del self._sharded.load_checkpoint
        self._sharded = None
        self._hooks, self._trainer, self._clock = [], None, Clock()


def _by_optimizer(schedulers: Sequence[Any], optimizers: Sequence[Optimizer]) -> list[list[Any]]:
    """The schedulers that drive each optimizer; one that seems to drive none goes to the first, which refuses it."""
    sorted_out: list[list[Any]] = [[] for _ in optimizers]
    for scheduler in schedulers:
        driven = [index for index, optimizer in enumerate(optimizers) if drives(scheduler, optimizer)]
        sorted_out[driven[0] if driven else 0].append(scheduler)
    return sorted_out
