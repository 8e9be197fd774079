"""What the tests of the recipes may ask for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.core.singleton import Singleton

from recipes import finetune


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Runs the main recipe's command in this process: its run directory and its overrides are the arguments."""
    hydra_state = Singleton.get_state()

    def run(run_dir: Path, *overrides: str) -> None:
        logging = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
        monkeypatch.setattr(sys, "argv", ["finetune", f"hydra.run.dir={run_dir}", *logging, *overrides])
        finetune.main()

    yield run
    Singleton.set_state(hydra_state)
