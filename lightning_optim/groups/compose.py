"""The settings of a group from the rules that match it: combined field by field, then with scales multiplied."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..core.config_values import to_yaml
from ..core.errors import ConfigError, format_names
from .layers import Layer
from .rules import EFFECTS, SCALES, AlgorithmSpec, Rule

MatchedRules = Sequence[tuple[Rule, Layer | None]]
"""Rules that match, sorted by name, each with the layer where it has layers."""


@dataclass(frozen=True, kw_only=True)
class GroupSettings:
    """Everything that the rules set for the parameters of one group."""

    spec: AlgorithmSpec
    """The group's algorithm."""
    hyperparameters: Mapping[str, Any]
    """Every hyperparameter of the algorithm; `lr` is the peak."""
    frozen: bool = False
    schedule: Mapping[str, Any] | None = None
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By field: the config keys that set or scaled it, as `groups.head.lr`; empty where it is a default."""


@dataclass(frozen=True, kw_only=True)
class CombinedRules:
    """What some rules set together, before scales: the same for all layers, of which there may be hundreds."""

    settings: GroupSettings
    scales: tuple[Scale, ...]
    """In the order in which they multiply."""

    def scale(self, layers: Sequence[Layer | None]) -> tuple[dict[str, Any], Sources]:
        """The hyperparameters and sources of parameters in these layers.

        Args:
            layers: the layer by rule; None for a rule without layers.

        Raises:
            ConfigError: a scaled value is not finite.
        """
        values = dict(self.settings.hyperparameters)
        exponents = []
        for scale in self.scales:
            layer = layers[scale.rule] if scale.is_by_layer else None
            exponent = layer.depth if layer else 1
            value = values[scale.target]
            scaled = value * scale.factor**exponent
            if not math.isfinite(scaled):
                raise ConfigError(f"{scale.key}: {to_yaml(scale.factor)} times {value:g} is not a finite number")
            values[scale.target] = scaled
            exponents.append(exponent)
        return values, Sources(self.settings.sources, self.scales, exponents)


class Scale(NamedTuple):
    """An effect of a rule that multiplies a hyperparameter."""

    rule: int
    """The position of its rule."""
    target: str
    """The hyperparameter."""
    factor: float
    is_by_layer: bool
    """Whether the factor is raised to the depth of the rule's layer."""
    key: str
    """Its config key."""


class Sources(Mapping[str, tuple[str, ...]]):
    """By field: the config keys that set its value, then those that scale it: `groups.depth.layer_decay ** 3`.

    Put together when it is read: a model may have thousands of groups, and `explain` reads one.

    Args:
        setters: by field, the keys that set it.
        scales: those that scale a field.
        exponents: by scale, how many times it multiplies.
    """

    __slots__ = ("_exponents", "_scales", "_setters")

    def __init__(
        self, setters: Mapping[str, tuple[str, ...]], scales: Sequence[Scale], exponents: Sequence[int]
    ) -> None:
        self._setters, self._scales, self._exponents = setters, scales, exponents

    def __getitem__(self, field: str) -> tuple[str, ...]:
        powers = [(s.key, n) for s, n in zip(self._scales, self._exponents, strict=True) if s.target == field]
        return (*self._setters[field], *(f"{key} ** {n}" if n != 1 else key for key, n in powers))

    def __iter__(self) -> Iterator[str]:
        return iter(self._setters)

    def __len__(self) -> int:
        return len(self._setters)


def combine_rules(rules: Sequence[Rule], top: AlgorithmSpec, names: Sequence[str]) -> CombinedRules:
    """What rules set together, on top of the top level of the config.

    Args:
        rules: sorted by name.
        top: the top level of the config.
        names: the parameters' names, for errors.

    Raises:
        ConfigError: two rules of the same priority set a field to different values, or a rule sets a hyperparameter
            that the algorithm does not have.
    """
    setters = _find_setters(rules, EFFECTS, names)
    spec = (setters["optimizer"][0].spec if "optimizer" in setters else None) or top
    # A rule's hyperparameters are for its own algorithm: they are ignored where another rule's algorithm wins.
    applicable = [rule for rule in rules if rule.algorithm in (None, spec.algorithm)]
    setters |= _find_setters(applicable, spec.hyperparameters, names)
    _check_algorithm_has_fields(rules, applicable, setters, spec, names)

    values = dict(spec.hyperparameters)
    sources: dict[str, tuple[str, ...]] = {key: ((key,) if spec is top and key in spec.given else ()) for key in values}
    for effect, winners in setters.items():
        keys = tuple(f"{rule.key}.{effect}" for rule in winners)
        if effect in values:
            values[effect] = spec.info.hyperparameters[effect].check(winners[0].effects[effect], keys[0])
        sources[effect] = keys
    settings = GroupSettings(
        spec=spec,
        hyperparameters=spec.info.resolve_decay_mode(values),
        frozen=setters["frozen"][0].effects["frozen"] if "frozen" in setters else False,
        schedule=setters["schedule"][0].effects["schedule"] if "schedule" in setters else None,
        sources=sources,
    )
    scales = tuple(
        Scale(position, target, rule.effects[effect], effect == "layer_decay", f"{rule.key}.{effect}")
        for position, rule in enumerate(rules)
        for effect, target in SCALES.items()
        if effect in rule.effects
    )
    combined = CombinedRules(settings=settings, scales=scales)
    if not settings.frozen:
        # Once: layers scale the lr only, and no combination depends on the size of a positive lr.
        values, _ = combined.scale([None] * len(rules))
        _check_combination(values, rules, applicable, spec, names)
    return combined


def _find_setters(rules: Sequence[Rule], fields: Collection[str], names: Sequence[str]) -> dict[str, list[Rule]]:
    """By field: the rules of the highest priority that sets it; they agree on its value."""
    setters: dict[str, list[Rule]] = {}
    for rule in sorted(rules, key=lambda rule: -rule.priority):
        for effect, value in rule.effects.items():
            if effect in SCALES or effect not in fields:
                continue
            first = setters.setdefault(effect, [rule])[0]
            if first.priority == rule.priority and first.effects[effect] != value:
                raise ConfigError(_format_conflict(first, rule, effect, names))
            if first.priority == rule.priority and first is not rule:
                setters[effect].append(rule)
    return setters


def _check_algorithm_has_fields(
    rules: Sequence[Rule],
    applicable: Sequence[Rule],
    setters: Mapping[str, Sequence[Rule]],
    spec: AlgorithmSpec,
    names: Sequence[str],
) -> None:
    """Check that the algorithm has every hyperparameter that the rules set or scale."""
    for rule in rules:
        for effect in rule.effects:
            target = SCALES.get(effect, effect)
            is_ignored = rule not in applicable and effect not in SCALES
            if is_ignored or target in spec.hyperparameters or (effect in EFFECTS and effect not in SCALES):
                continue
            algorithm = spec.algorithm
            if "optimizer" in setters:
                algorithm = f"{setters['optimizer'][0].key}.optimizer: {algorithm}"
            raise ConfigError(
                f"{rule.key}.{effect}: it matches {_format_parameters(names)}, which use {algorithm}, and "
                f"{spec.algorithm} has no {target}. Narrow the selectors of {rule.key}, or remove {effect}"
            )


def _check_combination(
    values: Mapping[str, Any],
    rules: Sequence[Rule],
    applicable: Sequence[Rule],
    spec: AlgorithmSpec,
    names: Sequence[str],
) -> None:
    """Check that the values can be combined; the error names a rule without which they could."""
    conflict = spec.info.find_conflict(values)
    if not conflict:
        return
    culprits = [rule for rule in applicable if not spec.info.find_conflict({**values, **_reset(rule, spec)})] or rules
    key = culprits[0].key if culprits else "top level"
    raise ConfigError(f"{key}: {conflict} (for {_format_parameters(names)})")


def _reset(rule: Rule, spec: AlgorithmSpec) -> dict[str, Any]:
    """The hyperparameters that a rule sets, as they are without it."""
    return {effect: spec.hyperparameters[effect] for effect in rule.effects if effect in spec.hyperparameters}


def _format_conflict(first: Rule, second: Rule, effect: str, names: Sequence[str]) -> str:
    first, second = sorted((first, second), key=lambda rule: rule.name)
    return (
        f"{first.key}.{effect}: {to_yaml(first.effects[effect])}, but {second.key}.{effect}: "
        f"{to_yaml(second.effects[effect])}, and both rules match {_format_parameters(names)}. "
        f"Say which one wins: {second.key}.priority: {first.priority + 1} (the default is 0, higher wins)"
    )


def _format_parameters(names: Sequence[str]) -> str:
    return f"{len(names)} parameter{'s' if len(names) != 1 else ''}: {format_names(names, 3)}"
