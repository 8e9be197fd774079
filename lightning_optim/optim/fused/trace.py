"""Stand-ins for tensors and numbers: a rule that is called with them writes down what it computes, as a `Program`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from numbers import Real
from typing import Any, NoReturn

import torch

from .program import ON_NUMBERS, Program, Rank

# How a stand-in sees its elements: in the parameter's shape, or as a matrix of several rows or of one.
_WHOLE, _ROWS, _ONE_ROW = "the parameter's shape", "rows", "one row"
_TINY = 2.0**-60


class TraceError(TypeError):
    """A rule uses something that cannot be written down."""


def trace(rule: Callable[[Any, Any, Sequence[Any]], None], program: Program, dtype: torch.dtype) -> Program:
    """The program of a rule, which is called once, with stand-ins for the program's arguments.

    Args:
        rule: called as `rule(p, g, buffers)`, with `TracedNumber`s of the program in it.
        program: where it is written down.
        dtype: of p.

    Raises:
        TraceError: the rule uses something that has no line.
    """
    loads = [program.add("load", rank=argument.rank, value=i) for i, argument in enumerate(program.arguments)]
    by_row = [argument.rank == Rank.ROW for argument in program.arguments]
    seen_as = [(2, dtype, _ROWS) if rows else (program.ndim, dtype, _WHOLE) for rows in by_row]
    tensors = [TracedTensor(program, load, *kind) for load, kind in zip(loads, seen_as, strict=True)]
    p, g, *buffers = tensors
    g.writable = False
    rule(p, g, buffers)
    program.stores = {i: tensor.line for i, tensor in enumerate(tensors) if tensor.line != loads[i]}
    return program


def _calculation(op: str, *, reflected: bool = False) -> Callable[..., Any]:
    if reflected:
        return lambda self, other: self._add(op, other, self)
    return lambda self, *others: self._add(op, self, *others)


class _Traced:
    """The operators that numbers and tensors have alike."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    __neg__, __abs__ = map(_calculation, ("neg", "abs"))
    __add__, __sub__, __mul__ = map(_calculation, ("add", "sub", "mul"))
    __radd__, __rsub__, __rmul__, __rtruediv__ = (
        _calculation(op, reflected=True) for op in ("add", "sub", "mul", "div")
    )
    __gt__, __ge__, __lt__, __le__, __eq__, __ne__ = map(_calculation, ("gt", "ge", "lt", "le", "eq", "ne"))


@Real.register  # `isinstance(x, Real)` tells numbers from tensors
class TracedNumber(_Traced):
    """A number that may change from step to step.

    Args:
        program: where it is written down.
        line: its line there.
        value: what it is now. Where a rule branches on a comparison, this decides; the program is for steps in which
            the comparison comes out the same.
    """

    __slots__ = ("line", "program", "value")

    def __init__(self, program: Program, line: int, value: Any) -> None:
        self.program, self.line, self.value = program, line, value

    def __bool__(self) -> bool:
        if not isinstance(self.value, bool):
            raise TraceError(
                "a rule cannot branch on a number that changes from step to step. Return a bool among the coefficients"
            )
        self.program.guards.append((self.line, self.value))
        return self.value

    __truediv__, __pow__, __rpow__ = _calculation("div"), _calculation("pow"), _calculation("pow", reflected=True)

    def _add(self, op: str, *operands: Any) -> Any:
        if not all(isinstance(operand, Real) for operand in operands):
            return NotImplemented
        values = [operand.value if isinstance(operand, TracedNumber) else operand for operand in operands]
        line = self.program.add(op, *(_line_of(operand, self.program) for operand in operands))
        return TracedNumber(self.program, line, ON_NUMBERS[op](*values))


class TracedTensor(_Traced):
    """The parameter, its gradient, a buffer, or what was computed of them: a variable that names a line.

    It has those methods of a tensor that rules use. With `_` at its end, a method gives the variable another line.
    """

    __slots__ = ("base", "dtype", "line", "ndim", "program", "view", "writable")

    def __init__(self, program: Program, line: int, ndim: int, dtype: torch.dtype, view: str) -> None:
        self.program, self.line, self.ndim, self.dtype, self.view = program, line, ndim, dtype, view
        self.base: TracedTensor | None = None
        """What it is a view of."""
        self.writable = True

    @property
    def rank(self) -> Rank:
        """How many values it has."""
        return self.program.lines[self.line].rank

    def __getattr__(self, name: str) -> Callable[..., TracedTensor]:
        method = getattr(type(self), name[:-1], None) if name.endswith("_") and not name.startswith("_") else None
        if method is None:
            raise TraceError(f"a kernel has no Tensor.{name}")
        return lambda *args, **kwargs: self._write(name, method(self, *args, **kwargs))

    def __bool__(self) -> bool:
        raise TraceError("a rule cannot branch on what is in a tensor")

    def __iadd__(self, other: Any) -> NoReturn:  # type: ignore[misc]
        raise TraceError("a rule writes in place with the methods that end in _")

    __isub__ = __imul__ = __itruediv__ = __ipow__ = __iadd__

    # Element by element.

    neg, abs, sqrt, sign, exp, log, tanh = map(_calculation, ("neg", "abs", "sqrt", "sign", "exp", "log", "tanh"))
    mul, maximum, minimum, lerp = map(_calculation, ("mul", "max", "min", "lerp"))
    gt, ge, lt, le, eq, ne = map(_calculation, ("gt", "ge", "lt", "le", "eq", "ne"))
    logical_and, logical_or = map(_calculation, ("and", "or"))
    clamp_min, clamp_max = maximum, minimum

    def add(self, other: Any, *, alpha: Any = 1) -> TracedTensor:
        return self._add("add", self, other) if _is_one(alpha) else self._add("fma", other, alpha, self)

    def sub(self, other: Any, *, alpha: Any = 1) -> TracedTensor:
        return self._add("sub", self, other) if _is_one(alpha) else self._add("fma", other, -alpha, self)

    def addcmul(self, a: TracedTensor, b: Any, *, value: Any = 1) -> TracedTensor:
        return self._add("fma", a if _is_one(value) else a * value, b, self)

    def addcdiv(self, a: TracedTensor, b: Any, *, value: Any = 1) -> TracedTensor:
        return self.add((a if _is_one(value) else a * value) / b)

    def div(self, other: Any) -> TracedTensor:
        # A division takes several times as long. The reciprocal is rounded once, from float64; the bounds keep it, and
        # what it is multiplied with, a normal number.
        is_number = self.program.has_reciprocals and isinstance(other, TracedNumber | float | int)
        if is_number and abs(other) > _TINY and abs(other) < 1 / _TINY:
            return self._add("mul", self, 1 / other)
        return self._add("div", self, other)

    def square(self) -> TracedTensor:
        return self._add("mul", self, self)

    def reciprocal(self) -> TracedTensor:
        return self._add("div", 1.0, self)

    def rsqrt(self) -> TracedTensor:
        return self._add("div", 1.0, self.sqrt())

    def sigmoid(self) -> TracedTensor:
        return self._add("div", 1.0, self.neg().exp().add(1.0))

    def pow(self, exponent: Any) -> TracedTensor:
        cheaper = {2: self.square, 1: self.clone, 0.5: self.sqrt, -0.5: self.rsqrt, -1: self.reciprocal}
        cheaper |= {1 / 3: self._cube_root, -1 / 3: lambda: self._cube_root().reciprocal()}
        if isinstance(exponent, Real):
            for value, power in cheaper.items():
                if exponent == value:  # of a number that may change, a guard
                    return power()
        return self._add("pow", self, exponent)

    _cube_root = _calculation("cube_root")

    def clamp(self, min: Any = None, max: Any = None) -> TracedTensor:
        bounded = self if min is None else self.maximum(min)
        return bounded if max is None else bounded.minimum(max)

    def nan_to_num(self, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> TracedTensor:
        limit = torch.finfo(self.dtype).max
        low = self._add("where", self == -inf, -limit if neginf is None else neginf, self)
        both = self._add("where", self == inf, limit if posinf is None else posinf, low)
        return self._add("where", self == self, both, nan)

    def where(self, condition: TracedTensor, other: Any) -> TracedTensor:
        return self._add("where", condition, self, other)

    def copy_(self, other: TracedTensor) -> TracedTensor:
        return self._write("copy_", other)

    def fill_(self, value: Any) -> TracedTensor:
        return self._write("fill_", self._add("copy", value))

    def zero_(self) -> TracedTensor:
        return self.fill_(0.0)

    __truediv__, __pow__, __and__, __or__ = div, pow, logical_and, logical_or

    # Over a tensor, or over each of its rows.

    def sum(self, dim: Any = None, keepdim: bool = False) -> TracedTensor:
        return self._reduce("sum", dim, keepdim)

    def amax(self, dim: Any = None, keepdim: bool = False) -> TracedTensor:
        return self._reduce("amax", dim, keepdim)

    def mean(self, dim: Any = None, keepdim: bool = False) -> TracedTensor:
        total = self.sum(dim, keepdim)
        count = self._add("columns" if total.rank == Rank.ROW else "numel", rank=Rank.TENSOR)
        return self._add("div", total, count)

    def norm(self, p: float = 2.0, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> TracedTensor:
        del dtype  # everything is computed in at least float32
        if p != 2:
            raise TraceError(f"a kernel computes norms of order 2 only, not of order {p}")
        return self._add("sqrt", self.square().sum(dim, keepdim))

    # Other views of the same values.

    def clone(self) -> TracedTensor:
        return TracedTensor(self.program, _line_of(self, self.program), self.ndim, self.dtype, self.view)

    def to(self, *_: Any) -> TracedTensor:
        return self._see_as(self.view, self.ndim)

    def view_as(self, other: TracedTensor) -> TracedTensor:
        return self._see_as(other.view, other.ndim)

    def squeeze(self) -> TracedTensor:
        if self.rank > Rank.TENSOR:
            raise TraceError("only a tensor of one element can be squeezed")
        return self._see_as(_WHOLE, 0)

    def unsqueeze(self, dim: int) -> TracedTensor:
        if dim != -1 or self.view != _WHOLE:
            raise TraceError("a kernel adds a dimension of 1 only at the end")
        return self._see_as(_WHOLE, self.ndim + 1)

    def flatten(self, start_dim: int) -> TracedTensor:
        if start_dim != 1 or self.view != _WHOLE or self.ndim < 2:
            raise TraceError("a kernel flattens a tensor only from dimension 1, into rows")
        return self._cut("first" if self.program.ndim else 1)

    def reshape(self, *shape: int) -> TracedTensor:
        if len(shape) != 2:
            raise TraceError("a kernel reshapes a tensor only into rows")
        return self._cut(shape[0])

    def new_full(self, size: Sequence[int], value: Any) -> TracedTensor:
        if tuple(size):
            raise TraceError("a kernel creates only tensors of 0 dimensions")
        return self._add("copy", value, rank=Rank.TENSOR)

    def _add(self, op: str, *operands: Any, rank: Rank | None = None) -> TracedTensor:
        tensors = [x for x in operands if isinstance(x, TracedTensor) and x.rank > Rank.TENSOR]
        views = {(x.view, x.ndim) for x in tensors} or {(_WHOLE, 0)}
        if len(views) > 1:
            raise TraceError(f"{op}: one tensor has {' and another one '.join(sorted(view for view, _ in views))}")
        line = self.program.add(op, *(_line_of(operand, self.program) for operand in operands), rank=rank)
        ((view, ndim),) = views
        return TracedTensor(self.program, line, ndim, self.dtype, view)

    def _write(self, name: str, result: TracedTensor) -> TracedTensor:
        if not self.writable:
            raise TraceError(f"{name} writes to the gradient, or through a view")
        if result.rank > self.rank or (result.rank > Rank.TENSOR and result.view != self.view):
            raise TraceError(f"{name}: the result has another shape")
        is_alike = result.rank == self.rank
        self.line = _line_of(result, self.program) if is_alike else self._add("copy", result, rank=self.rank).line
        return self

    def _see_as(self, view: str, ndim: int) -> TracedTensor:
        alias = TracedTensor(self.program, _line_of(self, self.program), ndim, self.dtype, view)
        alias.base = self if self.base is None else self.base
        alias.writable = False  # a write to it would be one to this tensor
        return alias

    def _cut(self, rows: int | str) -> TracedTensor:
        if rows == 1:
            return self._see_as(_ONE_ROW, 2)
        if self.program.rows not in (None, rows):
            raise TraceError("a kernel cuts a tensor into rows in one way only")
        self.program.rows = rows
        return self._see_as(_ROWS, 2)

    def _reduce(self, op: str, dim: Any, keepdim: bool) -> TracedTensor:
        if self.rank <= Rank.TENSOR:
            return self.clone()
        if dim is None or self.view == _ONE_ROW:
            return self._add(op, self, rank=Rank.TENSOR)
        if dim not in (1, [1]) or not keepdim or self.rank == Rank.ROW:
            raise TraceError(f"{op}: a kernel reduces a tensor, or each of its rows with keepdim=True")
        rows = self._cut("first") if self.view == _WHOLE else self
        result = rows._add(op, rows, rank=Rank.ROW)
        return TracedTensor(self.program, result.line, self.ndim, self.dtype, self.view)


def _is_one(factor: Any) -> bool:
    return isinstance(factor, int | float) and factor == 1


def _line_of(operand: Any, program: Program) -> int:
    if isinstance(operand, TracedTensor) and operand.base is not None and operand.base.line != operand.line:
        raise TraceError("a rule reads a view after it has written to the tensor. Take the view after the write")
    if isinstance(operand, TracedTensor | TracedNumber):
        return operand.line
    if isinstance(operand, int | float):
        return program.add("constant", rank=Rank.NUMBER, value=float(operand))
    raise TraceError(f"a rule computes with tensors and numbers, not with {type(operand).__name__}")
