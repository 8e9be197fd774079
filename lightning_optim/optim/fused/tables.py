"""Where the tensors of a bucket are, as tables of numbers that a kernel reads."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain, compress
from operator import attrgetter
from typing import Any

from torch import Tensor

from ..fingerprint import Fingerprint
from ..real_view import real
from .cut import Cut
from .kernels import Kernel, Kind
from .program import Argument, Rank
from .usable import DTYPES

CHUNK = 16384
"""Elements that a thread takes at a time. Sums are added up by chunks, so in one order for any number of threads."""
_shape = attrgetter("shape")


class Plan:
    """The tables of a bucket, as long as its tensors stay where they are; gradients may move.

    Args:
        tensors: the parameters, the gradients, and each buffer, by name; all of them usable.
    """

    def __init__(self, tensors: Mapping[str, list[Tensor]], layout: Any) -> None:
        params, grads, *buffers = columns = list(tensors.values())
        self._layout = layout
        self._fingerprint = Fingerprint(grads, [*params, *chain(*buffers)]) if layout is None else None
        positions = defaultdict(list)
        for i, row in enumerate(zip(*columns, strict=True)):
            positions[kind_of(tuple(tensors), row), row[0].is_contiguous()].append(i)
        self.tables = [Table(kind, chosen, columns, rows) for (kind, rows), chosen in positions.items()]

    def holds_for(self, columns: Sequence[list[Tensor]], layout: Any) -> bool:
        """Whether tensors are those of the tables, where they were.

        Args:
            columns: the parameters, the gradients, and each buffer.
            layout: of their bucket, if it is known; if it equals that of an earlier call, they are.
        """
        if self._fingerprint is None or layout is not None:
            return layout is not None and layout == self._layout
        params, grads, *buffers = columns
        return self._fingerprint.holds_for(grads, [*params, *chain(*buffers)])


class Table:
    """The tensors of one launch.

    Args:
        kind: of each of them.
        positions: theirs in the bucket.
        columns: the parameters, the gradients, and each buffer of the bucket.
        has_rows: whether a row of a parameter is one piece of memory.
    """

    def __init__(self, kind: Kind, positions: list[int], columns: Sequence[list[Tensor]], has_rows: bool) -> None:
        self.kind, self.positions = kind, positions
        self._has_rows = has_rows
        tensors = [[real(column[i]) for i in positions] for column in columns]
        self._device = tensors[0][0].device
        self._addresses = array("q", [tensor.data_ptr() for column in tensors for tensor in column])
        self._shapes = list(map(_shape, tensors[0]))
        by_row = [argument.rank == Rank.ROW for argument in kind.arguments]
        self._row_sizes = [{x.numel() for x in compress(row, by_row)} for row in zip(*tensors, strict=True)]
        """For each parameter, the sizes of its buffers of one number per row."""
        self._cuts: dict[int | str | None, Cut | None] = {}

    def can_launch(self, kernel: Kernel, *, elementwise: bool) -> bool:
        """Whether a kernel of their kind can step the tensors.

        Args:
            kernel: which may need rows that they cannot be cut into.
            elementwise: only if it computes each element by itself.
        """
        return not (elementwise and kernel.program.mixes_elements()) and self._get_cut(kernel) is not None

    def launch(self, kernel: Kernel, numbers: Sequence[float], gradients: Sequence[int]) -> Tensor:
        """Step the tensors.

        Args:
            kernel: which can be launched.
            numbers: what it takes.
            gradients: the addresses of all gradients of the bucket.

        Returns:
            The kernel's reductions, `(reductions, tensors)`.
        """
        cut = self._get_cut(kernel)
        assert cut is not None
        count = len(self.positions)
        if count < len(gradients):
            gradients = [gradients[i] for i in self.positions]
        self._addresses[count : 2 * count] = array("q", gradients)
        return kernel.launch(self._addresses, cut, numbers, self._device)

    def _get_cut(self, kernel: Kernel) -> Cut | None:
        rows = kernel.program.rows
        if rows not in self._cuts:
            self._cuts[rows] = self._cut(rows)
        return self._cuts[rows]

    def _cut(self, rows: int | str | None) -> Cut | None:
        """The tensors in chunks; None where they have no such rows."""
        cut = Cut()
        for shape, row_sizes in zip(self._shapes, self._row_sizes, strict=True):
            numel = shape.numel()
            num_rows = shape[0] if rows == "first" else int(rows or 1)
            columns, rest = divmod(numel, num_rows)
            has_rows = rows is None or (self._has_rows and not rest)
            if not has_rows or not row_sizes <= {num_rows}:
                return None
            if rows is None:
                cut.add(numel, numel, CHUNK)
            else:
                cut.add(numel, num_rows, max(1, CHUNK // columns))
        return cut


def kind_of(names: Sequence[str], tensors: Sequence[Tensor]) -> Kind:
    """What a kernel must know of a parameter, its gradient and its buffers."""
    param, *_ = tensors = [real(tensor) for tensor in tensors]

    def rank(tensor: Tensor) -> Rank:
        if tensor.shape == param.shape:
            return Rank.ELEMENT
        return Rank.TENSOR if tensor.numel() == 1 else Rank.ROW

    arguments = (Argument(name, DTYPES[x.dtype], rank(x)) for name, x in zip(names, tensors, strict=True))
    return Kind(tuple(arguments), min(param.ndim, 2), param.device.type)
