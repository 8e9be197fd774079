"""What runs a program: a compiled C function on the CPU, Triton's functions on a GPU."""

from __future__ import annotations

import hashlib
import linecache
from array import array
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from ctypes import c_int, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor

from .available import check_compiler
from .compiler import load_function
from .cut import Cut
from .emit_c import emit_c
from .emit_triton import emit_triton
from .program import Program

_BLOCK = 1024
_NO_REDUCTIONS = torch.empty(0, 0, dtype=torch.float64)


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
    real = "d" if program.real == "float64" else "f"

    def launch(addresses: array[int], cut: Cut, numbers: Sequence[float], device: torch.device) -> Tensor:
        del device
        num_tensors, num_chunks = cut.sizes()
        batches = cut.batches() if num_passes > 1 else array("q", [0, num_chunks])
        sums = array("d", bytes(8 * num_reductions * (num_tensors + num_chunks)))
        taken, done = array("q", bytes(8 * num_chunks)), array("q", bytes(8 * num_tensors))
        kept = array(real, bytes(array(real).itemsize * num_kept * cut.num_rows))
        tables = addresses, cut.shapes, cut.chunks, batches, array("d", numbers), sums, taken, done, kept
        num_threads = min(torch.get_num_threads(), num_chunks)
        function(*[table.buffer_info()[0] for table in tables], num_tensors, num_chunks, num_threads)
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


def _run_source(source: str) -> dict[str, Any]:
    """The functions of a source; Triton reads it again, through `linecache`."""
    name = f"<kernel {hashlib.sha256(source.encode()).hexdigest()[:16]}>"
    linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
    namespace: dict[str, Any] = {"__name__": name}
    exec(compile(source, name, "exec"), namespace)
    return namespace
