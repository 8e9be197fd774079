"""The optimizer's state, live: each group's lr, and the norms of its gradients, parameters and state buffers."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from ..announce import announce
from ..errors import ConfigError
from ..groups.plan import Plan
from ..hyperparameters import Flag, Number
from ..telemetry.loggers import write_histogram, write_layout, write_scalars, write_text
from ..telemetry.norms import Sample, by_group, cosine, norms
from ..telemetry.reading import FIRST_MOMENTS, samples, settings
from ..telemetry.tags import layout, parameter_tag, roots, tag


class OptimizerMonitor(Callback):
    """Logs what each optimizer step was taken with and what it left, by param group.

    `optim/lr/<group>`, `optim/weight_decay/<group>`, `optim/momentum|beta1|beta2/<group>`, `optim/step/<group>`;
    `optim/norm/grad|param|<state buffer>/<group>` and `.../all`. Gradients are as the optimizer saw them (unscaled,
    clipped), lr is the one that was used, the state is that after the step. One point an optimizer step, at the
    logger step of Lightning's own metrics. Several optimizers have a section each, `optim_<class>/...`.

    Args:
        every_n_steps: log each n-th batch; None: the trainer's `log_every_n_steps`.
        update_norm: also `optim/norm/update/<group>`, exact, at the cost of a copy of the parameters while it logs.
        cosine: also `optim/cos/grad_momentum/<group>`, of the gradient and the momentum before the step.
        per_parameter: also each norm by parameter, under `optim_param/norm/<signal>/<parameter>`.
        histograms: also the distribution of each sampled tensor, under the same tags.
        layout: arrange the curves on TensorBoard's page of custom scalars.
        to_callback_metrics: also put the values into `trainer.callback_metrics`, for EarlyStopping and ModelCheckpoint.

    Raises:
        ConfigError: an argument is wrong.

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
        self._in_batch = False
        self._charts: dict[str, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a trainer that would drop every value."""
        if stage == "fit" and not trainer.loggers and not self.to_callback_metrics:
            raise ConfigError(
                "monitor: the trainer has no logger to write to. Type trainer.logger=true, or your app's own "
                "logger=..., or leave the monitor out"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Watch every optimizer's steps; print the groups of those that nothing of ours has built."""
        for optimizer in trainer.optimizers:
            announce(optimizer, Plan.of(optimizer, pl_module).table())
        self._watchers = [
            _Watcher(self, trainer, pl_module, optimizer, root)
            for optimizer, root in zip(trainer.optimizers, roots(trainer.optimizers), strict=True)
        ]
        self._charts = {}

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Steps count from here."""
        self._in_batch = True

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Write what was read, and no more until the next batch: loading a checkpoint may step an optimizer."""
        self._in_batch = False
        for watcher in self._watchers:
            watcher.write()
        if self.layout:
            self._arrange(trainer)

    def wants(self, trainer: Trainer) -> bool:
        """Whether the step under way is logged."""
        if not self._in_batch:
            return False
        if self.every_n_steps is None:
            return bool(trainer._logger_connector.should_update_logs)
        return (trainer.fit_loop.epoch_loop._batches_that_stepped + 1) % self.every_n_steps == 0

    def _arrange(self, trainer: Trainer) -> None:
        """Write the layout of all curves whenever there are new signals; groups that join are in its regexes."""
        charts = layout({watcher.root: watcher.signals for watcher in self._watchers})
        if charts != self._charts:
            self._charts = charts
            write_layout(trainer.loggers, charts)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the optimizers."""
        self._let_go()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The same: Lightning runs no teardown here."""
        self._let_go()

    def _let_go(self) -> None:
        for watcher in self._watchers:
            watcher.close()
        self._watchers = []


class _Watcher:
    """One optimizer under watch, between torch's hooks before and after its steps."""

    def __init__(
        self, monitor: OptimizerMonitor, trainer: Trainer, module: LightningModule, optimizer: Optimizer, root: str
    ) -> None:
        self.root = root
        self.signals: dict[str, None] = {}
        self._monitor, self._trainer, self._module, self._optimizer = monitor, trainer, module, optimizer
        self._before: dict[str, dict[Tensor, Tensor]] = {}
        self._values: dict[str, float] = {}
        self._sampled: list[Sample] = []
        self._plan: Plan | None = None
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()

    def write(self) -> None:
        """Hand the last step's values to the loggers."""
        if not self._values:
            return
        loggers, step = self._trainer.loggers, self._trainer.fit_loop.epoch_loop._batches_that_stepped
        write_scalars(loggers, self._values, step)
        if self._monitor.histograms:
            for sample in self._sampled:
                tag_name = parameter_tag(self.root, sample.signal, sample.parameter)
                write_histogram(loggers, tag_name, sample.tensor.float(), step)
        if self._monitor.to_callback_metrics:
            self._trainer.callback_metrics.update({name: torch.tensor(value) for name, value in self._values.items()})
        self._values, self._sampled = {}, []

    def _before_step(self, *_: Any) -> None:
        if not self._monitor.wants(self._trainer):
            return
        held = [p for group in self._optimizer.param_groups for p in group["params"]]
        if self._monitor.update_norm:
            self._before["param"] = {p: p.detach().clone() for p in held}
        if self._monitor.cosine:
            self._before["momentum"] = {
                p: self._optimizer.state[p][key].clone()
                for p in held
                for key in FIRST_MOMENTS
                if isinstance(self._optimizer.state.get(p, {}).get(key), Tensor)
            }

    def _after_step(self, *_: Any) -> None:
        if not self._monitor.wants(self._trainer):
            return
        plan = self._current_plan()
        self._sampled = samples(self._optimizer, plan) + self._updates(plan)
        measured = norms(self._sampled)
        found = {**settings(self._optimizer, plan), **by_group(self._sampled, measured), **self._cosines(plan)}
        self._values = {tag(self.root, signal, group): value for (signal, group), value in found.items()}
        if self._monitor.per_parameter:
            for sample, value in zip(self._sampled, measured, strict=True):
                self._values[parameter_tag(self.root, sample.signal, sample.parameter)] = value
        self._before = {}
        self.signals.update(dict.fromkeys(signal for signal, _ in found))

    def _current_plan(self) -> Plan:
        """The optimizer's groups, read again when they have changed, and then written as text."""
        groups = self._optimizer.param_groups
        known = self._plan and [len(group.params) for group in self._plan.groups]
        if self._plan is None or known != [len(group["params"]) for group in groups]:
            self._plan = Plan.of(self._optimizer, self._module)
            step = self._trainer.fit_loop.epoch_loop._batches_that_stepped
            write_text(self._trainer.loggers, f"{self.root}/groups", self._plan.table().markdown(), step)
        return self._plan

    def _updates(self, plan: Plan) -> list[Sample]:
        before = self._before.get("param", {})
        return [
            Sample("norm/update", group.name, name, tensor.detach() - before[tensor])
            for group, live in zip(plan.groups, self._optimizer.param_groups, strict=True)
            for name, tensor in zip(group.params, live["params"], strict=True)
            if tensor in before
        ]

    def _cosines(self, plan: Plan) -> dict[tuple[str, str], float]:
        before = self._before.get("momentum", {})
        return {
            ("cos/grad_momentum", group.name): cosine((p.grad, before[p]) for p in live["params"] if p.grad is not None)
            for group, live in zip(plan.groups, self._optimizer.param_groups, strict=True)
            if before and all(p in before for p in live["params"] if p.grad is not None)
        }
