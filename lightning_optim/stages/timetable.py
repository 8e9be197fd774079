"""Which stages have thawed, when, and which thaw next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.errors import ConfigError, format_choices
from .plateau import Plateau
from .stage_steps import StageSteps
from .stages import Stage
from .triggers import Clock, ThawTime


class Timetable:
    """The stages of a plan in its order, and when each has thawed.

    Args:
        stages: of the plan.
    """

    def __init__(self, stages: Sequence[Stage] = ()) -> None:
        self.stages = tuple(stages)
        self._set_thaw_times({stage.name: ThawTime() for stage in stages if stage.trigger.from_start})

    @property
    def thawed(self) -> list[str]:
        """The names of the stages that have thawed, in the order in which they did."""
        return list(self._thaw_times)

    @property
    def waiting(self) -> list[Stage]:
        """The stages that have not thawed."""
        return self._waiting

    @property
    def watched(self) -> list[Plateau]:
        """The plateaus of stages that can thaw next; their metrics must be observed."""
        return self._watched

    @property
    def unpredictable(self) -> list[Stage]:
        """The stages whose thaw cannot be predicted before the run."""
        found, predictable = [], True
        for stage in self.stages:
            predictable = stage.trigger.is_predictable(predictable)
            if not predictable:
                found.append(stage)
        return found

    def with_stages(self, stages: Sequence[Stage]) -> Timetable:
        """A timetable of other stages, which keeps the thaw times and the plateaus of those with the same name."""
        other = Timetable(stages)
        names = {stage.name for stage in stages}
        other._set_thaw_times(other._thaw_times | {n: time for n, time in self._thaw_times.items() if n in names})
        other._load_plateaus({stage.name: _plateau_states(stage) for stage in self.stages})
        return other

    def reset_thaw_times(self) -> None:
        """Set all thaw times to 0, for another fit, which counts its epochs and steps from 0."""
        self._set_thaw_times(dict.fromkeys(self._thaw_times, ThawTime()))

    def thaw_due(self, clock: Clock, steps: StageSteps | None = None) -> list[Stage]:
        """The stages that are due now, recorded as thawed.

        Args:
            clock: position in the run; its `previous_thaw`, and with `steps` its `step`, are set here for each stage.
            steps: where optimizers step on their own: by stage, the steps done and whether it can thaw now. By default
                the clock's step counts for all stages, and all can.
        """
        due = []
        for stage, clock.previous_thaw in self._candidates:
            if steps is not None:
                if not steps.can_thaw(stage.name):
                    continue
                clock.step = steps.count(stage.name)
            if stage.trigger.is_due(clock):
                due.append(stage)
        if due:
            # The stage below counts from here, so the step is that of its optimizer.
            counted = {stage.name: steps.count(self._below(stage)) if steps else clock.step for stage in due}
            fraction = clock.fraction or 0.0
            times = {name: ThawTime(clock.epoch, step, fraction) for name, step in counted.items()}
            self._set_thaw_times(self._thaw_times | times)
        return due

    def _below(self, stage: Stage) -> str:
        """The name of the next stage in the plan; of the last one, its own."""
        return self.stages[min(self.stages.index(stage) + 1, len(self.stages) - 1)].name

    def state_dict(self) -> dict[str, Any]:
        """The thawed stages, their thaw times, and the plateaus of the stages that wait."""
        plateaus = {stage.name: _plateau_states(stage) for stage in self.waiting}
        return {
            "thawed": self.thawed,
            "thaw_times": {name: list(time) for name, time in self._thaw_times.items()},
            "stage_plateaus": {name: states for name, states in plateaus.items() if states},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore which stages have thawed: the checkpoint decides, not the current epoch.

        Raises:
            ConfigError: a stage that has thawed in the checkpoint is not in this plan.
        """
        known = {stage.name: stage for stage in self.stages}
        for name in state["thawed"]:
            if name not in known:
                raise ConfigError(
                    f"stages: the checkpoint has thawed '{name}', which is not a stage of this plan."
                    f"{format_choices(name, known)}"
                )
        self._set_thaw_times({name: ThawTime(*time) for name, time in state["thaw_times"].items()})
        self._load_plateaus(state["stage_plateaus"])

    def _load_plateaus(self, states: Mapping[str, Sequence[dict[str, Any]]]) -> None:
        for stage in self.waiting:
            for plateau, state in zip(stage.trigger.plateaus, states.get(stage.name, ()), strict=False):
                plateau.load_state_dict(state)

    def _set_thaw_times(self, thaw_times: dict[str, ThawTime]) -> None:
        """Set the thaw times, and find the stages that can thaw next.

        With hundreds of layers that is a few stages, so that each batch checks few triggers.
        """
        self._thaw_times = thaw_times
        self._waiting = [stage for stage in self.stages if stage.name not in thaw_times]
        pairs = zip(self.stages, (None, *self.stages)[: len(self.stages)], strict=True)
        previous_thaws = {stage.name: thaw_times.get(above.name) if above else ThawTime() for stage, above in pairs}
        self._candidates = [
            (stage, previous_thaws[stage.name])
            for stage in self._waiting
            if previous_thaws[stage.name] is not None or not stage.trigger.is_relative
        ]
        self._watched = [
            plateau
            for stage, previous_thaw in self._candidates
            if previous_thaw is not None
            for plateau in stage.trigger.plateaus
        ]


def _plateau_states(stage: Stage) -> list[dict[str, Any]]:
    return [plateau.state_dict() for plateau in stage.trigger.plateaus]
