"""A program as Triton: one function for each pass, and one that adds up the sums of the chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.resources import files
from math import isfinite

from .program import REDUCTIONS, Loop, Pass, Program, Rank

_OPERATORS = {"add": "+", "sub": "-", "mul": "*", "gt": ">", "ge": ">=", "lt": "<", "le": "<=", "eq": "==", "ne": "!="}
_PARAMETERS = "addresses, shapes, chunks, numbers, sums, kept, num_tensors, num_chunks, BLOCK: tl.constexpr"


def emit_triton(program: Program) -> str:
    """The source of a kernel; its functions are `pass_0`, `pass_1`, ... and, where there are sums, `add_0`, ...

    They take the tables that the C kernel takes, on the device; a program of a pass is a chunk, one of an addition is
    a tensor. Numbers are float64 values, so that no value of one makes another kernel.
    """
    return "\n".join(_Writer(program).module())


class _Writer:
    def __init__(self, program: Program) -> None:
        self.program, self.reductions, self.kept = program, program.reductions(), program.kept()
        self.real = f"tl.{program.real}"

    def module(self) -> Iterator[str]:
        yield files(__package__).joinpath("kernel_math.triton").read_text(encoding="utf-8").rstrip()
        passes = self.program.passes()
        for number, walk in enumerate(passes):
            yield from self.function(f"pass_{number}", [*self.numbers(), *self.chunk(walk)])
            lines, stores = self.program.tensor_stores() if walk is passes[-1] else ([], [])
            if walk.sums or stores:
                body = [*self.totals(walk), *self.pointers(Rank.TENSOR), *self.lines(lines), *self.stores(stores, "0")]
                yield from self.function(f"add_{number}", [*self.numbers(), "tensor = tl.program_id(0)", *body])

    def function(self, name: str, body: Iterable[str]) -> Iterator[str]:
        yield f"\n\n@triton.jit\ndef {name}({_PARAMETERS}):"
        yield from _indent(body)

    def numbers(self) -> Iterator[str]:
        for position, i in enumerate(self.program.scalars()):
            yield f"t{i} = tl.load(numbers + {position}).to({self.real})"

    def chunk(self, walk: Pass) -> Iterator[str]:
        yield "chunk = tl.program_id(0)"
        for offset, name in enumerate(("tensor", "first", "count")):
            yield f"{name} = tl.load(chunks + 3 * chunk + {offset})"
        yield from self.pointers(Rank.TENSOR)
        yield from self.lines(walk.tensor_lines)
        yield from (f"sum{i} = {self.start(i)}" for i in walk.sums)
        if self.program.rows is None:
            yield from self.pointers(Rank.ELEMENT, "first")
            yield from self.loop(walk.loops[0], "count")
        else:
            yield "columns = tl.load(shapes + 5 * tensor + 1)"
            yield from self.pointers(Rank.ROW)
            yield "for row in range(first, first + count):"
            yield from _indent(self.row(walk))
        yield from (f"tl.store({self.partial_sum(i)} + chunk, {self.total(i)})" for i in walk.sums)

    def row(self, walk: Pass) -> Iterator[str]:
        yield from self.pointers(Rank.ELEMENT, "row * columns")
        yield from (f"t{i} = tl.load({self.row_sum(i)})" for i in walk.known)
        for loop in walk.loops:
            yield from self.lines(loop.row_lines)
            yield from (self.add(i, self.summand(i)) for i in loop.row_sums)
            yield from self.stores(loop.row_stores, "row")
            yield from (f"sum{i} = {self.start(i)}" for i in loop.sums if i not in walk.sums)
            yield from self.loop(loop, "columns")
        yield from (f"tl.store({self.row_sum(i)}, t{i})" for i in walk.kept)

    def loop(self, loop: Loop, count: str) -> Iterator[str]:
        if loop.sums or loop.stores:
            yield f"for start in range(0, {count}, BLOCK):"
            masked = [f"tl.where(i < {count}, {self.summand(i)}, {self.neutral(i)})" for i in loop.sums]
            sums = map(self.add, loop.sums, masked)
            yield "  i = start + tl.arange(0, BLOCK)"
            yield from _indent([*self.lines(loop.lines, count), *sums, *self.stores(loop.stores, "i", count)])

    def totals(self, walk: Pass) -> Iterator[str]:
        if walk.sums:
            yield "first, count = tl.load(shapes + 5 * tensor + 2), tl.load(shapes + 5 * tensor + 3)"
        for i in walk.sums:
            yield f"sum{i} = {self.start(i)}"
            yield "for start in range(0, count, BLOCK):"
            yield "  i = start + tl.arange(0, BLOCK)"
            part = f"tl.load({self.partial_sum(i)} + first + i, mask=i < count, other={self.neutral(i)})"
            yield f"  {self.add(i, part)}"
            yield f"tl.store({self.sum(i)}, {self.total(i)})"

    def pointers(self, rank: Rank, start: str = "0") -> Iterator[str]:
        for position, argument in enumerate(self.program.arguments):
            if argument.rank == rank:
                address = f"tl.load(addresses + {position} * num_tensors + tensor)"
                yield f"a{position} = {address}.to(tl.pointer_type(tl.{argument.dtype})) + {start}  # {argument.name}"

    def lines(self, lines: Iterable[int], count: str = "") -> Iterator[str]:
        return (f"t{i} = {self.expression(i, count)}" for i in lines)

    def expression(self, i: int, count: str) -> str:
        op, args, rank, value = self.program.lines[i]
        operands = [self.operand(arg) for arg in args]
        if op == "load":
            index = {Rank.TENSOR: "0", Rank.ROW: "row", Rank.ELEMENT: f"i, mask=i < {count}, other=0"}[rank]
            return f"tl.load(a{value} + {index}).to({self.real})"
        if op in REDUCTIONS:
            return f"{f'tl.load({self.sum(i)})' if rank == Rank.TENSOR else self.total(i)}.to({self.real})"
        if op in ("numel", "columns"):
            return f"tl.load(shapes + 5 * tensor + {int(op == 'columns')}).to({self.real})"
        if op in _OPERATORS:
            return f"({operands[0]} {_OPERATORS[op]} {operands[1]}).to({self.real})"
        if op in ("neg", "copy"):
            return f"{'-' if op == 'neg' else ''}{operands[0]}"
        if op == "round":
            return f"{self.cast(operands[0], value)}.to({self.real})"
        return f"op_{op}({', '.join(operands)})"

    def operand(self, i: int) -> str:
        op, _, _, value = self.program.lines[i]
        number = repr(value) if op == "constant" and isfinite(value) else f'float("{value}")'
        return f"tl.full((), {number}, {self.real})" if op == "constant" else f"t{i}"

    def stores(self, stores: Iterable[tuple[int, int]], index: str, count: str = "") -> Iterator[str]:
        mask = f", mask=i < {count}" if count else ""
        for argument, i in stores:
            value = self.cast(self.operand(i), self.program.arguments[argument].dtype)
            yield f"tl.store(a{argument} + {index}, {value}{mask})"

    def cast(self, value: str, dtype: str) -> str:
        return f"to_bfloat16({value})" if dtype == "bfloat16" else f"{value}.to(tl.{dtype})"

    def add(self, i: int, part: str) -> str:
        return f"sum{i} = op_max(sum{i}, {part})" if self.is_max(i) else f"sum{i} += {part}"

    def is_max(self, i: int) -> bool:
        return self.program.lines[i].op == "amax"

    def start(self, i: int) -> str:
        return f"tl.full((BLOCK,), {self.neutral(i)}, tl.float64)"

    def neutral(self, i: int) -> str:
        return 'float("-inf")' if self.is_max(i) else "0.0"

    def total(self, i: int) -> str:
        return f"max_of(sum{i})" if self.is_max(i) else f"tl.sum(sum{i})"

    def summand(self, i: int) -> str:
        value = f"{self.operand(self.program.lines[i].args[0])}.to(tl.float64)"
        return f"({value} * {value})" if self.program.lines[i].op == "block_squares" else value

    def sum(self, i: int) -> str:
        return f"sums + {self.reductions.index(i)} * num_tensors + tensor"

    def row_sum(self, i: int) -> str:
        row = "(tl.load(shapes + 5 * tensor + 4) + row)"
        return f"kept + {row} * {len(self.kept)} + {self.kept.index(i)}"

    def partial_sum(self, i: int) -> str:
        return f"sums + {len(self.reductions)} * num_tensors + {self.reductions.index(i)} * num_chunks"


def _indent(lines: Iterable[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)
