"""The optimizers there are, by name: what `catalog` holds, looked up (no torch)."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from .catalog.adam_averages import ADAM_AVERAGES
from .catalog.adam_steps import ADAM_STEPS
from .catalog.both import BOTH
from .catalog.common import OPTIONS as OPTIONS
from .catalog.common import USUAL as USUAL
from .catalog.games import GAMES
from .catalog.info import OptimizerInfo as OptimizerInfo
from .catalog.momentum import MOMENTUM
from .catalog.norms_and_signs import NORMS_AND_SIGNS
from .catalog.torch_only import TORCH
from .errors import ConfigError, choices
from .hyperparameters import Hyperparameter
from .registration import check_name, describe

if TYPE_CHECKING:
    from torch.optim import Optimizer


def register_optimizer(
    name: str,
    cls: type[Optimizer] | str,
    *,
    hyperparameters: Mapping[str, Hyperparameter] | None = None,
    summary: str = "",
    paper: str = "",
    decay: str = "",
) -> None:
    """Let configs have an optimizer by name: `name: soap`, `optimizer: soap` in a rule.

    What they may set is read from the constructor's signature: each value must be of its default's kind, and a
    misspelt key is refused also where the class would swallow it. A package may register its classes without being
    imported, by the entry-point group `lightning_optim.optimizers`.

    Args:
        name: of small letters, digits and `_`.
        cls: a subclass of `torch.optim.Optimizer`, or where it is, `package.module:Class`, imported when first needed.
        hyperparameters: bounds for some of its arguments, as in `optimizer_info("adamw").hyperparameters`.
        summary: one line for `lightning-optim list`; by default its docstring's first.
        paper: where the algorithm comes from.
        decay: what its `weight_decay` means, if it is a mode of `WeightDecay`.

    Raises:
        ConfigError: the name is taken or none, or the class is no optimizer.

    Example:
        >>> import torch
        >>> class Plain(torch.optim.SGD):
        ...     def __init__(self, params, lr=0.1):
        ...         super().__init__(params, lr=lr)
        >>> register_optimizer("plain", Plain)
        >>> sorted(optimizer_info("plain").hyperparameters)
        ['lr']
    """
    check_name(name)
    others = _OPTIMIZERS.get(name)
    if others is not None and others.is_built_in:
        raise ConfigError(f"name: there is an optimizer {name!r} already. Give yours another name")
    given: dict[str, Any] = {"hyperparameters": hyperparameters, "summary": summary, "paper": paper, "decay": decay}
    _OPTIMIZERS.pop(name, None)
    if isinstance(cls, str):
        _UNSEEN[name] = partial(_import_and_describe, name, cls, **given)
    else:
        _UNSEEN.pop(name, None)
        _OPTIMIZERS[name] = describe(name, cls, **given)


def list_optimizers(pattern: str = "*") -> list[str]:
    """The names of the registry that match a glob, sorted.

    Example:
        >>> list_optimizers("nadam*")
        ['nadam', 'nadamw']
    """
    _read_entry_points()
    return sorted(name for name in (*_OPTIMIZERS, *_UNSEEN) if fnmatch.fnmatchcase(name, pattern))


def optimizer_info(name: str) -> OptimizerInfo:
    """What is known of one optimizer.

    Raises:
        ConfigError: no optimizer has that name.

    Example:
        >>> optimizer_info("adamw").hyperparameters["weight_decay"].default
        0.01
    """
    _read_entry_points()
    if not isinstance(name, str) or (name not in _OPTIMIZERS and name not in _UNSEEN):
        raise ConfigError(
            f"name: there is no optimizer {name!r}.{choices(str(name), list_optimizers())}. "
            "See them with: lightning-optim list"
        )
    if name in _UNSEEN:
        _OPTIMIZERS[name] = _UNSEEN[name]()
        del _UNSEEN[name]
    return _OPTIMIZERS[name]


def name_of(cls: type) -> str | None:
    """The registry's name of a class, or None where it is not there."""
    for name, info in _OPTIMIZERS.items():
        if info.cls is cls:
            return name
        for path in (info.path, info.own):
            package, _, wanted = path.partition(":")
            if cls.__name__ == wanted and f"{cls.__module__}.".startswith(f"{package}."):
                return name
    return None


def algorithms_with(hyperparameter: str) -> list[str]:
    """The optimizers that have a hyperparameter of this name."""
    return [name for name in list_optimizers() if hyperparameter in _OPTIMIZERS[name].hyperparameters]


def _import_and_describe(name: str, path: str, **given: Any) -> OptimizerInfo:
    module, _, attribute = path.partition(":")
    try:
        cls = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"name: {name} was registered as {path}, where it is not: {error}") from error
    return describe(name, cls, **given)


@cache
def _read_entry_points() -> None:
    """Once: register what installed packages offer."""
    for entry in entry_points(group=_ENTRY_POINTS):
        register_optimizer(entry.name, f"{entry.module}:{entry.attr}")


_ENTRY_POINTS = "lightning_optim.optimizers"
_OURS = (*ADAM_AVERAGES, *ADAM_STEPS, *NORMS_AND_SIGNS, *MOMENTUM, *GAMES)
_OPTIMIZERS: dict[str, OptimizerInfo] = {info.name: info for info in (*TORCH, *BOTH, *_OURS)}
_UNSEEN: dict[str, Callable[[], OptimizerInfo]] = {}
"""Registered, and not yet imported."""
