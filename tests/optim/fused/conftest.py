"""A cache folder of kernels for these tests alone; without a C compiler they are skipped."""

from __future__ import annotations

import os

import pytest

from lightning_optim.optim.fused.compiler import CompileError, find_compiler, load_function


@pytest.fixture(scope="session")
def kernel_cache(tmp_path_factory):
    """One for all workers of pytest-xdist, so that each kernel is compiled once."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "kernels"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def private_cache(kernel_cache, monkeypatch):
    try:
        find_compiler()
    except CompileError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("XDG_CACHE_HOME", str(kernel_cache))


@pytest.fixture
def forget_loaded():
    """Compiled functions are looked for on disk again."""
    load_function.cache_clear()
    yield
    load_function.cache_clear()
