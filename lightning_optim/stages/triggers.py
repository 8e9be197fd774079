"""Triggers: the conditions under which a stage thaws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .plateau import Plateau

# 1/3 + 2/3 of an epoch may be a little less than 1.
_ROUNDING = 1e-12


class ThawTime(NamedTuple):
    """When a stage thawed."""

    epoch: int = 0
    step: int = 0
    """Of the optimizer that holds the groups of the next stage."""
    fraction: float = 0.0
    """Of the run, as far as a stage needs to know."""


RUN_START = ThawTime()


def _call(function: Callable[..., Any]) -> bool:
    return bool(function())


@dataclass(slots=True, kw_only=True)
class Clock:
    """The position in a run at the start of a batch, for one stage."""

    epoch: int = 0
    """From 0."""
    step: int = 0
    """Number of steps done by the optimizer that holds the stage's groups."""
    fraction: float | None = None
    """The part of the run that is done, from 0 to 1; needed by AtFraction and AfterFraction only."""
    previous_thaw: ThawTime | None = RUN_START
    """When the previous stage of the plan thawed; None if it has not."""
    evaluate: Callable[[Callable[..., Any]], bool] = field(default=_call, repr=False)
    """Calls a user's function with the trainer and the module; gives the same result on every rank."""


class Trigger:
    """Base of all triggers. A trigger that is due stays due, so one that is checked late still fires."""

    from_start = False
    """Whether the stage is trained from the first step."""
    needs_length = False
    """Whether it needs `Clock.fraction`, and so the length of the run."""
    length_key = ""
    """The config key of the trigger that needs the length of the run."""
    counts_epochs = False
    """Whether it depends on the epoch."""
    is_relative = False
    """Whether it cannot be due before the previous stage has thawed."""

    def is_due(self, clock: Clock) -> bool:
        """Whether the stage should have thawed at this position."""
        raise NotImplementedError

    def is_reachable(self, epochs: float, steps: float) -> bool:
        """Whether a run of at most this many epochs and optimizer steps can reach it; True if that is not known."""
        return True

    def is_predictable(self, previous: bool) -> bool:
        """Whether it is known before the run when it will be due.

        Args:
            previous: whether that is known of the previous stage.
        """
        return True

    @property
    def plateaus(self) -> tuple[Plateau, ...]:
        """The plateaus it waits for."""
        return ()


@dataclass(frozen=True)
class FromStart(Trigger):
    """The stage is trained from the start."""

    from_start = True

    def is_due(self, clock: Clock) -> bool:
        """Always."""
        return True

    def __str__(self) -> str:
        return "from the start"


@dataclass(frozen=True)
class AtEpoch(Trigger):
    """Due from an epoch on, counted from 0."""

    epoch: int
    counts_epochs = True

    def is_due(self, clock: Clock) -> bool:
        """Whether the epoch has begun."""
        return clock.epoch >= self.epoch

    def is_reachable(self, epochs: float, steps: float) -> bool:
        """Whether the run has this epoch."""
        return self.epoch < epochs

    def __str__(self) -> str:
        return f"epoch {self.epoch}"


@dataclass(frozen=True)
class AtStep(Trigger):
    """Due after a number of steps of the optimizer that holds the stage's groups."""

    step: int

    def is_due(self, clock: Clock) -> bool:
        """Whether the steps are done."""
        return clock.step >= self.step

    def is_reachable(self, epochs: float, steps: float) -> bool:
        """Whether the run has a step after them."""
        return self.step < steps

    def __str__(self) -> str:
        return f"step {self.step}"


@dataclass(frozen=True)
class AtFraction(Trigger):
    """Due after a fraction of the run: of its batches, or of `max_steps` where that ends it earlier."""

    fraction: float
    key: str = "at.fraction"
    """Its key in the config."""
    needs_length = True

    @property
    def length_key(self) -> str:  # type: ignore[override]
        """Its own key."""
        return self.key

    def is_due(self, clock: Clock) -> bool:
        """Whether the fraction is done."""
        assert clock.fraction is not None
        return clock.fraction >= self.fraction - _ROUNDING

    def __str__(self) -> str:
        return f"{self.fraction:.4g} of the run"


@dataclass(frozen=True)
class After(Trigger):
    """Due a number of epochs, or optimizer steps, after the previous stage has thawed."""

    count: int
    unit: str
    """`epochs` or `steps`."""
    previous: str
    """How to name the previous stage in words."""
    is_relative = True

    @property
    def counts_epochs(self) -> bool:  # type: ignore[override]
        """Whether the unit is epochs."""
        return self.unit == "epochs"

    def is_due(self, clock: Clock) -> bool:
        """Whether they have passed."""
        if clock.previous_thaw is None:
            return False
        thaw = clock.previous_thaw
        if self.unit == "epochs":
            return clock.epoch >= thaw.epoch + self.count
        return clock.step >= thaw.step + self.count

    def is_predictable(self, previous: bool) -> bool:
        """Whether the thaw of the previous stage is."""
        return previous

    def __str__(self) -> str:
        unit = self.unit if self.count > 1 else self.unit.removesuffix("s")
        return f"{self.count} {unit} after {self.previous}"


@dataclass(frozen=True)
class AfterFraction(Trigger):
    """Due a fraction of the run after the previous stage has thawed."""

    fraction: float
    key: str
    """Its key in the config."""
    previous: str
    """How to name the previous stage in words."""
    needs_length = True
    is_relative = True

    @property
    def length_key(self) -> str:  # type: ignore[override]
        """Its own key."""
        return self.key

    def is_due(self, clock: Clock) -> bool:
        """Whether it has passed."""
        if clock.previous_thaw is None:
            return False
        assert clock.fraction is not None
        return clock.fraction >= clock.previous_thaw.fraction + self.fraction - _ROUNDING

    def is_predictable(self, previous: bool) -> bool:
        """Whether the thaw of the previous stage is."""
        return previous

    def __str__(self) -> str:
        return f"{self.fraction:.4g} of the run after {self.previous}"


@dataclass(frozen=True)
class OnPlateau(Trigger):
    """Due when a metric has stopped improving; watched from the thaw of the previous stage on."""

    plateau: Plateau
    is_relative = True

    def is_due(self, clock: Clock) -> bool:
        """Whether the plateau is reached."""
        return self.plateau.reached

    def is_predictable(self, previous: bool) -> bool:
        """Never: metrics are not known before the run."""
        return False

    @property
    def plateaus(self) -> tuple[Plateau, ...]:
        """Its plateau."""
        return (self.plateau,)

    def __str__(self) -> str:
        return str(self.plateau)


@dataclass(frozen=True)
class UserFunction(Trigger):
    """Due when a user's function of the trainer and the module returns True."""

    function: Callable[..., Any]

    def is_due(self, clock: Clock) -> bool:
        """The function's result."""
        return clock.evaluate(self.function)

    def is_predictable(self, previous: bool) -> bool:
        """Never: the function needs the running trainer."""
        return False

    def __str__(self) -> str:
        return f"{getattr(self.function, '__name__', type(self.function).__name__)}()"


@dataclass(frozen=True)
class AnyOf(Trigger):
    """Due when at least one of several triggers is."""

    triggers: tuple[Trigger, ...]

    @property
    def from_start(self) -> bool:  # type: ignore[override]
        """Whether one of them is."""
        return any(trigger.from_start for trigger in self.triggers)

    @property
    def is_relative(self) -> bool:  # type: ignore[override]
        """Whether all of them are."""
        return all(trigger.is_relative for trigger in self.triggers)

    @property
    def needs_length(self) -> bool:  # type: ignore[override]
        """Whether one of them does."""
        return any(trigger.needs_length for trigger in self.triggers)

    @property
    def length_key(self) -> str:  # type: ignore[override]
        """The key of the first that needs the length."""
        return next((trigger.length_key for trigger in self.triggers if trigger.needs_length), "")

    @property
    def counts_epochs(self) -> bool:  # type: ignore[override]
        """Whether one of them does."""
        return any(trigger.counts_epochs for trigger in self.triggers)

    def is_due(self, clock: Clock) -> bool:
        """Whether one of them is."""
        return any(trigger.is_due(clock) for trigger in self.triggers)

    def is_reachable(self, epochs: float, steps: float) -> bool:
        """Whether one of them is."""
        return any(trigger.is_reachable(epochs, steps) for trigger in self.triggers)

    def is_predictable(self, previous: bool) -> bool:
        """Whether all of them are: the first that is due decides."""
        return self.from_start or all(trigger.is_predictable(previous) for trigger in self.triggers)

    @property
    def plateaus(self) -> tuple[Plateau, ...]:
        """The plateaus of all of them."""
        return tuple(plateau for trigger in self.triggers for plateau in trigger.plateaus)

    def __str__(self) -> str:
        return " or ".join(map(str, self.triggers))
