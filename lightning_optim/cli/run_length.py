"""The length of a run, as far as its config determines it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.errors import ConfigError
from ..schedule.factory import SchedulerFactory
from ..stages.stages import Stage
from ..stages.timetable import Timetable

_NO_END = (
    "the config does not say where the run ends. Type trainer.max_epochs=10, with a + before it if there is no such "
    "key, or --max-epochs 10"
)


@dataclass(frozen=True, kw_only=True)
class RunLength:
    """The limits that a trainer is given, and the length of an epoch."""

    max_epochs: float = math.inf
    max_steps: float = math.inf
    """In optimizer steps."""
    steps_per_epoch: int | None = None
    """Optimizer steps in an epoch; None if unknown."""

    def total(self, interval: str) -> int:
        """The number of optimizer steps, or epochs, of the run; as `get_run_length` computes it from a trainer.

        Args:
            interval: `step` or `epoch`.

        Raises:
            ConfigError: the config does not determine it.
        """
        if interval == "epoch":
            if math.isinf(self.max_epochs):
                raise ConfigError(f"total_steps: {_NO_END}")
            return int(self.max_epochs)
        if math.isinf(self.max_epochs):
            if math.isinf(self.max_steps):
                raise ConfigError(f"trainer: {_NO_END}, or trainer.max_steps=1000")
            return int(self.max_steps)
        if self.steps_per_epoch is None:
            raise _unknown_epoch(f"the run ends after {self.max_epochs:g} epochs")
        return int(min(self.max_steps, self.max_epochs * self.steps_per_epoch))

    def check(self, scheduler: SchedulerFactory | None, stages: Sequence[Stage]) -> None:
        """Check that the number of optimizer steps is known, and the length of an epoch if anything counts epochs.

        Args:
            scheduler: the run's.
            stages: the run's, with the parameters they claim.

        Raises:
            ConfigError: one of them is unknown, or the run has no steps.
        """
        if not self.total("step"):
            raise ConfigError("trainer: the run has no steps. Type for example trainer.max_epochs=10")
        if self.steps_per_epoch is not None:
            return
        if scheduler is not None and scheduler.interval == "epoch":
            raise _unknown_epoch(f"{scheduler.name} steps once an epoch")
        if scheduler is not None and scheduler.needs_steps_per_epoch:
            raise _unknown_epoch("warmup_epochs counts them")
        unpredictable = Timetable(stages).unpredictable
        for stage in stages:
            if stage.trigger.counts_epochs and stage not in unpredictable:
                raise _unknown_epoch(f"{stage.key} thaws by epochs")

    def epoch_length(self) -> int:
        """The number of optimizer steps in an epoch.

        Raises:
            ConfigError: the config does not determine it.
        """
        if self.steps_per_epoch is None:
            raise _unknown_epoch("warmup_epochs counts them")
        return self.steps_per_epoch

    def epoch_of(self, step: int) -> int:
        """The epoch of an optimizer step, both counted from 0; 0 if the length of an epoch is unknown."""
        return step // self.steps_per_epoch if self.steps_per_epoch else 0

    def ends_epoch(self, step: int) -> bool:
        """Whether an optimizer step is the last of its epoch."""
        return self.steps_per_epoch is not None and (step + 1) % self.steps_per_epoch == 0

    def __str__(self) -> str:
        steps = f"{self.total('step'):,} optimizer steps"
        if self.steps_per_epoch is None:
            return steps
        return f"{steps}: {self.total('step') / self.steps_per_epoch:.4g} epochs of {self.steps_per_epoch:,}"


def _unknown_epoch(reason: str) -> ConfigError:
    return ConfigError(
        f"--steps-per-epoch: {reason}, but the length of an epoch is not in the config. Type --steps-per-epoch N: "
        "the optimizer steps in an epoch, len(train_dataloader) / accumulate_grad_batches"
    )
