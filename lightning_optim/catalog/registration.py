"""Describes a registered optimizer class by its signature (torch is imported only where a class is described)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from ..core.errors import ConfigError
from ..core.hyperparameters import Hyperparameter, Number, SameTypeAsDefault
from .common import COMMON_HYPERPARAMETERS, SHARED_OPTIONS
from .decay import decay_options
from .info import OptimizerInfo

if TYPE_CHECKING:
    from torch.optim import Optimizer

UNDECLARED_DECAY = "its own"
"""The `decay` of a registered class that has `weight_decay` but does not declare a mode."""
_NAME = re.compile(r"[a-z][a-z0-9_]*")
# Arguments of these names get a lower bound; other optimizers may use the other common names differently.
_BOUNDED = ("lr", "eps", "weight_decay")


class SharedOptionsMixin:
    """Marks classes that accept the options of every native optimizer: the base of `AdaptiveOptimizer`.

    It is defined here so that a class can be described without importing the optimizers.
    """

    hyperparameters: ClassVar[Mapping[str, Hyperparameter]] = {}
    """The allowed values of hyperparameters; those that are neither here nor common are not checked."""
    default_mode: ClassVar[str] = "l2"
    """The default `weight_decay_mode`."""


@dataclass(frozen=True, kw_only=True)
class NotTaken(Hyperparameter):
    """An option of every native optimizer that the constructor of a registered class does not take."""

    cls: type

    @property
    def is_available(self) -> bool:
        """Whether the constructor takes it."""
        return False

    def check(self, value: Any, key: str) -> Any:
        """The default.

        Raises:
            ConfigError: it is another value.
        """
        if value == self.default:
            return value
        name, cls = key.rsplit(".", 1)[-1], self.cls.__name__
        raise ConfigError(
            f"{key}: the constructor of {cls} does not take {name}. Add **options to the signature of "
            f"{cls}.__init__ and pass them on: super().__init__(params, defaults, **options)"
        )

    def _convert(self, value: Any) -> NoReturn:
        raise AssertionError("check does not convert")

    def _describe(self) -> str:
        return f"the default: the constructor of {self.cls.__name__} does not take it"


def check_name(name: Any) -> None:
    """Check the name of an optimizer.

    Raises:
        ConfigError: it has other characters than lowercase letters, digits and `_`, or does not start with a letter.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"name: got {name!r}. An optimizer's name must be lowercase letters, digits or _, like adam_mini"
        )


def describe_class(
    name: str,
    cls: type[Optimizer],
    *,
    hyperparameters: Mapping[str, Hyperparameter] | None = None,
    summary: str = "",
    paper: str = "",
    decay: str = "",
) -> OptimizerInfo:
    """The registry entry of a class: a config may set what its constructor takes, with values of the defaults' types.

    A subclass of `AdaptiveOptimizer` also accepts the options of every native optimizer, if its constructor takes
    `**options`.

    Args:
        name: its name in configs.
        cls: a subclass of `torch.optim.Optimizer`.
        hyperparameters: bounds for some of its arguments.
        summary: what it does, in one line; by default the first line of its docstring.
        paper: the source of the algorithm.
        decay: what its `weight_decay` means: a mode of `WeightDecay`.

    Raises:
        ConfigError: it is not an optimizer class, or bounds are given for an argument that it does not take.
    """
    from torch.optim import Optimizer

    if not isinstance(cls, type) or not issubclass(cls, Optimizer):
        raise ConfigError(
            f"{name}: got {cls!r}, which is not a subclass of torch.optim.Optimizer. Give the class itself"
        )
    specs = _read_signature(cls)
    is_native = issubclass(cls, SharedOptionsMixin)
    if issubclass(cls, SharedOptionsMixin):
        decay = decay or cls.default_mode
        specs |= {key: spec for key, spec in cls.hyperparameters.items() if key in specs}
        options = {"weight_decay": COMMON_HYPERPARAMETERS["weight_decay"], **SHARED_OPTIONS, **decay_options(decay)}
        for key, spec in options.items():
            if key not in specs and not _takes_any_keyword(cls):
                specs[key] = NotTaken(default=spec.default, optional=True, cls=cls)
            elif key not in specs or key in SHARED_OPTIONS:
                specs[key] = spec
    for key, spec in (hyperparameters or {}).items():
        if key not in specs:
            raise ConfigError(f"hyperparameters: {cls.__name__} takes no {key!r}. It takes {', '.join(specs)}")
        specs[key] = spec
    path = f"{cls.__module__}:{cls.__qualname__}"
    doc_lines = (inspect.getdoc(cls) or "").strip().splitlines()
    return OptimizerInfo(
        name=name,
        summary=summary or (doc_lines[0] if doc_lines else f"{cls.__name__} of {cls.__module__.partition('.')[0]}."),
        path=path,
        own=path if is_native else "",
        paper=paper,
        equations=(),
        hyperparameters=specs,
        buffers={},
        decay=decay or (UNDECLARED_DECAY if "weight_decay" in specs else "none"),
        cls=cls,
    )


def _takes_any_keyword(cls: type) -> bool:
    return any(argument.kind is argument.VAR_KEYWORD for argument in inspect.signature(cls).parameters.values())


def _read_signature(cls: type) -> dict[str, Hyperparameter]:
    """The constructor's arguments after the parameters."""
    specs: dict[str, Hyperparameter] = {}
    _, *arguments = inspect.signature(cls).parameters.values()
    for argument in arguments:
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            continue
        default = Hyperparameter.REQUIRED if argument.default is argument.empty else argument.default
        common = COMMON_HYPERPARAMETERS.get(argument.name) if argument.name in _BOUNDED else None
        if isinstance(common, Number) and isinstance(default, (int, float)) and not isinstance(default, bool):
            specs[argument.name] = Number(default=float(default), low=common.low, help=common.help)
        else:
            specs[argument.name] = SameTypeAsDefault(default=default, optional=default is None)
    return specs
