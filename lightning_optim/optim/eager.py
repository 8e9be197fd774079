"""`run_eagerly`: keeps `torch.compile` out of methods that it would compute other numbers with."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, TypeVar, cast

import torch

_LOG = logging.getLogger(__name__)
_F = TypeVar("_F", bound=Callable[..., Any])


def run_eagerly(method: _F) -> _F:
    """The method, run as it is also where it is called from a compiled function, with one log line.

    Dynamo would take the step counts, which are read from tensors and decide what is computed, for constants. A model
    that is compiled itself stays so, in a closure too.
    """
    # It imports Dynamo, so not before it is needed.
    disabled = cache(lambda: torch.compiler.disable(method))  # type: ignore[no-untyped-call]

    @wraps(method)
    def eager(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            _log(type(args[0]).__name__)
        return disabled()(*args, **kwargs)

    return cast(_F, eager)


def run_step_eagerly(cls: type[torch.optim.Optimizer]) -> None:
    """Do so for the `step` of an optimizer class, with the hooks that torch has put around it."""
    if not hasattr(cls.step, "is_eager"):
        cls.step = run_eagerly(cls.step)  # type: ignore[method-assign]
        cls.step.is_eager = True  # type: ignore[attr-defined]


@torch._disable_dynamo
@cache
def _log(name: str) -> None:
    _LOG.warning("torch.compile: %s takes its steps uncompiled, with the same numbers as without it", name)
