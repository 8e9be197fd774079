"""Fixtures: a user's apps, and environments in which lightning-optim is installed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from tests.support.user_environments import CHECKOUT, HERE, HYDRA_1_4, App, Environment, run

PLUGIN = CHECKOUT / "lightning_optim/_hydra/path/hydra_plugins/lightning_optim_searchpath/__init__.py"


@pytest.fixture(scope="session", autouse=True)
def search_path_plugin() -> None:
    """Where the tests run on a bare checkout, tell Hydra of the plugin; test_installs.py shows that it is found."""
    found = Plugins.instance().discover(SearchPathPlugin)
    if not any(plugin.__name__ == "LightningOptimSearchPath" for plugin in found):
        spec = spec_from_file_location("lightning_optim_searchpath", PLUGIN)
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        Plugins.instance().register(module.LightningOptimSearchPath)


@pytest.fixture
def write_app(tmp_path: Path) -> Callable[[Mapping[str, str]], App]:
    """Makes an app out of config files: `write_app({"config.yaml": ..., "optimizer/mine.yaml": ...})`."""

    def write(files: Mapping[str, str]) -> App:
        for name, text in files.items():
            path = tmp_path / "conf" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return App(tmp_path)

    return write


@pytest.fixture
def copy_app(tmp_path: Path) -> Callable[[str], Path]:
    """Copies one of `apps/` to a folder that has nothing to do with the checkout."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(HERE / "apps" / name, tmp_path / name))

    return copy


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=CHECKOUT)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Environment]:
    """Environments that lightning-optim is installed in, by `how`: `wheel`, `editable`, `wheel-hydra1.4`, ..."""

    @cache
    def install(how: str) -> Environment:
        source = [str(wheel)] if how.startswith("wheel") else ["--editable", str(CHECKOUT)]
        environment = Environment.make(tmp_path_factory.mktemp(how), *source)
        if how.endswith("-hydra1.4"):
            try:
                environment.install(*HYDRA_1_4)
            except AssertionError as error:
                pytest.skip(f"{HYDRA_1_4[0]} cannot be installed here: {str(error).splitlines()[-1]}")
        return environment

    return install
