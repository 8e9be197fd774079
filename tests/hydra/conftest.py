"""Fixtures: the apps of users, and environments in which lightning-optim is installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.support.apps import CHECKOUT, copy_app, search_path_plugin, write_app  # noqa: F401
from tests.support.user_environments import HYDRA_1_4, Environment, run


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=CHECKOUT)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Environment]:
    """Environments in which lightning-optim is installed, by `how`: `wheel`, `editable`, `wheel-hydra1.4`, ..."""

    @cache
    def install(how: str) -> Environment:
        source = [str(wheel)] if how.startswith("wheel") else ["--editable", str(CHECKOUT)]
        environment = Environment.create(tmp_path_factory.mktemp(how), *source)
        if how.endswith("-hydra1.4"):
            try:
                environment.install(*HYDRA_1_4)
            except AssertionError as error:
                pytest.skip(f"{HYDRA_1_4[0]} cannot be installed here: {str(error).splitlines()[-1]}")
        return environment

    return install
