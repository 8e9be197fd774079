"""The logged metrics that a stage's trigger or a plateau scheduler waits for, saved and restored with a run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.errors import ConfigError, format_choices
from .lightning_internals import epoch_metrics, is_within_batch, is_within_epoch

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

# By reduction: joins what two parts of an epoch have accumulated.
_COMBINE: dict[str, Callable[..., Tensor]] = {
    "mean": torch.add,
    "sum": torch.add,
    "max": torch.maximum,
    "min": torch.minimum,
}
REDUCTIONS = tuple(_COMBINE)
"""How a metric may be joined over the batches of an epoch."""


class LoggedMetrics:
    """Lightning's logged metrics, which Lightning itself does not save.

    Every rank reads rank zero's value, so that all ranks decide alike whether or not the module syncs what it logs.
    """

    def __init__(self) -> None:
        self._saved_values: dict[str, float] = {}
        self._saved_partials: dict[str, dict[str, Any]] = {}
        self._from_validation: set[str] = set()
        self._before_validation: dict[str, Any] = {}
        self._has_validated = False
        self._after_batch: tuple[int, dict[str, dict[str, Any]]] | None = None
        """The epoch, and what it had accumulated after its last complete batch."""

    def before_validation(self, trainer: Trainer) -> None:
        """Remember the metrics, to find out afterwards which ones the validation has logged."""
        self._before_validation = dict(trainer.callback_metrics)

    def after_validation(self, trainer: Trainer) -> set[str]:
        """The names of the metrics that this validation has logged."""
        self._has_validated = True
        before = self._before_validation
        logged = {name for name, value in trainer.callback_metrics.items() if before.get(name) is not value}
        self._from_validation |= logged
        return logged

    def has_validated(self, trainer: Trainer, names: Collection[str]) -> bool:
        """Whether the validation that has begun has logged all those of these metrics that validations log."""
        before, logged = self._before_validation, trainer.callback_metrics
        return all(
            name in logged and (before.get(name) is not logged[name] or name not in self._from_validation)
            for name in names
        )

    def is_from_validation(self, name: str) -> bool:
        """Whether any validation has logged this metric."""
        return name in self._from_validation

    def read(self, trainer: Trainer, name: str) -> float | None:
        """A metric's value, the same on every rank; None if it is not logged."""
        value: float | None = trainer.strategy.broadcast(_to_float(trainer.callback_metrics.get(name)))
        return value

    def require(self, trainer: Trainer, name: str, key: str) -> float | None:
        """A metric's value, the same on every rank; None if a first validation may still log it.

        Args:
            trainer: the trainer.
            name: the metric.
            key: the config key that asks for it, for the error.

        Raises:
            ConfigError: nothing logs it.
        """
        value = self.read(trainer, name)
        if value is None and (self._has_validated or not sum(trainer.num_val_batches)):
            known = sorted(trainer.callback_metrics)
            raise ConfigError(
                f"{key}: nothing has logged a metric {name!r}.{format_choices(name, known)}. "
                f"Type one of these, or log it: self.log({name!r}, ...)"
                if known
                else f"{key}: nothing has logged a metric {name!r}, nor any other. Log it: self.log({name!r}, ...)"
            )
        return value

    def restore(self, trainer: Trainer) -> None:
        """Write the values of a loaded checkpoint to `trainer.callback_metrics`."""
        for name, value in self._saved_values.items():
            trainer.callback_metrics.setdefault(name, torch.tensor(value, dtype=torch.float64))
        self._saved_values = {}

    def after_batch(self, trainer: Trainer, names: Collection[str]) -> None:
        """In the first batch after a resume, add what the epoch had accumulated before; store what it has by now.

        Args:
            trainer: the trainer.
            names: the metrics that something waits for.
        """
        self._add_saved_partials(trainer)
        self._after_batch = trainer.current_epoch, _copy_partials(trainer, names)

    def _add_saved_partials(self, trainer: Trainer) -> None:
        if not self._saved_partials:
            return
        metrics = dict(epoch_metrics(trainer))
        for key, saved in self._saved_partials.items():
            if key in metrics:
                metric, combine = metrics[key], _COMBINE[saved["reduction"]]
                for name, partial in _partials_of_this_rank(trainer, saved).items():
                    metric.set_partial(name, combine(partial, metric.partials[name]))
        self._saved_partials = {}

    def after_epoch(self, trainer: Trainer) -> None:
        """At the end of an epoch that was resumed after its last batch, compute the metrics from the saved partials."""
        for saved in self._saved_partials.values():
            partials = list(_partials_of_this_rank(trainer, saved).values())
            if saved["is_synced"]:
                partials = [trainer.strategy.reduce(partial, reduce_op=saved["reduction"]) for partial in partials]
            value, *batch_sizes = partials
            value = value / batch_sizes[0] if batch_sizes else value
            trainer.callback_metrics.update({saved["name"]: value, _epoch_name(saved["name"]): value})
        self._saved_partials = {}

    def state_dict(
        self, trainer: Trainer | None, names: Collection[str], gather: Callable[[Tensor], Tensor] | None = None
    ) -> dict[str, Any]:
        """The values of these metrics, what the epoch has accumulated of them, and which ones validations log.

        Args:
            trainer: None outside a fit.
            names: the metrics that something waits for.
            gather: gives the values of all ranks from this rank's, `(1,)`; by default the strategy does.
        """
        logged, partials = {}, {}
        if trainer is not None:
            logged = trainer.callback_metrics
            partials = self._find_partials(trainer, names, gather or trainer.strategy.all_gather)
        values = {name: _to_float(logged[name]) for name in names if name in logged}
        return {"values": values, "partials": partials, "from_validation": sorted(self._from_validation)}

    def _find_partials(
        self, trainer: Trainer, names: Collection[str], gather: Callable[[Tensor], Tensor]
    ) -> dict[str, dict[str, Any]]:
        if not is_within_epoch(trainer):
            return {}
        if not is_within_batch(trainer):
            return _gather(gather, _copy_partials(trainer, names))
        # The batch will be run again: what it has logged so far does not count.
        if self._after_batch is None or self._after_batch[0] != trainer.current_epoch:
            return self._saved_partials
        return _gather(gather, self._after_batch[1])

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a saved state; `restore` writes its values to the trainer."""
        self._saved_values, self._saved_partials = dict(state["values"]), dict(state["partials"])
        self._from_validation = set(state["from_validation"])


def _to_float(value: Any) -> float | None:
    return None if value is None else float(value)


def _copy_partials(trainer: Trainer, names: Collection[str]) -> dict[str, dict[str, Any]]:
    """What the metrics among `names` have accumulated in the current epoch on this rank; each of shape (1,)."""
    return {
        key: {
            "name": metric.name,
            "reduction": metric.reduction,
            "is_synced": metric.is_synced,
            "partials": {name: partial.detach().reshape(-1).clone() for name, partial in metric.partials.items()},
        }
        for key, metric in epoch_metrics(trainer)
        if metric.name in names or _epoch_name(metric.name) in names
    }


def _epoch_name(name: str) -> str:
    """The name under which Lightning also gives the epoch's value of a metric that is logged at each step too."""
    return f"{name}_epoch"


def _gather(gather: Callable[[Tensor], Tensor], partials: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The partials of all ranks where the metric is synced: rank zero writes the checkpoint; of shape (ranks,)."""
    return {
        key: {
            **saved,
            "partials": {
                name: gather(partial).reshape(-1) if saved["is_synced"] else partial
                for name, partial in saved["partials"].items()
            },
        }
        for key, saved in partials.items()
    }


def _partials_of_this_rank(trainer: Trainer, saved: Mapping[str, Any]) -> dict[str, Tensor]:
    """This rank's saved partials; where the number of ranks has changed, rank zero gets their total."""
    own = {}
    for name, by_rank in saved["partials"].items():
        by_rank = by_rank.to(trainer.strategy.root_device)
        if not saved["is_synced"]:
            own[name] = by_rank[0]  # rank zero's decides
        elif len(by_rank) == trainer.world_size:
            own[name] = by_rank[trainer.global_rank]
        elif saved["reduction"] in ("max", "min"):
            own[name] = getattr(by_rank, saved["reduction"])()
        else:
            own[name] = by_rank.sum() * (trainer.global_rank == 0)
    return own
