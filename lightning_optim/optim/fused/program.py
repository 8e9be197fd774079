"""A traced rule as data: lines in single assignment, and the passes over memory that a kernel makes of them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

SUM, SQUARES, AMAX = REDUCTIONS = "sum", "squares", "amax"
"""The sum of all values, of their squares, and the largest value; that of absolute values is `amax` of `abs`."""
ON_NUMBERS: Mapping[str, Callable[..., Any]] = {
    name: getattr(operator, {"div": "truediv"}.get(name, name))
    for name in ("add", "sub", "mul", "div", "neg", "abs", "pow", "gt", "ge", "lt", "le", "eq", "ne")
}
"""Arithmetic on numbers, which is done in Python: in double and exactly as in the loop."""


class Rank(IntEnum):
    """How many values a line has."""

    NUMBER = 0
    """One in a launch; computed in Python."""
    TENSOR = 1
    """One per tensor."""
    ROW = 2
    """One per row of a tensor."""
    ELEMENT = 3
    """One per element."""


class Line(NamedTuple):
    """One value of a program."""

    op: str
    args: tuple[int, ...]
    """Earlier lines."""
    rank: Rank
    value: Any = None
    """Of a `load` and a `number`: its index; of a `constant`: its value."""


class Argument(NamedTuple):
    """A tensor that a kernel reads, and writes if it is stored."""

    name: str
    dtype: str
    rank: Rank


class Loop(NamedTuple):
    """One walk over the elements of a row, or of a chunk where the program has no rows."""

    row_lines: list[int]
    """Lines of rank `ROW` to compute before it."""
    lines: list[int]
    """Lines of rank `ELEMENT`; where there are none, nothing is walked over."""
    sums: list[int]
    """Reductions of lines of rank `ELEMENT`; those of rank `ROW` are added to before it."""
    stores: list[tuple[int, int]]
    """Argument and line of rank `ELEMENT`; those of rank `ROW` are stored before it."""
    stored: dict[int, int]
    """Those of `lines` that an earlier pass has stored, and the arguments to load them from."""


class Pass(NamedTuple):
    """One walk over all chunks, in parallel."""

    tensor_lines: list[int]
    """Lines of rank `TENSOR` to compute for each chunk."""
    loops: list[Loop]
    """One after the other, for each row."""
    sums: list[int]
    """Reductions of rank `TENSOR`: what is added up over the chunks of a tensor after the pass."""
    known: list[int]
    """Reductions of rank `ROW` that an earlier pass has kept."""


@dataclass
class Program:
    """What one step does with one tensor.

    Equal lines are shared when they are added, and only those that a store needs come into a pass.
    """

    arguments: Sequence[Argument]
    numbers: Sequence[str]
    """Names of the numbers that may change from step to step."""
    ndim: int
    """The number of dimensions of the parameters: 0, 1, or 2 for any more."""
    has_reciprocals: bool = False
    """Whether a division by a number is a multiplication by its reciprocal."""
    lines: list[Line] = field(default_factory=list)
    stores: dict[int, int] = field(default_factory=dict)
    """The line that each written argument ends as."""
    sums: dict[tuple[str, str], int] = field(default_factory=dict)
    """Reductions of rank `TENSOR` that whoever launches the kernel gets, by kind and by what they are of."""
    guards: list[tuple[int, bool]] = field(default_factory=list)
    """Comparisons of numbers that the rule has branched on: the program holds where they have these values."""
    rows: int | str | None = None
    """How tensors are cut into rows: into this many, `"first"`: along the first dimension, None: not at all."""
    _index: dict[tuple[Line, str], int] = field(default_factory=dict, repr=False)

    @property
    def real(self) -> str:
        """The dtype it is computed in."""
        return "float64" if any(argument.dtype == "float64" for argument in self.arguments) else "float32"

    def add(self, op: str, *args: int, rank: Rank | None = None, value: Any = None) -> int:
        """The position of a line, which is added unless an equal one exists.

        Args:
            op: what it computes.
            args: positions of its arguments.
            rank: None: the highest of its arguments.
            value: see `Line`.
        """
        line = Line(op, args, max(self.lines[arg].rank for arg in args) if rank is None else rank, value)
        key = line, str(value)  # 0.0 and -0.0 are equal
        if key not in self._index:
            self._index[key] = len(self.lines)
            self.lines.append(line)
        return self._index[key]

    def evaluate(self, numbers: Sequence[float]) -> dict[int, Any]:
        """The value of each line of rank `NUMBER`."""
        values: dict[int, Any] = {}
        for index, line in enumerate(self.lines):
            if line.op == "number":
                values[index] = numbers[line.value]
            elif line.op == "constant":
                values[index] = line.value
            elif line.rank == Rank.NUMBER:
                values[index] = ON_NUMBERS[line.op](*(values[arg] for arg in line.args))
        return values

    def scalars(self) -> list[int]:
        """The lines of rank `NUMBER` that others use, constants aside: what a launch passes to the kernel."""
        used = {arg for i in self._needed(self.results(), across=True) for arg in self._kernel_args(i)}
        return sorted(i for i in used if self.lines[i].rank == Rank.NUMBER and self.lines[i].op != "constant")

    def reductions(self) -> list[int]:
        """The reductions over whole tensors, in the order of their lines."""
        return [i for i in sorted(self._needed(self.results(), across=True)) if self._is_tensor_reduction(i)]

    def results(self) -> list[int]:
        """The lines that are stored, and the sums."""
        return [*self.stores.values(), *self.sums.values()]

    def only_written(self) -> set[int]:
        """The arguments of rank `ELEMENT` that are stored and of which no old value is needed."""
        lines = [self.lines[i] for i in self._needed(self.results(), across=True)]
        written = {arg for arg in self.stores if self.arguments[arg].rank == Rank.ELEMENT}
        return written - {line.value for line in lines if line.op == "load"}

    def mixes_elements(self) -> bool:
        """Whether an element that is stored depends on others than its own."""
        needed = self._needed(self.stores.values(), across=True)
        return self.rows is not None or any(self.lines[i].op in REDUCTIONS for i in needed)

    def passes(self) -> list[Pass]:
        """The passes over memory; each computes anew what it needs, but for sums and for what it can store early.

        A pass ends where a sum over a tensor is needed. Tensors are stored in the last one, unless an earlier one has
        their new values and no later one needs the old: then those read the new ones, in place of what they are
        computed from.
        """
        passes = self._passes({})
        early: dict[tuple[int, int], int] = {}
        for number, walk in enumerate(passes[:-1]):
            loop, *others = walk.loops
            later = self._targets([i for x in passes[number + 1 :] for i in x.sums], self.stores.items())
            for arg, i in self.stores.items() if not any(other.lines for other in others) else ():
                is_new = i in loop.lines and self.lines[i].op != "load" and (arg, i) not in early
                if is_new and self.arguments[arg].dtype == self.real and not self._loads(arg, later, i):
                    early[arg, i] = number
        return self._passes(early)

    def _loads(self, argument: int, targets: Iterable[int], known: int) -> bool:
        """Whether these lines depend on what a tensor begins with, other than through one that is known."""
        lines = [self.lines[i] for i in self._needed(targets, {known})]
        return any(line.op == "load" and line.value == argument for line in lines)

    def _passes(self, early: Mapping[tuple[int, int], int]) -> list[Pass]:
        """The passes, where these arguments and lines are stored in the first loop of an earlier one than the last."""
        levels, reductions = self._depths(self._is_tensor_reduction), self.reductions()
        stores = [(arg, i) for arg, i in self.stores.items() if self.arguments[arg].rank > Rank.TENSOR]
        last = max([*(levels[i] - 1 for i in reductions), *(levels[i] for _, i in stores)], default=0)
        passes: list[Pass] = []
        row_sums: set[int] = set()
        for number in range(last + 1):
            sums = [i for i in reductions if levels[i] == number + 1]
            written = [store for store in stores if early.get(store, last) == number]
            stored = {i: arg for (arg, i), at in early.items() if at < number}
            passes.append(self._pass(sums, written, stored, row_sums, is_last=number == last))
            row_sums.update(*(filter(self._is_row_reduction, loop.row_lines) for loop in passes[-1].loops))
        return passes

    def kept(self) -> list[int]:
        """The sums of rows that passes keep for later ones."""
        return sorted({i for walk in self.passes() for i in walk.known})

    def tensor_stores(self) -> tuple[list[int], list[tuple[int, int]]]:
        """The arguments of rank `TENSOR` that are stored after the last pass, and the lines to compute for them."""
        stores = [(arg, i) for arg, i in self.stores.items() if self.arguments[arg].rank == Rank.TENSOR]
        return self._of_rank(Rank.TENSOR, self._needed(i for _, i in stores)), stores

    def __str__(self) -> str:
        def name(i: int) -> str:
            return repr(self.lines[i].value) if self.lines[i].op == "constant" else f"t{i}"

        sources = {"load": [argument.name for argument in self.arguments], "number": self.numbers}
        text = []
        for i in sorted(self._needed(self.results(), across=True)):
            op, args, rank, value = self.lines[i]
            if op != "constant":
                operands = [sources[op][value]] if op in sources else map(name, args)
                text.append(f"t{i}: {rank.name.lower()} = {op}({', '.join(operands)})")
        text += [f"{self.arguments[arg].name} <- {name(i)}" for arg, i in self.stores.items()]
        return "\n".join([*text, *(f"{kind}({of}) = {name(i)}" for (kind, of), i in self.sums.items())])

    def _pass(
        self,
        sums: list[int],
        stores: list[tuple[int, int]],
        stored: Mapping[int, int],
        row_sums: set[int],
        *,
        is_last: bool,
    ) -> Pass:
        """A pass that ends with these reductions of rank `TENSOR`.

        Args:
            sums: the reductions.
            stores: argument and line.
            stored: lines that earlier passes have stored, and their arguments.
            row_sums: sums of rows that earlier passes have computed.
            is_last: whether it stores in its last loop; an earlier pass does in its first.
        """
        known = row_sums | stored.keys()
        needed = self._needed(self._targets(sums, stores), known)
        stages = self._depths(self._is_row_reduction, known.union(self.reductions()))
        last = max((stages[i] for i in needed), default=0)
        rows = [i for i in self._of_rank(Rank.ROW, needed) if i not in known]
        loops = []
        for stage in range(last + 1):
            ends = sums if stage == last else [i for i in rows if self._is_row_reduction(i) and stages[i] == stage + 1]
            written = stores if stage == (last if is_last else 0) else []
            lines = self._of_rank(Rank.ELEMENT, self._needed(self._targets(ends, written), known.union(rows)))
            read_back = {i: stored[i] for i in lines if i in stored}
            loops.append(Loop([i for i in rows if stages[i] == stage], lines, ends, written, read_back))
        return Pass(self._of_rank(Rank.TENSOR, needed), loops, sums, sorted(row_sums & needed))

    def _targets(self, sums: Iterable[int], stores: Iterable[tuple[int, int]]) -> list[int]:
        """The lines that these reductions and stores take."""
        return [self.lines[i].args[0] for i in sums] + [i for _, i in stores]

    def _needed(self, targets: Iterable[int], known: Collection[int] = (), across: bool = False) -> set[int]:
        """The lines that these depend on within one pass where some are known, or `across` all passes."""
        found: set[int] = set()
        stack = list(targets)
        while stack:
            i = stack.pop()
            if i not in found:
                found.add(i)
                stack += self.lines[i].args if across else () if i in known else self._kernel_args(i)
        return found

    def _of_rank(self, rank: Rank, lines: Iterable[int]) -> list[int]:
        return sorted(i for i in lines if self.lines[i].rank == rank)

    def _kernel_args(self, i: int) -> tuple[int, ...]:
        """What a pass must compute before this line: nothing for numbers and for sums of earlier passes."""
        return () if self.lines[i].rank == Rank.NUMBER or self._is_tensor_reduction(i) else self.lines[i].args

    def _is_tensor_reduction(self, i: int) -> bool:
        return self.lines[i].op in REDUCTIONS and self.lines[i].rank == Rank.TENSOR

    def _is_row_reduction(self, i: int) -> bool:
        return self.lines[i].op in REDUCTIONS and self.lines[i].rank == Rank.ROW

    def _depths(self, is_reduction: Callable[[int], bool], known: Collection[int] = ()) -> list[int]:
        """For each line, how many such reductions must be done before it, one after the other; for known ones none."""
        depths: list[int] = []
        for i, line in enumerate(self.lines):
            before = max((depths[arg] for arg in line.args), default=0)
            depths.append(0 if i in known else before + is_reduction(i))
        return depths
