"""What a cell of the scoreboard is, and how it can end."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, equal

from lightning_optim import ConfigError

Tier = Literal["fast", "slow", "full"]
TIERS: tuple[Tier, ...] = ("fast", "slow", "full")
"""`fast`: runs with the fast tests, `slow`: with the slow ones too, `full`: on demand."""


class Verdict(str, Enum):
    """How a cell ends."""

    EXACT = "exact"
    """Bitwise what it must be."""
    REFUSED = "refused"
    """A clear typed error, and nothing changed or written."""
    SILENT_WRONG = "silent-wrong"
    """Other numbers, and no word of it."""
    CRASHED = "crashed"
    """Another exception than a clear typed one, or a hang."""
    NOT_RUN = "not run here"
    """The machine lacks something."""


@dataclass(frozen=True)
class Outcome:
    """How a cell has ended, and why."""

    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One fault, in one mechanism, under one strategy."""

    family: str
    fault: str
    mechanism: str
    run: Callable[[Path], Outcome]
    """Gets an empty folder. A ConfigError is a refusal, `NotRun` says that it cannot run here."""
    strategy: str = "one process"
    tier: Tier = "full"
    allowed: frozenset[Verdict] = frozenset({Verdict.EXACT})
    """How it must end: so a run that was exact and is refused since a change shows too."""

    @property
    def name(self) -> str:
        """What the command prints of it."""
        return f"{self.family}: {self.fault} | {self.mechanism} | {self.strategy}"


EXACT_OR_REFUSED = frozenset({Verdict.EXACT, Verdict.REFUSED})
REFUSED = frozenset({Verdict.REFUSED})


class NotRun(Exception):
    """Raised by a cell that cannot run here, with the reason."""


def judge(cell: Cell, folder: Path) -> Outcome:
    """Run a cell."""
    try:
        return cell.run(folder)
    except NotRun as error:
        return Outcome(Verdict.NOT_RUN, str(error))
    except ConfigError as error:
        return refusal(error)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return Outcome(Verdict.CRASHED, f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})")


def refusal(error: ConfigError) -> Outcome:
    """A refusal, if its message is one that a user can read."""
    message = str(error)
    if not message or "\n" in message or len(message) > 4000:
        return Outcome(Verdict.CRASHED, f"a message of {len(message)} characters: {message[:200]!r}")
    return Outcome(Verdict.REFUSED, message)


def compare(expected: Any, got: Any) -> Outcome:
    """Exact, or silent-wrong with the place of the first difference."""
    found = next(find_differences(expected, got), None)
    return Outcome(Verdict.EXACT) if found is None else Outcome(Verdict.SILENT_WRONG, found)


def find_differences(expected: Any, got: Any, path: str = "") -> Iterator[str]:
    """Where two nested values differ; tensors are compared bit by bit, dtype included, and NaN equals NaN."""
    where = path or "value"
    if isinstance(expected, Tensor):
        if not isinstance(got, Tensor) or expected.dtype != got.dtype or expected.shape != got.shape:
            yield f"{where}: another type, dtype or shape"
        elif not equal(expected, got) and not _equal_with_nan(expected, got):
            yield f"{where}: other values"
    elif isinstance(expected, Mapping):
        if not isinstance(got, Mapping) or set(expected) != set(got):
            keys = sorted(map(str, set(expected) ^ set(got))) if isinstance(got, Mapping) else type(got).__name__
            yield f"{where}: other keys: {keys}"
        else:
            for key in expected:
                yield from find_differences(expected[key], got[key], f"{path}.{key}" if path else str(key))
    elif isinstance(expected, Sequence) and not isinstance(expected, str):
        if not isinstance(got, Sequence) or type(expected) is not type(got) or len(expected) != len(got):
            yield f"{where}: another length or type"
        else:
            for index, (one, other) in enumerate(zip(expected, got, strict=True)):
                yield from find_differences(one, other, f"{path}[{index}]")
    elif expected != got and not (_is_nan(expected) and _is_nan(got)):
        yield f"{where}: {expected!r} -> {got!r}"


def _equal_with_nan(expected: Tensor, got: Tensor) -> bool:
    return bool(((expected == got) | ((expected != expected) & (got != got))).all())


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
