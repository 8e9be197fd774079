"""The settings of a group from the rules that match it: combined field by field, then with scales multiplied."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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

    rules: tuple[Rule, ...]
    scales: tuple[tuple[int, str, str, str], ...]
    """`(position of the rule, effect that scales, hyperparameter, key in the config)`, in the order in which they
    multiply."""
    settings: GroupSettings

    def scale(self, layers: Sequence[Layer | None]) -> GroupSettings:
        """The settings for parameters in these layers, one for each rule that has layers.

        Raises:
            ConfigError: a scaled value is not finite.
        """
        settings = self.settings
        values = dict(settings.hyperparameters)
        powers = []
        for position, scale, target, key in self.scales:
            layer = layers[position]
            exponent = layer.depth if scale == "layer_decay" and layer else 1
            values[target] = _scale_value(values[target], self.rules[position].effects[scale], exponent, key)
            powers.append((target, key, exponent))
        return GroupSettings(
            spec=settings.spec,
            hyperparameters=values,
            frozen=settings.frozen,
            schedule=settings.schedule,
            sources=Sources(settings.sources, powers),
        )


class Sources(Mapping[str, tuple[str, ...]]):
    """By field: the config keys that set its value, then those that scale it: `groups.depth.layer_decay ** 3`.

    Put together when it is read: a model may have thousands of groups, and `explain` reads one.

    Args:
        setters: by field, the keys that set it.
        powers: `(field, key, exponent)` of each scale.
    """

    def __init__(self, setters: Mapping[str, tuple[str, ...]], powers: Sequence[tuple[str, str, int]]) -> None:
        self._setters, self._powers = setters, powers

    def __getitem__(self, field: str) -> tuple[str, ...]:
        scales = [(key, exponent) for target, key, exponent in self._powers if target == field]
        return (*self._setters[field], *(f"{key} ** {n}" if n != 1 else key for key, n in scales))

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
        (position, scale, target, f"{rule.key}.{scale}")
        for position, rule in enumerate(rules)
        for scale, target in SCALES.items()
        if scale in rule.effects
    )
    combined = CombinedRules(rules=tuple(rules), scales=scales, settings=settings)
    if not settings.frozen:
        # Once: layers scale the lr only, and no combination depends on the size of a positive lr.
        _check_combination(combined.scale([None] * len(rules)).hyperparameters, rules, applicable, spec, names)
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


def _scale_value(value: float, factor: float, exponent: int, key: str) -> float:
    scaled: float = value * factor**exponent
    if not math.isfinite(scaled):
        raise ConfigError(f"{key}: {to_yaml(factor)} times {value:g} is not a finite number")
    return scaled


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
