"""The commands in the documentation run as they are pasted."""

from __future__ import annotations

import math
import re
import runpy
import shlex
import sys
import warnings
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory
from lightning_optim.cli import main
from recipes.studies.design import OPTIMIZERS, find_arms
from recipes.studies.records import Measured, Run
from recipes.studies.results import Results
from tests.reliability import golden
from tests.support.documentation import PAGES, ROOT, find_files
from tests.support.documented_commands import (
    COMMANDS,
    ELSEWHERE,
    GENERATORS,
    KINDS,
    MADE_UP,
    OWN_FILES,
    PARSED,
    SHORTENED,
    WITH_TESTS_OF_THEIR_OWN,
    Command,
    find_commands,
)
from tests.support.forks import can_fork, run_forked

pytestmark = pytest.mark.filterwarnings("default")  # what Lightning warns of in such short runs

CLI = find_commands("cli")


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


def test_every_command_is_of_one_kind() -> None:
    """A new one needs a test: its kind, in `tests/support/documented_commands.py`, says how it is tested."""
    kinds = {str(command): [kind for kind, has in KINDS.items() if has(command)] for command in COMMANDS}
    assert {command: of for command, of in kinds.items() if len(of) != 1} == {}
    assert set(KINDS) == {kind for of in kinds.values() for kind in of}
    modules = {command.module for command in COMMANDS}
    assert [module for module in (*SHORTENED, *MADE_UP, *GENERATORS, *PARSED) if module not in modules] == []
    assert len(find_commands("elsewhere")) == len(ELSEWHERE)


def test_no_block_has_a_placeholder() -> None:
    for command in COMMANDS:
        for word in command.words if command.language else ():
            assert not re.search(r"[<>]|\b[A-Z]{4,}\b|^\[-", word) or "=" in word, command


# Commands that take files of the page, or none


@pytest.mark.slow
@pytest.mark.parametrize("page", OWN_FILES)
def test_a_page_with_files_works_in_an_empty_folder(page: str, tmp_path: Path, monkeypatch, run) -> None:
    for name, text in find_files(page).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for command in find_commands("on a page with files"):
        if command.page == page:
            run(list(command.words))


def test_the_typo_of_the_quickstart_ends_as_it_says(tmp_path: Path, monkeypatch, run) -> None:
    ((override, message),) = re.findall(r"`'(.+?)'` ends in\s+`(.+?)`", PAGES["docs/quickstart.md"])
    for name, text in find_files("docs/quickstart.md").items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ConfigError, match=re.escape(message)):
        run(["python", "train.py", override])


@pytest.mark.parametrize("command", [command for command in CLI if command.words[1] == "explain"], ids=str)
def test_explain_of_the_recipes(command: Command, tmp_path: Path, monkeypatch, run) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    run(list(command.words))


def test_list_show_and_inspect(tmp_path: Path, monkeypatch, run) -> None:
    monkeypatch.chdir(tmp_path)
    net = nn.Linear(2, 2)
    for name in ("last.ckpt", "earlier.ckpt"):
        torch.save(
            {"state_dict": net.state_dict(), "optimizer_states": [OptimizerFactory("sgd")(net).state_dict()]}, name
        )
    chosen = [command.words for command in CLI if command.words[1] in ("list", "show", "inspect")]
    assert len(chosen) >= 8
    for words in chosen:
        run(["adamw" if word == "NAME" else word for word in words])


# Modules


@pytest.mark.slow
@pytest.mark.skipif(not can_fork(), reason="a process that sees a GPU cannot fork")
@pytest.mark.parametrize("module", SHORTENED)
def test_the_commands_of_a_module_in_short(module: str, tmp_path: Path, monkeypatch, run) -> None:
    """In their order, as one may read what another has written; then those that look at what they have written."""
    import_module(module)  # once, not in each fork
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(golden, "GOLDEN", tmp_path / "golden")
    commands = [command.words for command in find_commands("shortened") if command.module == module]
    for words in commands:
        if not any(words == others[: len(words)] for others in commands if others != words):  # that one says no more
            run_module(tmp_path, *words[2:], *shlex.split(SHORTENED[module]))
    for command in (*find_commands("TensorBoard"), *(command for command in CLI if command.words[1] == "report")):
        if reads_of(command) == module:
            assert Path(command.words[2]).is_dir(), command
            run(list(command.words))


def reads_of(command: Command) -> str:
    """The module that writes the folder which a command reads."""
    return f"recipes.{Path(command.words[2]).parts[1]}"


def run_module(folder: Path, module: str, *arguments: str) -> None:
    def work() -> None:
        sys.argv = [module, *arguments]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            if stop.code:
                raise

    log = folder / "log"
    status = run_forked(work, log, timeout_s=200)
    assert status == 0, f"python -m {module} {shlex.join(arguments)}\n{log.read_text() if log.exists() else status}"


@pytest.mark.parametrize("command", find_commands("generator"), ids=str)
def test_a_generator_changes_no_file(command: Command, monkeypatch) -> None:
    written = {}
    monkeypatch.setattr(Path, "write_text", lambda file, text, **_: written.update({file: text}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the module has been imported already
        runpy.run_module(command.module, run_name="__main__")
    assert [str(file) for file, text in written.items() if file.read_text(encoding="utf-8") != text] == []
    assert written


@pytest.mark.parametrize("command", find_commands("parsed"), ids=str)
def test_the_arguments_of_a_long_command_are_right(command: Command, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    import_module(PARSED[command.module])._options(command.words[3:])


@pytest.mark.slow
@pytest.mark.parametrize("command", find_commands("made up"), ids=str)
def test_the_study_runs_as_it_is_typed(command: Command, tmp_path: Path, monkeypatch, capsys) -> None:
    """With accuracies that depend on the lr only, in place of hours of training."""

    def accuracy_of(run: Run) -> Measured:
        (lr,) = (float(part.partition("=")[2]) for part in run.overrides if part.startswith("optimizer.lr="))
        return Measured(1 - abs(math.log10(lr / 0.01)) / 10 + len(run.overrides) / 1e4, 1.0, 1.0, 1.0)

    monkeypatch.setattr(Results, "_carry_out", lambda self, runs: ((run, accuracy_of(run)) for run in runs))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    import_module(command.module).main(command.words[3:])
    assert capsys.readouterr().out.count("; chosen 0.01\n") == len(OPTIMIZERS) * len(find_arms(command.words[3]))
    assert [len(list(tmp_path.glob(name))) for name in ("runs/study/*.jsonl", "docs/*.png")] == [
        1,
        command.words.count("--plot"),
    ]


@pytest.mark.parametrize("command", find_commands("elsewhere"), ids=str)
def test_a_command_that_another_test_runs_is_in_its_file(command: Command) -> None:
    source = (ROOT / ELSEWHERE[shlex.join(command.words)]).read_text(encoding="utf-8")
    assert [word for word in command.words[2:] if f'"{word}"' not in source] == []


# Parts of commands, and other programs


@pytest.mark.parametrize("command", find_commands("part of a cli command"), ids=str)
def test_a_part_of_a_command_has_options_that_exist(command: Command, capsys) -> None:
    with pytest.raises(SystemExit):
        main([command.words[1], "--help"])
    options = [word for word in command.words[2:] if word.startswith("-")]
    assert options and [option for option in options if f"{option} " not in capsys.readouterr().out] == []


def test_folders_that_commands_read_are_written_by_others() -> None:
    reading = [*find_commands("TensorBoard"), *(command for command in CLI if command.words[1] == "report")]
    assert [str(command) for command in reading if reads_of(command) not in SHORTENED] == []


def test_what_pip_installs_is_in_pyproject() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for command in find_commands("pip"):
        for extra in re.findall(r"(?<=[\[,])[\w-]+(?=[\],])", " ".join(command.words)):
            assert re.search(rf"^{extra} = \[", pyproject, re.MULTILINE), command
        if "-c" in command.words:
            assert (ROOT / command.words[command.words.index("-c") + 1]).exists(), command


@pytest.mark.parametrize("command", find_commands("pytest"), ids=str)
def test_what_pytest_is_given_exists(command: Command, pytestconfig) -> None:
    markers = {line.partition(":")[0] for line in pytestconfig.getini("markers")} | {"not", "and", "or"}
    words = command.words[3:]
    for word, before in zip(words, ("", *words), strict=False):
        if before == "-m":
            assert set(word.split()) <= markers
        elif before not in ("-n", "--dist") and word not in ("-m", "-n", "--dist", "-q", "TEST"):
            assert word.startswith("tests/") and list(ROOT.glob(word)), word


@pytest.mark.parametrize("page", WITH_TESTS_OF_THEIR_OWN)
def test_a_test_of_a_page_names_it(page: str) -> None:
    assert f'PAGE = "{page}"' in (ROOT / WITH_TESTS_OF_THEIR_OWN[page]).read_text(encoding="utf-8")
