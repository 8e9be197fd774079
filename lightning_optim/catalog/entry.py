"""Builds the catalog entry of an optimizer that has a native class only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..core.hyperparameters import Hyperparameter
from .common import shared_options
from .decay import find_decay_conflict
from .info import OptimizerInfo


def native_entry(
    name: str,
    cls: str,
    *,
    hyperparameters: Mapping[str, Hyperparameter],
    decay: str = "l2",
    conflict: Callable[[Mapping[str, Any]], str | None] = find_decay_conflict,
    **fields: Any,
) -> OptimizerInfo:
    """The catalog entry of a native optimizer that torch does not have.

    Args:
        name: its name in configs.
        cls: the name of its class in `lightning_optim.optim`.
        hyperparameters: its own ones; those that every native optimizer accepts are added after them.
        decay: the default `weight_decay_mode`.
        conflict: returns what is wrong with a combination of values, or None.
        **fields: the other fields of `OptimizerInfo`.
    """
    path = f"lightning_optim.optim:{cls}"
    return OptimizerInfo(
        name=name,
        path=path,
        own=path,
        hyperparameters={**hyperparameters, **shared_options(decay)},
        decay=decay,
        conflict=conflict,
        **fields,
    )
