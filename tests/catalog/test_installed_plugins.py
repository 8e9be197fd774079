"""Optimizers that other installed packages offer by entry point: found when asked for, harmless otherwise.

The packages here are real distributions: built as wheels and installed by pip, next to the environment of the tests.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # builds wheels; test_registration.py has the fast tests of entry points

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{module}"
version = "1.0"

[project.entry-points."lightning_optim.optimizers"]
{entries}

[tool.hatch.build.targets.wheel]
include = ["{module}.py"]
"""
GOOD = """
import torch

class Plain(torch.optim.SGD):
    "SGD under another name, with an argument of its own."

    def __init__(self, params, lr=0.1, plainness=0.5):
        super().__init__(params, lr=lr)
        self.plainness = plainness
"""
CHECKOUT = Path(__file__).parents[2]
BROKEN = "raise RuntimeError('this package does not work here')"


@pytest.fixture(scope="module")
def run_with_plugins(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Runs code where two distributions offer optimizers, one of which is broken; returns what its last line says."""
    folder = tmp_path_factory.mktemp("plugins")
    site, wheels = folder / "site", folder / "wheels"
    entries = 'broken = "broken_optimizers:Any"\n"Bad Name" = "broken_optimizers:Any"\nadamw = "broken_optimizers:Any"'
    _build(folder / "plain", wheels, "plain_optimizers", GOOD, 'plain = "plain_optimizers:Plain"')
    _build(folder / "broken", wheels, "broken_optimizers", BROKEN, entries)
    _run("pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), *map(str, wheels.iterdir()))

    def run(code: str) -> Any:
        path = f"import sys; sys.path[:0] = [{str(CHECKOUT)!r}, {str(site)!r}]\n"
        return json.loads(_run("-c", path + code).splitlines()[-1])

    return run


def _build(source: Path, wheels: Path, module: str, code: str, entries: str) -> None:
    source.mkdir()
    (source / "pyproject.toml").write_text(PROJECT.format(module=module, entries=entries), encoding="utf-8")
    (source / f"{module}.py").write_text(code, encoding="utf-8")
    _run("hatchling", "build", "-t", "wheel", "-d", str(wheels), cwd=source)


def _run(*arguments: str, cwd: Path | None = None) -> str:
    command = [sys.executable, *(() if arguments[0] == "-c" else ("-m",)), *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installed_plugin_costs_nothing_until_it_is_asked_for(run_with_plugins) -> None:
    found = run_with_plugins("""
import json, warnings
warnings.simplefilter("error")
import lightning_optim.optim
from lightning_optim import OptimizerFactory, optim
import torch
optim.AdamW([torch.zeros(1, requires_grad=True)]).state_dict()
OptimizerFactory("adamw", groups={"bias": {"kinds": ["bias"], "optimizer": "lion"}})(torch.nn.Linear(2, 1))
print(json.dumps([name for name in sys.modules if name in ("plain_optimizers", "broken_optimizers")]))
""")
    assert found == []


def test_a_plugin_is_found_by_name_and_a_broken_one_is_named(run_with_plugins) -> None:
    found = run_with_plugins("""
import json, warnings
from lightning_optim import (
    ConfigError, OptimizerFactory, StagedUnfreeze, list_optimizers, optimizer_info, register_optimizer
)
import torch

def error(call):
    try:
        return str(call())
    except ConfigError as error:
        return f"ConfigError: {error}"

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    names = list_optimizers()
print(json.dumps({
    "names": [name for name in ("plain", "broken", "Bad Name", "adamw") if name in names],
    "warnings": [str(warning.message) for warning in caught],
    "class": type(OptimizerFactory("plain", lr=0.5)(torch.nn.Linear(2, 1))).__name__,
    "adamw": optimizer_info("adamw").path,
    "misspelt": error(lambda: OptimizerFactory("plain", plainnes=1.0)),
    "of another": error(lambda: OptimizerFactory("adamw", plainness=1.0)),
    "unknown": error(lambda: OptimizerFactory("adamw", plaindrome=1.0)),
    "broken": error(lambda: OptimizerFactory("broken")),
    "registered by path": [error(make) for make in (
        lambda: register_optimizer("late", "plain_optimizers:Plain"),
        lambda: register_optimizer("gone", "broken_optimizers:Any"),
        lambda: OptimizerFactory("adamw", weigth_decay=0.1),
        lambda: OptimizerFactory("adamw", groups={"head": {"params": "head", "weigth_decay": 0.1}}),
        lambda: StagedUnfreeze({"head": {"params": "head", "weigth_decay": 0.1}}),
    )],
}))
""")
    assert found["names"] == ["plain", "broken", "adamw"]
    assert len(found["warnings"]) == 2
    assert all("broken_optimizers:Any" in warning for warning in found["warnings"])
    assert found["class"] == "Plain" and found["adamw"] == "torch.optim:AdamW"
    assert found["misspelt"].startswith("ConfigError: plainnes: ") and "plainness" in found["misspelt"]
    assert "plainness belongs to plain" in found["of another"]
    assert found["unknown"].startswith("ConfigError: plaindrome: ")
    assert found["broken"].startswith("ConfigError: name: broken was registered as broken_optimizers:Any")
    assert "RuntimeError: this package does not work here" in found["broken"]
    done, again, *misspelt = found["registered by path"]
    assert done == again == "None"
    keys = ("weigth_decay", "groups.head.weigth_decay", "stages.head.weigth_decay")
    for key, error in zip(keys, misspelt, strict=True):
        assert error.startswith(f"ConfigError: {key}: ") and "Did you mean 'weight_decay'?" in error
