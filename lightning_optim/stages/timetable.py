"""Which stages have thawed, when, and which are due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.errors import ConfigError, choices
from .plateau import Plateau
from .stages import Stage
from .triggers import Clock


class Timetable:
    """The stages of a plan in their order, and the moments at which they thawed.

    Args:
        stages: with their claims.
    """

    def __init__(self, stages: Sequence[Stage] = ()) -> None:
        self.stages = tuple(stages)
        self._thaw({stage.name: (0, 0) for stage in stages if stage.trigger.from_start})

    @property
    def thawed(self) -> list[str]:
        """The names of those that have, in the order in which they did."""
        return list(self._thawed)

    @property
    def waiting(self) -> list[Stage]:
        """Those that have not."""
        return self._waiting

    @property
    def unpredictable(self) -> list[Stage]:
        """Those of which nobody can know before the run when they thaw."""
        found, known = [], True
        for stage in self.stages:
            known = stage.trigger.is_predictable(known)
            if not known:
                found.append(stage)
        return found

    def with_claims(self, stages: Sequence[Stage]) -> Timetable:
        """The same for another reading of the plan: of this model, a moment later, or in another fit."""
        other = Timetable(stages)
        known = {stage.name for stage in stages}
        other._thaw(other._thawed | {name: moment for name, moment in self._thawed.items() if name in known})
        other._watch_on({stage.name: [one.state_dict() for one in stage.trigger.plateaus] for stage in self.stages})
        return other

    def reset_thaw_times(self) -> None:
        """Count what is counted from a thaw from now on: another fit counts its epochs and steps from 0."""
        self._thaw(dict.fromkeys(self._thawed, (0, 0)))

    def due(self, clock: Clock) -> list[Stage]:
        """Those that thaw now; they count as thawed from here on.

        Args:
            clock: of the run; `since` is seen to here.
        """
        found = []
        for stage, clock.since in self._next:
            if stage.trigger.due(clock):
                found.append(stage)
        if found:
            self._thaw(self._thawed | {stage.name: (clock.epoch, clock.step) for stage in found})
        return found

    @property
    def watched(self) -> list[Plateau]:
        """The metrics that decide something from here on."""
        return self._watched

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
        self._thaw({name: (epoch, step) for name, (epoch, step) in state["moments"].items()})
        self._watch_on(state["watches"])

    def _watch_on(self, states: Mapping[str, Sequence[dict[str, Any]]]) -> None:
        for stage in self.waiting:
            for plateau, saved in zip(stage.trigger.plateaus, states.get(stage.name, ()), strict=False):
                plateau.load_state_dict(saved)

    def _thaw(self, moments: dict[str, tuple[int, int]]) -> None:
        """Settle what has thawed, and which stages can be next: of hundreds of layers, few are asked at each batch."""
        self._thawed = moments
        self._waiting = [stage for stage in self.stages if stage.name not in moments]
        before = zip(self.stages, (None, *self.stages)[: len(self.stages)], strict=True)
        since = {stage.name: moments.get(above.name) if above else (0, 0) for stage, above in before}
        self._next = [
            (stage, since[stage.name])
            for stage in self._waiting
            if since[stage.name] is not None or not stage.trigger.relative
        ]
        self._watched = [one for stage, since in self._next if since is not None for one in stage.trigger.plateaus]
