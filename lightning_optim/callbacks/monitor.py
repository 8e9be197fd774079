"""The optimizer's state, live: each group's lr, and the norms of its gradients, parameters and state buffers."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from ..core.errors import ConfigError
from ..core.hyperparameters import Flag, Number
from ..groups.plan import Plan
from ..telemetry.hparams import hyperparameters
from ..telemetry.loggers import write_hyperparameters, write_layout, write_scalars
from ..telemetry.snapshot import Snapshot
from ..telemetry.tags import layout, roots
from .announce import announce
from .lightning_internals import initial_hyperparameters, logger_step, logs_this_step
from .step_watcher import Watcher
from .strategies import check_whole_parameters
from .unfreeze import StagedUnfreeze


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

    __module__ = "lightning_optim"  # where users import it from: pickles outlive a move of this file

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
        self._watchers: list[Watcher] = []
        self._pending: list[tuple[Watcher, Snapshot]] = []
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
        write_hyperparameters(trainer.loggers, initial_hyperparameters(trainer), found)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Watch every optimizer's steps; print the groups of those that nothing of ours has built."""
        for optimizer in trainer.optimizers:
            announce(optimizer, Plan.of(optimizer, pl_module).table())
        self._watchers = [
            Watcher(
                trainer, pl_module, optimizer, root, wants=partial(self._wants, trainer), update_norm=self.update_norm,
                cosine=self.cosine, per_parameter=self.per_parameter, histograms=self.histograms,
            )
            for optimizer, root in zip(trainer.optimizers, roots(trainer.optimizers), strict=True)
        ]  # fmt: skip
        self._charts = {}

    def on_train_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Steps count from here."""
        self._in_batch = True
        self._write(trainer)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """The gradients are whole here, and not yet clipped."""
        for watcher in self._watchers:
            if watcher.optimizer is optimizer:
                watcher.before_clipping()

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
        with suppress(RuntimeError):  # of a device that is lost, which must not hide what has happened
            self._write(trainer, wait=True)
        self._detach()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the optimizers."""
        self._detach()

    def _wants(self, trainer: Trainer) -> bool:
        """Whether the step under way is logged."""
        if not self._in_batch:
            return False
        if self.every_n_steps is None:
            return logs_this_step(trainer)
        return (logger_step(trainer) + 1) % self.every_n_steps == 0

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

    def _detach(self) -> None:
        for watcher in self._watchers:
            watcher.close()
        self._watchers, self._pending = [], []


def _whole_plan(trainer: Trainer, optimizer: Optimizer, module: LightningModule) -> Plan:
    """An optimizer's groups, with those that stages hold back."""
    callbacks: list[Any] = getattr(trainer, "callbacks", [])
    unfreeze = next((callback for callback in callbacks if isinstance(callback, StagedUnfreeze)), None)
    return unfreeze.plan_of(optimizer, module) if unfreeze else Plan.of(optimizer, module)
