"""The user's side: apps with configs of their own, and fresh environments that lightning-optim is installed in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback, Trainer
from omegaconf import DictConfig
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

CHECKOUT = Path(__file__).parents[2]
HERE = CHECKOUT / "tests" / "hydra"
# Where what we stand on is installed, and what there may be ours.
SITES = {Path(find_spec(name).origin).parents[1] for name in ("torch", "lightning", "hydra", "hatchling")}
OURS = ("lightning_optim", "hydra_plugins")

# Lightning's own advice, and what it itself uses of torch that is deprecated.
QUIET = [
    pytest.mark.filterwarnings(f"ignore:.*{words}")
    for words in ("does not have many workers", "LeafSpec", "Checkpoint directory", "number of training batches")
]

HYDRA_1_4 = ("hydra-core==1.4.0rc3", "omegaconf>=2.4.1rc1,<2.5")


@dataclass(frozen=True)
class App:
    """A user's Hydra app: one folder with a config folder in it."""

    root: Path
    configs: str = "conf"
    entry: str = "config"

    def compose(self, *overrides: str) -> DictConfig:
        """What the app's main function would be given."""
        with initialize_config_dir(str(self.root / self.configs), version_base="1.3"):
            return compose(self.entry, list(overrides))


@dataclass(frozen=True)
class Environment:
    """A virtual environment; it sees the packages of the running one, but no lightning-optim of it."""

    root: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.root / "bin/python"

    @classmethod
    def make(cls, root: Path, *requirements: str) -> Environment:
        """A new one with `requirements`, none of their dependencies."""
        made = cls(root)
        run([sys.executable, "-m", "venv", "--without-pip", str(root)])
        purelib = made.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=root).stdout.strip()
        parent = root / "parent"
        parent.mkdir()
        for package in (path for site in SITES for path in site.iterdir() if not path.name.startswith(OURS)):
            (parent / package.name).symlink_to(package)
        # Of .pth files among the links, which editable installs hang on, Python takes no notice.
        Path(purelib, "parent.pth").write_text(str(parent), encoding="utf-8")
        made.install(*requirements)
        return made

    def install(self, *requirements: str) -> None:
        """Put them beside what the running environment has: the newcomers come first."""
        flags = ["--no-deps", "--no-build-isolation", "--ignore-installed", "--no-compile", "--quiet"]
        run([sys.executable, "-m", "pip", "--python", str(self.python), "install", *flags, *requirements])

    def run(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run its interpreter."""
        return run([str(self.python), *arguments], cwd=cwd)

    def ask(self, code: str, cwd: Path) -> Any:
        """Run `code`, and read the JSON in the last line of what it prints."""
        return last_line(self.run("-c", code, cwd=cwd))


def run(command: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command without this process's import path; a failure shows all it said."""
    environ = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        command, cwd=cwd, env={**environ, "HYDRA_FULL_ERROR": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done


def last_line(done: subprocess.CompletedProcess[str]) -> Any:
    """The JSON that a script printed last."""
    return json.loads(done.stdout.strip().splitlines()[-1])


def batches() -> DataLoader:
    """Eight points with a label each, in two batches."""
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=4)


def trainer(folder: Path, *callbacks: Callback, **options: Any) -> Trainer:
    """Lightning's, on the CPU, silent; it writes below `folder`."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "max_epochs": 1}
    return Trainer(accelerator="cpu", default_root_dir=folder, callbacks=[*callbacks], **{**quiet, **options})


def groups_of(optimizer: Optimizer) -> dict[str, float]:
    """The lr of each param group by name."""
    return {group["name"]: group["lr"] for group in optimizer.param_groups}
