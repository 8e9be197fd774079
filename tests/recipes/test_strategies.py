"""The recipe that tries this library under each strategy: what it detects, and that the docs are what it writes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recipes.strategies import __main__ as command
from recipes.strategies.cells import Cell, Result, judge
from recipes.strategies.fits import Step
from recipes.strategies.parts import ALONE, FACTORY, MONITOR, PARTS, REFERENCES, RULES, STAGES, resumed_from
from recipes.strategies.rows import ROWS
from recipes.strategies.worker import folder_by_hand, folder_of

DOCS = Path(__file__).parents[2] / "docs" / "strategies.md"
ROW = ROWS["ddp"]


def steps() -> list[Step]:
    return [
        Step(values={"w": torch.tensor([1.0, float(n)])}, lrs={"w": 1 / (n + 1)}, norms={"grad/w": 2.0 + n})
        for n in range(8)
    ]


def write(folder: Path, trace: list[Step], ranks: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for rank in range(ranks):
        torch.save([vars(step) for step in trace], folder / f"rank{rank}.pt")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The runs of a strategy under which everything is exact."""
    for part in (ALONE, *PARTS):
        write(tmp_path / folder_of(part), steps())
        for step in resumed_from(part):
            write(tmp_path / folder_of(part, step), steps()[step:])
    for part in REFERENCES:
        write(tmp_path / folder_by_hand(part), steps())
    return tmp_path


def results(folder: Path) -> dict[tuple[str, str], Result]:
    """The results that are not `EXACT`, by part and moment."""
    cells = judge("ddp", ROW, folder, folder)
    assert len(cells) == 8
    return {(cell.part, cell.moment): cell.result for cell in cells if cell.result is not Result.EXACT}


def change(file: Path, position: int, **changes: object) -> None:
    trace = [Step(**step) for step in torch.load(file)]
    trace[position] = replace(trace[position], **changes)
    torch.save([vars(step) for step in trace], file)


def test_all_is_exact(folder) -> None:
    assert results(folder) == {}


FAULTS = {
    # By one unit in the last place.
    "weight": {"values": {"w": torch.nextafter(torch.tensor([1.0, 5.0]), torch.tensor(9.0))}},
    "lr": {"lrs": {"w": math.nextafter(1 / 6, 1)}},
}


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_on_any_rank_is_wrong(folder, rank, fault) -> None:
    change(folder / folder_of(STAGES) / f"rank{rank}.pt", 5, **FAULTS[fault])
    assert results(folder) == {(STAGES, "run"): Result.WRONG, (STAGES, "resume"): Result.WRONG}


def test_a_fault_of_a_resumed_run_is_wrong(folder) -> None:
    change(folder / folder_of(RULES, 3) / "rank1.pt", 0, values={"w": torch.zeros(2)})
    assert results(folder) == {(RULES, "resume"): Result.WRONG}


def test_a_norm_is_compared_with_tolerance_by_hand_and_bitwise_after_a_resume(folder) -> None:
    change(folder / folder_by_hand(RULES) / "rank0.pt", 2, norms={"grad/w": 4.00003})
    assert results(folder) == {}
    change(folder / folder_by_hand(RULES) / "rank0.pt", 2, norms={"grad/w": 4.001})
    assert results(folder) == {(MONITOR, "run"): Result.WRONG, (RULES, "run"): Result.WRONG}
    change(folder / folder_by_hand(RULES) / "rank0.pt", 2, norms={"grad/w": 4.0})
    change(folder / folder_of(MONITOR, 3) / "rank0.pt", 2, norms={"grad/w": math.nextafter(7.0, 8.0)})
    assert results(folder) == {(MONITOR, "resume"): Result.WRONG}


def test_a_norm_or_a_step_that_is_missing_is_wrong(folder) -> None:
    change(folder / folder_by_hand(FACTORY) / "rank0.pt", 2, norms={"grad/w": 4.0, "grad/v": 1.0})
    write(folder / folder_of(STAGES), steps()[:-1])
    assert results(folder)[FACTORY, "run"] is Result.WRONG
    assert results(folder)[STAGES, "run"] is Result.WRONG


def fail(folder: Path, text: str) -> None:
    for file in folder.glob("rank*.pt"):
        file.unlink()
    (folder / "error1.txt").write_text(text, encoding="utf-8")


def test_a_config_error_is_a_refusal(folder) -> None:
    fail(folder / folder_of(STAGES), "ConfigError: stages: no. Type another")
    assert results(folder) == {(STAGES, "run"): Result.REFUSED, (STAGES, "resume"): Result.REFUSED}


def test_another_error_fails_unless_lightning_alone_has_it_too(folder) -> None:
    fail(folder / folder_of(RULES), "RuntimeError: no")
    assert set(results(folder).values()) == {Result.FAILS}
    fail(folder / folder_of(ALONE), "RuntimeError: no")
    assert set(results(folder).values()) == {Result.NOT_APPLICABLE}


def test_a_resume_that_differs_as_lightning_s_own_is_not_applicable(folder) -> None:
    for part in (ALONE, FACTORY):
        change(folder / folder_of(part, 3) / "rank1.pt", 0, values={"w": torch.zeros(2)})
    assert results(folder) == {(FACTORY, "resume"): Result.NOT_APPLICABLE}


def test_processes_that_die_are_a_failure(folder) -> None:
    (folder / folder_of(FACTORY) / "rank1.pt").unlink()
    assert results(folder) == {(FACTORY, "run"): Result.FAILS, (FACTORY, "resume"): Result.FAILS}


@pytest.mark.parametrize(
    ("result", "status"), [(Result.EXACT, 0), (Result.REFUSED, 0), (Result.WRONG, 1), (Result.FAILS, 1)]
)
def test_exit_status(monkeypatch, tmp_path, capsys, result, status) -> None:
    cells = [
        Cell(row="ddp", part=part, moment=moment, result=result, detail="why")
        for part in PARTS
        for moment in ("run", "resume")
    ]
    monkeypatch.setattr(command, "try_strategies", lambda names: cells)
    assert command.main(["ddp", "--markdown", str(tmp_path / "page.md")]) == status
    assert f"8 {result.value}" in capsys.readouterr().out
    assert f"| `ddp` |{f' {result.value} |' * 4}" in (tmp_path / "page.md").read_text(encoding="utf-8")


def test_the_docs_have_every_strategy_and_nothing_wrong() -> None:
    page = DOCS.read_text(encoding="utf-8")
    assert f"{8 * len(ROWS)} cells: " in page and ", 0 fails, 0 wrong." in page
    assert [name for name in ROWS if f"| {name} |" not in page.replace("`", "")] == []


SOME_ROWS = (
    "ddp, accumulation",
    "ddp_fork",
    "ModelParallelStrategy(2, 1): FSDP2",
    "DeepSpeedStrategy(): a stand-in",
)
"""One of each kind, with processes that run before and that Lightning starts; all take the command four minutes.

Not `ddp_spawn`, whose ranks load torch and Lightning anew in each fit: `test_copies_in_a_fit.py` has what it pickles.
"""


@pytest.mark.slow
def test_the_docs_have_the_rows_that_the_command_writes(tmp_path) -> None:
    assert command.main([*SOME_ROWS, "--markdown", str(tmp_path / "strategies.md")]) == 0
    pages = [path.read_text(encoding="utf-8") for path in (tmp_path / "strategies.md", DOCS)]
    written, kept = ([line for line in page.splitlines() if line.startswith("|")] for page in pages)
    assert len(written) == 2 + len(SOME_ROWS)
    assert set(written) <= set(kept)
    assert len(kept) == 2 + len(ROWS)
