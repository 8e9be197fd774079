"""What the registry holds of a class that somebody else wrote: read from its signature (no torch)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.errors import ConfigError
from ..core.hyperparameters import Hyperparameter, Number, SameTypeAsDefault
from .common import OPTIONS, USUAL
from .decay import decay_options
from .info import OptimizerInfo

if TYPE_CHECKING:
    from torch.optim import Optimizer

OF_ITS_OWN = "its own"
"""What `weight_decay` means where nobody said."""
_NAME = re.compile(r"[a-z][a-z0-9_]*")
# In USUAL as well, but with bounds that another's rule need not have.
_BOUNDED = ("lr", "eps", "weight_decay")


class TakesOwnOptions:
    """Base of the classes that take what every optimizer of ours does: `AdaptiveOptimizer` derives from it.

    It stands here so that a class can be described without importing the family.
    """

    hyperparameters: ClassVar[Mapping[str, Hyperparameter]] = {}
    """The values that hyperparameters may have; what is neither here nor usual is taken as it is."""
    default_mode: ClassVar[str] = "l2"
    """The `weight_decay_mode` where nothing else is said."""


def check_name(name: Any) -> None:
    """Whether an optimizer may be called so.

    Raises:
        ConfigError: it may not.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"name: got {name!r}. An optimizer's name is of small letters, digits and _, like adam_mini")


def describe_class(
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

    if not isinstance(cls, type) or not issubclass(cls, Optimizer):
        raise ConfigError(f"{name}: got {cls!r}, which is no subclass of torch.optim.Optimizer. Give the class itself")
    specs = _from_signature(cls)
    own = issubclass(cls, TakesOwnOptions)
    if issubclass(cls, TakesOwnOptions):
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
        own=path if own else "",
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
            specs[argument.name] = SameTypeAsDefault(default=default, optional=default is None)
    return specs
