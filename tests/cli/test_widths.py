"""What the command line prints at every width: `COLUMNS` is obeyed, a pipe has no width, and no number is cut."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.support.apps import EXPLAIN_RECIPE
from tests.support.cases import every
from tests.support.checkpoints import save, state_dict
from tests.support.printed_numbers import numbers

STAGED = (*EXPLAIN_RECIPE, "model", "optimizer.lr=3.2768e-05")
COMMANDS = {
    "list": ("list", "adam*"),
    "show": ("show", "adamw"),
    "explain": STAGED,
    "why": (*STAGED, "--why", "head.1.weight"),
    "inspect": ("inspect",),
}


@pytest.fixture(params=every(COMMANDS, fast=["show", "inspect"]))
def command(request, tmp_path: Path) -> tuple[str, ...]:
    """The arguments of a command that prints tables."""
    arguments = COMMANDS[request.param]
    if request.param != "inspect":
        return arguments
    content = state_dict()
    content["param_groups"][0]["lr"] = 3.2768e-05
    return (*arguments, str(save(tmp_path, content)))


def test_every_number_is_whole_at_every_width(cli_output, command, monkeypatch) -> None:
    as_needed = cli_output(*command)
    for columns in (40, 60, 80, 120, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        out = cli_output(*command)
        assert numbers(out) == numbers(as_needed)
        assert max(map(cell_len, out.splitlines())) <= columns


def test_a_pipe_has_a_line_for_each_row(cli_output) -> None:
    out = cli_output("list")
    assert "…" not in out and max(map(len, out.splitlines())) > 150
    assert all(line.count("│") == 7 for line in out.splitlines() if line.startswith("│"))


def test_two_checkpoints_are_compared_at_every_width(cli_output, tmp_path: Path, monkeypatch) -> None:
    other = state_dict()
    other["state"][1]["exp_avg"] += 1 / 3
    files = [str(save(tmp_path, content, name)) for content, name in ((state_dict(), "a"), (other, "b"))]
    as_needed = cli_output("inspect", *files)
    for columns in (40, 60, 80, 120, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert numbers(cli_output("inspect", *files)) == numbers(as_needed)


def test_columns_that_all_groups_share_are_said_below(cli_output, tmp_path: Path) -> None:
    content = state_dict()
    for group in content["param_groups"]:
        group["lr"] = 3.2768e-05
    out = cli_output("inspect", str(save(tmp_path, content)))
    assert "the same for all groups: lr 3.277e-05" in out and out.count("3.277e-05") == 1
