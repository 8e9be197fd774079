"""One optimizer under watch: a snapshot of each step that is logged, and its values by tag."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule
from torch.optim import Optimizer

from ..core.errors import format_names
from ..groups.plan import Plan
from ..telemetry.inventory import Inventory
from ..telemetry.loggers import write_histogram, write_text
from ..telemetry.snapshot import Snapshot
from ..telemetry.tags import parameter_tag, tag
from .lightning_internals import logger_step

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_LOG = logging.getLogger(__name__)


class Watcher:
    """Stands between torch's hooks before and after an optimizer's steps, until it is closed.

    Args:
        trainer: whose loggers get text and histograms.
        module: where the parameters' names come from.
        optimizer: a raw one of torch.
        root: of its tags.
        wants: whether the step under way is logged.
        update_norm, cosine, per_parameter, histograms: as `OptimizerMonitor` takes them.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: LightningModule,
        optimizer: Optimizer,
        root: str,
        *,
        wants: Callable[[], bool],
        update_norm: bool,
        cosine: bool,
        per_parameter: bool,
        histograms: bool,
    ) -> None:
        self.optimizer, self.root = optimizer, root
        self.signals: dict[str, None] = {}
        """Those that there have been, in order."""
        self._trainer, self._module, self._wants = trainer, module, wants
        self._update_norm, self._cosine = update_norm, cosine
        self._per_parameter, self._histograms = per_parameter, histograms
        own = type(module).configure_gradient_clipping is not LightningModule.configure_gradient_clipping
        self._clips = own or bool(trainer.gradient_clip_val)
        self._snapshot: Snapshot | None = None
        self._taken: Snapshot | None = None
        self._inventory: Inventory | None = None
        self._told: set[str] = set()
        self._told_skipped: set[str] = set()
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def before_clipping(self) -> None:
        """The gradients are whole, and not yet clipped."""
        if self._clips and (snapshot := self._current()):
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
        if self._per_parameter:
            values |= {parameter_tag(self.root, signal, name): value for signal, name, value in summary.by_parameter()}
        for signal, _, names, tensors in snapshot.histograms:
            for name, tensor in zip(names, tensors, strict=True):
                write_histogram(loggers, parameter_tag(self.root, signal, name), tensor, snapshot.step)
        self._tell_nonfinite(summary.nonfinite, snapshot.step)
        self._tell_skipped(snapshot.skipped)
        return values

    def _before_step(self, *_: Any) -> None:
        if snapshot := self._current():
            snapshot.before(update=self._update_norm, cosine=self._cosine)

    def _after_step(self, *_: Any) -> None:
        if snapshot := self._current():
            snapshot.after(histograms=self._histograms)
            self._taken, self._snapshot = snapshot, None

    def _current(self) -> Snapshot | None:
        """The snapshot of the step under way, if it is logged; whether it is clipped first or hooked depends."""
        if not self._wants():
            return None
        if self._snapshot is None:
            step = logger_step(self._trainer)
            self._snapshot = Snapshot(self._current_inventory(step), step)
        return self._snapshot

    def _current_inventory(self, step: int) -> Inventory:
        """Of the optimizer's groups, read again when they have changed, and then written as text."""
        known = self._inventory and [len(group.params) for group in self._inventory.plan.groups]
        if self._inventory is None or known != [len(group["params"]) for group in self.optimizer.param_groups]:
            plan = Plan.of(self.optimizer, self._module)
            write_text(self._trainer.loggers, f"{self.root}/groups", plan.table().markdown(), step)
            self._inventory = Inventory(self.optimizer, plan)
        return self._inventory

    def _tell_nonfinite(self, nonfinite: Mapping[str, list[str]], step: int) -> None:
        """Name the parameters that were finite until now, those first that were before clipping spread it."""
        new = [name for name in nonfinite if name not in self._told]
        self._told = set(nonfinite)
        if not new or not self._trainer.is_global_zero:
            return
        origin = [name for name in new if "grad_unclipped" in nonfinite[name]] or new
        said = [f"{name} ({', '.join(nonfinite[name])})" for name in origin + [n for n in new if n not in origin]]
        _LOG.warning("%s, step %d: not finite: %s", self.root, step, format_names(said))
        write_text(self._trainer.loggers, f"{self.root}/nonfinite", "\n".join(f"- {line}" for line in said), step)

    def _tell_skipped(self, skipped: Mapping[str, str]) -> None:
        for key, what in skipped.items():
            if key not in self._told_skipped:
                self._told_skipped.add(key)
                if self._trainer.is_global_zero:
                    _LOG.warning("%s: the state '%s' is not measured: it is a %s", self.root, key, what)
