"""Every command of the documentation, and how the tests see to it that it works as it is typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.documentation import BLOCKS, PAGES, find_files, split_commands

PROGRAMS = (
    "python", "pip", "lightning-optim", "tensorboard", "torchrun", "pytest", "mkdocs", "ruff", "mypy", "lint-imports",
    "pre-commit",
)  # fmt: skip
"""What a command in the prose begins with, or an environment variable before it."""


@dataclass(frozen=True)
class Command:
    """A command, as a page has it."""

    page: str
    words: tuple[str, ...]
    language: str
    """Of its block of code, or nothing in the prose."""

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"

    @property
    def module(self) -> str:
        """What `python -m` runs, if it is ours."""
        words = self.words
        return words[2] if words[:2] == ("python", "-m") and words[2] != "pytest" else ""


def _find_commands() -> list[Command]:
    found = [
        Command(block.page, tuple(words), block.language)
        for block in BLOCKS
        if block.language in ("bash", "shell")
        for words in split_commands(block)
        if words
    ]
    for page, text in PAGES.items():
        prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose):
            for part in re.split(r"\s&&\s", code):
                words = part.split()
                starts = words and (words[0] in PROGRAMS or re.match(r"[A-Z][A-Z_0-9]+=", words[0]))
                if starts and (len(words) > 2 or words[0] == "python"):  # less is the name of a command
                    found.append(Command(page, tuple(shlex.split(part)), ""))
    return found


COMMANDS = _find_commands()
"""In the order of the pages."""

WITH_TESTS_OF_THEIR_OWN = {
    "docs/template.md": "tests/hydra/test_template_page.py",
    "docs/scaling_out.md": "tests/hydra/test_scaling_out_page.py",
}
OWN_FILES = [page for page in PAGES if find_files(page) and page not in WITH_TESTS_OF_THEIR_OWN]
"""Pages that have the reader write files."""

# How the commands of a module are tested: by its name, without the `python -m`.

_FEW_DIGITS = "trainer.max_epochs=2 pretrain.max_epochs=1 task.labels_per_class=3 task.pretrain_batch_size=500"
SHORTENED = {
    "recipes.agreement": "transformers --every 300",
    "recipes.arms": f"{_FEW_DIGITS} trainer.max_epochs=1 --seeds 2",
    "recipes.blocks": "--epochs 2",
    "recipes.curves": "--steps 3",
    "recipes.finetune": _FEW_DIGITS,
    "recipes.matrices": "adamw --steps 1 --seeds 1",
    "tests.reliability.fuzz": "--count 20",
    "tests.reliability.fuzz_checkpoints": "--count 4",
    "tests.reliability.guards": "--list",
    "tests.reliability.scoreboard": "--only F14 --cells adamw",
    "tests.reliability.seeded_bugs": "--list",
    "tests.reliability.write_golden": "",
}
"""It runs, in a folder of its own, with these arguments added."""
MADE_UP = {"recipes.study"}
"""It runs as it is typed, with made-up results in place of those of the trainings."""
GENERATORS = {"lightning_optim._hydra.generate", "tests.support.catalog_tables", "tests.support.reference_bugs_table"}
"""It runs as it is typed, and is kept from writing its files, which must not change."""
PARSED = {
    "recipes.benchmark": "recipes.benchmark",
    "recipes.compatibility": "recipes.compatibility.__main__",
    "recipes.strategies": "recipes.strategies.__main__",
    "tests.mutants": "tests.mutants",
}
"""Its arguments are read and checked only, by `_options` of that module: the least that it does takes too long."""

ELSEWHERE = {
    "python -m recipes.finetune task=text": "tests/recipes/test_texts.py",
    "python -m recipes.finetune trainer.devices=2 trainer.strategy=ddp trainer.accelerator=cpu": (
        "tests/recipes/test_finetune.py"
    ),
}
"""A test in this file runs it, with arguments that make it short."""
OTHER_TOOLS = {"ruff format .", "ruff check .", "mypy", "lint-imports", "mkdocs serve"}
NOT_RUN = {"docs/scaling_out.md": "shell"}
"""The language of the one block that the page itself says no test runs: it needs a cluster."""


def _is_pytest(command: Command) -> bool:
    return command.words[0] == "pytest" or command.words[:3] == ("python", "-m", "pytest")


def _runs_cli(command: Command) -> bool:
    """Whole commands, and in the prose those of `list` and `show`, whose argument is a name."""
    words = command.words
    whole = command.language == "bash" or words[1] in ("list", "show", "report")
    return words[0] == "lightning-optim" and whole and command.page not in OWN_FILES


KINDS: dict[str, Callable[[Command], bool]] = {
    "on a page with files": lambda c: c.page in OWN_FILES and c.language == "bash",
    "on a page with a test of its own": lambda c: (
        c.page in WITH_TESTS_OF_THEIR_OWN and c.language == "bash" and c.words[0] != "pip"
    ),
    "not run": lambda c: NOT_RUN.get(c.page) == c.language,
    "cli": _runs_cli,
    "part of a cli command": lambda c: c.words[0] == "lightning-optim" and not c.language and not _runs_cli(c),
    "shortened": lambda c: c.module in SHORTENED and shlex.join(c.words) not in ELSEWHERE,
    "elsewhere": lambda c: shlex.join(c.words) in ELSEWHERE,
    "made up": lambda c: c.module in MADE_UP,
    "generator": lambda c: c.module in GENERATORS,
    "parsed": lambda c: c.module in PARSED,
    "pytest": _is_pytest,
    "pip": lambda c: c.words[:2] == ("pip", "install") and c.page not in OWN_FILES,
    "TensorBoard": lambda c: c.words[:2] == ("tensorboard", "--logdir") and c.page not in OWN_FILES,
    "another tool": lambda c: shlex.join(c.words) in OTHER_TOOLS,
}
"""By kind: whether a command is of it."""


def find_commands(kind: str) -> list[Command]:
    """The commands of a kind, each once, in the order of the pages."""
    return list({command.words: command for command in COMMANDS if KINDS[kind](command)}.values())
