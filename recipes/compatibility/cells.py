"""`fill_cells`: the four cells of a row, each the result of real runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten

from lightning_optim import ConfigError

from .rows import Row
from .runs import Outcome, SaveAt, Side, Stop, find_difference, one_thread, run
from .setups import STAGED, UNSTAGED, Setup


class Result(str, Enum):
    """What a cell says."""

    EXACT = "exact"
    AS_LIGHTNING = "as Lightning"
    NOT_APPLICABLE = "not applicable"
    REFUSED = "refused"
    ERROR = "error"
    SILENT_WRONG = "silent-wrong"


_MAX_ERROR = 120
FAILURES = (Result.ERROR, Result.SILENT_WRONG)
_ORDER = list(Result)
"""Of several runs in a cell, the last of these is the cell's."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one comparison has shown."""

    result: Result
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The result of a row, with or without stages, resumed or not."""

    row: Row
    staged: bool
    resumed: bool
    result: Result
    details: tuple[str, ...]
    num_comparisons: int
    num_found: int
    """How many of the comparisons have this result; all others have one that is above it in `Result`."""

    @property
    def is_failure(self) -> bool:
        """Whether the command has to fail."""
        return self.result in FAILURES


def fill_cells(row: Row) -> list[Cell]:
    """Run a row in every way: without and with stages, each uninterrupted and resumed."""
    cells = []
    for staged in (False, True):
        fits: list[Finding] = []
        resumes: list[Finding] = []
        for setup in STAGED if staged else UNSTAGED:
            fit, resumed = compare(row, row.change(setup), staged=staged)
            fits.append(fit)
            resumes += resumed
        cells += [_summarize(row, staged, False, fits), _summarize(row, staged, True, resumes)]
    return cells


def compare(row: Row, setup: Setup, *, staged: bool) -> tuple[Finding, list[Finding]]:
    """What the uninterrupted runs of a row show, and the run that is resumed from each checkpoint."""
    with one_thread(), TemporaryDirectory() as folder:
        pair = _Pair(row, setup, staged, Path(folder))
        return pair.compare_fits(), list(pair.compare_resumes())


def _summarize(row: Row, staged: bool, resumed: bool, findings: Sequence[Finding]) -> Cell:
    result = max((finding.result for finding in findings), key=_ORDER.index)
    found = [finding for finding in findings if finding.result is result]
    return Cell(
        row=row,
        staged=staged,
        resumed=resumed,
        result=result,
        details=tuple(dict.fromkeys(finding.detail for finding in found if finding.detail)),
        num_comparisons=len(findings),
        num_found=len(found),
    )


class _Pair:
    """Our runs of a row under a setup, and the same by hand."""

    def __init__(self, row: Row, setup: Setup, staged: bool, folder: Path) -> None:
        self._row, self._folder = row, folder
        self._ours = Side(is_ours=True, staged=staged, setup=setup)
        self._theirs = replace(self._ours, is_ours=False)
        self._full: Outcome | None = None
        self._their_full: Outcome | Exception | None = None

    def compare_fits(self) -> Finding:
        """The uninterrupted runs."""
        self._fit_finding = self._compare_fits()
        return self._fit_finding

    def _compare_fits(self) -> Finding:
        ours = self._attempt(self._ours, "full")
        if isinstance(ours, ConfigError):
            return Finding(result=Result.REFUSED, detail=_first_line(ours))
        if isinstance(ours, Outcome):
            self._full = ours
            if self._row.without:  # the run by hand is without the callback, with what it has found
                self._theirs = self._row.without(ours, self._theirs)
        theirs = self._their_full = self._attempt(self._theirs, "full")
        return self._compare(ours, theirs)

    def compare_resumes(self) -> Iterator[Finding]:
        """Runs from each checkpoint, next to our uninterrupted run; and by hand, where these differ."""
        if self._full is None:
            yield Finding(result=self._fit_finding.result, detail=self._fit_finding.detail)
            return
        checkpoints = list(self._checkpoints(self._ours))
        assert checkpoints, "the row has written no checkpoint"
        for path in checkpoints:
            yield self._compare_resumed(path)

    def _compare_resumed(self, path: Path) -> Finding:
        assert self._full is not None
        ours = self._attempt(self._ours, f"resumed {path.stem}", path)
        if isinstance(ours, ConfigError):
            return Finding(result=Result.REFUSED, detail=_first_line(ours))
        if isinstance(ours, Outcome) and _find_difference(ours, self._full) is None:
            return Finding(result=Result.EXACT)
        where = f"{path.parent.name}, {path.stem}"
        their_path = self._folder / _name(self._theirs) / path.relative_to(self._folder / _name(self._ours))
        list(self._checkpoints(self._theirs))
        theirs = self._attempt(self._theirs, f"resumed {path.stem}", their_path)
        finding = self._compare(ours, theirs, where)
        if finding.result is not Result.EXACT:
            return finding
        assert isinstance(theirs, Outcome)
        if not isinstance(self._their_full, Outcome) or _find_difference(theirs, self._their_full) is None:
            return Finding(result=Result.SILENT_WRONG, detail=f"{where}: only ours differs after a resume")
        if not self._row.reason:
            return Finding(result=Result.SILENT_WRONG, detail=f"{where}: as Lightning, and no reason is known")
        return Finding(result=Result.AS_LIGHTNING, detail=self._row.reason)

    def _compare(self, ours: Outcome | Exception, theirs: Outcome | Exception, where: str = "") -> Finding:
        if isinstance(ours, Exception):
            if type(ours) is type(theirs) and str(ours) == str(theirs):
                return Finding(result=Result.NOT_APPLICABLE, detail=f"Lightning itself raises {_format(ours)}")
            return Finding(result=Result.ERROR, detail=_format(ours))
        if isinstance(theirs, Exception):
            return Finding(result=Result.ERROR, detail=f"only the run by hand raises {_format(theirs)}")
        difference = _find_difference(ours, theirs) if where else find_difference(ours.state, theirs.state)
        if difference is not None:
            return Finding(
                result=Result.SILENT_WRONG, detail=f"{self._ours.setup.name}{where and ', '}{where}: other {difference}"
            )
        return Finding(result=Result.EXACT)

    def _attempt(self, side: Side, name: str, ckpt_path: Path | None = None, stop: str = "") -> Outcome | Exception:
        folder = self._folder / _name(side) / name
        folder.mkdir(parents=True, exist_ok=True)
        is_without = self._row.without is not None and not side.is_ours
        callbacks = [] if is_without else self._row.build(folder)
        if stop:
            callbacks = [*callbacks, self._row.stops[stop]()]
        elif ckpt_path is None and not self._row.writes:
            callbacks = [*callbacks, SaveAt(folder, side.setup.stops)]
        try:
            return run(side, folder, callbacks, produced=self._row.produced, ckpt_path=ckpt_path)
        except Stop as error:
            return error
        except Exception as error:
            return error

    def _checkpoints(self, side: Side) -> Iterator[Path]:
        """Those of the uninterrupted run; of a row that stops its runs, those that it leaves."""
        for stop in self._row.stops:
            name = f"stopped {stop}"
            if not (self._folder / _name(side) / name).exists():
                stopped = self._attempt(side, name, stop=stop)
                assert isinstance(stopped, Stop), f"{stop}: {stopped}"
            yield from sorted((self._folder / _name(side) / name).rglob("*.ckpt"))
        if not self._row.stops:
            yield from sorted((self._folder / _name(side) / "full").rglob("*.ckpt"))


def _find_difference(first: Outcome, second: Outcome) -> str | None:
    """Of a resumed run and an uninterrupted one.

    Not what a callback has produced on the way, nor the random generators, which are restored when training starts: a
    checkpoint of the end of the run trains nothing.
    """
    ignored: dict[str, None] = {"produced": None, "random generator": None}
    return find_difference({**first.state, **ignored}, {**second.state, **ignored})


def _name(side: Side) -> str:
    return "ours" if side.is_ours else "by hand"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _format(error: Exception) -> str:
    return shorten(f"{type(error).__name__}: {error}", _MAX_ERROR, placeholder=" ...")
