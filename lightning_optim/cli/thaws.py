"""When each stage of a run thaws, as far as that is known before the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..stages.stages import Stage
from ..stages.timetable import Timetable
from ..stages.triggers import Clock, Trigger
from .run_length import RunLength


@dataclass(frozen=True, kw_only=True)
class Thaws:
    """The thaws of a run."""

    from_start: tuple[str, ...]
    """The stages that are trained from the first step."""
    steps: Mapping[str, int]
    """For each stage that thaws within the run: after how many optimizer steps, in this order."""
    unpredictable: Mapping[str, str]
    """For each stage whose thaw cannot be predicted: its trigger in words."""


class _NeverTrigger(Trigger):
    """Replaces a trigger that cannot be predicted."""

    def is_due(self, clock: Clock) -> bool:
        return False


def predict_thaws(stages: Sequence[Stage], length: RunLength) -> Thaws:
    """The thaws of a run, by the timetable that `StagedUnfreeze` follows, asked before each optimizer step.

    Args:
        stages: with the parameters they claim.
        length: of the run.
    """
    unpredictable = {stage.name: str(stage.trigger) for stage in Timetable(stages).unpredictable}
    timetable = Timetable(
        [replace(stage, trigger=_NeverTrigger()) if stage.name in unpredictable else stage for stage in stages]
    )
    from_start, steps, total = tuple(timetable.thawed), dict[str, int](), length.total("step")
    for step in range(total):
        if len(timetable.waiting) == len(unpredictable):
            break
        clock = Clock(epoch=length.epoch_of(step), step=step, fraction=step / total)
        steps |= {stage.name: step for stage in timetable.thaw_due(clock)}
    return Thaws(from_start=from_start, steps=steps, unpredictable=unpredictable)
