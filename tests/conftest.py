"""What every test may ask for."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: as many tests run at once as there are cores

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import lightning_optim


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
