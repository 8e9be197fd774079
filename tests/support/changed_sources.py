"""Run tests against a temporary copy of the package in which one small change was made."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]
_COPIED = ("lightning_optim", "tests", "recipes")
_LINKED = (
    "conf",
    "docs",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "pyproject.toml",
    "constraints.txt",
)
# What tests import of other packages: a fork that finds them loaded starts in a tenth of the time.
_PRELOADED = ("pytest", "hydra", "omegaconf", "lightning.pytorch", "rich.console", "hypothesis", "torch.optim", "numpy")


@dataclass(frozen=True)
class Change:
    """A change of a source file, and the tests that notice it."""

    name: str
    area: str
    file: str
    """In `lightning_optim`."""
    old: str
    """Text that is in the file once."""
    new: str
    breaks: str
    """What no longer holds."""
    tests: tuple[str, ...]
    """Arguments of pytest; of a file or function, the fast tests run."""
    time_limit_s: int = 300

    @property
    def count(self) -> int:
        """How often the text is in the file: once, unless the source was edited since."""
        path = ROOT / "lightning_optim" / self.file
        return path.read_text(encoding="utf-8").count(self.old) if path.exists() else 0


@dataclass(frozen=True)
class Verdict:
    """What the tests say about a change, or about the package as it is."""

    change: Change
    is_changed: bool
    is_red: bool
    output: str
    """The end of pytest's."""


def run_changes(changes: Sequence[Change], jobs: int, *, also_unchanged: bool = True) -> Iterator[Verdict]:
    """The verdicts of the tests with each change, and without one, as they finish.

    Each runs in a fork of this process, which loads what the tests need of other packages. The package itself and
    its tests are loaded from the copy.

    Args:
        changes: to make, one at a time.
        jobs: how many run at the same time.
        also_unchanged: whether the tests run without a change too.
    """
    _preload()
    unchanged = {change.tests: change for change in changes} if also_unchanged else {}
    waiting = [*((change, True) for change in changes), *((change, False) for change in unchanged.values())]
    running: dict[int, tuple[Change, bool, Path]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                change, is_changed = waiting.pop(0)
                folder = Path(tempfile.mkdtemp(prefix="changed-"))
                running[_start(change, is_changed, folder)] = change, is_changed, folder
            pid, status = os.wait()
            change, is_changed, folder = running.pop(pid)
            output = (folder / "output.txt").read_text(encoding="utf-8", errors="replace")[-2000:]
            shutil.rmtree(folder, ignore_errors=True)
            code = os.waitstatus_to_exitcode(status)
            if code not in (0, 1):  # 1: a test failed; else pytest could not run them, or the alarm ended it
                output += f"\nexit status {code}"
            is_red = code == 1 or (is_changed and code in (2, -signal.SIGALRM)) or (not is_changed and code != 0)
            yield Verdict(change, is_changed, is_red, output)
    finally:
        for pid, (*_, folder) in running.items():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            shutil.rmtree(folder, ignore_errors=True)


def _start(change: Change, is_changed: bool, folder: Path) -> int:
    """Fork a process (a group of its own) that runs the tests in the folder."""
    for name in _COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in _LINKED:
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)
    if is_changed:
        path = folder / "lightning_optim" / change.file
        text = path.read_text(encoding="utf-8")
        assert text.count(change.old) == 1, f"{change.name}: its text is not in {change.file} once"
        path.write_text(text.replace(change.old, change.new), encoding="utf-8")
    (folder / "output.txt").touch()
    if pid := os.fork():
        return pid
    try:
        os.setpgid(0, 0)
        signal.alarm(change.time_limit_s if is_changed else 300)
        output = os.open(folder / "output.txt", os.O_WRONLY | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(output, stream)
        os.environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        sys.dont_write_bytecode = True
        os.chdir(folder)
        sys.path[:] = [str(folder), *(path for path in sys.path if path not in ("", str(ROOT)))]
        for name in [*sys.modules]:
            if name.split(".")[0] in ("tests", "recipes", "lightning_optim"):
                del sys.modules[name]
        import pytest

        # The fast tests of a file or function; of a case that is named, that one.
        marks = ["-m", ""] if all(test.endswith("]") for test in change.tests) else []
        os._exit(pytest.main(["-x", "-q", "--no-header", *marks, *change.tests]))
    finally:
        os._exit(3)


def _preload() -> None:
    import torch

    torch.set_num_threads(1)
    for name in _PRELOADED:
        with contextlib.suppress(ImportError):
            import_module(name)
    gc.freeze()  # a collection in a fork would copy all pages
