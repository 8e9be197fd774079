"""The optimizer's state, live: each group's lr, and the norms of its gradients, parameters and state buffers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from ..announce import announce
from ..errors import ConfigError, listed
from ..groups.plan import Plan
from ..hyperparameters import Flag, Number
from ..telemetry.hparams import hyperparameters
from ..telemetry.loggers import write_histogram, write_hyperparameters, write_layout, write_scalars, write_text
from ..telemetry.snapshot import Snapshot
from ..telemetry.tags import layout, parameter_tag, roots, tag
from .strategies import check_whole_parameters
from .unfreeze import StagedUnfreeze

_LOG = logging.getLogger(__name__)


class OptimizerMonitor(Callback):
    """Logs what each optimizer step was taken with and what it left, by param group.

    `optim/lr/<group>`, `optim/weight_decay/<group>`, `optim/momentum|beta1|beta2/<group>`, `optim/step/<group>`;
    `optim/norm/grad|param|<state buffer>/<group>`, `optim/norm/grad_unclipped/<group>` where clipping is on,
    `optim/rms/<second moment>/<group>`, `optim/nonfinite/<group>` (parameters that are, or whose gradient or state is,
    NaN or infinite; they are named in the log and as text), `optim/state_mib/<group>`; and `.../all` over all groups.

    Gradients are as the optimizer saw them (unscaled, clipped), lr is the one that was used, the state is that after
    the step. There is one point an optimizer step, at the logger step of Lightning's own metrics. Several optimizers
    have a section each, `optim_<class>/...`. No hook waits for a GPU: numbers are written when they have arrived, one
    hook later or so, and always before a checkpoint.

    Args:
        every_n_steps: log each n-th batch; None: the trainer's `log_every_n_steps`.
        update_norm: also `optim/norm/update/<group>`, exact, and `optim/ratio/update_param/<group>`, at the cost of a
            copy of the parameters while it logs.
        cosine: also `optim/cos/grad_momentum/<group>`, of the gradient and the momentum before the step.
        per_parameter: also each norm by parameter, under `optim_param/norm/<signal>/<parameter>`.
        histograms: also the distribution of each measured tensor, under the same tags; waits for the device.
        layout: arrange the curves on TensorBoard's page of custom scalars.
        to_callback_metrics: also put the values into `trainer.callback_metrics`, for EarlyStopping and ModelCheckpoint,
            which makes logged steps wait for the device.

    Raises:
        ConfigError: an argument is wrong, or the strategy cuts parameters up where norms cannot be put together again.

    Example:
        >>> callback = OptimizerMonitor(every_n_steps=10, update_norm=True)
    """

    def __init__(
        self,
        every_n_steps: int | None = None,
        *,
        update_norm: bool = False,
        cosine: bool = False,
        per_parameter: bool = False,
        histograms: bool = False,
        layout: bool = True,
        to_callback_metrics: bool = False,
    ) -> None:
        steps = Number(default=50, low=1, integer=True, optional=True)
        self.every_n_steps: int | None = steps.check(every_n_steps, "every_n_steps")
        flag = Flag(default=True)
        self.update_norm: bool = flag.check(update_norm, "update_norm")
        self.cosine: bool = flag.check(cosine, "cosine")
        self.per_parameter: bool = flag.check(per_parameter, "per_parameter")
        self.histograms: bool = flag.check(histograms, "histograms")
        self.layout: bool = flag.check(layout, "layout")
        self.to_callback_metrics: bool = flag.check(to_callback_metrics, "to_callback_metrics")
        self._watchers: list[_Watcher] = []
        self._pending: list[tuple[_Watcher, Snapshot]] = []
        self._in_batch = False
        self._charts: dict[str, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a trainer that would drop every value, or a strategy under which they would be wrong."""
        if stage != "fit":
            return
        check_whole_parameters(trainer)
        if not trainer.loggers and not self.to_callback_metrics:
            raise ConfigError(
                "monitor: the trainer has no logger to write to. Type trainer.logger=true, or your app's own "
                "logger=..., or leave the monitor out"
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log each group's hyperparameters, those of groups that thaw later too."""
        found: dict[str, Any] = {}
        for optimizer, root in zip(trainer.optimizers, roots(trainer.optimizers), strict=True):
            found |= hyperparameters(root, _whole_plan(trainer, optimizer, pl_module))
        parts: list[Any] = [pl_module, getattr(trainer, "datamodule", None)]
        own = {key: v for part in parts if part and part._log_hyperparams for key, v in part.hparams_initial.items()}
        write_hyperparameters(trainer.loggers, own, found)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Watch every optimizer's steps; print the groups of those that nothing of ours has built."""
        for optimizer in trainer.optimizers:
            announce(optimizer, Plan.of(optimizer, pl_module).table())
        self._watchers = [
            _Watcher(self, trainer, pl_module, optimizer, root)
            for optimizer, root in zip(trainer.optimizers, roots(trainer.optimizers), strict=True)
        ]
        self._charts = {}

    def on_train_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Steps count from here."""
        self._in_batch = True
        self._write(trainer)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """The gradients are whole here, and not yet clipped."""
        for watcher in self._watchers:
            if watcher.optimizer is optimizer and watcher.clips:
                watcher.clip()

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Write what has arrived; steps count no more until the next batch: loading a checkpoint may take one."""
        self._in_batch = False
        self._pending += [(watcher, taken) for watcher in self._watchers if (taken := watcher.taken())]
        self._write(trainer, wait=self.to_callback_metrics)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what is left, as before anything that takes long or may be the last."""
        self._write(trainer, wait=True)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """The same: a run that resumes from here goes on with the next point."""
        self._write(trainer, wait=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same."""
        self._write(trainer, wait=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The same, and let go of the optimizers: Lightning runs no teardown here."""
        self._write(trainer, wait=True)
        self._let_go()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the optimizers."""
        self._let_go()

    def wants(self, trainer: Trainer) -> bool:
        """Whether the step under way is logged."""
        if not self._in_batch:
            return False
        if self.every_n_steps is None:
            return bool(trainer._logger_connector.should_update_logs)
        return (trainer.fit_loop.epoch_loop._batches_that_stepped + 1) % self.every_n_steps == 0

    def _write(self, trainer: Trainer, *, wait: bool = False) -> None:
        """Hand to the loggers what has arrived: all optimizers' values of a step at once, in the order of steps."""
        while self._pending and (wait or self._pending[0][1].arrived):
            step = self._pending[0][1].step
            values: dict[str, float] = {}
            while self._pending and self._pending[0][1].step == step:
                watcher, snapshot = self._pending.pop(0)
                values |= watcher.values(snapshot)
            write_scalars(trainer.loggers, values, step)
            if self.to_callback_metrics:
                trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})
            if self.layout:
                self._arrange(trainer)

    def _arrange(self, trainer: Trainer) -> None:
        """Write the layout of all curves whenever there are new signals; groups that join are in its regexes."""
        charts = layout({watcher.root: watcher.signals for watcher in self._watchers})
        if charts != self._charts:
            self._charts = charts
            write_layout(trainer.loggers, charts)

    def _let_go(self) -> None:
        for watcher in self._watchers:
            watcher.close()
        self._watchers, self._pending = [], []


class _Watcher:
    """One optimizer under watch, between torch's hooks before and after its steps."""

    def __init__(
        self, monitor: OptimizerMonitor, trainer: Trainer, module: LightningModule, optimizer: Optimizer, root: str
    ) -> None:
        self.optimizer, self.root = optimizer, root
        self.signals: dict[str, None] = {}
        self.clips = trainer.gradient_clip_val is not None or _clips_itself(module)
        """Whether gradients are clipped between their hook and the step."""
        self._monitor, self._trainer, self._module = monitor, trainer, module
        self._snapshot: Snapshot | None = None
        self._taken: Snapshot | None = None
        self._plan: Plan | None = None
        self._told: set[str] = set()
        self._told_skipped: set[str] = set()
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()

    def clip(self) -> None:
        if snapshot := self._current():
            snapshot.clip()

    def taken(self) -> Snapshot | None:
        """The batch's last step; one that a scaler has skipped has left nothing."""
        taken, self._taken, self._snapshot = self._taken, None, None
        return taken

    def values(self, snapshot: Snapshot) -> dict[str, float]:
        """By tag; waits for them."""
        summary, loggers = snapshot.read(), self._trainer.loggers
        self.signals.update(dict.fromkeys(signal for signal, _ in summary.values))
        values = {tag(self.root, signal, group): value for (signal, group), value in summary.values.items()}
        if self._monitor.per_parameter:
            values |= {parameter_tag(self.root, signal, name): value for signal, name, value in summary.by_parameter()}
        for signal, _, names, tensors in snapshot.histograms:
            for name, tensor in zip(names, tensors, strict=True):
                write_histogram(loggers, parameter_tag(self.root, signal, name), tensor, snapshot.step)
        self._tell_nonfinite(summary.nonfinite, snapshot.step)
        self._tell_skipped(snapshot.skipped)
        return values

    def _before_step(self, *_: Any) -> None:
        if snapshot := self._current():
            snapshot.before(update=self._monitor.update_norm, cosine=self._monitor.cosine)

    def _after_step(self, *_: Any) -> None:
        if snapshot := self._current():
            snapshot.after(histograms=self._monitor.histograms)
            self._taken, self._snapshot = snapshot, None

    def _current(self) -> Snapshot | None:
        """The snapshot of the step under way, if it is logged; whether it is clipped first or hooked depends."""
        if not self._monitor.wants(self._trainer):
            return None
        if self._snapshot is None:
            step = self._trainer.fit_loop.epoch_loop._batches_that_stepped
            self._snapshot = Snapshot(self.optimizer, self._current_plan(step), step)
        return self._snapshot

    def _current_plan(self, step: int) -> Plan:
        """The optimizer's groups, read again when they have changed, and then written as text."""
        groups = self.optimizer.param_groups
        known = self._plan and [len(group.params) for group in self._plan.groups]
        if self._plan is None or known != [len(group["params"]) for group in groups]:
            self._plan = Plan.of(self.optimizer, self._module)
            write_text(self._trainer.loggers, f"{self.root}/groups", self._plan.table().markdown(), step)
        return self._plan

    def _tell_nonfinite(self, nonfinite: Mapping[str, list[str]], step: int) -> None:
        """Name the parameters that were finite until now, those first that were before clipping spread it."""
        new = [name for name in nonfinite if name not in self._told]
        self._told = set(nonfinite)
        if not new or not self._trainer.is_global_zero:
            return
        origin = [name for name in new if "grad_unclipped" in nonfinite[name]] or new
        said = [f"{name} ({', '.join(nonfinite[name])})" for name in origin + [n for n in new if n not in origin]]
        _LOG.warning("%s, step %d: not finite: %s", self.root, step, listed(said))
        write_text(self._trainer.loggers, f"{self.root}/nonfinite", "\n".join(f"- {line}" for line in said), step)

    def _tell_skipped(self, skipped: Mapping[str, str]) -> None:
        for key, what in skipped.items():
            if key not in self._told_skipped:
                self._told_skipped.add(key)
                if self._trainer.is_global_zero:
                    _LOG.warning("%s: the state '%s' is not measured: it is a %s", self.root, key, what)


def _clips_itself(module: LightningModule) -> bool:
    return type(module).configure_gradient_clipping is not LightningModule.configure_gradient_clipping


def _whole_plan(trainer: Trainer, optimizer: Optimizer, module: LightningModule) -> Plan:
    """An optimizer's groups, with those that stages hold back."""
    callbacks: list[Any] = getattr(trainer, "callbacks", [])
    unfreeze = next((callback for callback in callbacks if isinstance(callback, StagedUnfreeze)), None)
    return unfreeze.plan_of(optimizer, module) if unfreeze else Plan.of(optimizer, module)
