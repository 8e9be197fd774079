"""What a class of the registry has from its entry: signature, defaults, bounds, and torch's words for them."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, Signature
from typing import Any, ClassVar

from ...catalog.info import TORCH_ONLY
from ...errors import ConfigError
from ...hyperparameters import in_yaml
from ...registry import OPTIONS, OptimizerInfo, optimizer_info
from ..base import AdaptiveOptimizer, ParamsT
from ..checkpoint import DECOUPLED, NEVER


class Member(AdaptiveOptimizer):
    """An optimizer of the registry: `class Lion(Member, name="lion")` takes what the entry says."""

    info: ClassVar[OptimizerInfo]

    def __init_subclass__(cls, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name is None:  # a user's subclass of a member has a signature of its own
            cls.__signature__ = None  # type: ignore[attr-defined]
            return
        cls.info = optimizer_info(name)
        cls.hyperparameters = cls.info.hyperparameters
        cls.default_mode = cls.info.decay
        # A variant of a member crosses over to the same class of torch's.
        cls.torch_keys = cls.torch_keys or tuple(key for key in TORCH_ONLY if key in cls.info.hyperparameters)
        cls.torch_values = {key: cls.info.defaults[key] for key in cls.info.own_only - {"weight_decay_mode"}}
        cls.__signature__ = _signature(cls.info)  # type: ignore[attr-defined]

    def __init__(self, params: ParamsT, *args: Any, **hyperparameters: Any) -> None:
        names = _positional(self.info)
        if len(args) > len(names) or set(names[: len(args)]) & set(hyperparameters):
            raise TypeError(f"{type(self).__name__}{_signature(self.info)}: too many arguments, or one given twice")
        given = dict(zip(names, args, strict=False)) | hyperparameters
        defaults = {key: value for key, value in self.info.defaults.items() if key not in TORCH_ONLY}
        super().__init__(params, defaults | dict(self.fixed), **self._in_our_words(given))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a param group; it may be one of torch's class of the same rule."""
        super().add_param_group(self._in_our_words(param_group))

    def _in_our_words(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Hyperparameters without those that only torch's class has."""
        values = {key: value for key, value in given.items() if key not in self.torch_keys}
        for key, value in self.fixed.items():
            if values.get(key, value) != value:
                raise ConfigError(f"{key}: it is {in_yaml(value)} in {type(self).__name__}. Remove it")
        for key in NEVER:
            if key in self.torch_keys and given.get(key):
                raise ConfigError(f"{key}: ours does not take it. Type {key}: false, or implementation: torch")
        if DECOUPLED in self.torch_keys and given.get(DECOUPLED) is not None:
            mode = "decoupled" if given[DECOUPLED] else "l2"
            if given[DECOUPLED] and values.get("weight_decay_mode") not in (None, mode):
                raise ConfigError(
                    f"{DECOUPLED}: true, but weight_decay_mode: {values['weight_decay_mode']}. Remove {DECOUPLED}"
                )
            values["weight_decay_mode"] = values.get("weight_decay_mode") or mode
        return values


def _positional(info: OptimizerInfo) -> list[str]:
    """The hyperparameters that come before every option: as in torch's signatures, these may be given by place."""
    names = list(info.signature(own=True))
    return names[: min(names.index(option) for option in OPTIONS)]


def _signature(info: OptimizerInfo) -> Signature:
    by_place = _positional(info)
    parameters = [Parameter("params", Parameter.POSITIONAL_OR_KEYWORD)]
    for key, default in info.signature(own=True).items():
        kind = Parameter.POSITIONAL_OR_KEYWORD if key in by_place else Parameter.KEYWORD_ONLY
        parameters.append(Parameter(key, kind, default=default))
    return Signature(parameters)
