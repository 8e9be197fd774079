"""Fixtures: the apps of users, and environments in which lightning-optim is installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.support.apps import CHECKOUT, copy_app, search_path_plugin, write_app  # noqa: F401
from tests.support.user_environments import HYDRAS, Environment, run


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=CHECKOUT)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Environment]:
    """Environments, by what is installed: `wheel`, `editable` or `nothing` of ours, and which Hydra: `wheel-hydra1.4`.

    Without a version, it is the Hydra that runs the tests.
    """
    sources = {"wheel": [str(wheel)], "editable": ["--editable", str(CHECKOUT)], "nothing": []}

    @cache
    def install(what: str) -> Environment:
        ours, _, version = what.partition("-hydra")
        environment = Environment.create(tmp_path_factory.mktemp(what))
        for requirements in (HYDRAS[version], sources[ours]):
            if requirements:
                try:
                    environment.install(*requirements)
                except AssertionError as error:
                    pytest.skip(f"{requirements[0]} cannot be installed here: {str(error).splitlines()[-1]}")
        return environment

    return install
