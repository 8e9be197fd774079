"""`report`: its lines, its document, its page, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.report_runs import write_events

SICK = {
    "optim/norm/grad/head": [(step, 0.0) for step in range(12)],
    "optim/ratio/update_param/head": [(step, 1e-3) for step in range(12)],
}
HEALTHY = {
    "optim/norm/grad/head": [(step, 1.0) for step in range(12)],
    "optim/ratio/update_param/head": [(step, 1e-3) for step in range(12)],
}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_events(tmp_path / "runs" / "v0", HEALTHY)
    write_events(tmp_path / "runs" / "v1", SICK)
    return tmp_path / "runs"


def test_a_line_for_each_finding_and_the_page(cli_output, runs: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    lines = cli_output("report", str(runs), "--out", str(page)).splitlines()
    size = round(page.stat().st_size / 1000)
    assert lines == [
        f"{runs}/v0: nothing suspicious",
        f"{runs}/v1: No gradient arrives: head: norm/grad is exactly 0 in all logged steps, step 0",
        f"wrote {page} ({size} kB)",
    ]
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_json_has_the_findings_in_numbers(cli_output, runs: Path, tmp_path: Path) -> None:
    document = json.loads(cli_output("report", str(runs / "v1"), "--json"))
    assert document["page"] is None and document["left_out"] == []
    (run,) = document["runs"]
    assert (run["run"], run["first_step"], run["last_step"]) == (str(runs / "v1"), 0, 11)
    assert run["optimizers"] == [{"root": "optim", "groups": ["head"], "thaws": []}]
    (found,) = run["findings"]
    assert (found["rule"], found["optimizer"], found["group"], found["step"]) == ("no_gradient", "optim", "head", 0)
    assert (found["value"], found["threshold"]) == (0.0, 0.0) and run["unchecked"] == {}


def test_a_run_without_curves_is_left_out_unless_it_was_asked_for(cli_output, cli_error, runs: Path) -> None:
    write_events(runs / "test", {"test/accuracy": [(0, 1.0)]})
    assert f"left out, without curves of an optimizer: {runs}/test\n" in cli_output("report", str(runs))
    error = cli_error("report", str(runs / "v0"), str(runs / "test"))
    assert error.startswith(f"report: {runs}/test has no curves of an optimizer") and "OptimizerMonitor" in error


def test_nothing_of_a_file_reaches_the_terminal_as_a_control_code(cli_output, tmp_path: Path) -> None:
    write_events(tmp_path / "a\x1b[31m", {"optim/norm/grad/h\x1b[2J": [(step, 0.0) for step in range(12)]})
    out = cli_output("report", str(tmp_path))
    assert "\x1b" not in out and "h\ufffd[2J" in out and "a\ufffd[31m" in out


def test_an_output_that_cannot_be_written_is_refused_before_reading(cli_error, runs: Path, tmp_path: Path) -> None:
    assert "Type a name that ends in .html" in cli_error("report", "nowhere", "--out", str(tmp_path / "report.pdf"))
    error = cli_error("report", "nowhere", "--out", str(tmp_path / "missing" / "r.html"))
    assert f"mkdir -p {tmp_path / 'missing'}" in error
    (tmp_path / "r.html").mkdir()
    assert "cannot be written" in cli_error("report", str(runs), "--out", str(tmp_path / "r.html"))


def test_without_matplotlib_the_lines_are_there_and_the_page_says_what_to_type(
    cli_output, cli_error, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "No gradient arrives" in cli_output("report", str(runs))
    error = cli_error("report", str(runs), "--out", str(tmp_path / "r.html"))
    assert error == 'report: matplotlib is not installed. Type pip install "lightning-optim[plot]"\n'
