"""The folder of compiled kernels: private, complete files only, and checked before they are loaded."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lightning_optim import ConfigError, optim
from lightning_optim.optim.fused import compiler
from lightning_optim.optim.fused.compiler import CompileError, cache_folder, load_function

SOURCE = "int answer(void) { return 42; }"


@pytest.fixture
def folder(tmp_path, monkeypatch, forget_loaded):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "lightning_optim" / "kernels"


def load_again():
    load_function.cache_clear()
    return load_function(SOURCE, "answer")()


def libraries(folder):
    return sorted(folder.iterdir())


def test_a_kernel_is_compiled_once_and_announced_once(folder, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "lightning_optim")
    assert load_again() == 42
    assert [record.levelname for record in caplog.records] == ["INFO"]
    monkeypatch.setattr(compiler, "_compile", None)  # a second compilation would fail
    assert load_again() == 42
    assert len(caplog.records) == 1
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "damage", [lambda content: content[:1000], lambda content: b"", lambda content: content + b"x"]
)
def test_a_damaged_file_is_compiled_again(folder, damage, caplog):
    load_again()
    (path,) = libraries(folder)
    damaged = damage(path.read_bytes())
    path.unlink()  # not written in place: this process has it loaded
    path.write_bytes(damaged)
    assert load_again() == 42
    assert [p.read_bytes() != damaged for p in libraries(folder)] == [True]
    assert "damaged" in caplog.text


def test_another_source_another_compiler_and_another_cpu_have_files_of_their_own(folder, monkeypatch):
    load_again()
    load_function(SOURCE.replace("42", "43"), "answer")
    monkeypatch.setattr(compiler, "_cpu", lambda: "another one")
    load_again()
    monkeypatch.setattr(compiler, "_version", lambda path: "another one")
    load_again()
    assert len(libraries(folder)) == 4


def test_a_folder_that_others_may_enter_is_refused(folder):
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    with pytest.raises(CompileError, match="open to other users. Type chmod 700"):
        cache_folder()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(CompileError, match="Set XDG_CACHE_HOME"):
        cache_folder()


def test_a_file_that_another_process_removes_is_compiled_again(folder, monkeypatch):
    load_again()
    read_bytes, calls = Path.read_bytes, []

    def read(path):
        calls.append(path)
        if len(calls) == 1:
            raise FileNotFoundError(path)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    assert load_again() == 42


def test_a_compiler_that_does_not_run_is_refused(folder, tmp_path, monkeypatch):
    script = tmp_path / "compiler"
    script.write_bytes(b"no program")
    script.chmod(0o700)
    monkeypatch.setenv("CC", str(script))
    with pytest.raises(CompileError, match="does not run"):
        load_again()


def test_a_failing_compiler_is_quoted(folder):
    with pytest.raises(CompileError, match="error"):
        load_function("not C", "answer")
    assert not libraries(folder)


def test_without_a_compiler_fused_is_refused_and_null_takes_the_loop(folder, monkeypatch, caplog):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    caplog.set_level(logging.INFO, "lightning_optim")
    param = torch.nn.Parameter(torch.ones(1 << 20))
    with pytest.raises(ConfigError, match=r"fused: there is no C compiler\. Install gcc or clang"):
        optim.AdamW([param], fused=True)
    optimizer = optim.AdamW([param])
    for _ in range(3):
        param.grad = torch.ones_like(param)
        optimizer.step()
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["no fused kernel"]


def test_a_kill_during_a_compilation_leaves_no_broken_kernel(folder, tmp_path):
    """The compiler has written half of a library when the process is killed."""
    half = tmp_path / "cc"
    half.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exec cc --version\nwhile [ "$1" != -o ]; do shift; done\n'
        f'echo half > "$2"; touch {tmp_path}/writing; exec sleep 60\n'
    )
    half.chmod(0o755)
    code = f"from lightning_optim.optim.fused.compiler import load_function; load_function({SOURCE!r}, 'answer')"
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "CC": str(half)}, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "writing").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert load_again() == 42
    assert [path.suffix for path in folder.glob("*.so")] == [".so"]
