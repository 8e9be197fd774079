"""The measures of one optimizer in a checkpoint: a row for each group, and all NaN and infinite values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..groups.group import ALL
from ..telemetry.state_leaves import is_float_tensor, state_leaves
from .checkpoint_measure import STEP, norm, num_bytes, num_nonfinite
from .checkpoint_reader import SavedOptimizer


@dataclass(frozen=True, kw_only=True)
class Row:
    """A group, or all groups together."""

    group: str
    algorithm: str | None
    """As the group has it; None if it has none."""
    num_tensors: int
    """The parameters, as tensors of the model, with or without state."""
    num_parameters: int
    """Their number of elements, as far as the shapes in the state determine it."""
    num_unknown: int
    """The tensors whose number of elements is unknown."""
    lr: float | None
    weight_decay: float | None
    step: float | None
    """The largest step count."""
    norms: Mapping[str, float]
    """The L2 norm of each buffer over the group."""
    num_bytes: int
    """The size of the state."""


@dataclass(frozen=True, kw_only=True)
class NonFinite:
    """A value in a parameter's state with NaN or infinite elements."""

    parameter: str
    buffer: str
    count: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an optimizer in a checkpoint holds."""

    key: str
    rows: tuple[Row, ...]
    """One for each group; the last is that of `all`."""
    buffers: tuple[str, ...]
    """Found, not listed: every floating-point tensor of the state except scalars."""
    nonfinite: tuple[NonFinite, ...]


def build_report(saved: SavedOptimizer) -> Report:
    """The measures of an optimizer.

    Args:
        saved: from `read_checkpoint`.

    Examples:
        >>> import torch
        >>> from lightning_optim.cli.checkpoint_reader import SavedGroup, SavedOptimizer
        >>> group = SavedGroup(name="default", params=("w",), hyperparameters={"lr": 0.1})
        >>> state = {"w": {"momentum_buffer": torch.tensor([3.0, 4.0])}}
        >>> saved = SavedOptimizer(key="optimizer", groups=(group,), state=state, has_names=True)
        >>> build_report(saved).rows[0].norms
        {'momentum_buffer': 5.0}
    """
    buffers = tuple(
        dict.fromkeys(
            key
            for name in saved.params
            for key, value in saved.state.get(name, {}).items()
            if key != STEP and is_float_tensor(value) and value.ndim
        )
    )
    rows = [
        _build_row(
            group.name,
            [saved.state.get(name, {}) for name in group.params],
            buffers,
            algorithm=group.hyperparameters.get("algorithm"),
            lr=_to_number(group.hyperparameters.get("lr")),
            weight_decay=_to_number(group.hyperparameters.get("weight_decay")),
        )
        for group in saved.groups
    ]
    rows.append(_build_row(ALL, [saved.state.get(name, {}) for name in saved.params], buffers))
    return Report(key=saved.key, rows=tuple(rows), buffers=buffers, nonfinite=tuple(_find_nonfinite(saved)))


def _build_row(
    group: str,
    states: Sequence[Mapping[str, Any]],
    buffers: Iterable[str],
    *,
    algorithm: str | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
) -> Row:
    sizes = [_find_size(state, buffers) for state in states]
    norms = {}
    for buffer in buffers:
        # The state of a scalar parameter counts too, if other parameters have a buffer of that name.
        tensor_norms = [norm(state[buffer]) for state in states if is_float_tensor(state.get(buffer))]
        if tensor_norms:
            norms[buffer] = math.hypot(*tensor_norms)
    steps = [step for state in states if (step := _to_number(state.get(STEP))) is not None]
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
        num_bytes=sum(num_bytes(leaf) for state in states for _, leaf in state_leaves(state)),
    )


def _find_size(state: Mapping[str, Any], buffers: Iterable[str]) -> int | None:
    """A parameter's number of elements: from the shape of its buffers, or the one that rows and columns span."""
    shapes = [state[buffer].shape for buffer in buffers if is_float_tensor(state.get(buffer))]
    if not shapes:
        return None
    try:
        return math.prod(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]
    except RuntimeError:
        return None


def _find_nonfinite(saved: SavedOptimizer) -> Iterable[NonFinite]:
    for name in saved.params:
        for key, leaf in state_leaves(saved.state.get(name, {})):
            if count := num_nonfinite(leaf):
                size = leaf.numel() if isinstance(leaf, Tensor) else 1
                yield NonFinite(parameter=name, buffer=key, count=count, size=size)


def _to_number(value: Any) -> float | None:
    if isinstance(value, Tensor):
        return float(value) if value.numel() == 1 else None
    return value if isinstance(value, (int, float)) else None
