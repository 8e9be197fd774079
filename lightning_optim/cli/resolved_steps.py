"""`explain --steps-per-epoch`: at which optimizer step warm-ups end, schedules end and stages thaw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from torch import nn

from ..build.optimizer import build_optimizer
from ..build.stage_optimizers import plan_with_stages
from ..core.column_widths import Column
from ..core.errors import format_names, prefix_errors
from ..core.number_format import format_number
from ..core.text_table import TextTable
from ..stages.stages import check_all_claimed
from .planned_run import PlannedRun
from .schedule_ends import ScheduleEnd, find_ends
from .simulate import without_storage
from .thaws import Thaws, predict_thaws

_COLUMNS = (Column("event", "text"), Column("after step"), Column("epoch"), Column("note", "text"))


@dataclass(frozen=True, kw_only=True)
class ResolvedSteps:
    """What happens in a run, in optimizer steps."""

    run: PlannedRun
    schedules: tuple[ScheduleEnd, ...]
    thaws: Thaws


def resolve_steps(run: PlannedRun, module: nn.Module) -> ResolvedSteps:
    """The steps of a run, without running it.

    Args:
        run: from `find_run`.
        module: the model; it is not changed.

    Raises:
        ConfigError: a part of the run does not fit another.
    """
    plan, _ = without_storage(plan_with_stages(run.factory, run.stages, module))
    if run.stages:
        check_all_claimed(run.stages, module, excluded=frozenset(plan.frozen))
    with prefix_errors(run.scheduler_key or run.key):
        schedules = tuple(find_ends(build_optimizer(plan), run.scheduler, run.length))
    return ResolvedSteps(run=run, schedules=schedules, thaws=predict_thaws(run.stages, run.length))


def print_steps(console: Console, steps: ResolvedSteps) -> None:
    """Print the events of a run in the order in which they happen; those without a known step come last.

    Args:
        console: to print to.
        steps: from `resolve_steps`.
    """
    run = steps.run
    console.print(f"steps of {run.title}", style="bold", markup=False, soft_wrap=True)
    console.print(run.stepping, markup=False, soft_wrap=True)
    events = [*_schedule_events(steps), *_stage_events(steps), ("the run ends", run.length.total("step"), "")]
    rows = []
    for event, step, note in sorted(events, key=lambda row: (row[1] is None, row[1] or 0)):
        epoch = "" if step is None or run.length.steps_per_epoch is None else f"{step / run.length.steps_per_epoch:.4g}"
        rows.append((event, format_number(step), epoch, note))
    console.print(TextTable(columns=_COLUMNS, rows=tuple(rows), title=str(run.length)), crop=False)


def describe_steps(steps: ResolvedSteps) -> dict[str, Any]:
    """What `explain --json` prints of the steps; null for a step that is not known or not within the run.

    Args:
        steps: from `resolve_steps`.
    """
    run, thaws = steps.run, steps.thaws
    stages = [
        {
            "stage": stage.name,
            "at": str(stage.trigger),
            "thaws": 0 if stage.name in thaws.from_start else thaws.steps.get(stage.name),
            "warmup_steps": stage.warmup_steps,
            "is_predictable": stage.name not in thaws.unpredictable,
        }
        for stage in run.stages
    ]
    return {
        "optimizer": run.key,
        "scheduler": run.scheduler_key,
        "unfreeze": run.unfreeze_key,
        "total_steps": run.length.total("step"),
        "steps_per_epoch": run.length.steps_per_epoch,
        "stepping": run.stepping,
        "schedules": [asdict(schedule) for schedule in steps.schedules],
        "stages": stages,
    }


_Event = tuple[str, "int | None", str]


def _schedule_events(steps: ResolvedSteps) -> Iterator[_Event]:
    """`(event, step, note)` of each curve; where there are several, with the groups that follow it."""
    total = steps.run.length.total("step")
    for schedule in steps.schedules:
        note = f"groups: {format_names(schedule.groups, 3)}" if len(steps.schedules) > 1 else ""
        if schedule.warmup_ends is not None:
            yield f"the warm-up of {schedule.schedule} ends", schedule.warmup_ends, note
        if schedule.ends is None:
            yield f"{schedule.schedule} has no end", None, note
        else:
            yield f"{schedule.schedule} ends", schedule.ends, _join(note, _describe_end(schedule, total))


def _describe_end(schedule: ScheduleEnd, total: int) -> str:
    """What to know of an end that is not that of the run."""
    assert schedule.ends is not None
    if schedule.ends > total:
        return "after the end of the run"
    return "then its lr rises again" if schedule.schedule == "cosine_annealing" and schedule.ends < total else ""


def _join(*notes: str) -> str:
    return ", ".join(filter(None, notes))


def _stage_events(steps: ResolvedSteps) -> Iterator[_Event]:
    thaws = steps.thaws
    for stage in steps.run.stages:
        if stage.name in thaws.unpredictable:
            yield f"{stage.name} thaws", None, f"not known before the run: {thaws.unpredictable[stage.name]}"
            continue
        step = 0 if stage.name in thaws.from_start else thaws.steps.get(stage.name)
        yield (
            f"{stage.name} thaws",
            step,
            str(stage.trigger) if step is not None else f"not in this run: {stage.trigger}",
        )
        if step is not None and stage.warmup_steps:
            yield f"the warm-up of {stage.name} ends", step + stage.warmup_steps, ""
