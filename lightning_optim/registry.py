"""The optimizers there are, by name: what `catalog` holds, looked up (no torch)."""

from __future__ import annotations

import fnmatch

from .catalog.both import BOTH
from .catalog.common import OPTIONS as OPTIONS
from .catalog.common import USUAL as USUAL
from .catalog.info import OptimizerInfo as OptimizerInfo
from .catalog.ours import OURS
from .catalog.torch_only import TORCH
from .errors import ConfigError, choices


def list_optimizers(pattern: str = "*") -> list[str]:
    """The names of the registry that match a glob, sorted.

    Example:
        >>> list_optimizers("adam*")
        ['adam', 'adamax', 'adamw']
    """
    return sorted(name for name in _OPTIMIZERS if fnmatch.fnmatchcase(name, pattern))


def optimizer_info(name: str) -> OptimizerInfo:
    """What is known of one optimizer.

    Raises:
        ConfigError: no optimizer has that name.

    Example:
        >>> optimizer_info("adamw").hyperparameters["weight_decay"].default
        0.01
    """
    if not isinstance(name, str) or name not in _OPTIMIZERS:
        raise ConfigError(
            f"name: there is no optimizer {name!r}.{choices(str(name), list_optimizers())}. "
            "See them with: lightning-optim list"
        )
    return _OPTIMIZERS[name]


def name_of(cls: type) -> str | None:
    """The registry's name of a class, or None where it is not there."""
    for name, info in _OPTIMIZERS.items():
        for path in (info.path, info.own):
            package, _, wanted = path.partition(":")
            if cls.__name__ == wanted and f"{cls.__module__}.".startswith(f"{package}."):
                return name
    return None


def algorithms_with(hyperparameter: str) -> list[str]:
    """The optimizers that have a hyperparameter of this name."""
    return [name for name in list_optimizers() if hyperparameter in _OPTIMIZERS[name].hyperparameters]


_OPTIMIZERS: dict[str, OptimizerInfo] = {info.name: info for info in (*TORCH, *BOTH, *OURS)}
