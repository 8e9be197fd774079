"""Commands in processes of their own; when one fails, the end of its output is shown."""

from __future__ import annotations

import logging
import os
import runpy
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from hydra.core.global_hydra import GlobalHydra

from tests.support.forks import can_fork, run_forked

ROOT = Path(__file__).parents[2]


def run_module(name: str, *arguments: object, timeout_s: int = 300, may_fail: bool = False) -> tuple[int, str, str]:
    """`(exit status, stdout, stderr)` of `python -m NAME ARGUMENTS`, in the repository, in a fork if it can be."""

    def work() -> None:
        runpy.run_module(name, run_name="__main__", alter_sys=True)

    return _run(["-m", name, *map(str, arguments)], [name, *map(str, arguments)], work, ROOT, timeout_s, may_fail)


def run_script(path: Path, *arguments: str, cwd: Path, timeout_s: int = 300) -> tuple[int, str, str]:
    """`(exit status, stdout, stderr)` of `python PATH ARGUMENTS`, in a folder, in a fork if it can be."""

    def work() -> None:
        sys.path.insert(0, str(path.parent))
        runpy.run_path(str(path), run_name="__main__")

    return _run([str(path), *arguments], [str(path), *arguments], work, cwd, timeout_s, may_fail=False)


def _run(
    command: Sequence[str], argv: list[str], work: Callable[[], None], cwd: Path, timeout_s: int, may_fail: bool
) -> tuple[int, str, str]:
    if can_fork():
        status, out, err = _run_forked(argv, work, cwd, timeout_s)
    else:
        done = subprocess.run(
            [sys.executable, *command], cwd=cwd, env={**os.environ, "PYTHONPATH": _python_path()},
            capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip
        status, out, err = done.returncode, done.stdout, done.stderr
    if not may_fail:
        assert status == 0, f"{status}\n{out[-3000:]}\n{err[-6000:]}"
    return status, out, err


def _run_forked(argv: list[str], work: Callable[[], None], cwd: Path, timeout_s: int) -> tuple[int, str, str]:
    """What a copy of this process prints and ends with; what it starts itself are new interpreters as always."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("out", "err", "status", "log")]
        for file in files:
            file.touch()
        out, err, status, log = files

        def run() -> None:
            for stream, file in ((1, out), (2, err)):
                os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), stream)
            sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1) for stream in (1, 2))
            os.environ["PYTHONPATH"] = _python_path()
            os.chdir(cwd)
            sys.argv[:] = argv
            GlobalHydra.instance().clear()
            warnings.resetwarnings()
            _log_to(sys.stderr)
            try:
                work()
            except SystemExit as ended:
                status.write_text(str(ended.code if isinstance(ended.code, int) else int(ended.code is not None)))
            finally:
                sys.stdout.flush()
                sys.stderr.flush()

        ended = run_forked(run, log, timeout_s)
        printed = out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8") + log.read_text(encoding="utf-8")
        assert ended in (0, 1), f"{ended}\n{printed[0][-3000:]}\n{printed[1][-6000:]}"
        return int(status.read_text() or ended), *printed


def _log_to(stream: TextIO) -> None:
    """Set logging up as in a new interpreter: only Lightning's loggers have handlers."""
    logging.getLogger().handlers.clear()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.handlers[:] = [logging.StreamHandler(stream)]


def _python_path() -> str:
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
