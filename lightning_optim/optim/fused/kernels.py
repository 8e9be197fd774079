"""The kernels of one optimizer: each traced and compiled when it is first needed."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Hashable
from typing import NamedTuple

import torch

from ...core.errors import ConfigError
from .arguments import Call
from .backends import Launch, build_c, build_triton
from .compiler import CompileError
from .program import Argument, Program, Rank
from .requested_sums import add_sums
from .trace import TracedNumber, TraceError, trace

BUILDERS = {"cpu": build_c, "cuda": build_triton}
"""By the type of the device."""
# A rule with more kernels than this for tensors of one kind has a constant that changes all the time.
_MAX_KERNELS = 32
_LOG = logging.getLogger(__name__)


class Kind(NamedTuple):
    """What tensors must share to be stepped by one kernel."""

    arguments: tuple[Argument, ...]
    """The parameter, the gradient and the buffers."""
    ndim: int
    """The number of dimensions of the parameter: 0, 1, or 2 for any more."""
    device: str
    """The type of its device."""


class Kernel(NamedTuple):
    """A compiled program."""

    program: Program
    launch: Launch
    scalars: tuple[int, ...]
    """The lines whose values it takes as numbers."""
    sums: tuple[int, ...]
    """Which of the program's reductions are its `sums`, in their order."""


class Kernels:
    """Finds the kernel for a call of a rule."""

    def __init__(self) -> None:
        self._found: dict[Hashable, list[Kernel]] = defaultdict(list)
        self._counts: Counter[Hashable] = Counter()
        self._errors: dict[Hashable, str] = {}

    def find(
        self, call: Call, kind: Kind, sums: tuple[tuple[str, str], ...] = (), *, required: bool
    ) -> tuple[Kernel, list[float]] | None:
        """The kernel, and the numbers that it takes; None where there can be no kernel.

        Args:
            call: what it does.
            kind: of the tensors.
            sums: what it adds up besides, as `add_sums` takes it.
            required: whether to raise where there can be none.

        Raises:
            ConfigError: there can be none, and it is required.
        """
        key = call.constants, kind, sums
        for kernel in self._found[key]:
            try:
                values = kernel.program.evaluate(call.values)
            except ArithmeticError:  # it has branched before a division by what is 0 now
                continue
            if all(values[line] == answer for line, answer in kernel.program.guards):
                return kernel, [values[line] for line in kernel.scalars]
        if key not in self._errors:
            try:
                self._found[key].append(self._build(call, kind, sums))
                return self.find(call, kind, sums, required=required)
            except (TraceError, CompileError) as error:
                self._errors[key] = str(error)
                _LOG.info("no fused kernel: %s", error)
        if required:
            raise ConfigError(f"fused: {self._errors[key]}. Type fused: null")
        return None

    def _build(self, call: Call, kind: Kind, sums: tuple[tuple[str, str], ...]) -> Kernel:
        self._counts[kind, sums] += 1
        if self._counts[kind, sums] > _MAX_KERNELS:
            raise TraceError(f"the rule has needed {_MAX_KERNELS} kernels, because one of its constants keeps changing")
        program = trace_call(call, kind)
        add_sums(program, sums)
        return build_kernel(program, kind.device)


def build_kernel(program: Program, device: str) -> Kernel:
    """A program, compiled for a type of device.

    Raises:
        CompileError: it cannot be.
    """
    reductions = program.reductions()
    sums = tuple(map(reductions.index, program.sums.values()))
    return Kernel(program, BUILDERS[device](program), tuple(program.scalars()), sums)


def trace_call(call: Call, kind: Kind) -> Program:
    """The program of a rule for tensors of a kind, while its numbers have these values.

    Raises:
        TraceError: the rule uses something that cannot be written down.
    """
    program = _trace(call, kind, has_reciprocals=False)
    # Two passes over what is in a cache are bound by computing, one over memory is not.
    has_sums = bool(program.reductions()) or program.rows is not None
    return _trace(call, kind, has_reciprocals=True) if has_sums else program


def _trace(call: Call, kind: Kind, *, has_reciprocals: bool) -> Program:
    program = Program(kind.arguments, call.names, kind.ndim, has_reciprocals)
    stand_ins = [
        TracedNumber(program, program.add("number", rank=Rank.NUMBER, value=i), value)
        for i, value in enumerate(call.values)
    ]
    try:
        return trace(call.with_numbers(stand_ins), program, getattr(torch, kind.arguments[0].dtype))
    except TraceError:
        raise
    except Exception as error:  # whatever a rule does that a stand-in is not made for
        raise TraceError(f"the rule cannot be traced: {error}") from error
