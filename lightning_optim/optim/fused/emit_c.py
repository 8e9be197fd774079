"""A program as C: one function that takes all tensors of a launch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.resources import files
from math import isinf, isnan

from .program import BLOCK_SUMS, REDUCTIONS, Loop, Pass, Program, Rank

_OPERATORS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_OPERATORS |= {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "eq": "==", "ne": "!="}
_BLOCK = 1024
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
    return "\n".join([real, prelude, _SIGNATURE, *_indent(_Writer(program).body()), "}", ""])


class _Writer:
    def __init__(self, program: Program) -> None:
        self.program, self.reductions, self.kept = program, program.reductions(), program.kept()

    def body(self) -> Iterator[str]:
        for position, i in enumerate(self.program.scalars()):
            op, value = self.program.lines[i].op, self.program.lines[i].value
            comment = f"  // {self.program.numbers[value]}" if op == "number" else ""
            yield f"const real t{i} = (real)numbers[{position}];{comment}"
        # Each thread has a share of a batch, and helps others at its end: what it has read in one pass it finds in its
        # cache in the next one, which goes backwards.
        yield "#pragma omp parallel num_threads(num_threads)"
        yield "for (const int64_t *begin = batches; *begin < num_chunks; begin++) {"
        yield "  const int64_t size = begin[1] - *begin, thread = omp_get_thread_num(), of = omp_get_num_threads();"
        for number, walk in enumerate(self.program.passes()):
            offset = "size * (thread + 1) / of + size - 1 - i" if number % 2 else "size * thread / of + i"
            yield "  for (int64_t i = 0; i < size; i++) {"
            yield f"    const int64_t chunk = *begin + ({offset}) % size;"
            yield f"    if (is_taken(taken + chunk, {number})) continue;"
            yield from _indent(_indent(self.chunk(walk, number)))
            yield "  }"
        yield "}"
        lines, stores = self.program.tensor_stores()
        if stores:
            yield "for (int64_t tensor = 0; tensor < num_tensors; tensor++) {"
            yield from _indent([*self.pointers(Rank.TENSOR), *self.lines(lines), *self.stores(stores, "0")])
            yield "}"

    def chunk(self, walk: Pass, number: int) -> Iterator[str]:
        yield "const int64_t tensor = chunks[3 * chunk], first = chunks[3 * chunk + 1], count = chunks[3 * chunk + 2];"
        yield from self.pointers(Rank.TENSOR)
        if number:
            yield f"wait_for(done + tensor, {number} * (shapes[5 * tensor + 3] + 1));"
        yield from self.lines(walk.tensor_lines)
        yield from (f"double sum{i} = {self.start(i)};" for i in walk.sums)
        if self.program.rows is None:
            yield from self.pointers(Rank.ELEMENT, "first")
            yield from self.loop(walk.loops[0], "count")
        else:
            yield "const int64_t columns = shapes[5 * tensor + 1];"
            yield "for (int64_t row = first; row < first + count; row++) {"
            yield from _indent(self.row(walk))
            yield "}"
        if walk.sums:
            yield from (f"{self.parts(i)}[chunk] = sum{i};" for i in walk.sums)
            yield "if (is_last(done + tensor, shapes[5 * tensor + 3])) {"
            for i in walk.sums:
                function = "amax_of" if self.program.lines[i].op == "amax" else "sum_of"
                yield f"  {self.sum(i)} = {function}({self.parts(i)}, shapes + 5 * tensor);"
            yield "  __atomic_add_fetch(done + tensor, 1, __ATOMIC_RELEASE);"
            yield "}"

    def row(self, walk: Pass) -> Iterator[str]:
        yield from self.pointers(Rank.ROW)
        yield from self.pointers(Rank.ELEMENT, "row * columns")
        yield from (f"const real t{i} = {self.row_sum(i)};" for i in walk.known)
        for loop in walk.loops:
            yield from self.lines(loop.row_lines)
            yield from map(self.add, loop.row_sums)
            yield from self.stores(loop.row_stores, "row")
            yield from (f"double sum{i} = {self.start(i)};" for i in loop.sums if i not in walk.sums)
            yield from self.loop(loop, "columns")
        yield from (f"{self.row_sum(i)} = t{i};" for i in walk.kept)

    def loop(self, loop: Loop, count: str) -> Iterator[str]:
        if not loop.sums and not loop.stores:
            return
        blocked = [i for i in loop.sums if self.program.lines[i].op in BLOCK_SUMS]
        if not blocked:
            yield from self.elements(loop, "0", count)
            return
        yield f"for (int64_t start = 0; start < {count}; start += {_BLOCK}) {{"
        yield f"  const int64_t end = start + {_BLOCK} < {count} ? start + {_BLOCK} : {count};"
        yield f"  real {', '.join(f'block{i} = 0' for i in blocked)};"
        yield from _indent(self.elements(loop, "start", "end"))
        yield from (f"  sum{i} += block{i};" for i in blocked)
        yield "}"

    def elements(self, loop: Loop, start: str, end: str) -> Iterator[str]:
        # A maximum keeps NaN, which the vector code of a reduction would lose.
        if all(self.program.lines[i].op != "amax" for i in loop.sums):
            yield "#pragma omp simd" + "".join(f" reduction(+:{self.total(i)})" for i in loop.sums)
        yield f"for (int64_t i = {start}; i < {end}; i++) {{"
        yield from _indent([*self.lines(loop.lines), *map(self.add, loop.sums), *self.stores(loop.stores, "i")])
        yield "}"

    def pointers(self, rank: Rank, start: str = "0") -> Iterator[str]:
        for position, argument in enumerate(self.program.arguments):
            if argument.rank == rank:
                address = f"addresses[{position} * num_tensors + tensor]"
                pointer = f"{argument.dtype} *restrict a{position} = ({argument.dtype} *){address} + {start};"
                yield f"{'' if position in self.program.stores else 'const '}{pointer}  // {argument.name}"

    def lines(self, lines: Iterable[int]) -> Iterator[str]:
        return (f"const real t{i} = {self.expression(i)};" for i in lines)

    def expression(self, i: int) -> str:
        op, args, rank, value = self.program.lines[i]
        operands = [self.operand(arg) for arg in args]
        if op == "load":
            index = {Rank.TENSOR: "0", Rank.ROW: "row", Rank.ELEMENT: "i"}[rank]
            return f"load_{self.program.arguments[value].dtype}(a{value}[{index}])"
        if op in REDUCTIONS:
            return f"(real){self.sum(i) if rank == Rank.TENSOR else f'sum{i}'}"
        if op in ("numel", "columns"):
            return f"(real)shapes[5 * tensor + {int(op == 'columns')}]"
        if op in _OPERATORS:
            return f"{operands[0]} {_OPERATORS[op]} {operands[1]}"
        if op in ("neg", "copy"):
            return f"{'-' if op == 'neg' else ''}{operands[0]}"
        if op == "round":
            return f"load_{value}(store_{value}({operands[0]}))"
        return f"op_{op}({', '.join(operands)})"

    def operand(self, i: int) -> str:
        op, _, _, value = self.program.lines[i]
        if op != "constant":
            return f"t{i}"
        if isnan(value):
            return "(real)NAN"
        return f"(real){'-' if value < 0 else ''}INFINITY" if isinf(value) else f"(real){float(value).hex()}"

    def stores(self, stores: Iterable[tuple[int, int]], index: str) -> Iterator[str]:
        for argument, i in stores:
            yield f"a{argument}[{index}] = store_{self.program.arguments[argument].dtype}({self.operand(i)});"

    def add(self, i: int) -> str:
        op, (arg, *_), *_ = self.program.lines[i]
        total, value = self.total(i), self.operand(arg)
        if op == "amax":
            return f"{total} = larger({total}, {value});"
        return f"{total} += {f'{value} * {value}' if op == 'block_squares' else value};"

    def total(self, i: int) -> str:
        line = self.program.lines[i]
        is_blocked = line.op in BLOCK_SUMS and self.program.lines[line.args[0]].rank == Rank.ELEMENT
        return f"{'block' if is_blocked else 'sum'}{i}"

    def start(self, i: int) -> str:
        return "-INFINITY" if self.program.lines[i].op == "amax" else "0"

    def sum(self, i: int) -> str:
        return f"sums[{self.reductions.index(i)} * num_tensors + tensor]"

    def row_sum(self, i: int) -> str:
        return f"kept[(shapes[5 * tensor + 4] + row) * {len(self.kept)} + {self.kept.index(i)}]"

    def parts(self, i: int) -> str:
        return f"(sums + {len(self.reductions)} * num_tensors + {self.reductions.index(i)} * num_chunks)"


def _indent(lines: Iterable[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)
