"""`Writer`: how a program becomes the source of a kernel, in whatever language."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

from .program import AMAX, REDUCTIONS, SQUARES, Loop, Pass, Program, Rank

_INDEX = {Rank.TENSOR: "0", Rank.ROW: "row", Rank.ELEMENT: "i"}


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
    END: ClassVar[str] = ""
    """Of a statement."""
    LARGER: ClassVar[str]
    """The function of two values that returns the larger one, or NaN if there is one."""

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
            yield from (self._set_item("kept", self._row_sum(i), f"t{i}") for i in loop.row_lines if i in self.kept)
            yield from map(self._add, self._sums(loop, Rank.ROW))
            yield from self._stores(loop.stores, Rank.ROW)
            yield from (self._start_sum(i) for i in loop.sums if i not in walk.sums)
            if loop.lines:
                yield from self._for_elements(loop, "columns")

    def _tensor_end(self) -> list[str]:
        """What is stored once for each tensor, after the last pass."""
        lines, stores = self.program.tensor_stores()
        return [*self._pointers(Rank.TENSOR), *self._lines(lines), *self._stores(stores, Rank.TENSOR)] if stores else []

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
        return f"load_{self.program.arguments[argument].dtype}({self._item(f'a{argument}', _INDEX[rank])})"

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

    def _stores(self, stores: Iterable[tuple[int, int]], rank: Rank) -> Iterator[str]:
        """Those to arguments of a rank."""
        for position, i in stores:
            _, dtype, own_rank = self.program.arguments[position]
            if own_rank == rank:
                yield self._set_item(f"a{position}", _INDEX[rank], f"store_{dtype}({self._operand(i)})")

    def _sums(self, loop: Loop, rank: Rank) -> list[int]:
        """The reductions of a loop of lines of a rank."""
        return [i for i in loop.sums if self._summand_rank(i) == rank]

    def _summand_rank(self, i: int) -> Rank:
        return self.program.lines[self.program.lines[i].args[0]].rank

    def _start_sum(self, i: int) -> str:
        return self._declare("double", f"sum{i}", self._start(i))

    def _add(self, i: int, value: str = "") -> str:
        """Add a value to a reduction; by default that of its line."""
        total, value = self._partial(i), value or self._summand(i)
        added = f"= {self.LARGER}({total}, {value})" if self._is_max(i) else f"+= {value}"
        return f"{total} {added}{self.END}"

    def _summand(self, i: int) -> str:
        line = self.program.lines[i]
        value = self._widen(self._operand(line.args[0]))
        return f"({value} * {value})" if line.op == SQUARES else value

    def _widen(self, value: str) -> str:
        """A value in the dtype in which it is added up."""
        return value

    def _partial(self, i: int) -> str:
        """The variable that a value is added to."""
        return f"sum{i}"

    def _total(self, i: int) -> str:
        """What a reduction has added up."""
        return f"sum{i}"

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
