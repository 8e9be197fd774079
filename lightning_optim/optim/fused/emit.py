"""`Writer`: how a program becomes the source of a kernel, in whatever language."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

from .program import AMAX, REDUCTIONS, Loop, Pass, Program, Rank


class Writer(ABC):
    """Writes the passes of a program; a subclass says how its language spells them.

    In a kernel, line 5 is the variable `t5`, the argument at position 2 is the pointer `a2`, the reduction in line 7 is
    added up in `sum7`, and `i` is the index of elements. `addresses`, `shapes`, `chunks`, `sums` and `kept` are the
    tables of a launch; emit_c.py says what is in them.
    """

    OPERATORS: ClassVar[Mapping[str, str]] = {
        "add": "+", "sub": "-", "mul": "*", "gt": ">", "ge": ">=", "lt": "<", "le": "<=", "eq": "==", "ne": "!="
    }  # fmt: skip
    COMMENT: ClassVar[str]

    def __init__(self, program: Program) -> None:
        self.program, self.reductions, self.kept = program, program.reductions(), program.kept()

    @abstractmethod
    def _declare(self, kind: str, name: str, value: str) -> str:
        """A new variable, to whose type the value is converted: `real`, `int64_t` or `double`."""

    @abstractmethod
    def _item(self, table: str, index: str) -> str:
        """What is in a table, or where a pointer points, at an index."""

    @abstractmethod
    def _set_item(self, table: str, index: str, value: str) -> str:
        """Write there."""

    @abstractmethod
    def _pointer(self, position: int, address: str, start: str) -> str:
        """Declare the pointer to an argument, `start` elements after an address."""

    @abstractmethod
    def _for_rows(self, body: Iterable[str]) -> Iterator[str]:
        """For each row of a chunk."""

    @abstractmethod
    def _for_elements(self, loop: Loop, count: str) -> Iterator[str]:
        """For each of so many elements."""

    @abstractmethod
    def _constant(self, value: float) -> str:
        """A number."""

    @abstractmethod
    def _start(self, i: int) -> str:
        """What a reduction starts with."""

    @abstractmethod
    def _add(self, i: int) -> str:
        """Add a value to a reduction."""

    @abstractmethod
    def _total(self, i: int) -> str:
        """What a reduction has added up."""

    def _numbers(self) -> Iterator[str]:
        """The numbers of a launch."""
        for position, i in enumerate(self.program.scalars()):
            op, value = self.program.lines[i].op, self.program.lines[i].value
            comment = f"  {self.COMMENT} {self.program.numbers[value]}" if op == "number" else ""
            yield self._declare("const real", f"t{i}", self._item("numbers", str(position))) + comment

    def _chunk(self, walk: Pass) -> Iterator[str]:
        """A pass over one chunk of a tensor."""
        yield from self._pointers(Rank.TENSOR)
        yield from self._lines(walk.tensor_lines)
        yield from map(self._start_sum, walk.sums)
        if self.program.rows is None:
            yield from self._pointers(Rank.ELEMENT, "first")
            yield from self._for_elements(walk.loops[0], "count")
        else:
            yield self._declare("const int64_t", "columns", self._shape(1))
            yield from self._for_rows(self._row(walk))

    def _row(self, walk: Pass) -> Iterator[str]:
        """A pass over one row."""
        yield from self._pointers(Rank.ROW)
        yield from self._pointers(Rank.ELEMENT, "row * columns")
        for i in walk.known:
            yield self._declare("const real", f"t{i}", self._item("kept", self._row_sum(i)))
        for loop in walk.loops:
            yield from self._lines(loop.row_lines)
            yield from map(self._add, loop.row_sums)
            yield from self._stores(loop.row_stores, "row")
            yield from (self._start_sum(i) for i in loop.sums if i not in walk.sums)
            if loop.sums or loop.stores:
                yield from self._for_elements(loop, "columns")
        yield from (self._set_item("kept", self._row_sum(i), f"t{i}") for i in walk.kept)

    def _tensor_end(self) -> list[str]:
        """What is stored once for each tensor, after the last pass."""
        lines, stores = self.program.tensor_stores()
        return [*self._pointers(Rank.TENSOR), *self._lines(lines), *self._stores(stores, "0")] if stores else []

    def _pointers(self, rank: Rank, start: str = "0") -> Iterator[str]:
        for position, argument in enumerate(self.program.arguments):
            if argument.rank == rank:
                address = self._item("addresses", f"{position} * num_tensors + tensor")
                yield f"{self._pointer(position, address, start)}  {self.COMMENT} {argument.name}"

    def _lines(self, lines: Iterable[int], stored: Mapping[int, int] | None = None) -> Iterator[str]:
        for i in lines:
            value = self._load(stored[i], Rank.ELEMENT) if stored and i in stored else self._expression(i)
            yield self._declare("const real", f"t{i}", value)

    def _load(self, argument: int, rank: Rank) -> str:
        index = {Rank.TENSOR: "0", Rank.ROW: "row", Rank.ELEMENT: "i"}[rank]
        return f"load_{self.program.arguments[argument].dtype}({self._item(f'a{argument}', index)})"

    def _expression(self, i: int) -> str:
        op, args, rank, value = self.program.lines[i]
        operands = [self._operand(arg) for arg in args]
        if op == "load":
            return self._load(value, rank)
        if op in REDUCTIONS:
            return self._item("sums", self._sum(i)) if rank == Rank.TENSOR else self._total(i)
        if op in ("numel", "columns"):
            return self._shape(int(op == "columns"))
        if op in self.OPERATORS:
            return f"{operands[0]} {self.OPERATORS[op]} {operands[1]}"
        if op in ("neg", "copy"):
            return f"{'-' if op == 'neg' else ''}{operands[0]}"
        if op == "round":
            return f"load_{value}(store_{value}({operands[0]}))"
        return f"op_{op}({', '.join(operands)})"

    def _operand(self, i: int) -> str:
        line = self.program.lines[i]
        return self._constant(line.value) if line.op == "constant" else f"t{i}"

    def _stores(self, stores: Iterable[tuple[int, int]], index: str) -> Iterator[str]:
        for position, i in stores:
            value = f"store_{self.program.arguments[position].dtype}({self._operand(i)})"
            yield self._set_item(f"a{position}", index, value)

    def _start_sum(self, i: int) -> str:
        return self._declare("double", f"sum{i}", self._start(i))

    def _is_max(self, i: int) -> bool:
        """Whether a reduction is a maximum, and no sum."""
        return self.program.lines[i].op == AMAX

    # Where things are.

    def _shape(self, entry: int) -> str:
        """An entry of the table of shapes for this tensor."""
        return self._item("shapes", f"5 * tensor + {entry}")

    def _sum(self, i: int) -> str:
        return f"{self.reductions.index(i)} * num_tensors + tensor"

    def _partial_sum(self, i: int, chunk: str) -> str:
        return f"{len(self.reductions)} * num_tensors + {self.reductions.index(i)} * num_chunks + {chunk}"

    def _row_sum(self, i: int) -> str:
        return f"({self._shape(4)} + row) * {len(self.kept)} + {self.kept.index(i)}"


def indent(lines: Iterable[str]) -> Iterator[str]:
    """Lines two columns further to the right."""
    return (f"  {line}" for line in lines)
