"""How long a run is, as far as its config says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.errors import ConfigError
from ..schedule.factory import SchedulerFactory
from ..stages.stages import Stage
from ..stages.timetable import Timetable

_ENDLESS = "the config has no end to take it from. Type trainer.max_epochs=10, with a + before it where there is no key"


@dataclass(frozen=True, kw_only=True)
class Length:
    """What a trainer is told of the end of its run, and what an epoch is."""

    max_epochs: float = math.inf
    max_steps: float = math.inf
    """Optimizer steps."""
    steps_per_epoch: int | None = None
    """The same, of an epoch; None where it is not known."""

    def total(self, interval: str) -> int:
        """How many optimizer steps, or epochs, the run has; as `configure.run_length` takes it from a trainer.

        Args:
            interval: `step` or `epoch`.

        Raises:
            ConfigError: the config does not say.
        """
        if interval == "epoch":
            if math.isinf(self.max_epochs):
                raise ConfigError(f"total_steps: {_ENDLESS}")
            return int(self.max_epochs)
        if math.isinf(self.max_epochs):
            if math.isinf(self.max_steps):
                raise ConfigError(f"trainer: {_ENDLESS}, or trainer.max_steps=1000")
            return int(self.max_steps)
        if self.steps_per_epoch is None:
            raise _unknown_epoch(f"the run ends after {self.max_epochs:g} epochs")
        return int(min(self.max_steps, self.max_epochs * self.steps_per_epoch))

    def check(self, scheduler: SchedulerFactory | None, stages: Sequence[Stage]) -> None:
        """Whether it is known how many optimizer steps there are, and where epochs begin if somebody counts them.

        Args:
            scheduler: the run's.
            stages: the run's, with their claims.

        Raises:
            ConfigError: it is not; or there are none.
        """
        if not self.total("step"):
            raise ConfigError("trainer: the run has no steps. Type for example trainer.max_epochs=10")
        if self.steps_per_epoch is not None:
            return
        if scheduler is not None and scheduler.interval == "epoch":
            raise _unknown_epoch(f"{scheduler.name} steps once an epoch")
        unpredictable = Timetable(stages).unpredictable
        for stage in stages:
            if stage.trigger.counts_epochs and stage not in unpredictable:
                raise _unknown_epoch(f"{stage.key} thaws by epochs")

    def epoch_of(self, step: int) -> int:
        """The epoch in which an optimizer step is taken, both from 0; 0 where nobody counts epochs."""
        return step // self.steps_per_epoch if self.steps_per_epoch else 0

    def ends_epoch(self, step: int) -> bool:
        """Whether an optimizer step is the last of its epoch."""
        return self.steps_per_epoch is not None and (step + 1) % self.steps_per_epoch == 0

    def __str__(self) -> str:
        steps = f"{self.total('step'):,} optimizer steps"
        if self.steps_per_epoch is None:
            return steps
        return f"{steps}: {self.total('step') / self.steps_per_epoch:.4g} epochs of {self.steps_per_epoch:,}"


def _unknown_epoch(why: str) -> ConfigError:
    return ConfigError(
        f"--steps-per-epoch: {why}, and how long one is stands in no config. Type --steps-per-epoch N: the optimizer "
        "steps of an epoch, len(train_dataloader) / accumulate_grad_batches"
    )
