"""Every example in the documentation runs: docstrings, and the Python, configs and commands of the README."""

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
from hydra.errors import InstantiationException
from hydra.utils import instantiate

import lightning_optim
from lightning_optim import ConfigError
from recipes.finetune import FINETUNE, build_module, explain

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODULES = [
    module.name
    for module in pkgutil.walk_packages(lightning_optim.__path__, "lightning_optim.")
    if "_hydra." not in module.name
]


def find_blocks(language: str) -> list[str]:
    """The README's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


class ExampleFinder(doctest.DocTestFinder):
    """Finds a class in the file that defines it: the `__module__` of public classes is `lightning_optim`."""

    def _from_module(self, module: Any, object: Any) -> bool:
        if inspect.isclass(object):
            return re.search(rf"^class {object.__name__}\b", inspect.getsource(module), re.MULTILINE) is not None
        return super()._from_module(module, object)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name) -> None:
    import lightning.pytorch

    public = {public_name: getattr(lightning_optim, public_name) for public_name in lightning_optim.__all__}
    names = {**public, "LightningModule": lightning.pytorch.LightningModule}
    for test in ExampleFinder().find(importlib.import_module(name), extraglobs=names):
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
        runner.run(test)
        assert not runner.failures, test.name


def test_every_public_name_has_an_example() -> None:
    for name in lightning_optim.__all__:
        public = getattr(lightning_optim, name)
        assert ">>>" in (public.__doc__ or "") or name == "ConfigError", name


@pytest.mark.parametrize("block", find_blocks("python"), ids=lambda block: block.splitlines()[0])
def test_python_in_the_readme(block) -> None:
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("block", find_blocks("yaml"), ids=lambda block: block.splitlines()[0])
def test_configs_in_the_readme(block, tmp_path) -> None:
    (tmp_path / "config.yaml").write_text(block, encoding="utf-8")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        config = compose("config")
    assert [instantiate(node) for node in config.values() if "_target_" in node]


def test_first_two_commands_are_one_line_each() -> None:
    first, second = find_blocks("bash")[:2]
    for command in (first, second):
        assert command.count("\n") == 1
        assert "-c constraints.txt" in command
    assert "recipes.finetune" in first and "pytest" in second


@pytest.mark.parametrize("command", re.findall(r"^python -m recipes.finetune (.+)$", README, re.MULTILINE))
def test_commands_under_next(command) -> None:
    with initialize_config_dir(str(ROOT / "recipes" / "conf"), version_base="1.3"):
        config = compose("finetune", shlex.split(command, comments=True))
    explain(config)
    module = build_module(config, FINETUNE)
    optimizer = module.hparams["optimizer"](module)
    assert module.hparams["scheduler"](optimizer, 300).optimizer is optimizer


def test_printed_tables_are_the_real_ones(capsys: Any) -> None:
    with initialize_config_dir(str(ROOT / "recipes" / "conf"), version_base="1.3"):
        explain(compose("finetune"))
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert "\n".join(printed).strip() == find_blocks("text")[0].strip()


@pytest.mark.parametrize(
    ("typed", "quoted"), re.findall(r"^\| (.*`.+`.*?) +\| `(\S+: .+?)` +\|$", README, re.MULTILINE)
)
def test_error_messages_in_the_readme(typed, quoted) -> None:
    override = "+optimizer.momentum=0.9" if "leftover" in typed else typed.strip("`'")
    with initialize_config_dir(str(ROOT / "recipes" / "conf"), version_base="1.3"):
        config = compose("finetune", [override])
    with pytest.raises((ConfigError, InstantiationException)) as caught:
        explain(config)
    message = str(caught.value.__cause__ or caught.value)
    parts = [part for part in re.split(r" ?\.\.\. ?", quoted) if part]
    positions = [message.find(part) for part in parts]
    assert positions[0] == 0 and -1 not in positions and positions == sorted(positions), message


def test_version_is_the_same_in_every_file() -> None:
    patterns = {
        "pyproject.toml": r'^version = "(.+)"$',
        "CITATION.cff": r"^version: (.+)$",
        "CHANGELOG.md": r"^## \[(\d.+)\] - \d{4}-\d\d-\d\d$",
    }
    texts = {file: (ROOT / file).read_text(encoding="utf-8") for file in patterns}
    versions = {file: re.search(pattern, texts[file], re.MULTILINE).group(1) for file, pattern in patterns.items()}
    assert len(set(versions.values())) == 1, versions


def test_every_test_that_holds_a_promise_exists() -> None:
    table = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    rows = [
        line for line in table.splitlines() if line.startswith("| ") and "---" not in line and "held by" not in line
    ]
    assert len(rows) > 100
    security = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    rows += [line for line in security.splitlines() if re.match(r"\| (?!promise|---)", line)]
    for row in rows:
        assert re.search(r"`(tests/|python )", row), f"nothing holds: {row}"
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", table + security):
        text = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"^ *def {name}\(", text, re.MULTILINE), f"{path}::{name}"
