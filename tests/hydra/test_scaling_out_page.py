"""The commands of docs/scaling_out.md, as they stand, in processes of their own: one page, two gloo ranks."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.documentation import ROOT, find_blocks, find_files, split_commands
from tests.support.processes import run_script

pytestmark = pytest.mark.slow

PAGE = "docs/scaling_out.md"
COMMANDS = [words for block in find_blocks("bash", PAGE) for words in split_commands(block) if words[0] != "pip"]


def run(words: list[str], folder: Path) -> str:
    if words[0] == "python":  # in a fork: a new interpreter imports torch and Lightning for seconds
        _, out, err = run_script(folder / words[1], *words[2:], cwd=folder, timeout_s=200)
        return out + err
    command = [sys.executable, "-m", "torch.distributed.run", *words[1:]]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scaling")
    for name, text in find_files(PAGE).items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def steps(folder: Path) -> list[str]:
    """The files that `folder` got since, by the name that has the number of steps."""
    return sorted(path.name.removesuffix(".ckpt").partition("step=")[2] for path in folder.rglob("*.ckpt"))


def test_commands_without_a_launcher(folder: Path) -> None:
    """In their order: one resumes from what the one before it has saved."""
    for words in COMMANDS:
        if not any(word.startswith("hydra/launcher") for word in words):
            output = run(words, folder)
            assert "`max_epochs=" in output
            assert ("2 processes" in output) == ("trainer.devices=2" in words or "fsdp2" in words), words
    two_ranks, one_rank, resumed = "48", "96", "144"
    assert steps(folder / "runs") == [two_ranks, two_ranks]
    assert steps(folder / "outputs") == [resumed, two_ranks]
    assert steps(folder / "multirun") == [one_rank, one_rank]


@pytest.mark.parametrize("launcher", ["joblib", "submitit"])
def test_commands_with_a_launcher(launcher: str, folder: Path) -> None:
    if find_spec("hydra_plugins") is None or find_spec(f"hydra_plugins.hydra_{launcher}_launcher") is None:
        pytest.skip("needs the extra launchers")
    for words in COMMANDS:
        if any(word.startswith(f"hydra/launcher={launcher}") for word in words):
            before = len(steps(folder))
            output = run(words, folder)
            if "--cfg" in words:
                assert "SlurmLauncher" in output and "tasks_per_node: 4" in output
            else:
                assert steps(folder)[before:] and len(steps(folder)) == before + 2
