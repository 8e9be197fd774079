"""Hydra apps of users: those in `tests/hydra/apps`, apps written by a test, and a module of model classes for them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig

CHECKOUT = Path(__file__).parents[2]
APPS = CHECKOUT / "tests" / "hydra" / "apps"
# The command that explains the recipe; the key of the model comes next.
EXPLAIN_RECIPE = (
    *("explain", "--config-dir", str(CHECKOUT / "recipes" / "conf"), "--config-name", "finetune", "--module"),
)

# The module `mine` of an app: models that are built, or not, in every way that the command line must handle.
USER_MODULE = """
from lightning.pytorch import LightningModule
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4, path=None, optimizer=None, scheduler=None):
        super().__init__()
        self.head = nn.Linear(int(width), 2)

class Printing(Net):
    def __init__(self, folder):
        print("writes to", folder)
        super().__init__()

class Late(LightningModule):
    def __init__(self, has_stem=False, needs_trainer=False):
        super().__init__()
        self.needs_trainer = needs_trainer
        if has_stem:
            self.stem = nn.Linear(1, 1)

    def configure_model(self):
        if self.needs_trainer:
            self.trainer.world_size
        self.head = nn.Linear(3, 2)

class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.LazyLinear(2)

class Broken(nn.Module):
    def __init__(self):
        raise OSError("no weights\\n  here")
"""


@dataclass(frozen=True)
class App:
    """A user's Hydra app: a folder with a config folder in it."""

    root: Path
    configs: str = "conf"
    entry: str = "config"

    def compose(self, *overrides: str) -> DictConfig:
        """The config that the app's main function would get."""
        with initialize_config_dir(str(self.root / self.configs), version_base="1.3"):
            return compose(self.entry, list(overrides))


@pytest.fixture(scope="session", autouse=True)
def search_path_plugin() -> None:
    """Register the plugin where the package is not installed; test_installs.py checks that Hydra finds it itself."""
    found = Plugins.instance().discover(SearchPathPlugin)
    if not any(plugin.__name__ == "LightningOptimSearchPath" for plugin in found):
        sys.path.append(str(CHECKOUT / "lightning_optim/_hydra/path"))
        module = import_module("hydra_plugins.lightning_optim_searchpath")
        Plugins.instance().register(module.LightningOptimSearchPath)


@pytest.fixture
def write_app(tmp_path: Path) -> Callable[[Mapping[str, str]], App]:
    """Writes an app's config files: `write_app({"config.yaml": ..., "optimizer/mine.yaml": ...})`."""

    def write(files: Mapping[str, str]) -> App:
        for name, text in files.items():
            path = tmp_path / "conf" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return App(tmp_path)

    return write


@pytest.fixture
def copy_app(tmp_path: Path) -> Callable[[str], Path]:
    """Copies an app of `tests/hydra/apps` to a folder outside the checkout."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(APPS / name, tmp_path / name))

    return copy
