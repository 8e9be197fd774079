"""What a class of the registry has from its entry: signature, defaults, bounds, and torch's words for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import Parameter, Signature
from types import GenericAlias
from typing import Any, ClassVar

from ...catalog.built_in import BUILT_IN
from ...catalog.info import DECOUPLED_KEY, TORCH_ONLY, OptimizerInfo
from ...core.config_values import to_yaml
from ...core.errors import ConfigError
from ...core.hyperparameters import Choice, Fields, Flag, Hyperparameter, Numbers
from ..base import AdaptiveOptimizer, ParamGroup, ParamsT
from ..decay import WeightDecay


class Member(AdaptiveOptimizer):
    """An optimizer of the registry: `class Lion(Member, name="lion")` takes what the entry says, and is called so.

    A subclass of a member may have more: `hyperparameters = {**Lion.hyperparameters, "extra": Number(default=1.0)}`.
    """

    info: ClassVar[OptimizerInfo]

    def __init_subclass__(cls, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name is None:
            return
        cls.__module__ = "lightning_optim.optim"  # where users import it from: pickles outlive a move of its file
        cls.info = BUILT_IN[name]
        cls.hyperparameters = cls.info.hyperparameters
        cls.default_mode = cls.info.decay
        cls.evaluations = cls.info.evaluations
        # A variant of a member crosses over to the same class of torch's.
        cls._torch_keys = cls._torch_keys or tuple(key for key in TORCH_ONLY if key in cls.info.hyperparameters)
        cls._possible_buffers = tuple(cls.info.buffers)
        cls.__init__ = _with_signature(cls.__init__, cls.info)  # type: ignore[method-assign]

    def __init__(self, params: ParamsT, *args: Any, **hyperparameters: Any) -> None:
        names = self.info.positional_names()
        if len(args) > len(names) or set(names[: len(args)]) & set(hyperparameters):
            raise TypeError(f"{type(self).__name__}{_signature(self.info)}: too many arguments, or one given twice")
        given = dict(zip(names, args, strict=False)) | hyperparameters
        defaults = {key: spec.default for key, spec in self.hyperparameters.items() if key not in TORCH_ONLY}
        super().__init__(params, defaults | dict(self._fixed), **self._translate_torch_keys(given))

    def buffers(self, group: ParamGroup) -> Sequence[str]:
        """Those of the catalog's entry, in the order in which `update` takes them."""
        return self.info.buffers_under(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a param group; it may be one of torch's class of the same rule."""
        super().add_param_group(
            self._translate_torch_keys(param_group) if isinstance(param_group, dict) else param_group
        )

    def _conflict(self, group: ParamGroup) -> str | None:
        return super()._conflict(group) or self.info.own_conflict(group)

    def _translate_torch_keys(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Hyperparameters with our word for what torch's class calls `decoupled_weight_decay`."""
        values = dict(given)
        for key, value in self._fixed.items():
            if values.get(key, value) != value:
                raise ConfigError(f"{key}: it is {to_yaml(value)} in {type(self).__name__}. Remove it")
        if DECOUPLED_KEY not in self._torch_keys or DECOUPLED_KEY not in values:
            return values
        decoupled, mode = values.pop(DECOUPLED_KEY), values.get("weight_decay_mode")
        if decoupled and mode not in (None, "decoupled"):
            raise ConfigError(f"{DECOUPLED_KEY}: true, but weight_decay_mode: {mode}. Remove {DECOUPLED_KEY}")
        if mode is None and (decoupled or not isinstance(values.get("weight_decay"), WeightDecay)):
            values["weight_decay_mode"] = "decoupled" if decoupled else "l2"
        return values


def _signature(info: OptimizerInfo) -> Signature:
    places = info.positional_names()
    parameters = [Parameter("params", Parameter.POSITIONAL_OR_KEYWORD)]
    for key, default in info.signature(own=True).items():
        kind = Parameter.POSITIONAL_OR_KEYWORD if key in places else Parameter.KEYWORD_ONLY
        parameters.append(Parameter(key, kind, default=default, annotation=_type(info.hyperparameters[key])))
    return Signature(parameters)


def _type(spec: Hyperparameter) -> Any:
    """What a type checker or a command line is told of a hyperparameter."""
    kinds: dict[type, Any] = {Flag: bool, Choice: str, Fields: dict[str, float]}
    kind = kinds.get(type(spec), float)
    if isinstance(spec, Numbers):
        kind = GenericAlias(tuple, (float,) * len(spec.items))
    return kind | None if spec.optional else kind


def _with_signature(init: Callable[..., None], info: OptimizerInfo) -> Callable[..., None]:
    """A class's own `__init__`, which tells `help`, editors and LightningCLI what it takes."""

    @wraps(init)
    def own(self: Any, *args: Any, **hyperparameters: Any) -> None:
        init(self, *args, **hyperparameters)

    signature = _signature(info)
    myself = Parameter("self", Parameter.POSITIONAL_OR_KEYWORD)
    own.__signature__ = signature.replace(parameters=[myself, *signature.parameters.values()])  # type: ignore[attr-defined]
    return own
