"""A stranger's first run: an empty folder, and an environment that has the wheel only."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.apps import APPS
from tests.support.documentation import find_blocks, find_files, split_commands
from tests.support.user_environments import run

PAGE = "docs/quickstart.md"


def test_a_whole_app_is_under_30_lines() -> None:
    """Its module, its config, rules for weight decay, a plan, the monitor; imports counted."""
    files = [path for path in (APPS / "stranger").iterdir() if path.is_file()]
    assert {path.name for path in files} == {"train.py", "config.yaml"}
    lines = [line for path in files for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(lines) < 30


@pytest.mark.slow
def test_that_app_runs_from_the_wheel(installed, copy_app) -> None:
    app = copy_app("stranger")
    done = installed("wheel").run("train.py", cwd=app)
    for text in ("Unfreeze plan", "head.no_decay", "backbone.no_decay"):
        assert text in done.stdout + done.stderr
    assert list(app.glob("lightning_logs/version_0/optim/backbone.no_decay/events*")), "the monitor's curves"


@pytest.mark.slow
def test_the_quickstart_runs_from_the_wheel(installed, tmp_path: Path) -> None:
    """Its other commands are run by tests/test_documentation_commands.py, without the wheel."""
    environment = installed("wheel")
    for name, text in find_files(PAGE).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    commands = [words for block in find_blocks("bash", PAGE) for words in split_commands(block)]
    explain, train = (
        next(words for words in commands if words[: len(start)] == start)
        for start in (["lightning-optim", "explain"], ["python", "train.py"])
    )
    assert "Unfreeze plan" in run([str(environment.root / "bin" / explain[0]), *explain[1:]], cwd=tmp_path).stdout
    environment.run(*train[1:], cwd=tmp_path)
    assert list(tmp_path.glob("runs/**/optim/backbone.no_decay/events*"))
