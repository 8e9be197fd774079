"""What a step costs besides its time: the bytes it has to move, its peak memory, and the compilation of its kernel."""

from __future__ import annotations

import ctypes
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_optim import optim
from lightning_optim.optim.fused.compiler import load_function

Step = Callable[[], object]
Build = Callable[[Sequence[Tensor]], Optimizer]
"""Builds an optimizer of parameters that have gradients."""

LATE = 100
"""A step at which no rule is in a phase of its first steps any more."""
_CACHE_VARIABLES = ("XDG_CACHE_HOME", "TRITON_CACHE_DIR")
_OVERWRITING = ("aten::copy_", "aten::zero_", "aten::fill_")


def build_params(shapes: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> list[Tensor]:
    """Parameters with gradients, of these shapes."""
    params: list[Tensor] = [torch.nn.Parameter(torch.randn(*shape, device=device)) for shape in shapes]
    for param in params:
        param.grad = torch.randn_like(param)
    return params


def whole_step(optimizer: Optimizer) -> Step:
    """A step with all its gradients: for a rule that takes two, both calls."""
    evaluations = getattr(optimizer, "evaluations", 1)
    if evaluations == 1:
        return optimizer.step

    def step() -> None:
        for _ in range(evaluations):
            optimizer.step()

    return step


def skip_first_steps(optimizer: Optimizer) -> None:
    """Count steps that were not taken, so that the rule is in the phase in which it spends a run."""
    for group in optimizer.param_groups:
        for state in (optimizer.state[param] for param in group["params"]):
            if isinstance(state.get("step"), Tensor):
                state["step"].fill_(LATE)
        if "step" in group:  # pytorch_optimizer's counter
            group["step"] = LATE
    if isinstance(optimizer, optim.SophiaG):
        optimizer.update_hessian(num_samples=1)  # without which it takes no more steps


# Bytes


def count_bytes(build: Build, *, fetches_before_write: bool) -> float:
    """The bytes per element that a step must move: what it needs of parameter, gradient and state, and what it changes.

    Each tensor counts once where its old values are read, and once where it is written, in whatever number of
    operations or passes. Temporaries do not count.

    Args:
        build: of an optimizer that runs tensor by tensor.
        fetches_before_write: whether what is only written counts as read too: a CPU fetches a line of its cache before
            it writes to it.
    """
    (param,) = params = build_params([(256, 256)])
    optimizer = build(params)
    step = whole_step(optimizer)
    step()
    skip_first_steps(optimizer)
    step()
    num_bytes = 0
    for _ in range(getattr(optimizer, "evaluations", 1)):
        state = [value for value in optimizer.state[param].values() if isinstance(value, Tensor)]
        assert param.grad is not None
        with _Traffic([param, param.grad, *state]) as traffic:
            optimizer.step()
        num_bytes += traffic.num_bytes(fetches_before_write)
    return num_bytes / param.numel()


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which of these tensors the operations read before they are written, and which they write."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sizes = {_memory(tensor): tensor.nbytes for tensor in tensors}
        self._read: set[int] = set()
        self._written: set[int] = set()

    def num_bytes(self, fetches_before_write: bool) -> int:
        read = self._read | self._written if fetches_before_write else self._read
        return sum(self._sizes[key] for key in (*read, *self._written))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        written: set[int] = set()
        for i, argument in enumerate(func._schema.arguments):
            value = args[i] if i < len(args) else kwargs.get(argument.name)
            is_written = argument.alias_info is not None and argument.alias_info.is_write
            if argument.alias_info is not None and not is_written:
                continue  # a view
            keys = {_memory(tensor) for tensor in _tensors(value)} & self._sizes.keys()
            if not (is_written and func._schema.name in _OVERWRITING):
                self._read |= keys - self._written
            written |= keys if is_written else set()
        self._written |= written
        return func(*args, **kwargs)


def _tensors(value: Any) -> list[Tensor]:
    values = value if isinstance(value, list | tuple) else [value]
    return [item for item in values if isinstance(item, Tensor)]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


# Peak memory


def measure_peak_memory(
    builds: Mapping[str, Build], shapes: Sequence[Sequence[int]], device: torch.device
) -> dict[str, float]:
    """The peak memory of a step in MiB, above what is there before and after it, by the name of the build.

    On a CPU it is the resident memory of a new process, so that nothing which was freed before can be used again:
    whatever a step touches counts, in torch or not. The system rounds it to about 0.25 MiB. Empty where the system
    does not tell.
    """
    if device.type == "cuda":
        return _read_peaks(builds, shapes, device)
    if not Path("/proc/self/clear_refs").exists():
        return {}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_read_peaks, builds, shapes, device).result()


def _read_peaks(builds: Mapping[str, Build], shapes: Sequence[Sequence[int]], device: torch.device) -> dict[str, float]:
    params = build_params(shapes, device)
    return {name: _read_peak(build(params), device) for name, build in builds.items()}


def _read_peak(optimizer: Optimizer, device: torch.device) -> float:
    step = whole_step(optimizer)
    step()
    skip_first_steps(optimizer)
    step()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    # Without freed memory that malloc has kept, which a step could use unseen.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts at what is there now
    before = _read_status("VmRSS")
    step()
    return (_read_status("VmHWM") - before) / 2**10


def _read_status(key: str) -> int:
    """A line of the process's status, in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


# Compilation


def measure_compilation(builds: Mapping[str, Build], device: torch.device) -> dict[str, float]:
    """The milliseconds of a first step, which compiles or loads its kernel: from an empty cache and from a full one."""
    with tempfile.TemporaryDirectory() as folder, _caches_in(folder):
        _time_first_step(next(iter(builds.values())), device)  # imports, and asks the compiler for its version
    with tempfile.TemporaryDirectory() as folder, _caches_in(folder):
        load_function.cache_clear()
        cold = {name: _time_first_step(build, device) for name, build in builds.items()}
        load_function.cache_clear()
        warm = {name: _time_first_step(build, device) for name, build in builds.items()}
    (slowest, slowest_ms), (slowest_warm, slowest_warm_ms) = (max(x.items(), key=lambda i: i[1]) for x in (cold, warm))
    return {
        "first step of a rule, its kernel compiled, ms: median": statistics.median(cold.values()),
        f"first step of a rule, its kernel compiled, ms: largest ({slowest})": slowest_ms,
        "first step of a rule, its kernel found in the cache, ms: median": statistics.median(warm.values()),
        f"first step of a rule, its kernel found in the cache, ms: largest ({slowest_warm})": slowest_warm_ms,
    }


def _time_first_step(build: Build, device: torch.device) -> float:
    optimizer = build(build_params([(64, 32)], device))
    start = time.perf_counter()
    optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1e3 * (time.perf_counter() - start)


@contextmanager
def _caches_in(folder: str) -> Iterator[None]:
    """A folder for compiled kernels in place of the user's."""
    before = {name: os.environ.get(name) for name in _CACHE_VARIABLES}
    os.environ |= dict.fromkeys(_CACHE_VARIABLES, folder)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
