"""A program as C: one function that takes all tensors of a launch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from math import isinf, isnan
from typing import ClassVar

from .emit import Writer, indent
from .program import Loop, Pass, Program, Rank

_BLOCK = 1024
"""Elements whose sum is added up in the precision of the rule."""
_IN_TURN = 128
"""A chunk is walked through in several parts by turns, which take so many elements together: memory is read in more
places at once."""
_FEW_ARRAYS = 3
"""Up to so many there are four parts, and two with more: a processor can follow about ten places."""
_BYTES_AHEAD = 512
"""How far ahead memory is asked for. Turns and this take a tenth off the time of a step (Intel Xeon, two threads)."""
_WRITTEN_BLOCK = 64
"""Elements to write at once past the caches: with more of them, reading waits too long."""
_MANY_CHUNKS = 128
"""What a kernel of more chunks only writes is not in a cache when the next one reads it: 8 MiB in float32."""
_SIGNATURE = """\
void step(
    const int64_t *addresses,  // for each argument, one per tensor
    const int64_t *shapes,     // per tensor: elements, elements per row, first chunk, number of chunks, rows before it
    const int64_t *chunks,     // per chunk: tensor, first row or element, number of rows or elements
    const int64_t *batches,    // the first chunk of each, and the number of all; a batch takes one pass after the other
    const double *numbers,
    double *sums,              // space: for each reduction, one per tensor and one per chunk
    int64_t *taken,            // zeros: per chunk, the passes that a thread has begun
    int64_t *done,             // zeros: per tensor, the chunks that are done, and one more for each pass that is
    real *kept,                // space: per row, the sums of rows that later passes need
    int64_t num_tensors, int64_t num_chunks, int num_threads) {"""


def emit_c(program: Program) -> str:
    """The source of a kernel; its function is `step`."""
    is_double = program.real == "float64"
    real = "#define REAL_IS_DOUBLE\ntypedef double real;" if is_double else "typedef float real;"
    prelude = files(__package__).joinpath("kernel_math.h").read_text(encoding="utf-8")
    return "\n".join([real, prelude, _SIGNATURE, *indent(_CWriter(program).body()), "}", ""])


class _CWriter(Writer):
    OPERATORS: ClassVar[Mapping[str, str]] = {**Writer.OPERATORS, "div": "/"}
    COMMENT, END, LARGER = "//", ";", "larger"

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self._only_written = set() if program.rows is not None else program.only_written()

    def body(self) -> Iterator[str]:
        yield from self._numbers()
        yield "#pragma omp parallel num_threads(num_threads)"
        yield from _block("for (const int64_t *begin = batches; *begin < num_chunks; begin++)", self._batch())
        if end := self._tensor_end():
            yield from _block("for (int64_t tensor = 0; tensor < num_tensors; tensor++)", end)

    def _batch(self) -> Iterator[str]:
        # Each thread has a share of a batch, and helps others at its end: what it has read in one pass it finds in its
        # cache in the next one, which goes backwards.
        yield "const int64_t size = begin[1] - *begin, thread = omp_get_thread_num(), of = omp_get_num_threads();"
        for number, walk in enumerate(self.program.passes()):
            yield from _block("for (int64_t i = 0; i < size; i++)", self._numbered_chunk(walk, number))
        yield from ["end_writes();"] if self._only_written else []

    def _numbered_chunk(self, walk: Pass, number: int) -> Iterator[str]:
        offset = "size * (thread + 1) / of + size - 1 - i" if number % 2 else "size * thread / of + i"
        yield f"const int64_t chunk = *begin + ({offset}) % size;"
        yield f"if (is_taken(taken + chunk, {number})) continue;"
        yield "const int64_t tensor = chunks[3 * chunk], first = chunks[3 * chunk + 1], count = chunks[3 * chunk + 2];"
        if number:
            yield f"wait_for(done + tensor, {number} * ({self._shape(3)} + 1));"
        yield from self._chunk(walk)
        if walk.sums:
            yield from (self._set_item("sums", self._partial_sum(i, "chunk"), f"sum{i}") for i in walk.sums)
            yield from _block(f"if (is_last(done + tensor, {self._shape(3)}))", self._totals(walk))

    def _totals(self, walk: Pass) -> Iterator[str]:
        for i in walk.sums:
            parts = f"sums + {self._partial_sum(i, self._shape(2))}, {self._shape(3)}"
            yield self._set_item("sums", self._sum(i), f"{'amax_of' if self._is_max(i) else 'sum_of'}({parts})")
        yield "__atomic_add_fetch(done + tensor, 1, __ATOMIC_RELEASE);"

    def _for_rows(self, body: Iterable[str]) -> Iterator[str]:
        yield from _block("for (int64_t row = first; row < first + count; row++)", body)

    def _for_elements(self, loop: Loop, count: str) -> Iterator[str]:
        sums = self._sums(loop, Rank.ELEMENT)
        blocked = list(filter(self._is_blocked, sums))
        written = [a for a, _ in loop.stores if a in self._only_written]
        if self.program.rows is None and not sums:  # which are added up in order
            read = sorted(self._read_arguments(loop))
            size = _IN_TURN // (4 if len({*read, *written}) <= _FEW_ARRAYS else 2)
            part = f"({count} + {_IN_TURN - 1}) / {_IN_TURN} * {size}"
        else:
            read, size = [], _WRITTEN_BLOCK if written else _BLOCK
            part = str(size)
        yield f"for (int64_t offset = 0, part = {part}; offset < part; offset += {size})"
        yield f"for (int64_t start = offset; start < {count}; start += part) {{"
        yield f"  const int64_t end = start + {size} < {count} ? start + {size} : {count};"
        for a in read:
            yield f"  fetch((const char *)(a{a} + start) + {_BYTES_AHEAD}, {size} * sizeof *a{a});"
        yield from (f"  real block{i} = 0;" for i in blocked)
        yield from (f"  {self.program.arguments[a].dtype} new{a}[{size}];" for a in written)
        # A maximum keeps NaN, which the vector code of a reduction would lose.
        if not any(map(self._is_max, sums)):
            yield "  #pragma omp simd" + "".join(f" reduction(+:{self._partial(i)})" for i in sums)
        yield "  for (int64_t i = start; i < end; i++) {"
        stores = self._stores(loop.stores, Rank.ELEMENT)
        yield from indent(indent([*self._lines(loop.lines, loop.stored), *map(self._add, sums), *stores]))
        yield "  }"
        yield from (f"  sum{i} += block{i};" for i in blocked)
        for a in written:
            pointers = f"(char *)(a{a} + start), (const char *)new{a}"
            yield f"  write_new({pointers}, (end - start) * sizeof *new{a}, num_chunks > {_MANY_CHUNKS});"
        yield "}"

    def _read_arguments(self, loop: Loop) -> set[int]:
        """The arguments that a loop walks through to read them."""
        lines = (self.program.lines[i] for i in loop.lines if i not in loop.stored)
        return {line.value for line in lines if line.op == "load"}.union(loop.stored.values())

    def _declare(self, kind: str, name: str, value: str) -> str:
        return f"{kind} {name} = {value};"

    def _item(self, table: str, index: str) -> str:
        return f"{table}[{index}]"

    def _set_item(self, table: str, index: str, value: str) -> str:
        if index == "i" and int(table[1:]) in self._only_written:
            table, index = f"new{table[1:]}", "i - start"
        return f"{table}[{index}] = {value};"

    def _pointer(self, position: int, address: str, start: str) -> str:
        dtype, constant = self.program.arguments[position].dtype, "" if position in self.program.stores else "const "
        return f"{constant}{dtype} *restrict a{position} = ({dtype} *){address} + {start};"

    def _constant(self, value: float) -> str:
        if isnan(value):
            return "(real)NAN"
        return f"(real){'-' if value < 0 else ''}INFINITY" if isinf(value) else f"(real){value.hex()}"

    def _start(self, i: int) -> str:
        return "-INFINITY" if self._is_max(i) else "0"

    def _partial(self, i: int) -> str:
        return f"{'block' if self._is_blocked(i) else 'sum'}{i}"

    def _is_blocked(self, i: int) -> bool:
        return self._summand_rank(i) == Rank.ELEMENT and not self._is_max(i)


def _block(head: str, body: Iterable[str]) -> Iterator[str]:
    yield f"{head} {{"
    yield from indent(body)
    yield "}"
