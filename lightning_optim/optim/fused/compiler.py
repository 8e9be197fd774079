"""Compiles C with the machine's compiler, once: what it made is kept in a private folder."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

_LOG = logging.getLogger(__name__)
_FLAGS = ["-std=gnu11", "-O3", "-march=native", "-fPIC", "-shared", "-fopenmp"]
_FLAGS += ["-fno-math-errno", "-fno-trapping-math"]  # which would keep roots and choices out of vector code
_FLAGS += ["-ffp-contract=off"]  # each element by the same operations, so with the same bits


_libraries: list[ctypes.CDLL] = []


class CompileError(RuntimeError):
    """There is no compiler, or no folder for what it makes, or it failed."""


@cache
def load_function(source: str, name: str) -> Any:
    """A function of a C source, compiled now or at some time before.

    Raises:
        CompileError: it cannot be had.
    """
    compiler = find_compiler()
    key = hashlib.sha256("\0".join([source, _version(compiler), *_FLAGS, _cpu()]).encode()).hexdigest()[:32]
    folder = cache_folder()
    path = _find_library(folder, key) or _compile(source, compiler, folder, key)
    try:
        _libraries.append(ctypes.CDLL(str(path)))
        return getattr(_libraries[-1], name)
    except (OSError, AttributeError) as error:
        raise CompileError(f"the compiled kernel {path} does not load: {error}. Delete it") from error


def find_loaded(name: str) -> Any:
    """A function of kernel_math.h, which every kernel's library has; None as long as none is loaded."""
    return next((getattr(library, name) for library in _libraries if hasattr(library, name)), None)


def find_compiler() -> str:
    """The C compiler: `$CC`, or the first of cc, gcc and clang.

    Raises:
        CompileError: there is none.
    """
    if os.name != "posix":
        raise CompileError(f"kernels are not compiled on {platform.system()}")
    for name in filter(None, (os.environ.get("CC"), "cc", "gcc", "clang")):
        if path := shutil.which(name):
            return path
    raise CompileError("there is no C compiler. Install gcc or clang, or set CC")


def cache_folder() -> Path:
    """The folder of compiled kernels, which only this user may enter: what lies there is run.

    Raises:
        CompileError: it cannot be made, or others may enter it.
    """
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "lightning_optim" / "kernels"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except (OSError, RuntimeError) as error:
        raise CompileError(f"the cache folder {folder} cannot be made: {error}. Set XDG_CACHE_HOME") from error
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise CompileError(f"the cache folder {folder} is open to other users. Type chmod 700 {folder}")
    return folder


def _find_library(folder: Path, key: str) -> Path | None:
    """The library of this key whose content has the hash that its name gives; others are removed."""
    for path in folder.glob(f"{key}.*.so"):
        try:
            content = path.read_bytes()
        except OSError:  # another process has removed it
            continue
        if path.name == _library_name(key, content):
            return path
        _LOG.warning("the compiled kernel %s is damaged: compiling it again", path)
        path.unlink(missing_ok=True)
    return None


def _compile(source: str, compiler: str, folder: Path, key: str) -> Path:
    start = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            source_path, library = Path(scratch, "kernel.c"), Path(scratch, "kernel.so")
            source_path.write_text(source, encoding="utf-8")
            command = [compiler, *_FLAGS, str(source_path), "-o", str(library), "-lm"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise CompileError(f"{compiler} failed: {done.stderr.strip()[-500:]}")
            # Renamed when it is complete, so that a kill leaves nothing that could be taken for a kernel.
            path = folder / _library_name(key, library.read_bytes())
            library.replace(path)
    except OSError as error:
        raise CompileError(f"{compiler} cannot write to {folder}: {error}. Set XDG_CACHE_HOME") from error
    _LOG.info("compiled a kernel in %.1f s; the next run finds it in %s", time.perf_counter() - start, folder)
    return path


def _library_name(key: str, content: bytes) -> str:
    return f"{key}.{hashlib.sha256(content).hexdigest()[:32]}.so"


@cache
def _version(compiler: str) -> str:
    try:
        return compiler + subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError as error:
        raise CompileError(f"{compiler} does not run: {error}. Install gcc or clang, or set CC") from error


@cache
def _cpu() -> str:
    """What `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = [platform.processor()]
    kept = ("vendor_id", "model", "flags", "Features", "CPU ")
    first = lines[: lines.index("")] if "" in lines else lines
    return platform.machine() + "".join(line for line in first if line.startswith(kept))
