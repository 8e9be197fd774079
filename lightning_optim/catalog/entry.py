"""An entry of the catalog for an optimizer that runs by our class alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..core.hyperparameters import Hyperparameter
from .common import options
from .decay import decay_conflict
from .info import OptimizerInfo


def ours(
    name: str,
    cls: str,
    *,
    hyperparameters: Mapping[str, Hyperparameter],
    decay: str = "l2",
    conflict: Callable[[Mapping[str, Any]], str | None] = decay_conflict,
    **more: Any,
) -> OptimizerInfo:
    """What the registry holds of an optimizer of ours that torch does not have.

    Args:
        name: what a config writes.
        cls: the class's name in `lightning_optim.optim`.
        hyperparameters: its own; what every optimizer of ours takes comes after them.
        decay: what `weight_decay` means by default.
        conflict: what is wrong with a combination of values.
        **more: the other fields of `OptimizerInfo`.
    """
    path = f"lightning_optim.optim:{cls}"
    return OptimizerInfo(
        name=name,
        path=path,
        own=path,
        hyperparameters={**hyperparameters, **options(decay)},
        decay=decay,
        conflict=conflict,
        **more,
    )
