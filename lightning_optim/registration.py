"""What the registry holds of a class that somebody else wrote: read from its signature (no torch)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .catalog.common import OPTIONS, USUAL
from .catalog.decay import decay_options
from .catalog.info import OptimizerInfo
from .errors import ConfigError
from .hyperparameters import Hyperparameter, Like, Number

if TYPE_CHECKING:
    from torch.optim import Optimizer

OF_ITS_OWN = "its own"
"""What `weight_decay` means where nobody said."""
_NAME = re.compile(r"[a-z][a-z0-9_]*")
# In USUAL as well, but with bounds that another's rule need not have.
_BOUNDED = ("lr", "eps", "weight_decay")


def check_name(name: Any) -> None:
    """Whether an optimizer may be called so.

    Raises:
        ConfigError: it may not.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"name: got {name!r}. An optimizer's name is of small letters, digits and _, like adam_mini")


def describe(
    name: str,
    cls: type[Optimizer],
    *,
    hyperparameters: Mapping[str, Hyperparameter] | None = None,
    summary: str = "",
    paper: str = "",
    decay: str = "",
) -> OptimizerInfo:
    """What a config may set of a class: what its constructor takes, of the kind of its defaults.

    A subclass of `AdaptiveOptimizer` also takes what every optimizer of ours does.

    Args:
        name: its name in configs.
        cls: a subclass of `torch.optim.Optimizer`.
        hyperparameters: bounds for some of them.
        summary: one line; by default its docstring's first.
        paper: where the algorithm comes from.
        decay: what its `weight_decay` means: a mode of `WeightDecay`.

    Raises:
        ConfigError: it is no optimizer, or bounds are given for what it does not take.
    """
    from torch.optim import Optimizer

    from .optim.base import AdaptiveOptimizer

    if not isinstance(cls, type) or not issubclass(cls, Optimizer):
        raise ConfigError(f"{name}: got {cls!r}, which is no subclass of torch.optim.Optimizer. Give the class itself")
    specs = _from_signature(cls)
    ours = issubclass(cls, AdaptiveOptimizer)
    if issubclass(cls, AdaptiveOptimizer):
        decay = decay or cls.default_mode
        specs |= {key: spec for key, spec in cls.hyperparameters.items() if key in specs}
        specs = {**specs, "weight_decay": USUAL["weight_decay"], **specs, **OPTIONS, **decay_options(decay)}
    for key, spec in (hyperparameters or {}).items():
        if key not in specs:
            raise ConfigError(f"hyperparameters: {cls.__name__} takes no {key!r}. It takes {', '.join(specs)}")
        specs[key] = spec
    path = f"{cls.__module__}:{cls.__qualname__}"
    first = (inspect.getdoc(cls) or "").strip().splitlines()
    return OptimizerInfo(
        name=name,
        summary=summary or (first[0] if first else f"{cls.__name__} of {cls.__module__.partition('.')[0]}."),
        path=path,
        own=path if ours else "",
        paper=paper,
        equations=(),
        hyperparameters=specs,
        buffers={},
        decay=decay or (OF_ITS_OWN if "weight_decay" in specs else "none"),
        cls=cls,
    )


def _from_signature(cls: type) -> dict[str, Hyperparameter]:
    """The constructor's arguments after the parameters."""
    specs: dict[str, Hyperparameter] = {}
    _, *arguments = inspect.signature(cls).parameters.values()
    for argument in arguments:
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            continue
        default = Hyperparameter.REQUIRED if argument.default is argument.empty else argument.default
        usual = USUAL.get(argument.name) if argument.name in _BOUNDED else None
        if isinstance(usual, Number) and isinstance(default, (int, float)) and not isinstance(default, bool):
            specs[argument.name] = Number(default=float(default), low=usual.low, help=usual.help)
        else:
            specs[argument.name] = Like(default=default, optional=default is None)
    return specs
