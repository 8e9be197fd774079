"""`RequestedSums`: sums that kernels add up in a step, while they have its tensors in registers; for telemetry."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from torch import Tensor

from .program import SQUARES, SUM, Program, Rank

UPDATE = "update"
"""What a step has added to a parameter, as it is stored."""


class KernelSums(NamedTuple):
    """What one launch has added up."""

    table: object
    """The same one in each step, as long as the parameters and their buffers are the same tensors where they were."""
    kinds: tuple[tuple[str, str], ...]
    """`SQUARES` or `SUM`, and what of: an argument of the kernel (`p`, `g`, `state.exp_avg`), or `UPDATE`."""
    params: list[Tensor]
    values: Tensor
    """`(kinds, params)` in float64, on the parameters' device; of this rank's shard, if a parameter is sharded."""


class RequestedSums:
    """Asks an optimizer for the sums of its next step, and gets those that its kernels compute.

    Args:
        update: also for `UPDATE`.
        summed_buffers: names of the buffers of which to add up the values too, not only their squares.
    """

    def __init__(self, *, update: bool, summed_buffers: Collection[str]) -> None:
        self.update, self.summed_buffers = update, summed_buffers
        self.found: list[KernelSums] = []
        self.before: dict[Tensor, Tensor] = {}
        """Copies of the parameters that were stepped in another way, from before the step; if `update`."""

    def kinds(self, arguments: Collection[str]) -> tuple[tuple[str, str], ...]:
        """What a kernel with these arguments is to add up."""
        squares = [(SQUARES, name) for name in (*arguments, *([UPDATE] if self.update else []))]
        return (*squares, *((SUM, name) for name in map(argument_name, self.summed_buffers) if name in arguments))

    def copy(self, params: Iterable[Tensor]) -> None:
        """Copy parameters that are about to be stepped without a kernel."""
        if self.update:
            self.before |= {param: param.detach().clone() for param in params}


def argument_name(buffer: str) -> str:
    """The name of a buffer among a kernel's arguments."""
    return f"state.{buffer}"


def add_sums(program: Program, kinds: Iterable[tuple[str, str]]) -> None:
    """Add reductions to a traced program: of the gradient as it is loaded, of everything else as it is stored.

    Tensors of one element are left out: they cost nothing to read again.
    """
    positions = {argument.name: i for i, argument in enumerate(program.arguments)}
    param = positions.get("rounded", positions["p"])  # beside a master, the parameter is what is rounded from it
    for kind, name in kinds:
        i = param if name == UPDATE else positions.get(name)
        if i is None or program.arguments[i].rank == Rank.TENSOR:
            continue
        line = _stored(program, i)
        if name == UPDATE:
            line = program.add("sub", line, _loaded(program, i))
        program.sums[kind, name] = program.add(kind, line, rank=Rank.TENSOR)


def _loaded(program: Program, i: int) -> int:
    return program.add("load", rank=program.arguments[i].rank, value=i)


def _stored(program: Program, i: int) -> int:
    """The line of an argument after the step, rounded to its dtype."""
    line = program.stores.get(i, _loaded(program, i))
    if program.lines[line].op == "load" and program.lines[line].value == i:
        return line
    return program.add("round", line, rank=program.arguments[i].rank, value=program.arguments[i].dtype)
