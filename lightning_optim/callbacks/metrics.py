"""Metrics that something waits for: a stage's trigger, a scheduler that waits for a plateau."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch

from ..errors import ConfigError, choices

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_SUMS = ("value", "cumulated_batch_size")
"""What Lightning keeps of a mean over an epoch."""


class Metrics:
    """Lightning's logged metrics, which Lightning itself does not save.

    Every rank gets rank zero's value, so all decide alike whether or not the module syncs what it logs.
    """

    def __init__(self) -> None:
        self._saved: dict[str, float] = {}
        self._sums: dict[str, dict[str, Any]] = {}
        self._of_validation: set[str] = set()
        self._before: dict[str, Any] = {}
        self._validated = False

    def before_validation(self, trainer: Trainer) -> None:
        """Note what there is."""
        self._before = dict(trainer.callback_metrics)

    def after_validation(self, trainer: Trainer) -> set[str]:
        """The names of what this validation has logged."""
        self._validated = True
        logged = {name for name, value in trainer.callback_metrics.items() if self._before.get(name) is not value}
        self._of_validation |= logged
        return logged

    def is_of_validation(self, name: str) -> bool:
        """Whether a validation has ever logged it."""
        return name in self._of_validation

    def read(self, trainer: Trainer, name: str) -> float | None:
        """A metric's value, the same on every rank."""
        value: float | None = trainer.strategy.broadcast(_number(trainer.callback_metrics.get(name)))
        return value

    def must_read(self, trainer: Trainer, name: str, key: str) -> float | None:
        """The same; None where it may still be logged, by a first validation.

        Raises:
            ConfigError: nothing logs it.
        """
        value = self.read(trainer, name)
        if value is None and (self._validated or not sum(trainer.num_val_batches)):
            known = sorted(trainer.callback_metrics)
            raise ConfigError(
                f"{key}: nothing has logged a metric {name!r}.{choices(name, known)}. "
                f"Type one of these, or log it: self.log({name!r}, ...)"
                if known
                else f"{key}: nothing has logged a metric {name!r}, nor any other. Log it: self.log({name!r}, ...)"
            )
        return value

    def restore(self, trainer: Trainer) -> None:
        """Put what a checkpoint held where Lightning looks for it."""
        for name, value in self._saved.items():
            trainer.callback_metrics.setdefault(name, torch.tensor(value, dtype=torch.float64))
        self._saved = {}

    def after_batch(self, trainer: Trainer) -> None:
        """In the first batch since a resume: add what the epoch's means had summed up before it."""
        for key, saved in self._sums.items():
            metric = trainer.fit_loop.epoch_loop._results.get(key)
            if metric is not None:
                for name in _SUMS:
                    setattr(metric, name, saved[name].to(metric.device) + getattr(metric, name))
        self._sums = {}

    def after_epoch(self, trainer: Trainer) -> None:
        """At the end of an epoch that was resumed after its last batch: its means are the sums."""
        for saved in self._sums.values():
            trainer.callback_metrics[saved["name"]] = saved["value"] / saved["cumulated_batch_size"]
        self._sums = {}

    def state_dict(self, trainer: Trainer | None, names: Collection[str]) -> dict[str, Any]:
        """The values of some of them, the sums for their means over the epoch, and which are a validation's."""
        logged, sums = {}, {}
        if trainer is not None:
            logged = trainer.callback_metrics
            epochs: Any = trainer.fit_loop.epoch_progress.current
            sums = _sums(trainer, names) if epochs.processed < epochs.ready else {}
        values = {name: _number(logged[name]) for name in names if name in logged}
        return {"values": values, "sums": sums, "of_validation": sorted(self._of_validation)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back, to be restored at the start."""
        self._saved, self._sums = dict(state["values"]), dict(state["sums"])
        self._of_validation = set(state["of_validation"])


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _sums(trainer: Trainer, names: Collection[str]) -> dict[str, dict[str, Any]]:
    """What Lightning has summed up since the epoch began, for the means among these."""
    found = {}
    for key, metric in (trainer.fit_loop.epoch_loop._results or {}).items():
        if metric.meta.name in names and metric.is_tensor and metric.meta.on_epoch and metric.meta.is_mean_reduction:
            found[key] = {"name": metric.meta.name, **{name: getattr(metric, name).clone() for name in _SUMS}}
    return found
