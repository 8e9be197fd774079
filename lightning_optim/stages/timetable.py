"""Which stages have thawed, when, and which are due."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, choices
from .plateau import Plateau
from .stages import Stage
from .triggers import Clock


@dataclass(frozen=True, kw_only=True)
class Now:
    """Where a run stands at the start of a batch."""

    epoch: int
    """From 0."""
    step: int
    """Optimizer steps done."""
    total_steps: float | None = None
    """Of the whole run."""
    ask: Callable[[Callable[..., Any]], bool] = bool
    """Puts the question to a function of the user's."""


class Timetable:
    """The stages of a plan in their order, and the moments at which they thawed.

    Args:
        stages: with their claims.
    """

    def __init__(self, stages: Sequence[Stage] = ()) -> None:
        self.stages = tuple(stages)
        self._thawed = {stage.name: (0, 0) for stage in stages if stage.trigger.from_start}

    @property
    def thawed(self) -> list[str]:
        """The names of those that have, in the order in which they did."""
        return list(self._thawed)

    @property
    def waiting(self) -> list[Stage]:
        """Those that have not."""
        return [stage for stage in self.stages if stage.name not in self._thawed]

    @property
    def unforeseen(self) -> list[Stage]:
        """Those of which nobody can know before the run when they thaw."""
        found, known = [], True
        for stage in self.stages:
            known = stage.trigger.foreseeable(known)
            if not known:
                found.append(stage)
        return found

    def with_claims(self, stages: Sequence[Stage]) -> Timetable:
        """The same for another reading of the plan: of this model, a moment later, or in another fit."""
        other = Timetable(stages)
        known = {stage.name for stage in stages}
        other._thawed |= {name: moment for name, moment in self._thawed.items() if name in known}
        return other

    def begin_anew(self) -> None:
        """Count what is counted from a thaw from now on: another fit counts its epochs and steps from 0."""
        self._thawed = dict.fromkeys(self._thawed, (0, 0))

    def due(self, now: Now) -> list[Stage]:
        """Those that thaw now; they count as thawed from here on."""
        found = []
        for stage, clock in self._clocks(now):
            if stage.trigger.due(clock):
                self._thawed[stage.name] = (now.epoch, now.step)
                found.append(stage)
        return found

    def watched(self) -> list[Plateau]:
        """The metrics that decide something from here on."""
        return [
            plateau
            for stage, before in self._with_previous()
            if stage.name not in self._thawed and (before is None or before.name in self._thawed)
            for plateau in stage.trigger.plateaus
        ]

    def state_dict(self) -> dict[str, Any]:
        """The moments of the thaws, and what was seen of the metrics that others wait for."""
        watches = {stage.name: [one.state_dict() for one in stage.trigger.plateaus] for stage in self.waiting}
        return {
            "thawed": self.thawed,
            "moments": {name: list(moment) for name, moment in self._thawed.items()},
            "watches": {name: states for name, states in watches.items() if states},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the stage from a checkpoint: it, and not the epoch, says where the run is.

        Raises:
            ConfigError: the checkpoint has a stage that this plan has not.
        """
        known = {stage.name: stage for stage in self.stages}
        for name in state["thawed"]:
            if name not in known:
                raise ConfigError(
                    f"stages: the checkpoint has thawed '{name}', which is no stage of this plan.{choices(name, known)}"
                )
        self._thawed = {name: (epoch, step) for name, (epoch, step) in state["moments"].items()}
        for stage in self.waiting:
            for plateau, saved in zip(stage.trigger.plateaus, state["watches"].get(stage.name, ()), strict=False):
                plateau.load_state_dict(saved)

    def _clocks(self, now: Now) -> Iterable[tuple[Stage, Clock]]:
        for stage, before in self._with_previous():
            if stage.name not in self._thawed:
                since = (0, 0) if before is None else self._thawed.get(before.name)
                yield (
                    stage,
                    Clock(epoch=now.epoch, step=now.step, total_steps=now.total_steps, since=since, ask=now.ask),
                )

    def _with_previous(self) -> Iterable[tuple[Stage, Stage | None]]:
        return zip(self.stages, (None, *self.stages[:-1]), strict=True)
