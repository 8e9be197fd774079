"""Fresh virtual environments in which lightning-optim is installed as users install it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# The folders in which the packages we depend on are installed, and the names of ours in them.
SITES = {Path(find_spec(name).origin).parents[1] for name in ("torch", "lightning", "hydra", "hatchling")}
OURS = ("lightning_optim", "hydra_plugins")

HYDRAS = {"": (), "1.3.2": ("hydra-core==1.3.2",), "1.4": ("hydra-core==1.4.0rc3", "omegaconf>=2.4.1rc1,<2.5")}
"""What to install for a version of Hydra; the empty one is that of the running environment."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment that sees the packages of the running one, except lightning-optim."""

    root: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.root / "bin/python"

    @classmethod
    def create(cls, root: Path) -> Environment:
        """A new environment."""
        environment = cls(root)
        run([sys.executable, "-m", "venv", "--without-pip", str(root)])
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        purelib = environment.run("-c", code, cwd=root).stdout.strip()
        parent = root / "parent"
        parent.mkdir()
        for package in (path for site in SITES for path in site.iterdir() if not path.name.startswith(OURS)):
            (parent / package.name).symlink_to(package)
        # Python ignores .pth files in `parent`, so the editable installs of the running environment are not seen.
        Path(purelib, "parent.pth").write_text(str(parent), encoding="utf-8")
        return environment

    def install(self, *requirements: str) -> None:
        """Install requirements, which take precedence over the packages of the running environment."""
        flags = ["--no-deps", "--no-build-isolation", "--ignore-installed", "--no-compile", "--quiet"]
        run([sys.executable, "-m", "pip", "--python", str(self.python), "install", *flags, *requirements])

    def run(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run its interpreter."""
        return run([str(self.python), *arguments], cwd=cwd)

    def evaluate(self, code: str, cwd: Path) -> Any:
        """Run `code`, and parse the last line that it prints as JSON."""
        return parse_last_line(self.run("-c", code, cwd=cwd))


def run(command: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command without this process's import path; a failure shows all its output."""
    environ = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    completed = subprocess.run(
        command, cwd=cwd, env={**environ, "HYDRA_FULL_ERROR": "1"}, capture_output=True, text=True, timeout=300
    )
    assert completed.returncode == 0, f"{' '.join(command)}\n{completed.stdout}\n{completed.stderr}"
    return completed


def parse_last_line(completed: subprocess.CompletedProcess[str]) -> Any:
    """The JSON in the last line that a command printed."""
    return json.loads(completed.stdout.strip().splitlines()[-1])
