"""OptimizerMonitor: logs each group's lr and the norms of its gradients, parameters and state buffers."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.optim import Optimizer

from ..build.executions import read_executions
from ..core.errors import ConfigError, checks_arguments
from ..core.hyperparameters import Flag, Number
from ..core.short_repr import format_call
from ..groups.plan import Plan
from ..telemetry.depth_pictures import DepthPictures
from ..telemetry.group_runs import Curve, GroupRuns
from ..telemetry.hparams import collect_hyperparameters
from ..telemetry.loggers import add_hyperparameters, write_hyperparameters, write_layout, write_scalars
from ..telemetry.setting_changes import SettingChanges
from ..telemetry.tags import scalar_layout, tag_roots
from .lightning_internals import has_optimizers, initial_hyperparameters, logger_step, logs_this_step, purge_step
from .print_table import print_table
from .resumed_epoch import ResumedEpochCallback
from .step_recorder import RecordedStep, StepRecorder
from .strategies import check_strategy_for_monitor
from .unfreeze import StagedUnfreeze
from .verify_checkpoint import OPTION, VerifyCheckpointHook

_DEFAULTS = {
    "every_n_steps": None, "overlay": True, "update_norm": False, "cosine": False, "per_parameter": False,
    "histograms": False, "layout": True, "hparams": True, "depth_every": 100, "to_callback_metrics": False,
    "verify_checkpoints": True,
}  # fmt: skip
"""Of the monitor's arguments: its repr shows the others."""


class OptimizerMonitor(ResumedEpochCallback):
    """Logs every optimizer step by param group: its hyperparameters, and the norms before and after it.

    `optim/lr/<group>`, `optim/weight_decay/<group>`, `optim/momentum|beta1|beta2|eps/<group>`, `optim/step/<group>`;
    `optim/norm/grad|param|<state buffer>/<group>`, `optim/norm/grad_unclipped/<group>` if gradients are clipped,
    `optim/rms/<second moment>/<group>`, `optim/nonfinite/<group>` (the number of parameters that are NaN or infinite,
    or whose gradient or state is; they are named in the log and as text), `optim/state_mib/<group>`; and `.../all` over
    all groups. Weight decay, momentum, betas and eps have a point at their first step and where they change.

    TensorBoard shows each group as a run of its own, `<logger's folder>/optim/<group>`, whose tags have no group:
    `optim/lr`, `optim/norm/grad`. So one chart has the curves of all groups, each in its colour. Norms by parameter,
    and the groups after the 64th, stay in the logger's own run; all other loggers have the tags above.

    Gradients are those the optimizer used (unscaled, clipped), lr is the one that was used, the state is that after the
    step. There is one point per optimizer step, at the step under which Lightning logs its own metrics. Several
    optimizers have a section each, `optim_<class>/...`. No hook waits for a GPU: values are written once they have
    arrived on the host, about one hook later, and always before a checkpoint.

    Args:
        every_n_steps: log every n-th batch; None: the trainer's `log_every_n_steps`.
        overlay: False: TensorBoard too has all groups in the logger's own run, under the tags above: a chart for each
            signal of each group.
        update_norm: also log `optim/norm/update/<group>`, exact, and `optim/ratio/update_param/<group>`, at the cost of
            a copy of the parameters in logged steps.
        cosine: also log `optim/cos/grad_momentum/<group>`, between the gradient and the momentum before the step.
        per_parameter: also log each norm by parameter, as `optim_param/norm/<signal>/<parameter>`.
        histograms: also log a histogram of each measured tensor, under the same tags; waits for the device.
        layout: arrange the curves on TensorBoard's custom scalars page.
        hparams: log each group's hyperparameters at the start of a fit. False: leaves alone what the loggers know of
            them, among that `hparams.yaml`, which `load_from_checkpoint(hparams_file=...)` passes to the module, and
            the curve `hp_metric`.
        depth_every: where each layer has groups of its own, draw their update ratio (with `update_norm`), gradient norm
            and lr over the steps, as the picture `optim/depth/layers`: after every n-th logged step at most, and at the
            end; None: never. Needs matplotlib. A resumed run's pictures begin where it has been resumed.
        to_callback_metrics: also write the values to `trainer.callback_metrics`, for EarlyStopping and ModelCheckpoint;
            logged steps then wait for the device.
        verify_checkpoints: False: load a checkpoint without a check of its checksums and contents.

    Raises:
        ConfigError: an argument is wrong, the trainer has two monitors, or the strategy flattens parameters so that
            their norms are unknown.

    Examples:
        >>> callback = OptimizerMonitor(every_n_steps=10, update_norm=True)
    """

    __module__ = "lightning_optim"  # where users import it from: pickles survive a move of this file

    @checks_arguments
    def __init__(
        self,
        every_n_steps: int | None = None,
        *,
        overlay: bool = True,
        update_norm: bool = False,
        cosine: bool = False,
        per_parameter: bool = False,
        histograms: bool = False,
        layout: bool = True,
        hparams: bool = True,
        depth_every: int | None = 100,
        to_callback_metrics: bool = False,
        verify_checkpoints: bool = True,
    ) -> None:
        steps = Number(default=50, low=1, integer=True, optional=True)
        self.every_n_steps: int | None = steps.check(every_n_steps, "every_n_steps")
        flag = Flag(default=True)
        self.overlay: bool = flag.check(overlay, "overlay")
        self.update_norm: bool = flag.check(update_norm, "update_norm")
        self.cosine: bool = flag.check(cosine, "cosine")
        self.per_parameter: bool = flag.check(per_parameter, "per_parameter")
        self.histograms: bool = flag.check(histograms, "histograms")
        self.layout: bool = flag.check(layout, "layout")
        self.hparams: bool = flag.check(hparams, "hparams")
        self.depth_every: int | None = steps.check(depth_every, "depth_every")
        self.to_callback_metrics: bool = flag.check(to_callback_metrics, "to_callback_metrics")
        self.verify_checkpoints: bool = flag.check(verify_checkpoints, OPTION)
        self._recorders: list[StepRecorder] = []
        self._pending: list[tuple[StepRecorder, RecordedStep]] = []
        self._in_batch = False
        self._runs = GroupRuns() if self.overlay else None
        self._curves: Mapping[str, Curve] = {}
        self._settings = SettingChanges()
        self._hyperparameters: dict[str, Any] = {}
        """Those that have been logged."""
        self._laid_out: dict[str, tuple[str, ...]] = {}

    def __repr__(self) -> str:
        given = {name: getattr(self, name) for name, default in _DEFAULTS.items() if getattr(self, name) != default}
        return format_call(self, **given)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a strategy under which norms would be wrong, a second monitor, or a trainer without a logger."""
        VerifyCheckpointHook.install(trainer)
        if stage != "fit":
            return
        check_strategy_for_monitor(trainer)
        callbacks: list[Any] = getattr(trainer, "callbacks", [])
        if sum(isinstance(callback, OptimizerMonitor) for callback in callbacks) > 1:
            raise ConfigError(
                "monitor: the trainer has two OptimizerMonitors, which would write each curve twice. Remove one from "
                "trainer.callbacks"
            )
        if not trainer.loggers and not self.to_callback_metrics:
            raise ConfigError(
                "monitor: the trainer has no logger to write to. Type trainer.logger=true, or your app's own "
                "logger=..., or remove the monitor"
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log each group's hyperparameters, including the groups that thaw later."""
        if not has_optimizers(trainer):
            rank_zero_info("OptimizerMonitor: configure_optimizers has returned None, so there is nothing to log")
            return
        self._hyperparameters = {}
        for optimizer, root in zip(trainer.optimizers, tag_roots(trainer.optimizers), strict=True):
            self._hyperparameters |= collect_hyperparameters(root, _full_plan(trainer, optimizer, pl_module))
        if self.hparams:
            write_hyperparameters(trainer.loggers, initial_hyperparameters(trainer), self._hyperparameters)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start recording every optimizer's steps; print the groups of optimizers whose table was not printed yet."""
        super().on_train_start(trainer, pl_module)
        optimizers = trainer.optimizers if has_optimizers(trainer) else []
        for optimizer in optimizers:
            plan = read_executions(Plan.from_optimizer(optimizer, pl_module), optimizer)
            print_table(optimizer, plan.table())
        self._recorders = [
            StepRecorder(
                trainer, pl_module, optimizer, root, is_logged=partial(self._is_logged, trainer),
                update_norm=self.update_norm, cosine=self.cosine, per_parameter=self.per_parameter,
                histograms=self.histograms, on_new_groups=partial(self._add_hyperparameters, trainer, root),
                depth=self._find_depth(trainer, pl_module, optimizer, root),
            )
            for optimizer, root in zip(optimizers, tag_roots(optimizers), strict=True)
        ]  # fmt: skip
        self._laid_out, self._settings = {}, SettingChanges()
        self._curves = ChainMap(*(recorder.curves for recorder in self._recorders))
        for logger in trainer.loggers:
            if self._runs and (step := purge_step(logger)) is not None and logger.log_dir is not None:
                self._runs.purge(logger.log_dir, step)

    def on_train_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Write what has arrived; steps are recorded from here to the end of the batch."""
        self._in_batch = True
        if self._pending:
            self._write(trainer)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Measure the accumulated gradients before they are clipped."""
        for recorder in self._recorders:
            if recorder.optimizer is optimizer:
                recorder.before_clipping()

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Write what has arrived; steps outside a batch do not count: loading a checkpoint may take one."""
        self._in_batch = False
        for recorder in self._recorders:
            if recorded := recorder.pop_finished():
                self._pending.append((recorder, recorded))
        if self._pending:
            self._write(trainer, wait=self.to_callback_metrics)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Steps are outside a batch from here on, even if `on_train_batch_start` has ended the epoch with -1."""
        self._in_batch = False

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write everything pending, since a validation takes long and may be the last hook of a run."""
        self._write(trainer, wait=True)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write everything pending to disk: a run that resumes from here continues with the next point."""
        self._write(trainer, wait=True)
        if self._runs:
            self._runs.flush()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write everything pending, and the pictures of the whole run."""
        self._write(trainer, wait=True)
        for recorder in self._recorders:
            recorder.finish()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write everything pending and release the optimizers: Lightning calls no teardown here."""
        with suppress(RuntimeError, OSError):  # from a lost device, a full disk: it must not hide the exception
            self._write(trainer, wait=True)
        VerifyCheckpointHook.remove(trainer)
        with suppress(OSError):
            self._close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Release the optimizers."""
        VerifyCheckpointHook.remove(trainer)
        self._close()

    def _find_depth(
        self, trainer: Trainer, module: LightningModule, optimizer: Optimizer, root: str
    ) -> DepthPictures | None:
        plan = _full_plan(trainer, optimizer, module)
        return DepthPictures.find(trainer.loggers, plan, module, root, self.depth_every)

    def _is_logged(self, trainer: Trainer) -> bool:
        """Whether the current step is logged."""
        if not self._in_batch:
            return False
        if self.every_n_steps is None:
            return logs_this_step(trainer)
        return (logger_step(trainer) + 1) % self.every_n_steps == 0

    def _write(self, trainer: Trainer, *, wait: bool = False) -> None:
        """Write what has arrived to the loggers: all optimizers' values of a step together, in the order of steps."""
        while self._pending and (wait or self._pending[0][1].is_ready):
            step = self._pending[0][1].step
            values: dict[str, float] = {}
            while self._pending and self._pending[0][1].step == step:
                recorder, snapshot = self._pending.pop(0)
                values |= recorder.read_values(snapshot)
            settings = set().union(*(recorder.settings for recorder in self._recorders))
            for of_step, selected in self._settings.select(values, step, settings).items():
                write_scalars(trainer.loggers, selected, of_step, runs=self._runs, curves=self._curves)
            if self.to_callback_metrics:
                trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})
            if self.layout:
                self._write_layout(trainer)

    def _write_layout(self, trainer: Trainer) -> None:
        """Write the layout of all curves when there are new signals; its regexes match groups that join later."""
        signals = {recorder.root: tuple(recorder.signals) for recorder in self._recorders}
        if signals != self._laid_out:
            self._laid_out = signals
            write_layout(trainer.loggers, scalar_layout(signals, overlay=self.overlay))

    def _add_hyperparameters(self, trainer: Trainer, root: str, plan: Plan) -> None:
        """Log the hyperparameters of groups that nobody knew of when the fit began."""
        found = collect_hyperparameters(root, plan)
        new = {name: value for name, value in found.items() if name not in self._hyperparameters}
        self._hyperparameters |= new
        if self.hparams and new:
            add_hyperparameters(trainer.loggers, new)

    def _close(self) -> None:
        for recorder in self._recorders:
            recorder.close()
        self._recorders, self._pending = [], []
        if self._runs:
            self._runs.close()


def _full_plan(trainer: Trainer, optimizer: Optimizer, module: LightningModule) -> Plan:
    """An optimizer's groups, including those that stages have not thawed yet."""
    callbacks: list[Any] = getattr(trainer, "callbacks", [])
    unfreeze = next((callback for callback in callbacks if isinstance(callback, StagedUnfreeze)), None)
    return unfreeze.plan_of(optimizer, module) if unfreeze else Plan.from_optimizer(optimizer, module)
