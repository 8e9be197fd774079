"""The lr of each arm, chosen on the validation split: the best of a grid, which is widened until the best is inside."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

Cell = TypeVar("Cell", bound=Hashable)

MAX_ROUNDS = 8


def choose_lrs(
    first_lrs: Mapping[Cell, float], evaluate: Callable[[Sequence[tuple[Cell, float]]], Sequence[float]]
) -> dict[Cell, dict[float, float]]:
    """Cell → lr → accuracy, by increasing lr; `best_lr` reads it.

    The lrs are 1 and 3 times powers of ten. Each cell begins with three; as long as its best is the first or the last,
    one more is tried there. All cells take their next step together, so that their runs can share workers.

    Args:
        first_lrs: cell → the middle of its first three.
        evaluate: the accuracies of these cells at these lrs, on the validation split.

    Raises:
        RuntimeError: after `MAX_ROUNDS` the best of a cell is still at an edge.
    """
    accuracies: dict[Cell, dict[float, float]] = {cell: {} for cell in first_lrs}
    wanted = [(cell, lr_at(_index(lr) + offset)) for cell, lr in first_lrs.items() for offset in (-1, 0, 1)]
    for _ in range(MAX_ROUNDS):
        for (cell, lr), accuracy in zip(wanted, evaluate(wanted), strict=True):
            accuracies[cell][lr] = accuracy
        accuracies = {cell: dict(sorted(by_lr.items())) for cell, by_lr in accuracies.items()}
        beyond = {cell: _next_lr(by_lr) for cell, by_lr in accuracies.items()}
        wanted = [(cell, lr) for cell, lr in beyond.items() if lr is not None]
        if not wanted:
            return accuracies
    raise RuntimeError(f"the best lr is at the edge of the grid after {MAX_ROUNDS} rounds: {wanted}")


def best_lr(by_lr: Mapping[float, float]) -> float:
    """The lr of the highest accuracy; of several, one that is not at the edge, then the lowest."""
    lrs = sorted(by_lr)
    inside = lrs[1:-1]
    return max(lrs, key=lambda lr: (by_lr[lr], lr in inside, -lr))


def lr_at(index: int) -> float:
    """1, 3, 10, 30, ... for 0, 1, 2, 3, ..., and the same below 1."""
    power, half = divmod(index, 2)
    return float(f"{3 if half else 1}e{power}")


def _index(lr: float) -> int:
    return round(2 * math.log10(lr))


def _next_lr(by_lr: Mapping[float, float]) -> float | None:
    """The lr to try next, beyond the edge that is best; None if the best is inside."""
    lrs, best = sorted(by_lr), best_lr(by_lr)
    if best == lrs[0]:
        return lr_at(_index(best) - 1)
    return lr_at(_index(best) + 1) if best == lrs[-1] else None
