"""Metrics that something waits for: a stage's trigger, a scheduler that waits for a plateau."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, choices

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class Metrics:
    """Lightning's logged metrics; where there are none since a resume, those of the checkpoint.

    Every rank gets rank zero's value, so all decide alike whether or not the module syncs what it logs.
    """

    def __init__(self) -> None:
        self._saved: dict[str, float] = {}
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
        value: float | None = trainer.strategy.broadcast(self._value(trainer.callback_metrics, name))
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

    def state_dict(self, trainer: Trainer | None, names: Iterable[str]) -> dict[str, Any]:
        """The values of some of them, and which of them are a validation's."""
        logged = {} if trainer is None else trainer.callback_metrics
        values = {name: self._value(logged, name) for name in names}
        return {
            "values": {name: value for name, value in values.items() if value is not None},
            "of_validation": sorted(self._of_validation),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        self._saved = dict(state["values"])
        self._of_validation = set(state["of_validation"])

    def _value(self, logged: Mapping[str, Any], name: str) -> float | None:
        value = logged.get(name, self._saved.get(name))
        return None if value is None else float(value)
