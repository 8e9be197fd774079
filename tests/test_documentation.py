"""Every example in the documentation runs: docstrings, and the README's Python and configs."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

import lightning_optim
from recipes.finetune import FINETUNE, explain, new_module

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODULES = [
    module.name
    for module in pkgutil.walk_packages(lightning_optim.__path__, "lightning_optim.")
    if "_hydra." not in module.name
]


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


class Finder(doctest.DocTestFinder):
    """Goes by where a class stands in the source: public ones say the package as their module."""

    def _from_module(self, module: Any, object: Any) -> bool:
        if inspect.isclass(object):
            return re.search(rf"^class {object.__name__}\b", inspect.getsource(module), re.MULTILINE) is not None
        return super()._from_module(module, object)


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name) -> None:
    import lightning.pytorch

    public = {each: getattr(lightning_optim, each) for each in lightning_optim.__all__}
    names = {**public, "LightningModule": lightning.pytorch.LightningModule}
    for test in Finder().find(importlib.import_module(name), extraglobs=names):
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
        runner.run(test)
        assert not runner.failures, test.name


def test_every_public_name_has_an_example() -> None:
    for name in lightning_optim.__all__:
        thing = getattr(lightning_optim, name)
        assert ">>>" in (thing.__doc__ or "") or name == "ConfigError", name


@pytest.mark.parametrize("block", _blocks("python"), ids=lambda block: block.splitlines()[0])
def test_python_in_the_readme(block) -> None:
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("block", _blocks("yaml"), ids=lambda block: block.splitlines()[0])
def test_configs_in_the_readme(block, tmp_path) -> None:
    (tmp_path / "config.yaml").write_text(block, encoding="utf-8")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        config = compose("config")
    made = [instantiate(node) for node in config.values() if "_target_" in node]
    assert made


def test_the_first_two_commands_are_one_line_each() -> None:
    first, second = _blocks("bash")[:2]
    for command in (first, second):
        assert command.count("\n") == 1
        assert "-c constraints.txt" in command
    assert "recipes.finetune" in first and "pytest" in second


@pytest.mark.parametrize("command", re.findall(r"^python -m recipes.finetune (.+)$", README, re.MULTILINE))
def test_commands_to_type_next(command) -> None:
    with initialize_config_dir(str(ROOT / "recipes" / "conf"), version_base="1.3"):
        config = compose("finetune", shlex.split(command, comments=True))
    explain(config)
    module = new_module(config, FINETUNE)
    optimizer = module.hparams["optimizer"](module)
    assert module.hparams["scheduler"](optimizer, 300).optimizer is optimizer


def test_the_printed_tables_are_the_real_ones(capsys: Any) -> None:
    with initialize_config_dir(str(ROOT / "recipes" / "conf"), version_base="1.3"):
        explain(compose("finetune"))
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert "\n".join(printed).strip() == _blocks("text")[0].strip()
