"""A program as Triton: one function for each pass, and one that adds up the sums of the chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.resources import files
from math import isfinite

from .emit import Writer, indent
from .program import Loop, Pass, Program, Rank

_PARAMETERS = "addresses, shapes, chunks, numbers, sums, kept, num_tensors, num_chunks, BLOCK: tl.constexpr"


def emit_triton(program: Program) -> str:
    """The source of a kernel; its functions are `pass_0`, `pass_1`, ... and, where there are sums, `add_0`, ...

    They take the tables that the C kernel takes, on the device; a program of a pass is a chunk, one of an addition is
    a tensor. Numbers are float64 values, so that no value of one makes another kernel.
    """
    return "\n".join(_TritonWriter(program).module())


class _TritonWriter(Writer):
    COMMENT, LARGER = "#", "op_max"

    def module(self) -> Iterator[str]:
        yield files(__package__).joinpath("kernel_math.triton").read_text(encoding="utf-8").rstrip()
        passes = self.program.passes()
        for number, walk in enumerate(passes):
            yield from self._function(f"pass_{number}", self._whole_chunk(walk))
            end = self._tensor_end() if walk is passes[-1] else []
            if walk.sums or end:
                yield from self._function(f"add_{number}", ["tensor = tl.program_id(0)", *self._totals(walk), *end])

    def _function(self, name: str, body: Iterable[str]) -> Iterator[str]:
        yield f"\n\n@triton.jit\ndef {name}({_PARAMETERS}):"
        yield from indent([*self._numbers(), *body])

    def _whole_chunk(self, walk: Pass) -> Iterator[str]:
        yield "chunk = tl.program_id(0)"
        for offset, name in enumerate(("tensor", "first", "count")):
            yield f"{name} = tl.load(chunks + 3 * chunk + {offset})"
        yield from self._chunk(walk)
        yield from (self._set_item("sums", self._partial_sum(i, "chunk"), self._total(i)) for i in walk.sums)

    def _totals(self, walk: Pass) -> Iterator[str]:
        for i in walk.sums:
            yield self._start_sum(i)
            yield f"for start in range(0, {self._shape(3)}, BLOCK):"
            yield "  i = start + tl.arange(0, BLOCK)"
            part = f"sums + {self._partial_sum(i, f'{self._shape(2)} + i')}"
            yield f"  {self._add(i, f'tl.load({part}, mask=i < {self._shape(3)}, other={self._neutral(i)})')}"
            yield self._set_item("sums", self._sum(i), self._total(i))

    def _for_rows(self, body: Iterable[str]) -> Iterator[str]:
        yield "for row in range(first, first + count):"
        yield from indent(body)

    def _for_elements(self, loop: Loop, count: str) -> Iterator[str]:
        sums = self._sums(loop, Rank.ELEMENT)
        added = (self._add(i, f"tl.where(inside, {self._summand(i)}, {self._neutral(i)})") for i in sums)
        yield f"for start in range(0, {count}, BLOCK):"
        yield "  i = start + tl.arange(0, BLOCK)"
        yield f"  inside = i < {count}"
        yield from indent([*self._lines(loop.lines, loop.stored), *added, *self._stores(loop.stores, Rank.ELEMENT)])

    def _declare(self, kind: str, name: str, value: str) -> str:
        return f"{name} = ({value}).to(tl.{self.program.real})" if "real" in kind else f"{name} = {value}"

    def _item(self, table: str, index: str) -> str:
        return f"tl.load({table} + {index}{', mask=inside, other=0' if index == 'i' else ''})"

    def _set_item(self, table: str, index: str, value: str) -> str:
        return f"tl.store({table} + {index}, {value}{', mask=inside' if index == 'i' else ''})"

    def _pointer(self, position: int, address: str, start: str) -> str:
        pointer = f"tl.pointer_type(tl.{self.program.arguments[position].dtype})"
        return f"a{position} = {address}.to({pointer}) + {start}"

    def _constant(self, value: float) -> str:
        number = repr(value) if isfinite(value) else f'float("{value}")'
        return f"tl.full((), {number}, tl.{self.program.real})"

    def _start(self, i: int) -> str:
        return f"tl.full((BLOCK,), {self._neutral(i)}, tl.float64)"

    def _neutral(self, i: int) -> str:
        return 'float("-inf")' if self._is_max(i) else "0.0"

    def _widen(self, value: str) -> str:
        return f"{value}.to(tl.float64)"

    def _total(self, i: int) -> str:
        return f"max_of(sum{i})" if self._is_max(i) else f"tl.sum(sum{i})"
