"""Records the steps of one optimizer: a snapshot of each logged step, and its values by tag."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning.pytorch import LightningModule
from torch.optim import Optimizer

from ..core.errors import format_names
from ..groups.plan import Plan
from ..telemetry.depth_pictures import DepthPictures
from ..telemetry.group_runs import Curve, group_curve, number_folder
from ..telemetry.inventory import Inventory
from ..telemetry.loggers import write_histogram, write_table
from ..telemetry.snapshot import Snapshot
from ..telemetry.step_sums import sees_what_step_left
from ..telemetry.stores.table import LoggedTable
from ..telemetry.tags import EPS, is_setting, parameter_tag, tag
from .lightning_internals import logger_step

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_LOG = logging.getLogger(__name__)


class RecordedStep(NamedTuple):
    """A step that is logged."""

    snapshot: Snapshot
    eps: dict[str, float]
    """By group, where the optimizer has one number of that name."""

    @property
    def step(self) -> int:
        """The logger's."""
        return self.snapshot.step

    @property
    def is_ready(self) -> bool:
        """Whether its values have arrived on the host."""
        return self.snapshot.is_ready


class StepRecorder:
    """Takes a snapshot of each logged step, by torch's hooks before and after `optimizer.step`, until it is closed.

    Args:
        trainer: its loggers get text and histograms.
        module: gives the parameters' names.
        optimizer: the torch optimizer, not Lightning's wrapper.
        root: the first segment of its tags.
        is_logged: whether the current step is logged.
        update_norm, cosine, per_parameter, histograms: see `OptimizerMonitor`.
        on_new_groups: called with the plan, at the first logged step and at the first one after groups have changed.
        depth: collects the values by layer.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: LightningModule,
        optimizer: Optimizer,
        root: str,
        *,
        is_logged: Callable[[], bool],
        update_norm: bool,
        cosine: bool,
        per_parameter: bool,
        histograms: bool,
        on_new_groups: Callable[[Plan], None] = lambda plan: None,
        depth: DepthPictures | None = None,
    ) -> None:
        self.optimizer, self.root = optimizer, root
        self.signals: dict[str, None] = {}
        """All signals that there have been, in order."""
        self.curves: dict[str, Curve] = {}
        """By tag, where the value of a group stands if groups are runs of their own."""
        self.settings: set[str] = set()
        """The tags of hyperparameters, which are logged when they change."""
        self._tags: dict[tuple[str, str], str] = {}
        """By signal and group."""
        self._groups: dict[str, str] = {}
        """By the folder of its run, in lower case."""
        self._trainer, self._module = trainer, module
        self._is_logged, self._on_new_groups = is_logged, on_new_groups
        self._update_norm, self._cosine = update_norm, cosine
        self._compares_steps = update_norm or cosine
        """Whether a step is compared with what was before it."""
        self._per_parameter, self._histograms, self._depth = per_parameter, histograms, depth
        overridden = type(module).configure_gradient_clipping is not LightningModule.configure_gradient_clipping
        self._clips_gradients = overridden or bool(trainer.gradient_clip_val)
        self._current: Snapshot | None = None
        self._finished: RecordedStep | None = None
        self._inventory: Inventory | None = None
        self._nonfinite: set[str] = set()
        """The parameters that were not finite in the last snapshot."""
        self._reported_unmeasured: set[str] = set()
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def finish(self) -> None:
        """Write what is about the whole run."""
        if self._depth:
            self._depth.finish(self._trainer.loggers)

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def before_clipping(self) -> None:
        """Measure the accumulated, unscaled gradients, if Lightning or the module is about to clip them."""
        if self._clips_gradients and (snapshot := self._get_snapshot()):
            snapshot.before_clipping()

    def pop_finished(self) -> RecordedStep | None:
        """The record of the batch's last step; None if no step was logged, or a GradScaler has skipped it."""
        finished, self._finished, self._current = self._finished, None, None
        return finished

    def read_values(self, recorded: RecordedStep) -> dict[str, float]:
        """A step's values by tag, waiting for them if need be; also writes its histograms and warnings."""
        snapshot, loggers = recorded.snapshot, self._trainer.loggers
        summary = snapshot.read()
        found = {**summary.values, **{(EPS, group): eps for group, eps in recorded.eps.items()}}
        values = {self._tags.get(key) or self._new_tag(*key): value for key, value in found.items()}
        if self._per_parameter:
            values |= {parameter_tag(self.root, signal, name): value for signal, name, value in summary.by_parameter()}
        for signal, _, names, tensors in snapshot.histograms:
            for name, tensor in zip(names, tensors, strict=True):
                write_histogram(loggers, parameter_tag(self.root, signal, name), tensor, snapshot.step)
        if self._depth:
            self._depth.add(loggers, summary.values, snapshot.step)
        self._warn_nonfinite(summary.nonfinite, snapshot.step)
        self._warn_unmeasured(snapshot.unmeasured)
        return values

    def _new_tag(self, signal: str, group: str) -> str:
        name = self._tags[signal, group] = tag(self.root, signal, group)
        self.signals[signal] = None
        curve = group_curve(self.root, signal, group)
        # Names may differ only in what a folder's name cannot have, or not tell apart.
        while self._groups.setdefault(curve.folder.lower(), group) != group:
            curve = Curve(number_folder(curve.folder), curve.tag)
        self.curves[name] = curve
        if is_setting(signal):
            self.settings.add(name)
        return name

    def _before_step(self, *_: Any) -> None:
        if snapshot := self._get_snapshot():
            snapshot.before_step()

    def _after_step(self, *_: Any) -> None:
        snapshot = self._current
        if snapshot is None and self._trainer.should_stop and not self._compares_steps:
            snapshot = self._get_snapshot()  # asked to stop within the step: Lightning logs it, the last one
        if snapshot:
            snapshot.after_step()
            self._finished, self._current = RecordedStep(snapshot, self._read_eps()), None

    def _get_snapshot(self) -> Snapshot | None:
        """The snapshot of the current step, None if it is not logged; created before clipping or before the step."""
        if self._current is None and self._is_logged():
            step = logger_step(self._trainer)
            self._current = Snapshot(
                self._get_inventory(step),
                step,
                update=self._update_norm,
                cosine=self._cosine,
                histograms=self._histograms,
                from_kernels=sees_what_step_left(self.optimizer, self._after_step),
            )
        return self._current

    def _get_inventory(self, step: int) -> Inventory:
        """The inventory of the optimizer's groups; where they have changed, a new one, whose table is also logged."""
        known = self._inventory and [len(group.params) for group in self._inventory.plan.groups]
        if self._inventory is None or known != [len(group["params"]) for group in self.optimizer.param_groups]:
            plan = Plan.from_optimizer(self.optimizer, self._module)
            write_table(self._trainer.loggers, f"{self.root}/groups", LoggedTable.from_groups(plan.table()), step)
            self._on_new_groups(plan)
            self._inventory = Inventory(self.optimizer, plan)
        return self._inventory

    def _read_eps(self) -> dict[str, float]:
        """What the RMS of second moments is compared to."""
        assert self._inventory is not None
        groups = zip(self._inventory.plan.groups, self.optimizer.param_groups, strict=True)
        found = ((group.name, values.get(EPS)) for group, values in groups)
        return {name: float(eps) for name, eps in found if isinstance(eps, Real)}

    def _warn_nonfinite(self, nonfinite: Mapping[str, list[str]], step: int) -> None:
        """Name the parameters that were finite until now; first those that were not before clipping spread it."""
        new = [name for name in nonfinite if name not in self._nonfinite]
        self._nonfinite = set(nonfinite)
        if not new or not self._trainer.is_global_zero:
            return
        origins = [name for name in new if "grad_unclipped" in nonfinite[name]] or new
        ordered = origins + [name for name in new if name not in origins]
        lines = [f"{name} ({', '.join(nonfinite[name])})" for name in ordered]
        _LOG.warning("%s, step %d: not finite: %s", self.root, step, format_names(lines))
        rows = [{"parameter": name, "signals": ", ".join(nonfinite[name])} for name in ordered]
        table = LoggedTable.from_rows(rows, markdown="\n".join(f"- {line}" for line in lines))
        write_table(self._trainer.loggers, f"{self.root}/nonfinite", table, step)

    def _warn_unmeasured(self, unmeasured: Sequence[str]) -> None:
        """Name what cannot be measured, once."""
        for line in unmeasured:
            if line not in self._reported_unmeasured:
                self._reported_unmeasured.add(line)
                if self._trainer.is_global_zero:
                    _LOG.warning("%s: %s", self.root, line)
