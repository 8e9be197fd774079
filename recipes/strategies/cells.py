"""`judge`: what the runs under a strategy show, as one `Cell` for each part, run and resumed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import torch

from .fits import Step, read_trace
from .parts import ALONE, PARTS, reference_of, resumed_from, run_of
from .rows import Row
from .worker import folder_by_hand, folder_of

MOMENTS = ("run", "resume")
_NORM_TOLERANCE = 1e-5  # sums in float32 within a tensor; the reference sums in float64


class Result(Enum):
    """What a cell shows."""

    EXACT = "exact"
    """Bit by bit as torch alone, written by hand under the same strategy; a resumed run, as one that was not."""
    REFUSED = "refused"
    """With a ConfigError that says what to type instead."""
    NOT_APPLICABLE = "not applicable"
    """Lightning does not do it without this library either."""
    FAILS = "fails"
    """With another error, a crash or without an end, where Lightning alone works."""
    WRONG = "wrong"
    """Silently other numbers."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A part under a strategy."""

    row: str
    part: str
    moment: str
    """One of `MOMENTS`."""
    result: Result
    detail: str = ""
    """The error, or what is different."""

    @property
    def is_good(self) -> bool:
        """Whether a user gets what the docs say, or is told."""
        return self.result not in (Result.FAILS, Result.WRONG)


@dataclass(frozen=True)
class _Outcome:
    """What the ranks have left of a run."""

    traces: Sequence[Sequence[Step]] = ()
    error: str = ""


def judge(name: str, row: Row, folder: Path, reference: Path) -> list[Cell]:
    """The cells of a strategy.

    Args:
        name: of the row.
        row: the row itself.
        folder: of its runs.
        reference: of the row whose hand-written runs, and runs of Lightning alone, it is compared with.
    """
    return [
        Cell(row=name, part=part, moment=moment, result=result, detail=detail)
        for part in PARTS
        for moment in MOMENTS
        for result, detail in [_judge_part(row, part, moment, folder, reference)]
    ]


def _judge_part(row: Row, part: str, moment: str, folder: Path, reference: Path) -> tuple[Result, str]:
    run = run_of(part, is_joint=row.is_joint)
    full = _read(folder / folder_of(run), row.ranks)
    if full.error.startswith("ConfigError: "):
        return Result.REFUSED, full.error.removeprefix("ConfigError: ")
    if moment == "run":
        by_hand = _read(reference / folder_by_hand(reference_of(run)), row.ranks)
        error = full.error or by_hand.error or _compare(full, by_hand, 0, is_by_hand=True)
        alone = _read(reference / folder_of(ALONE), row.ranks).error
    else:
        error = full.error or _compare_resumed(folder, run, row, full)
        alone_full = _read(reference / folder_of(ALONE), row.ranks)
        alone = alone_full.error or _compare_resumed(reference, ALONE, row, alone_full)
    if not error:
        return Result.EXACT, ""
    if alone:
        return Result.NOT_APPLICABLE, f"Lightning alone: {alone}"
    return (Result.FAILS if full.error else Result.WRONG), error


def _compare_resumed(folder: Path, run: str, row: Row, full: _Outcome) -> str:
    """What is different in the runs that were resumed; empty if nothing is."""
    for step in resumed_from(run, is_joint=row.is_joint):
        resumed = _read(folder / folder_of(run, step), row.ranks)
        if difference := resumed.error or _compare(resumed, full, step, is_by_hand=False):
            return f"resumed after step {step}: {difference}"
    return ""


def _compare(run: _Outcome, expected: _Outcome, skipped: int, *, is_by_hand: bool) -> str:
    """What is different, on any rank; empty if nothing is."""
    for rank, (steps, others) in enumerate(zip(run.traces, expected.traces, strict=True)):
        if len(steps) != len(others) - skipped:
            return f"rank {rank}: {len(steps)} steps instead of {len(others) - skipped}"
        for position, (step, other) in enumerate(zip(steps, others[skipped:], strict=True), start=skipped + 1):
            if difference := _compare_steps(step, other, is_by_hand=is_by_hand):
                return f"rank {rank}, step {position}: {difference}"
    return ""


def _compare_steps(step: Step, other: Step, *, is_by_hand: bool) -> str:
    if step.lrs != other.lrs:
        return "the lr is another"
    for name, value in step.values.items():
        if not torch.equal(value, other.values[name]):
            return f"{name} is another, by {float((value - other.values[name]).abs().max()):.1g}"
    if not step.norms:
        return ""
    is_equal = _is_close if is_by_hand else _is_same
    if step.norms.keys() & other.norms.keys() != other.norms.keys():
        return f"no norm of {min(other.norms.keys() - step.norms.keys())}"
    for key in other.norms:
        if not is_equal(step.norms[key], other.norms[key]):
            return f"the norm {key} is {step.norms[key]:.6g} instead of {other.norms[key]:.6g}"
    return ""


def _is_close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=_NORM_TOLERANCE, abs_tol=1e-9)


def _is_same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def _read(folder: Path, ranks: int) -> _Outcome:
    errors = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("error*.txt"))]
    if errors:
        # A rank that refuses ends the others' collectives: its message counts.
        chosen = next((error for error in errors if error.startswith("ConfigError: ")), errors[0])
        return _Outcome(error=chosen)
    paths = [folder / f"rank{rank}.pt" for rank in range(ranks)]
    if not all(path.exists() for path in paths):
        return _Outcome(error="its processes ended or hung")
    return _Outcome(traces=[read_trace(path) for path in paths])
