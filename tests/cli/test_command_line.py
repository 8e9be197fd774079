"""The program itself: its version, running it as a module, and what each command imports."""

from __future__ import annotations

import importlib.metadata
import json
import runpy
import sys
from pathlib import Path

import pytest

import lightning_optim
from lightning_optim.cli import main
from tests.support.checkpoints import save, state_dict
from tests.support.report_runs import write_events


@pytest.fixture
def unread_version(monkeypatch) -> None:
    """The package before anything has asked for its version."""
    monkeypatch.delitem(vars(lightning_optim), "__version__", raising=False)


def test_version_is_printed(capsys) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["--version"])
    assert exit_info.value.code == 0
    assert capsys.readouterr().out == f"lightning-optim {lightning_optim.__version__}\n"


@pytest.mark.usefixtures("unread_version")
def test_version_is_that_of_the_installed_package(monkeypatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: {"lightning-optim": "1.2.3"}[name])
    assert lightning_optim.__version__ == "1.2.3"


@pytest.mark.usefixtures("unread_version")
def test_version_of_a_checkout_that_is_not_installed_is_unknown(monkeypatch) -> None:
    def fail(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", fail)
    assert lightning_optim.__version__ == "0+unknown"


def test_it_runs_as_a_module(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["lightning-optim", "list", "lion"])
    monkeypatch.delitem(sys.modules, "lightning_optim.cli.__main__", raising=False)  # runpy warns if it is imported
    with pytest.raises(SystemExit) as exit_info:
        runpy.run_module("lightning_optim.cli", run_name="__main__", alter_sys=True)
    assert exit_info.value.code == 0
    assert " lion " in capsys.readouterr().out


# Prints, after `import lightning_optim` and after each command, which of these modules are loaded.
LOADED_AFTER_EACH_COMMAND = """
import json
import sys
import lightning_optim

def print_loaded(after):
    names = ("importlib.metadata", "torch", "lightning", "hydra", "omegaconf", "matplotlib")
    print("loaded:", json.dumps([after, [name for name in names if name in sys.modules]]))

print_loaded("import")
from lightning_optim.cli import main

checkpoint, config_dir, run = sys.argv[1:]
for arguments in (
    ["list"],
    ["show", "adamw"],
    ["list", "--kind", "scheduler", "--json"],
    ["show", "gradual", "--json"],
    ["report", run],
    ["inspect", checkpoint],
    ["explain", "--config-dir", config_dir, "--config-name", "train", "--module", "model"],
):
    assert main(arguments) == 0
    print_loaded(arguments[0])
"""


@pytest.mark.slow
def test_each_command_imports_only_what_it_needs(run_python, tmp_path: Path) -> None:
    model = "{_target_: torch.nn.Linear, in_features: 3, out_features: 2}"
    adamw = "{_target_: lightning_optim.OptimizerFactory, name: adamw}"
    (tmp_path / "train.yaml").write_text(f"{{model: {model}, optimizer: {adamw}}}", encoding="utf-8")
    run = tmp_path / "run"
    write_events(run, {"optim/lr/head": [(0, 0.1)]})
    out = run_python(LOADED_AFTER_EACH_COMMAND, str(save(tmp_path, state_dict())), str(tmp_path), str(run))
    lines = [line.removeprefix("loaded: ") for line in out.splitlines() if line.startswith("loaded: ")]
    assert list(map(json.loads, lines)) == [
        ["import", []],
        ["list", ["importlib.metadata"]],
        ["show", ["importlib.metadata"]],
        ["list", ["importlib.metadata"]],
        ["show", ["importlib.metadata"]],
        ["report", ["importlib.metadata"]],
        ["inspect", ["importlib.metadata", "torch"]],
        ["explain", ["importlib.metadata", "torch", "hydra", "omegaconf"]],
    ]
    assert "Param groups" in out
