"""What runs a program: a compiled C function on the CPU, Triton's functions on a GPU."""

from __future__ import annotations

import hashlib
import linecache
from array import array
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from ctypes import c_int, c_int64, c_void_p
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from .compiler import CompileError, cache_folder, find_compiler, load_function
from .emit_c import emit_c
from .emit_triton import emit_triton
from .program import Program

_BLOCK = 1024
_NO_REDUCTIONS = torch.empty(0, 0, dtype=torch.float64)
# Elements, which are some megabytes together with gradients and state.
_CACHED = 1 << 18


@dataclass
class Cut:
    """Tensors in chunks.

    Attributes:
        shapes: per tensor: number of elements, elements per row, first chunk, number of chunks, rows before.
        chunks: per chunk: tensor, first row or element, number of rows or elements.
        num_rows: of all tensors.
    """

    shapes: array[int] = field(default_factory=lambda: array("q"))
    chunks: array[int] = field(default_factory=lambda: array("q"))
    num_rows: int = 0
    _copies: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict)
    _batches: array[int] = field(default_factory=lambda: array("q"))

    def add(self, numel: int, num_rows: int, rows_per_chunk: int) -> None:
        """Add a tensor.

        Args:
            numel: its number of elements.
            num_rows: its number of rows; that of its elements, if it has no rows.
            rows_per_chunk: how many of them a chunk has.
        """
        first_chunk = len(self.chunks) // 3
        for first in range(0, num_rows, rows_per_chunk):
            self.chunks.extend((len(self.shapes) // 5, first, min(rows_per_chunk, num_rows - first)))
        num_chunks = len(self.chunks) // 3 - first_chunk
        self.shapes.extend((numel, numel // max(1, num_rows), first_chunk, num_chunks, self.num_rows))
        self.num_rows += num_rows

    def to(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Both, on a device; copied there once."""
        if device not in self._copies:
            self._copies[device] = torch.tensor(self.shapes).to(device), torch.tensor(self.chunks).to(device)
        return self._copies[device]

    def batches(self) -> array[int]:
        """The first chunk of each batch, which are tensors that fit into the cache, or one; and the number of all."""
        if not self._batches:
            tensors = zip(accumulate(self.shapes[::5]), self.shapes[2::5], strict=True)
            firsts = {end // _CACHED: first for end, first in reversed([*tensors])}
            self._batches = array("q", [*reversed(firsts.values()), self.sizes()[1]])
        return self._batches

    def sizes(self) -> tuple[int, int]:
        """The number of tensors and of chunks."""
        return len(self.shapes) // 5, len(self.chunks) // 3


Launch = Callable[["array[int]", Cut, Sequence[float], torch.device], Tensor]
"""Called with the addresses of the tensors, their chunks, the numbers of the step, and the device. Returns the
reductions, `(reductions, tensors)`, in float64."""


def build_c(program: Program) -> Launch:
    """A program for the CPU.

    Raises:
        CompileError: it cannot be compiled.
    """
    function = load_function(emit_c(program), "step")
    function.argtypes, function.restype = [c_void_p] * 9 + [c_int64, c_int64, c_int], None
    num_reductions, num_passes, num_kept = len(program.reductions()), len(program.passes()), len(program.kept())

    def launch(addresses: array[int], cut: Cut, numbers: Sequence[float], device: torch.device) -> Tensor:
        del device
        num_tensors, num_chunks = cut.sizes()
        batches = cut.batches() if num_passes > 1 else array("q", [0, num_chunks])
        sums = array("d", bytes(8 * num_reductions * (num_tensors + num_chunks)))
        taken, done = array("q", bytes(8 * num_chunks)), array("q", bytes(8 * num_tensors))
        kept = torch.empty(num_kept * cut.num_rows, dtype=getattr(torch, program.real), device="cpu")
        tables = addresses, cut.shapes, cut.chunks, batches, array("d", numbers), sums, taken, done
        num_threads = min(torch.get_num_threads(), num_chunks)
        function(*(table.buffer_info()[0] for table in tables), kept.data_ptr(), num_tensors, num_chunks, num_threads)
        return _reductions(torch.frombuffer(sums, dtype=torch.float64), cut) if sums else _NO_REDUCTIONS

    return launch


def build_triton(program: Program) -> Launch:
    """A program for a GPU, compiled by Triton when it is first launched.

    Raises:
        CompileError: Triton is not installed.
    """
    check_compiler("cuda")
    functions = _run_source(emit_triton(program))
    num_reductions, num_passes, num_kept = len(program.reductions()), len(program.passes()), len(program.kept())

    def launch(addresses: array[int], cut: Cut, numbers: Sequence[float], device: torch.device) -> Tensor:
        num_tensors, num_chunks = cut.sizes()
        # One copy of what changes with each step; from pinned memory it does not wait for the device.
        host = torch.frombuffer(addresses + array("q", array("d", numbers).tobytes()), dtype=torch.int64)
        table = (host.pin_memory() if device.type == "cuda" else host).to(device, non_blocking=True)
        sums = torch.empty(num_reductions * (num_tensors + num_chunks), dtype=torch.float64, device=device)
        kept = torch.empty(num_kept * cut.num_rows, dtype=getattr(torch, program.real), device=device)
        values = table[len(addresses) :].view(torch.float64)
        arguments = table, *cut.to(device), values, sums, kept, num_tensors, num_chunks
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            for number in range(num_passes):
                functions[f"pass_{number}"][(num_chunks,)](*arguments, BLOCK=_BLOCK)
                if f"add_{number}" in functions:
                    functions[f"add_{number}"][(num_tensors,)](*arguments, BLOCK=_BLOCK)
        return _reductions(sums, cut)

    return launch


def _reductions(sums: Tensor, cut: Cut) -> Tensor:
    """The sums of the tensors, without those of their chunks."""
    num_tensors, num_chunks = cut.sizes()
    num_reductions = len(sums) // (num_tensors + num_chunks)
    return sums[: num_reductions * num_tensors].view(num_reductions, num_tensors)


def check_compiler(device: str) -> None:
    """Check that kernels for a type of device can be compiled.

    Raises:
        CompileError: they cannot.
    """
    if device == "cpu":
        find_compiler()
        cache_folder()
    elif device != "cuda":
        raise CompileError(f"there are no kernels for {device}")
    elif find_spec("triton") is None:
        raise CompileError("Triton is not installed. Install triton")


def _run_source(source: str) -> dict[str, Any]:
    """The functions of a source; Triton reads it again, through `linecache`."""
    name = f"<kernel {hashlib.sha256(source.encode()).hexdigest()[:16]}>"
    linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
    namespace: dict[str, Any] = {"__name__": name}
    exec(compile(source, name, "exec"), namespace)
    return namespace
