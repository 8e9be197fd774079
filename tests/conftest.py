"""What every test may ask for."""

from __future__ import annotations

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: as many tests run at once as there are cores
os.environ.pop("COLUMNS", None)  # tables obey it, and the workers of pytest-xdist have it

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import pytest

import lightning_optim
from lightning_optim.catalog import registry
from tests.support.forks import run_forked

gc.disable()  # until the tests are collected: importing makes a million objects, which all stay


def pytest_sessionstart(session: pytest.Session) -> None:
    """Tell Triton to interpret, which it reads when it is imported, by whichever test."""
    if session.config.getoption("numprocesses", None):
        return  # pytest-xdist's process without tests: torch would cost it seconds, just when the others start
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_finish() -> None:
    """Collect garbage from now on, but look no more at what importing and collecting the tests has made."""
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def installed_callbacks() -> Iterator[None]:
    """Each Trainer looks through all installed packages for callbacks, a tenth of a short fit: look once."""
    from lightning.fabric.utilities import registry as lightning_registry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lightning_registry, "entry_points", cache(lightning_registry.entry_points))
        yield


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Forget afterwards what a test, or an example in a docstring, has registered."""
    tables = (registry._described, registry._pending)
    before = [dict(table) for table in tables]
    yield
    if before != list(tables):
        for table, known in zip(tables, before, strict=True):
            table.clear()
            table.update(known)
        registry._read_entry_points.cache_clear()


@pytest.fixture
def run_python() -> Callable[..., str]:
    """Runs code in a fresh interpreter, given its arguments and environment; returns what it prints."""
    package = str(Path(lightning_optim.__file__).parents[1])

    def run(code: str, *arguments: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, "PYTHONPATH": package, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def run_python_again(tmp_path: Path) -> Callable[[str], str]:
    """Runs code in a fork of this process that has to import lightning_optim again; returns what it prints.

    For what the package itself imports: an interpreter that imports torch and Lightning too takes seconds to start.
    """

    def run(code: str) -> str:
        def work() -> None:
            for name in [name for name in sys.modules if name.partition(".")[0] == "lightning_optim"]:
                del sys.modules[name]
            with (tmp_path / "printed").open("w", encoding="utf-8") as file, redirect_stdout(file):
                exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})

        status = run_forked(work, tmp_path / "log")
        assert status == 0, (tmp_path / "log").read_text(encoding="utf-8") if status == 1 else status
        return (tmp_path / "printed").read_text(encoding="utf-8")

    return run
