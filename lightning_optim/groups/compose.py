"""How the rules that match one parameter compose: field by field, scales multiplied, or refused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.config_values import to_yaml
from ..core.errors import ConfigError, format_names
from .layers import Layer
from .rules import EFFECTS, SCALES, Rule, Spec

Matched = Sequence[tuple[Rule, Layer | None]]
"""Rules that match, sorted by name, each with the layer where it has layers."""


@dataclass(frozen=True, kw_only=True)
class Composed:
    """All that holds for the parameters of one group."""

    spec: Spec
    """Their algorithm."""
    hyperparameters: Mapping[str, Any]
    """Every one of it; `lr` is the peak."""
    frozen: bool = False
    schedule: Mapping[str, Any] | None = None
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By field: the keys of the config that made its value, `groups.head.lr`; none where it is a default."""


def compose(matched: Matched, top: Spec, names: Sequence[str]) -> Composed:
    """What all these rules say together, on top of what holds where no rule says otherwise.

    Args:
        matched: the rules that match.
        top: the top of the config.
        names: the parameters, for errors.

    Raises:
        ConfigError: two rules of one priority set a field to different values; a rule sets what the algorithm does not
            have; or the values do not go together.
    """
    rules = [rule for rule, _ in matched]
    by = _winners(rules, EFFECTS, names)
    spec = (by["optimizer"][0].spec if "optimizer" in by else None) or top
    # What a rule says in the words of its own algorithm is void where another rule's algorithm has won.
    speaking = [rule for rule in rules if rule.algorithm in (None, spec.algorithm)]
    by |= _winners(speaking, spec.hyperparameters, names)
    _check_words(rules, speaking, by, spec, names)

    values = dict(spec.hyperparameters)
    sources: dict[str, tuple[str, ...]] = {key: ((key,) if spec is top and key in spec.given else ()) for key in values}
    for key, winners in by.items():
        keys = tuple(f"{rule.key}.{key}" for rule in winners)
        if key in values:
            values[key] = spec.info.hyperparameters[key].check(winners[0].effects[key], keys[0])
        sources[key] = keys
    for rule, layer in matched:
        for scale, target in SCALES.items():
            if scale in rule.effects:
                exponent = layer.depth if scale == "layer_decay" and layer else 1
                values[target] = _scaled(values[target], rule, scale, exponent)
                power = f" ** {exponent}" if exponent != 1 else ""
                sources[target] += (f"{rule.key}.{scale}{power}",)
    frozen = by["frozen"][0].effects["frozen"] if "frozen" in by else False
    if not frozen and (wrong := spec.info.find_conflict(values)):
        blamed = [rule for rule in speaking if not spec.info.find_conflict({**values, **_without(rule, spec)})] or rules
        where = blamed[0].key if blamed else "top level"
        raise ConfigError(f"{where}: {wrong} (for {_some(names)})")
    return Composed(
        spec=spec,
        hyperparameters=spec.info.with_decay_mode(values),
        frozen=frozen,
        schedule=by["schedule"][0].effects["schedule"] if "schedule" in by else None,
        sources=sources,
    )


def _scaled(value: float, rule: Rule, scale: str, exponent: int) -> float:
    scaled: float = value * rule.effects[scale] ** exponent
    if not math.isfinite(scaled):
        raise ConfigError(f"{rule.key}.{scale}: {to_yaml(rule.effects[scale])} times {value:g} is no finite number")
    return scaled


def _winners(
    rules: Sequence[Rule], fields: Sequence[str] | Mapping[str, Any], names: Sequence[str]
) -> dict[str, list[Rule]]:
    """By field: the rules of the highest priority that sets it; they agree."""
    winners: dict[str, list[Rule]] = {}
    for rule in sorted(rules, key=lambda rule: -rule.priority):
        for effect, value in rule.effects.items():
            if effect in SCALES or effect not in fields:
                continue
            first = winners.setdefault(effect, [rule])[0]
            if first.priority == rule.priority and first.effects[effect] != value:
                raise ConfigError(_conflict(first, rule, effect, names))
            if first.priority == rule.priority and first is not rule:
                winners[effect].append(rule)
    return winners


def _check_words(
    rules: Sequence[Rule], speaking: Sequence[Rule], by: Mapping[str, Sequence[Rule]], spec: Spec, names: Sequence[str]
) -> None:
    """Whether the algorithm has all that the rules set or scale."""
    for rule in rules:
        for effect in rule.effects:
            needed = SCALES.get(effect, effect)
            void = rule not in speaking and effect not in SCALES
            if void or needed in spec.hyperparameters or (effect in EFFECTS and effect not in SCALES):
                continue
            whose = f"{by['optimizer'][0].key}.optimizer: {spec.algorithm}" if "optimizer" in by else spec.algorithm
            raise ConfigError(
                f"{rule.key}.{effect}: it matches {_some(names)}, which go by {whose}, and {spec.algorithm} has no "
                f"{needed}. Narrow the selectors of {rule.key}, or remove {effect}"
            )


def _without(rule: Rule, spec: Spec) -> dict[str, Any]:
    return {effect: spec.hyperparameters[effect] for effect in rule.effects if effect in spec.hyperparameters}


def _conflict(first: Rule, second: Rule, effect: str, names: Sequence[str]) -> str:
    first, second = sorted((first, second), key=lambda rule: rule.name)
    return (
        f"{first.key}.{effect}: {to_yaml(first.effects[effect])}, but {second.key}.{effect}: "
        f"{to_yaml(second.effects[effect])}, and both rules match {_some(names)}. "
        f"Say which one wins: {second.key}.priority: {first.priority + 1} (the default is 0, higher wins)"
    )


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} parameter{'s' if len(names) != 1 else ''}: {format_names(names, 3)}"
