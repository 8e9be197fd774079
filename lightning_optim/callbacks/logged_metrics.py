"""LoggedMetrics that something waits for: a stage's trigger, a scheduler that waits for a plateau."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.errors import ConfigError, choices
from .lightning_internals import epoch_metrics

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_PARTS = ("value", "cumulated_batch_size")
"""What Lightning keeps of a metric that is reduced over an epoch; the second for a mean only."""
_COMBINE: dict[str, Callable[..., Tensor]] = {
    "mean": torch.add,
    "sum": torch.add,
    "max": torch.maximum,
    "min": torch.minimum,
}


class LoggedMetrics:
    """Lightning's logged metrics, which Lightning itself does not save.

    Every rank gets rank zero's value, so all decide alike whether or not the module syncs what it logs.
    """

    def __init__(self) -> None:
        self._saved: dict[str, float] = {}
        self._parts: dict[str, dict[str, Any]] = {}
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

    def require(self, trainer: Trainer, name: str, key: str) -> float | None:
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
        """In the first batch since a resume: put what the epoch had come to before it together with what it has."""
        for key, saved in self._parts.items():
            metric = epoch_metrics(trainer).get(key)
            if metric is not None:
                combine = _COMBINE[saved["reduction"]]
                for name, part in _own_parts(trainer, saved).items():
                    setattr(metric, name, combine(part, getattr(metric, name)))
        self._parts = {}

    def after_epoch(self, trainer: Trainer) -> None:
        """At the end of an epoch that was resumed after its last batch: what it had come to is the metric."""
        for saved in self._parts.values():
            parts = list(_own_parts(trainer, saved).values())
            if saved["synced"]:
                parts = [trainer.strategy.reduce(part, reduce_op=saved["reduction"]) for part in parts]
            value, *sizes = parts
            trainer.callback_metrics[saved["name"]] = value / sizes[0] if sizes else value
        self._parts = {}

    def state_dict(self, trainer: Trainer | None, names: Collection[str]) -> dict[str, Any]:
        """The values of some of them, what the epoch has come to so far, and which are a validation's."""
        logged, parts = {}, {}
        if trainer is not None:
            logged = trainer.callback_metrics
            epochs: Any = trainer.fit_loop.epoch_progress.current
            parts = _parts(trainer, names) if epochs.processed < epochs.ready else {}
        values = {name: _number(logged[name]) for name in names if name in logged}
        return {"values": values, "parts": parts, "of_validation": sorted(self._of_validation)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back, to be restored at the start."""
        self._saved, self._parts = dict(state["values"]), dict(state["parts"])
        self._of_validation = set(state["of_validation"])


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _parts(trainer: Trainer, names: Collection[str]) -> dict[str, dict[str, Any]]:
    """What Lightning has reduced since the epoch began, of the metrics among these that are reduced over it.

    Each part is a tensor of shape (ranks,): the checkpoint is rank zero's, and the parts are each rank's own.
    """
    found = {}
    for key, metric in epoch_metrics(trainer).items():
        if metric.meta.name in names and metric.is_tensor and metric.meta.on_epoch:
            synced = metric.meta.sync.should and not metric.meta.sync.rank_zero_only
            parts = {name: getattr(metric, name) for name in _PARTS if hasattr(metric, name)}
            gathered = {
                name: (trainer.strategy.all_gather(part) if synced else part).reshape(-1).clone()
                for name, part in parts.items()
            }
            reduction = metric.meta.reduce_fx.__name__
            found[key] = {"name": metric.meta.name, "reduction": reduction, "synced": synced, "parts": gathered}
    return found


def _own_parts(trainer: Trainer, saved: Mapping[str, Any]) -> dict[str, Tensor]:
    """This rank's; all of them on rank zero where there are other ranks than there were."""
    own = {}
    for name, of_ranks in saved["parts"].items():
        of_ranks = of_ranks.to(trainer.strategy.root_device)
        if not saved["synced"]:
            own[name] = of_ranks[0]  # rank zero's decides
        elif len(of_ranks) == trainer.world_size:
            own[name] = of_ranks[trainer.global_rank]
        elif saved["reduction"] in ("max", "min"):
            own[name] = getattr(of_ranks, saved["reduction"])()
        else:
            own[name] = of_ranks.sum() * (trainer.global_rank == 0)
    return own
