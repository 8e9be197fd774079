"""`Member`: gives a native optimizer what its catalog entry says: signature, defaults, bounds, buffers, docstring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import Parameter, Signature
from types import GenericAlias
from typing import Any, ClassVar

import torch

from ...catalog.built_in import BUILT_IN
from ...catalog.info import DECOUPLED_KEY, TORCH_ONLY_KEYS, OptimizerInfo
from ...core.config_values import to_yaml
from ...core.errors import ConfigError
from ...core.hyperparameters import Choice, Fields, Flag, Hyperparameter, Numbers, Parts
from ..base import AdaptiveOptimizer, ParamGroup, ParamsT
from ..decay import WeightDecay
from .docstrings import complete_docstring


class Member(AdaptiveOptimizer):
    """A native optimizer: `class Lion(Member, name="lion")` writes the rule and takes the rest from its catalog entry.

    A subclass of a member may add hyperparameters:
    `hyperparameters = {**Lion.hyperparameters, "extra": Number(default=1.0)}`.
    """

    info: ClassVar[OptimizerInfo]
    _source_docstring: ClassVar[str | None] = None
    """The docstring before it is completed."""

    def __init_subclass__(cls, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name is None:
            return
        cls.__module__ = "lightning_optim.optim"  # where users import it from: pickles outlive a move of its file
        cls.info = BUILT_IN[name]
        cls.hyperparameters = cls.info.hyperparameters
        cls.default_mode = cls.info.decay
        cls.evaluations = cls.info.evaluations
        # A variant of a member exchanges checkpoints with the same torch class.
        cls._torch_keys = cls._torch_keys or tuple(key for key in TORCH_ONLY_KEYS if key in cls.info.hyperparameters)
        cls._possible_buffers = tuple(cls.info.buffers)
        cls.__init__ = _with_signature(cls.__init__, cls.info)  # type: ignore[method-assign]
        if cls.__doc__ is not None:  # it is with python -OO
            cls._source_docstring, cls.__doc__ = cls.__doc__, complete_docstring(cls, cls.info)

    @classmethod
    def __subclasses__(cls) -> list[type]:
        """The subclasses, without those that have the name of a class of torch, whose own subclasses take their place.

        LightningCLI finds by them what `--optimizer=AdamW` means, and refuses a name that two classes have.
        """
        found: list[type] = []
        for subclass in type.__subclasses__(cls):
            found += subclass.__subclasses__() if hasattr(torch.optim, subclass.__name__) else [subclass]
        return found

    def __init__(self, params: ParamsT, *args: Any, **hyperparameters: Any) -> None:
        names = self.info.positional_names()
        if len(args) > len(names) or set(names[: len(args)]) & set(hyperparameters):
            raise TypeError(f"{type(self).__name__}{_signature(self.info)}: too many arguments, or one given twice")
        given = dict(zip(names, args, strict=False)) | hyperparameters
        defaults = {key: spec.default for key, spec in self.hyperparameters.items() if key not in TORCH_ONLY_KEYS}
        super().__init__(params, defaults | dict(self._fixed), **self._translate_torch_keys(given))

    def buffers(self, group: ParamGroup) -> Sequence[str]:
        """The buffers of the catalog entry, in the order in which `update` takes them."""
        return self.info.active_buffers(group)

    def has_first_moment(self, group: ParamGroup) -> bool:
        """Whether there is an average of gradients: not where `schedule_free` averages in its place."""
        return not self.info.first_moment or self.info.first_moment in self.info.active_buffers(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a param group; it may come from torch's class with the same rule."""
        super().add_param_group(
            self._translate_torch_keys(param_group) if isinstance(param_group, dict) else param_group
        )

    def _conflict(self, group: ParamGroup) -> str | None:
        return super()._conflict(group) or self.info.own_conflict(group)

    def _translate_torch_keys(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The hyperparameters with `decoupled_weight_decay` of torch's class translated to `weight_decay_mode`.

        Raises:
            ConfigError: the two contradict each other, or a value that this class fixes is changed.
        """
        values = dict(given)
        for key, value in self._fixed.items():
            if values.get(key, value) != value:
                raise ConfigError(f"{key}: it is always {to_yaml(value)} in {type(self).__name__}. Remove it")
        if DECOUPLED_KEY not in self._torch_keys or DECOUPLED_KEY not in values:
            return values
        decoupled, mode = values.pop(DECOUPLED_KEY), values.get("weight_decay_mode")
        if decoupled and mode not in (None, "decoupled"):
            raise ConfigError(f"{DECOUPLED_KEY}: true, but weight_decay_mode: {mode}. Remove {DECOUPLED_KEY}")
        if mode is None and (decoupled or not isinstance(values.get("weight_decay"), WeightDecay)):
            values["weight_decay_mode"] = "decoupled" if decoupled else "l2"
        return values


def _signature(info: OptimizerInfo) -> Signature:
    positional = info.positional_names()
    parameters = [Parameter("params", Parameter.POSITIONAL_OR_KEYWORD)]
    for key, default in info.signature(own=True).items():
        kind = Parameter.POSITIONAL_OR_KEYWORD if key in positional else Parameter.KEYWORD_ONLY
        parameters.append(Parameter(key, kind, default=default, annotation=_annotation(info.hyperparameters[key])))
    return Signature(parameters)


def _annotation(spec: Hyperparameter) -> Any:
    """The type that `help` and LightningCLI show."""
    types: dict[type, Any] = {Flag: bool, Choice: str, Fields: dict[str, float], Parts: int | tuple[int, ...]}
    annotation = types.get(type(spec), float)
    if isinstance(spec, Numbers):
        annotation = GenericAlias(tuple, (float,) * len(spec.items))
    return annotation | None if spec.optional else annotation


def _with_signature(init: Callable[..., None], info: OptimizerInfo) -> Callable[..., None]:
    """A copy of `init` with the signature of the catalog entry, for `help`, notebooks and LightningCLI."""

    @wraps(init)
    def init_with_signature(self: Any, *args: Any, **hyperparameters: Any) -> None:
        init(self, *args, **hyperparameters)

    signature = _signature(info)
    params, *others = signature.parameters.values()
    parameters = [
        Parameter("self", Parameter.POSITIONAL_OR_KEYWORD),
        params.replace(annotation=ParamsT),  # else jsonargparse looks into the stub, which it cannot resolve
        *others,
    ]
    init_with_signature.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return init_with_signature
