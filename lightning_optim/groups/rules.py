"""`Rule`, one entry of `groups` in a config, and `AlgorithmSpec`, an algorithm with its hyperparameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..catalog.info import OptimizerInfo
from ..catalog.registry import optimizer_info
from ..core.errors import ConfigError
from .group import ALL, DEFAULT
from .index import ParameterIndex
from .layers import Layer
from .selectors import SELECTORS, Selector, match_names

SCALES = {"lr_scale": "lr", "weight_decay_scale": "weight_decay", "layer_decay": "lr"}
"""By effect that multiplies a hyperparameter: that hyperparameter."""
EFFECTS = ("lr_scale", "weight_decay_scale", "layer_decay", "frozen", "optimizer", "schedule")
"""What a rule can set besides hyperparameters."""
OPTIONS = ("priority", "allow_empty", "stem", "name")
RULE_ONLY_KEYS = (*SELECTORS, *EFFECTS, *OPTIONS)
"""The keys that are allowed in a rule and not at the top level."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_RESERVED_NAMES = (ALL, DEFAULT)


@dataclass(frozen=True, kw_only=True)
class AlgorithmSpec:
    """The algorithm and hyperparameters that the top level of a config, or `optimizer:` in a rule, asks for."""

    algorithm: str
    hyperparameters: Mapping[str, Any]
    """Every one; the algorithm's default where the config gives none."""
    given: frozenset[str] = frozenset()
    """The keys that the config gives."""
    uses_own_class: bool = False
    """Whether this package's class runs it, and not torch's or a registered one."""

    @property
    def info(self) -> OptimizerInfo:
        """The registry's entry."""
        return optimizer_info(self.algorithm)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One entry of `groups`."""

    name: str
    """Its key in the config's `groups`."""
    label: str
    """Its part of the names of its groups: `name:` in the config, by default its key."""
    selector: Selector
    effects: Mapping[str, Any] = field(default_factory=dict)
    """Hyperparameters and `EFFECTS`, each checked."""
    spec: AlgorithmSpec | None = None
    """The algorithm that `optimizer:` asks for, at its own defaults."""
    stem: tuple[str, ...] | None = None
    """Globs on the names of the stem, for `layer_decay`; None: `Layers.stem_of`."""
    priority: int = 0
    allow_empty: bool = False

    @property
    def key(self) -> str:
        """Its config key."""
        return f"groups.{self.name}"

    @property
    def algorithm(self) -> str | None:
        """The algorithm that `optimizer:` asks for."""
        return self.spec.algorithm if self.spec else None

    def match(self, index: ParameterIndex) -> dict[int, Layer | None]:
        """By position in `index.parameters`, for each parameter it matches: its layer, where the rule has `layers`.

        Raises:
            ConfigError: a layer is inside another one.
        """
        occurrences = sorted(self.selector.select_occurrences(index))
        if not self.selector.layers:
            return {index.parameter_of[occurrence]: None for occurrence in occurrences}
        layers = self.selector.find_layers(index)
        found: dict[int, Layer | None] = {}
        for occurrence in occurrences:
            if layer := layers.layer_of.get(occurrence):
                found.setdefault(index.parameter_of[occurrence], layer)
        if "layer_decay" in self.effects and found:
            if self.stem is not None:
                layers = layers.with_stem(match_names(self.stem, index, f"{self.key}.stem"))
            for occurrence in occurrences:
                if stem := layers.stem_of.get(occurrence):
                    found.setdefault(index.parameter_of[occurrence], stem)
        return found


def check_name(name: str, key: str) -> None:
    """Check the name of a rule or stage: it becomes a part of tags, file names and checkpoint keys.

    Raises:
        ConfigError: it is not allowed.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{key}: the name {name!r} must start with a letter or _ and have only letters, digits, _ and -"
        )
    if name in _RESERVED_NAMES:
        raise ConfigError(f"{key}: the name {name!r} is reserved. Choose another one, for example {name}_params")
