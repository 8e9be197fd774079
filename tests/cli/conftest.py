"""Fixtures: a user's apps, as the tests of Hydra have them, and the command line's answer."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from hydra.core.hydra_config import HydraConfig

from lightning_optim.cli import main
from tests.hydra.conftest import copy_app, search_path_plugin, write_app  # noqa: F401


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What the command line says when it refuses its arguments, on one line, with the status of an error."""

    def run(*arguments: str) -> str:
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("lightning-optim: ")
        assert "Traceback" not in error
        return error.removeprefix("lightning-optim: ")

    return run


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What the command line prints."""

    def run(*arguments: str) -> str:
        status = main(arguments)
        out, error = capsys.readouterr()
        assert (status, error) == (0, "")
        return out

    return run


@pytest.fixture(autouse=True)
def leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The import path and the modules of one app are not there for the next; Hydra's own state is as it was."""
    before, modules = HydraConfig.instance().cfg, set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    assert HydraConfig.instance().cfg is before
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] in ("net", "src", "mine"):
            del sys.modules[name]
