"""The recipe that runs beside each callback of Lightning: what it detects, and that the docs are what it writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import callbacks

from lightning_optim import ConfigError, RNGState, StagedUnfreeze
from lightning_optim.callbacks.pending_plateau_step import PendingPlateauStep
from lightning_optim.stages.staged import StagedOptimizer
from lightning_optim.stages.timetable import Timetable
from recipes.compatibility import __main__ as command
from recipes.compatibility.cells import Cell, Result, compare
from recipes.compatibility.rows import ROWS, Row
from recipes.compatibility.setups import BY_EPOCH, BY_STEP, ON_PLATEAU, Setup
from tests.support.cases import every

DOCS = Path(__file__).parents[2] / "docs" / "callbacks.md"
BY_NAME = {row.name: row for row in ROWS}
NOTHING = BY_NAME["Callback"]


def results(row: Row, setup: Setup, *stops: str, staged: bool) -> tuple[Result, set[Result]]:
    """Of the uninterrupted run, and of those resumed from these checkpoints."""
    fit, resumed = compare(row, row.change(replace(setup, stops=stops)), staged=staged)
    return fit.result, {finding.result for finding in resumed}


def test_every_callback_that_lightning_exports_has_a_row() -> None:
    assert {row.callback for row in ROWS} == set(callbacks.__all__)
    assert len(BY_NAME) == len(ROWS)


# One case of each result.

CASES: dict[str, tuple[str, Setup, bool, str, Result, Result]] = {
    "nothing": ("Callback", BY_STEP, False, "batch=7", Result.EXACT, Result.EXACT),
    "stages": ("EMAWeightAveraging, every step", BY_STEP, True, "batch=5", Result.EXACT, Result.EXACT),
    "plateau": ("LearningRateMonitor, by step", ON_PLATEAU, True, "epoch=2", Result.EXACT, Result.EXACT),
    "pruning": ("ModelPruning, every epoch", BY_STEP, True, "batch=2", Result.EXACT, Result.EXACT),
    "tuner": ("LearningRateFinder, update_attr=True", BY_STEP, True, "batch=2", Result.EXACT, Result.REFUSED),
    "finetuning": ("BackboneFinetuning", BY_STEP, False, "epoch=1", Result.EXACT, Result.AS_LIGHTNING),
    "spikes": ("SpikeDetection", BY_EPOCH, False, "batch=2", Result.EXACT, Result.NOT_APPLICABLE),
    "averages": ("StochasticWeightAveraging, from the last epoch", BY_STEP, True, "batch=2", *[Result.REFUSED] * 2),
}


@pytest.mark.parametrize("case", every(CASES, fast=["stages", "tuner", "finetuning"]))
def test_each_result(case) -> None:
    name, setup, staged, stop, fit, resumed = CASES[case]
    assert results(BY_NAME[name], setup, stop, staged=staged) == (fit, {resumed})


# Faults that each part has to detect.


def scale_lr_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By one part in a million, in one group, before one step."""
    configure = Setup.configure

    def configure_with_fault(self: Setup, module: Any) -> Any:
        configured, steps = configure(self, module), []

        def before_step(optimizer: Any, *_: Any) -> None:
            steps.append(1)
            if len(steps) == 3:
                optimizer.param_groups[1]["lr"] *= 1 + 1e-6

        configured["optimizer"].register_step_pre_hook(before_step)
        return configured

    monkeypatch.setattr(Setup, "configure", configure_with_fault)


def skip_thaw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Timetable, "thaw_due", lambda *args: [])


def lose_plateau_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PendingPlateauStep, "flush", lambda *args: None)


def lose_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RNGState, "load_state_dict", lambda *args: None)


def lose_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the groups that the schedulers drive, when a run resumes."""
    monkeypatch.setattr(StagedOptimizer, "load_state_dict", lambda *args: None)


def draw_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the random generator that the dropout uses."""
    on_train_start = StagedUnfreeze.on_train_start
    monkeypatch.setattr(StagedUnfreeze, "on_train_start", lambda *args: (torch.rand(1), on_train_start(*args)))


FAULTS: dict[str, tuple[Callable[[Any], None], Setup, bool, str, Result, Result]] = {
    "lr scaled once": (scale_lr_once, BY_STEP, False, "batch=12", Result.SILENT_WRONG, Result.SILENT_WRONG),
    "thaw skipped": (skip_thaw, BY_STEP, True, "batch=12", Result.SILENT_WRONG, Result.EXACT),
    "plateau step lost": (lose_plateau_step, ON_PLATEAU, True, "epoch=2", Result.EXACT, Result.SILENT_WRONG),
    "generator lost": (lose_generator, BY_EPOCH, False, "batch=6", Result.EXACT, Result.SILENT_WRONG),
    "curve lost": (lose_curve, BY_STEP, True, "epoch=1", Result.EXACT, Result.SILENT_WRONG),
    "number drawn": (draw_number, BY_STEP, True, "batch=2", Result.SILENT_WRONG, Result.EXACT),
}


@pytest.mark.parametrize("fault", every(FAULTS, fast=["lr scaled once", "thaw skipped", "generator lost"]))
def test_a_fault_is_silent_wrong(monkeypatch, fault) -> None:
    plant, setup, staged, stop, fit, resumed = FAULTS[fault]
    plant(monkeypatch)
    assert results(NOTHING, setup, stop, staged=staged) == (fit, {resumed})


def test_a_difference_as_lightning_s_without_a_known_reason_is_silent_wrong() -> None:
    row = BY_NAME["Timer, stops by epoch"]
    assert results(row, BY_EPOCH, "epoch=2", staged=False)[1] == {Result.AS_LIGHTNING}
    assert results(replace(row, reason=""), BY_EPOCH, "epoch=2", staged=False)[1] == {Result.SILENT_WRONG}


@pytest.mark.parametrize(
    ("error", "result", "detail"),
    [
        (ConfigError("stages: no. Type another\nmore"), Result.REFUSED, "stages: no. Type another"),
        (RuntimeError("no"), Result.ERROR, "RuntimeError: no"),
    ],
    ids=["ConfigError", "RuntimeError"],
)
def test_an_error_of_ours(monkeypatch, error, result, detail) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(StagedUnfreeze, "on_train_start", fail)
    fit, resumed = compare(NOTHING, BY_STEP, staged=True)
    assert [(finding.result, finding.detail) for finding in (fit, *resumed)] == [(result, detail)] * 2


def test_what_a_callback_produces_is_compared() -> None:
    runs: list[int] = []

    def produced(*_: Any) -> int:
        runs.append(1)
        return len(runs)

    assert results(replace(NOTHING, produced=produced), BY_STEP, "batch=12", staged=False)[0] is Result.SILENT_WRONG


# The command and the docs.


@pytest.mark.parametrize(("result", "status"), [("exact", 0), ("refused", 0), ("error", 1), ("silent-wrong", 1)])
def test_exit_status_and_page(monkeypatch, tmp_path, capsys, result, status) -> None:
    def fill(row: Row) -> list[Cell]:
        cell = Cell(
            row=row,
            staged=False,
            resumed=False,
            result=Result(result),
            details=("why",),
            num_comparisons=1,
            num_found=1,
        )
        return [replace(cell, staged=s, resumed=r) for s in (False, True) for r in (False, True)]

    monkeypatch.setattr(command, "fill_cells", fill)
    page = tmp_path / "page.md"
    assert command.main(["WeightAveraging", "--markdown", str(page)]) == status
    assert f"4 {result}; silent-wrong or error: {4 * status}." in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert f"python -m recipes.compatibility WeightAveraging --markdown {page}\n" in text
    assert f"| WeightAveraging |{f' {result} |' * 4}\n" in text and f"| {result} | why | WeightAveraging |\n" in text


def test_the_docs_have_every_row_and_nothing_wrong() -> None:
    page = DOCS.read_text(encoding="utf-8")
    assert f"{4 * len(ROWS)} cells, " in page and "; silent-wrong or error: 0." in page
    assert [row.name for row in ROWS if f"\n| {row.name} |" not in page] == []


@pytest.mark.slow
def test_the_docs_have_the_rows_that_the_command_writes(tmp_path) -> None:
    """Every twelfth one; all of them take the command more than a minute."""
    names = sorted({row.callback for row in ROWS})[::12]
    assert command.main([*names, "--markdown", str(tmp_path / "callbacks.md")]) == 0
    pages = [path.read_text(encoding="utf-8") for path in (tmp_path / "callbacks.md", DOCS)]
    written, kept = ([line for line in page.splitlines() if line.count("|") == 6] for page in pages)
    assert len(written) > len(names)
    assert set(written) <= set(kept)
