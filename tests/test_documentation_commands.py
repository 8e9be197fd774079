"""The commands in the documentation run as they are pasted."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_optim import OptimizerFactory
from lightning_optim.cli import main
from tests.support.cases import every
from tests.support.documentation import PAGES, ROOT, find_blocks, find_files, split_commands

pytestmark = pytest.mark.filterwarnings("default")  # what Lightning warns of in such short runs

WITH_TESTS_OF_THEIR_OWN = {
    "docs/template.md": "tests/hydra/test_template_page.py",
    "docs/scaling_out.md": "tests/hydra/test_scaling_out_page.py",
}
OWN_FILES = [page for page in PAGES if find_files(page) and page not in WITH_TESTS_OF_THEIR_OWN]
"""Pages that have the reader write files."""
COMMANDS = [
    (page, words) for page in PAGES for block in find_blocks("bash", page) for words in split_commands(block) if words
]
RECIPES = ("finetune", "study", "curves", "blocks", "arms", "agreement", "compatibility", "strategies", "benchmark")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    """Runs a command in this process, as a shell in the current folder would."""

    def run_command(words: list[str]) -> None:
        if words[0] == "lightning-optim":
            assert main(words[1:]) == 0
        elif words[0] == "python" and words[1].endswith(".py"):
            monkeypatch.setattr(sys, "argv", words[1:])
            runpy.run_path(words[1], run_name="__main__")
        else:
            assert words[:2] == ["pip", "install"] or words[0] == "tensorboard", words

    yield run_command
    for name in {Path(file).stem for page in OWN_FILES for file in find_files(page)}:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("page", every(OWN_FILES, fast=["docs/lightning_cli.md"]))
def test_a_page_with_files_works_in_an_empty_folder(page: str, tmp_path: Path, monkeypatch, run) -> None:
    for name, text in find_files(page).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for _, words in (command for command in COMMANDS if command[0] == page):
        run(words)


@pytest.mark.parametrize("words", [words for _, words in COMMANDS if words[:2] == ["lightning-optim", "explain"]][1:])
def test_explain_of_the_recipes(words: list[str], tmp_path: Path, monkeypatch, run) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    run(words)


def test_list_show_and_inspect(tmp_path: Path, monkeypatch, run) -> None:
    monkeypatch.chdir(tmp_path)
    net = nn.Linear(2, 2)
    for name in ("last.ckpt", "earlier.ckpt"):
        torch.save(
            {"state_dict": net.state_dict(), "optimizer_states": [OptimizerFactory("sgd")(net).state_dict()]}, name
        )
    chosen = [
        words
        for _, words in COMMANDS
        if words[:2] in (["lightning-optim", name] for name in ("list", "show", "inspect"))
    ]
    assert len(chosen) >= 5
    for words in chosen:
        run(words)


def test_every_command_is_one_that_a_test_runs() -> None:
    """Or it installs, opens TensorBoard, or starts what has tests of its own."""
    for page, words in COMMANDS:
        assert not [word for word in words if re.search(r"[<>]|\b[A-Z]{4,}\b|^\[-", word) and "=" not in word], (
            "placeholder"
        )
        words = [word for index, word in enumerate(words) if index or "=" not in word]  # VARIABLE=value
        first, second = words[0], words[1] if len(words) > 1 else ""
        if words[:2] == ["python", "-m"]:
            module, _, name = words[2].partition(".")
            assert words[2] == "pytest" or (module == "recipes" and name in RECIPES) or module == "tests", (page, words)
        elif first == "python":
            assert page in OWN_FILES or (ROOT / WITH_TESTS_OF_THEIR_OWN[page]).exists(), (page, words)
        else:
            known = {"pip": ["install"], "tensorboard": ["--logdir"], "torchrun": ["--nproc-per-node"]}
            known["lightning-optim"] = ["explain", "list", "show", "inspect", "report"]
            assert second in known[first], (page, words)


@pytest.mark.parametrize("page", PAGES)
def test_test_files_in_commands_exist(page: str) -> None:
    for _, words in (command for command in COMMANDS if command[0] == page):
        for word in words:
            assert not word.startswith("tests/") or list(ROOT.glob(word)), word
