"""Fixtures: the output of the command line, and the apps of users."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig

from lightning_optim.cli import main
from tests.support.apps import USER_MODULE, copy_app, search_path_plugin, write_app  # noqa: F401


@pytest.fixture
def cli_error(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The error message that the command line prints when it refuses its arguments."""

    def run(*arguments: str) -> str:
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("lightning-optim: ")
        assert "Traceback" not in error
        return error.removeprefix("lightning-optim: ")

    return run


@pytest.fixture
def cli_output(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The output of the command line."""

    def run(*arguments: str) -> str:
        status = main(arguments)
        out, error = capsys.readouterr()
        assert (status, error) == (0, "")
        return out

    return run


@pytest.fixture
def explain_arguments(write_app, monkeypatch, tmp_path: Path) -> Callable[..., tuple[str, ...]]:  # noqa: F811
    """Writes an app with these configs, and returns the arguments that explain it; its code is the module `mine`."""

    def write(config: str, *arguments: str, **files: str) -> tuple[str, ...]:
        (tmp_path / "mine.py").write_text(USER_MODULE, encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        write_app({"train.yaml": config, **{f"{name.replace('__', '/')}.yaml": text for name, text in files.items()}})
        return ("explain", "--config-dir", "conf", "--config-name", "train", "--module", "model", *arguments)

    return write


@pytest.fixture(autouse=True)
def clean_process_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Check that Hydra's global state is restored; remove an app's modules and import path after its test."""
    before, modules = HydraConfig.instance().cfg, set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    assert HydraConfig.instance().cfg is before
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] in ("net", "src", "mine"):
            del sys.modules[name]
