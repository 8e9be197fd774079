"""A process for jax, shared by all comparisons with optax."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest


@pytest.fixture(scope="session")
def jax_process() -> Iterator[ProcessPoolExecutor]:
    """Separate, because once jax has run in a process, each os.fork() warns, in any later test."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield pool
