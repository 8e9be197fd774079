"""Looks optimizers up by name and registers new ones; torch is imported only when a class is needed."""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from ..core.errors import ConfigError, format_choices
from ..core.hyperparameters import Hyperparameter
from .built_in import BUILT_IN
from .info import OptimizerInfo
from .registration import check_name, describe_class

if TYPE_CHECKING:
    from torch.optim import Optimizer

_ENTRY_POINT_GROUP = "lightning_optim.optimizers"
_described: dict[str, OptimizerInfo] = {}
"""Registered classes whose signature has been read."""
_pending: dict[str, Callable[[], OptimizerInfo]] = {}
"""Classes registered by path: imported and described when they are first needed."""


def register_optimizer(
    name: str,
    cls: type[Optimizer] | str,
    *,
    hyperparameters: Mapping[str, Hyperparameter] | None = None,
    summary: str = "",
    paper: str = "",
    decay: str = "",
) -> None:
    """Make an optimizer available to configs by name: `name: mine`, or `optimizer: mine` in a rule.

    The hyperparameters are read from the constructor's signature. Each value must have the type of its default, and a
    misspelt key is refused even where the constructor takes `**kwargs`. A package can register its classes without
    being imported, through the entry-point group `lightning_optim.optimizers`.

    Args:
        name: lowercase letters, digits and `_`.
        cls: a subclass of `torch.optim.Optimizer`, or its path `package.module:Class`, imported when first needed.
        hyperparameters: bounds for some of its arguments, as in `optimizer_info("adamw").hyperparameters`.
        summary: one line for `lightning-optim list`; by default the first line of its docstring.
        paper: the source of the algorithm.
        decay: what its `weight_decay` means, if it is a mode of `WeightDecay`.

    Raises:
        ConfigError: the name is taken or not allowed, or the class is not an optimizer.

    Examples:
        >>> import torch
        >>> class Plain(torch.optim.SGD):
        ...     def __init__(self, params, lr=0.1):
        ...         super().__init__(params, lr=lr)
        >>> register_optimizer("plain", Plain)
        >>> sorted(optimizer_info("plain").hyperparameters)
        ['lr']
    """
    check_name(name)
    if name in BUILT_IN:
        raise ConfigError(f"name: there is already an optimizer {name!r}. Give yours another name")
    given: dict[str, Any] = {"hyperparameters": hyperparameters, "summary": summary, "paper": paper, "decay": decay}
    if isinstance(cls, str):
        _described.pop(name, None)
        _pending[name] = partial(_import_and_describe, name, cls, **given)
    else:
        _described[name] = describe_class(name, cls, **given)
        _pending.pop(name, None)


def list_optimizers(pattern: str = "*") -> list[str]:
    """The sorted names of all optimizers, registered ones included, that match a glob.

    Examples:
        >>> list_optimizers("nadam*")
        ['nadam', 'nadamw']
    """
    _read_entry_points()
    return sorted(name for name in (*BUILT_IN, *_described, *_pending) if fnmatch.fnmatchcase(name, pattern))


def optimizer_info(name: str) -> OptimizerInfo:
    """Everything the registry knows about one optimizer: hyperparameters with bounds, equations, paper, state.

    Raises:
        ConfigError: no optimizer has this name, or the registered class cannot be imported.

    Examples:
        >>> optimizer_info("adamw").hyperparameters["weight_decay"].default
        0.01
    """
    info = find_optimizer(name)
    if info is None:
        raise ConfigError(
            f"name: there is no optimizer {name!r}.{format_choices(str(name), list_optimizers())}. "
            "See them with: lightning-optim list"
        )
    return info


def find_optimizer(name: Any) -> OptimizerInfo | None:
    """As `optimizer_info`, but None where no optimizer has this name.

    The entry points of installed packages are read only for a name that is not known otherwise.

    Raises:
        ConfigError: the registered class cannot be imported.
    """
    if not isinstance(name, str):
        return None
    if name in BUILT_IN:
        return BUILT_IN[name]
    if name not in _described and name not in _pending:
        _read_entry_points()
    if name in _pending:
        _described[name] = _pending[name]()
        del _pending[name]
    return _described.get(name)


def find_optimizer_name(cls: type) -> str | None:
    """The name under which a class is registered, or None."""
    for info in (*BUILT_IN.values(), *_described.values()):
        if info.cls is cls:
            return info.name
        for path in (info.path, info.own):
            package, _, class_name = path.partition(":")
            if cls.__name__ == class_name and f"{cls.__module__}.".startswith(f"{package}."):
                return info.name
    return None


def algorithms_with(hyperparameter: str) -> list[str]:
    """The names of the optimizers that have a hyperparameter of this name.

    Only if no other optimizer has it, classes registered by path are imported, one by one, until one does. Those that
    cannot be imported are ignored.
    """
    found = [info.name for info in (*BUILT_IN.values(), *_described.values()) if hyperparameter in info.hyperparameters]
    if found:
        return sorted(found)
    _read_entry_points()
    for name in sorted(_pending):
        try:
            info = optimizer_info(name)
        except ConfigError:
            continue  # reported when that optimizer is looked up by name
        if hyperparameter in info.hyperparameters:
            return [name]
    return []


def _import_and_describe(name: str, path: str, **given: Any) -> OptimizerInfo:
    module, _, attribute = path.partition(":")
    try:
        cls = getattr(import_module(module), attribute)
    except Exception as error:  # importing another package may raise anything
        raise ConfigError(
            f"name: {name} was registered as {path}, which cannot be imported: {type(error).__name__}: {error}"
        ) from error
    return describe_class(name, cls, **given)


@cache
def _read_entry_points() -> None:
    """Register the optimizers of installed packages, once per process; warn about entries that are not valid."""
    for entry in entry_points(group=_ENTRY_POINT_GROUP):
        try:
            register_optimizer(entry.name, f"{entry.module}:{entry.attr}")
        except ConfigError as error:
            warnings.warn(
                f"entry point {entry.name} = {entry.value} of {_ENTRY_POINT_GROUP} is ignored: {error}", stacklevel=2
            )
