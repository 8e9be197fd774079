"""Rules: what a config says of some parameters, and how the rules that match one parameter compose."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError, choices, left_over, listed, not_yet
from ..hyperparameters import Flag, Hyperparameter, Number, in_yaml
from ..registry import OptimizerInfo, algorithms_with, optimizer_info
from .selectors import SELECTORS, Selector

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
RESERVED_NAMES = ("all", "default")

SCALES = {"lr_scale": "lr", "weight_decay_scale": "weight_decay"}
_EFFECTS: dict[str, Hyperparameter] = {
    **{name: Number(default=0.1, low=0, help=f"multiplies {target}") for name, target in SCALES.items()},
    "frozen": Flag(default=True, help="leave out of the optimizer and out of the gradient"),
}
_LATER = ("layers", "layer_decay", "stem", "optimizer", "schedule")
_CONTROLS = ("priority", "allow_empty")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What the top of an optimizer's config says: the algorithm, and every hyperparameter of it."""

    algorithm: str
    hyperparameters: Mapping[str, Any]

    @property
    def info(self) -> OptimizerInfo:
        """The registry's entry."""
        return optimizer_info(self.algorithm)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One entry of `groups`."""

    name: str
    selector: Selector
    effects: Mapping[str, Any] = field(default_factory=dict)
    """Hyperparameters, scales and `frozen`, each checked."""
    priority: int = 0
    allow_empty: bool = False

    @property
    def key(self) -> str:
        """Where it stands in the config."""
        return f"groups.{self.name}"


def parse_rules(given: Any, spec: Spec) -> tuple[Rule, ...]:
    """The rules in the config's `groups`, sorted by name, so that their order in the YAML cannot matter.

    Raises:
        ConfigError: a rule is wrong in itself; what needs the model is found by `Plan.resolve`.
    """
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"groups: got {given!r}. It takes a mapping from a rule's name to the rule, "
            "for example groups: {no_decay: {kinds: [bias, norm], weight_decay: 0}}"
        )
    return tuple(
        _parse_rule(str(name), given[name], spec) for name in sorted(given, key=str) if given[name] is not None
    )


def check_name(name: str, key: str) -> None:
    """Whether a rule or stage may be called so: its name goes into tags, file names and checkpoints.

    Raises:
        ConfigError: it may not.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"{key}: the name {name!r} is not made of letters, digits, _ and -, beginning with no digit")
    if name in RESERVED_NAMES:
        raise ConfigError(f"{key}: {name!r} has a meaning of its own; take another name, for example {name}_params")


def compose(rules: Sequence[Rule], spec: Spec, names: Sequence[str]) -> dict[str, Any]:
    """Every hyperparameter of the parameters that exactly these rules match; `frozen` with them.

    Args:
        rules: all rules that match, in any order.
        spec: what holds where no rule says otherwise.
        names: the parameters, for the error.

    Raises:
        ConfigError: two rules of one priority set a field to different values, or the values do not go together.
    """
    values = {"frozen": False, **spec.hyperparameters}
    set_by: dict[str, Rule] = {}
    for rule in sorted(rules, key=lambda rule: -rule.priority):
        for effect, value in rule.effects.items():
            if effect in SCALES:
                continue
            earlier = set_by.setdefault(effect, rule)
            if earlier is rule:
                values[effect] = value
            elif earlier.priority == rule.priority and earlier.effects[effect] != value:
                raise ConfigError(_conflict(earlier, rule, effect, names))
    for scale, target in SCALES.items():
        for rule in rules:
            if scale in rule.effects:
                values[target] *= rule.effects[scale]
    if not values["frozen"] and (wrong := spec.info.conflict(values)):
        blamed = [rule for rule in rules if not spec.info.conflict({**values, **_without(rule, spec)})] or rules
        where = blamed[0].key if blamed else "top level"
        raise ConfigError(f"{where}: {wrong} (for {len(names)} parameters: {listed(names, 3)})")
    return spec.info.settled(values)


def _without(rule: Rule, spec: Spec) -> dict[str, Any]:
    return {effect: spec.hyperparameters[effect] for effect in rule.effects if effect in spec.hyperparameters}


def _parse_rule(name: str, given: Any, spec: Spec) -> Rule:
    key = f"groups.{name}"
    check_name(name, key)
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"{key}: got {given!r}. A rule is a mapping, for example {name}: {{params: backbone, lr_scale: 0.1}}"
        )
    for word in _LATER:
        if given.get(word) is not None:
            raise ConfigError(not_yet(f"{key}.{word}", word))
    selector = Selector.parse(given, key)
    effects = {
        effect: _effect(str(effect), value, f"{key}.{effect}", spec)
        for effect, value in given.items()
        if effect not in (*SELECTORS, *_CONTROLS) and not (effect in _EFFECTS and value is None)
    }
    if not effects:
        allowed = ", ".join((*_per_group(spec.info), *_EFFECTS))
        raise ConfigError(f"{key}: it selects parameters and says nothing of them. Give it at least one of {allowed}")
    priority = given.get("priority", 0)
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise ConfigError(
            f"{key}.priority: got {priority!r}, which is not a whole number. Type for example priority: 1"
        )
    allow_empty = Flag(default=True).check(given.get("allow_empty", False), f"{key}.allow_empty")
    return Rule(name=name, selector=selector, effects=effects, priority=priority, allow_empty=allow_empty)


def _effect(effect: str, value: Any, key: str, spec: Spec) -> Any:
    info = spec.info
    if effect in SCALES and SCALES[effect] not in info.hyperparameters:
        raise ConfigError(f"{key}: {info.name} has no {SCALES[effect]} to scale. Remove {effect}")
    if effect in _EFFECTS:
        return _EFFECTS[effect].check(value, key)
    allowed = _per_group(info)
    if effect in allowed:
        return info.hyperparameters[effect].check(value, key)
    if effect in info.hyperparameters:
        raise ConfigError(
            f"{key}: {effect} holds for the whole optimizer. Move it to the top: {effect}: {in_yaml(value)}"
        )
    everything = (*SELECTORS, *allowed, *_EFFECTS, *_CONTROLS)
    raise ConfigError(
        f"{key}: a rule of {info.name} has no key {effect!r}."
        f"{left_over(effect, algorithms_with(effect))}{choices(effect, everything)}"
    )


def _per_group(info: OptimizerInfo) -> list[str]:
    return [name for name, spec in info.hyperparameters.items() if spec.per_group]


def _conflict(first: Rule, second: Rule, effect: str, names: Sequence[str]) -> str:
    first, second = sorted((first, second), key=lambda rule: rule.name)
    return (
        f"{first.key}.{effect}: {in_yaml(first.effects[effect])}, but {second.key}.{effect}: "
        f"{in_yaml(second.effects[effect])}, and both rules match {len(names)} parameters: {listed(names, 3)}. "
        f"Say which one wins: {second.key}.priority: {first.priority + 1} (the default is 0, higher wins)"
    )
