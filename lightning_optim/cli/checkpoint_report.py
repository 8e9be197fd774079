"""One optimizer of a checkpoint, measured: a row for each group, and every value that is not finite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..telemetry.state_leaves import is_float, leaves
from .checkpoint_measure import STEP, norm, num_bytes, num_nonfinite
from .checkpoint_reader import SavedOptimizer

ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A group, or all of them."""

    group: str
    algorithm: str | None
    """For groups that say."""
    num_tensors: int
    """Parameters that are tensors of the model, whether they have a state or not."""
    num_parameters: int
    """Their elements, as far as the state tells."""
    num_unknown: int
    """Tensors among them whose size no state tells."""
    lr: float | None
    weight_decay: float | None
    step: float | None
    """The largest."""
    norms: Mapping[str, float]
    """The L2 norm of each buffer over the group."""
    num_bytes: int
    """Of state."""


@dataclass(frozen=True, kw_only=True)
class NonFinite:
    """A part of a parameter's state with values that are NaN or infinite."""

    parameter: str
    buffer: str
    count: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an optimizer in a checkpoint holds."""

    key: str
    rows: tuple[Row, ...]
    """The last is that of `all`."""
    buffers: tuple[str, ...]
    """Found, not listed: every floating tensor of the state but its scalars."""
    nonfinite: tuple[NonFinite, ...]


def report(saved: SavedOptimizer) -> Report:
    """Measure an optimizer that was read.

    Args:
        saved: what `read` gave.

    Example:
        >>> import torch
        >>> from lightning_optim.cli.checkpoint_reader import SavedGroup, SavedOptimizer
        >>> group = SavedGroup(name="default", params=("w",), hyperparameters={"lr": 0.1})
        >>> state = {"w": {"momentum_buffer": torch.tensor([3.0, 4.0])}}
        >>> report(SavedOptimizer(key="optimizer", groups=(group,), state=state, named=True)).rows[0].norms
        {'momentum_buffer': 5.0}
    """
    buffers = tuple(
        dict.fromkeys(
            key
            for name in saved.params
            for key, value in saved.state.get(name, {}).items()
            if key != STEP and is_float(value) and value.ndim
        )
    )
    rows = [
        _row(
            group.name,
            [saved.state.get(name, {}) for name in group.params],
            buffers,
            algorithm=group.hyperparameters.get("algorithm"),
            lr=_number(group.hyperparameters.get("lr")),
            weight_decay=_number(group.hyperparameters.get("weight_decay")),
        )
        for group in saved.groups
    ]
    rows.append(_row(ALL, [saved.state.get(name, {}) for name in saved.params], buffers))
    return Report(key=saved.key, rows=tuple(rows), buffers=buffers, nonfinite=tuple(_nonfinite(saved)))


def _row(
    group: str,
    states: Sequence[Mapping[str, Any]],
    buffers: Iterable[str],
    *,
    algorithm: str | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
) -> Row:
    sizes = [_num_elements(state, buffers) for state in states]
    norms = {}
    for buffer in buffers:
        # A scalar parameter's is a scalar too: it counts where others have a buffer of that name.
        held = [norm(state[buffer]) for state in states if is_float(state.get(buffer))]
        if held:
            norms[buffer] = math.hypot(*held)
    steps = [step for state in states if (step := _number(state.get(STEP))) is not None]
    return Row(
        group=group,
        algorithm=algorithm,
        num_tensors=len(states),
        num_parameters=sum(size for size in sizes if size is not None),
        num_unknown=sizes.count(None),
        lr=lr,
        weight_decay=weight_decay,
        step=max(steps, default=None),
        norms=norms,
        num_bytes=sum(num_bytes(leaf) for state in states for _, leaf in leaves(state)),
    )


def _num_elements(state: Mapping[str, Any], buffers: Iterable[str]) -> int | None:
    """A parameter's, from the shape that its buffers have or, where they are rows and columns, span."""
    shapes = [state[buffer].shape for buffer in buffers if is_float(state.get(buffer))]
    if not shapes:
        return None
    try:
        return math.prod(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]
    except RuntimeError:
        return None


def _nonfinite(saved: SavedOptimizer) -> Iterable[NonFinite]:
    for name in saved.params:
        for key, leaf in leaves(saved.state.get(name, {})):
            if count := num_nonfinite(leaf):
                size = leaf.numel() if isinstance(leaf, Tensor) else 1
                yield NonFinite(parameter=name, buffer=key, count=count, size=size)


def _number(value: Any) -> float | None:
    if isinstance(value, Tensor):
        return float(value) if value.numel() == 1 else None
    return value if isinstance(value, (int, float)) else None
