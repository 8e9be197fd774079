"""The benchmark's arm `imports`: each case does what its name says."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from recipes import benchmark
from recipes.benchmarks.imports import IMPORT, IMPORTS, PYTHON, SCAN, SCAN_WITH_US

CASES = {case.name: case for case in IMPORTS.make_cases(torch.device("cpu"))}


@pytest.fixture(autouse=True)
def plugin_modules(monkeypatch):
    """Put back afterwards the plugin modules that the cases unload."""
    for name in [name for name in sys.modules if name.startswith("hydra_plugins")]:
        monkeypatch.setitem(sys.modules, name, sys.modules[name])
    monkeypatch.setitem(sys.modules, "hydra_plugins", sys.modules.get("hydra_plugins"))


def scan(name):
    CASES[name].prepare()
    plugins = CASES[name].run()
    assert plugins is not Plugins.instance(), "a new scan"
    return [plugin.__name__ for plugin in plugins.discover(SearchPathPlugin)]


def test_the_scans_differ_by_our_plugin_in_any_order():
    if scan(SCAN_WITH_US) == []:
        pytest.skip("lightning-optim is not installed: Hydra finds no plugin of it")
    for _ in range(2):
        assert scan(SCAN) == []
        assert scan(SCAN_WITH_US) == ["LightningOptimSearchPath"]


def test_the_processes_differ_by_the_import(monkeypatch):
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, **options: commands.append(command))
    for case in IMPORTS.make_cases(torch.device("cpu")):
        if case.name in (PYTHON, IMPORT):
            case.run()
    assert [command[1:] for command in commands] == [["-c", "pass"], ["-c", "import lightning_optim"]]


def test_the_findings_are_differences_in_milliseconds():
    findings = benchmark.run(IMPORTS, torch.device("cpu"), 2).findings
    assert list(findings) == ["ms that `import lightning_optim` adds", "ms that lightning-optim adds to the scan"]
    assert all(-1e3 < value < 1e3 for value in findings.values())
