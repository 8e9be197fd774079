"""`parse_rules`: the `groups` of a config as rules, checked as far as possible without the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..catalog.info import OptimizerInfo
from ..catalog.registry import algorithms_with, find_optimizer, list_optimizers
from ..core.config_values import to_yaml
from ..core.errors import ConfigError, format_choices, format_names, leftover_hint
from ..core.hyperparameters import Flag, Hyperparameter, Number
from ..schedule.override import parse_override
from .patterns import check_pattern
from .presets import find_preset
from .rules import EFFECTS, OPTIONS, SCALES, AlgorithmSpec, Rule, check_name
from .selectors import SELECTORS, Selector, parse_strings

# The defaults are the examples in error messages.
_EFFECT_VALUES: dict[str, Hyperparameter] = {
    "lr_scale": Number(default=0.1, low=0),
    "weight_decay_scale": Number(default=0.1, low=0),
    "layer_decay": Number(default=0.75, low=0, high=1, open_low=True),
    "frozen": Flag(default=True),
}


def parse_rules(given: Any, top: AlgorithmSpec) -> tuple[Rule, ...]:
    """The rules in the config's `groups`, sorted by name: their order in the YAML has no effect.

    Args:
        given: the value of `groups`.
        top: the algorithm at the top level of the config.

    Raises:
        ConfigError: a rule is invalid; what can only be checked with the model is left to `Plan.resolve`.
    """
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"groups: got {given!r}. It takes a mapping from rule names to rules, "
            "for example groups: {no_decay: {kinds: [bias, norm], weight_decay: 0}}"
        )
    entries = {str(name): given[name] for name in sorted(given, key=str) if given[name] is not None}
    for name, entry in entries.items():
        check_name(name, f"groups.{name}")
        if not isinstance(entry, Mapping):
            raise ConfigError(
                f"groups.{name}: got {entry!r}. A rule is a mapping, "
                f"for example {name}: {{params: backbone, lr_scale: 0.1}}"
            )
    infos = {
        name: _parse_algorithm(entry.get("optimizer"), f"groups.{name}.optimizer") for name, entry in entries.items()
    }
    algorithms = list({info.name: info for info in (top.info, *infos.values()) if info}.values())
    rules = [_parse_rule(name, entry, infos[name], algorithms) for name, entry in entries.items()]
    _check_labels_unique(rules)
    return tuple(_with_specs(rules, infos, top))


def _parse_algorithm(name: Any, key: str) -> OptimizerInfo | None:
    if name is None:
        return None
    if (info := find_optimizer(name)) is None:
        raise ConfigError(f"{key}: there is no optimizer {name!r}.{format_choices(str(name), list_optimizers())}")
    if info.is_exclusive:
        raise ConfigError(
            f"{key}: {name} evaluates the model several times a step, so it cannot be combined with another "
            f"optimizer. Use it for the whole model, name: {name}, or another optimizer here"
        )
    return info


def _parse_rule(
    name: str, given: Mapping[str, Any], info: OptimizerInfo | None, algorithms: Sequence[OptimizerInfo]
) -> Rule:
    """A rule without its spec; `info`: its own algorithm, `algorithms`: all that the config has."""
    key = f"groups.{name}"
    selector = Selector.parse(given, key)
    from_preset = _hint_preset(selector, key)
    effects = {
        str(effect): _parse_effect(str(effect), value, f"{key}.{effect}", info, algorithms, from_preset)
        for effect, value in given.items()
        if effect not in (*SELECTORS, *OPTIONS) and not (effect in EFFECTS and value is None)
    }
    # A rule with `layers` alone has an effect: each layer gets its own group.
    if not effects and not selector.layers:
        allowed = ", ".join((*_per_group(info or algorithms[0]), *EFFECTS))
        raise ConfigError(f"{key}: it selects parameters but sets nothing. Give it at least one of {allowed}")
    if "layer_decay" in effects and not selector.layers:
        raise ConfigError(
            f"{key}.layer_decay: it needs layers. Type for example {key}.layers: backbone.encoder.layer.{{i}}"
        )
    priority = Number(default=1, integer=True).check(given.get("priority", 0), f"{key}.priority")
    allow_empty = Flag(default=True).check(given.get("allow_empty", False), f"{key}.allow_empty")
    return Rule(
        name=name,
        label=_parse_label(given, key) or name,
        selector=selector,
        effects=effects,
        stem=_parse_stem(given.get("stem"), effects, f"{key}.stem"),
        priority=priority,
        allow_empty=allow_empty,
    )


def _parse_label(given: Mapping[str, Any], key: str) -> str | None:
    label = given.get("name")
    if label is None:
        return None
    if not isinstance(label, str):
        raise ConfigError(f"{key}.name: got {label!r}, which is not a string. Type for example {key}.name: x")
    check_name(label, f"{key}.name")
    # At the top level `name` is the optimizer: here it would have no effect on the training.
    if given.get("optimizer") is None and find_optimizer(label) is not None:
        raise ConfigError(
            f"{key}.name: it names the rule's groups, and {label} is an optimizer. To use it, type "
            f"{key}.optimizer: {label}. Else choose another name, for example {label}_params"
        )
    return label


def _check_labels_unique(rules: Sequence[Rule]) -> None:
    """Check that no two rules have the same `name`, and that none is the key of another rule."""
    by_name = {rule.name: rule for rule in rules}
    by_label: dict[str, Rule] = {}
    for rule in rules:
        if rule.label == rule.name:
            continue
        other = by_name.get(rule.label) or by_label.setdefault(rule.label, rule)
        if other is not rule:
            raise ConfigError(
                f"{rule.key}.name: {rule.label!r} is the name of {other.key} too, and their groups could not be told "
                f"apart. Choose another one, or remove it: the default is {rule.name}"
            )


def _parse_stem(stem: Any, effects: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    if stem is None:
        return None
    if "layer_decay" not in effects:
        raise ConfigError(f"{key}: it has no effect without layer_decay. Remove stem, or add layer_decay")
    if isinstance(stem, (list, tuple)) and not stem:
        return ()
    for pattern in (patterns := parse_strings(stem, key)):
        check_pattern(pattern, key)
    return patterns


def _hint_preset(selector: Selector, key: str) -> str:
    """What to type where a rule of a preset does not fit the algorithm; '' where it is none."""
    preset = find_preset(key, {name: values for name in SELECTORS if (values := getattr(selector, name))})
    if preset is None:
        return ""
    return f" The rule is that of optimizer/groups/{' or '.join(preset.names)}: optimizer.{key}=null leaves it out."


def _parse_effect(
    effect: str,
    value: Any,
    key: str,
    info: OptimizerInfo | None,
    algorithms: Sequence[OptimizerInfo],
    from_preset: str,
) -> Any:
    """The value of one effect, checked for the rule's own algorithm, else for any algorithm of the config."""
    candidates = [info] if info else algorithms
    if effect == "optimizer":
        return value
    if effect == "schedule":
        return parse_override(value, key)
    if effect in _EFFECT_VALUES:
        if effect in SCALES and not any(SCALES[effect] in candidate.hyperparameters for candidate in candidates):
            raise ConfigError(f"{key}: {candidates[0].name} has no {SCALES[effect]} to scale. Remove {effect}")
        return _EFFECT_VALUES[effect].check(value, key)
    if takers := [candidate for candidate in candidates if effect in candidate.hyperparameters]:
        return _parse_hyperparameter(effect, value, key, takers, is_own_algorithm=info is not None)
    allowed = dict.fromkeys(
        (*SELECTORS, *(name for candidate in candidates for name in _per_group(candidate)), *EFFECTS, *OPTIONS)
    )
    leftover = leftover_hint(effect, algorithms_with(effect))
    raise ConfigError(
        f"{key}: a rule for {format_names((candidate.name for candidate in candidates), 4)} has no key {effect!r}."
        f"{leftover}{from_preset if leftover else ''}{format_choices(effect, allowed)}"
    )


def _parse_hyperparameter(
    name: str, value: Any, key: str, takers: Sequence[OptimizerInfo], *, is_own_algorithm: bool
) -> Any:
    """The value, converted by the first algorithm that takes it; `combine_rules` checks it again for the group's."""
    errors: list[ConfigError] = []
    for info in takers:
        # With an algorithm of its own, a rule may also set what applies to all groups of that algorithm.
        if not info.hyperparameters[name].per_group and not is_own_algorithm:
            errors.append(
                ConfigError(
                    f"{key}: {name} applies to the whole optimizer. Move it to the top level: {name}: {to_yaml(value)}"
                )
            )
            continue
        try:
            return info.hyperparameters[name].check(value, key)
        except ConfigError as error:
            errors.append(error)
    raise errors[0]


def _with_specs(rules: Sequence[Rule], infos: Mapping[str, OptimizerInfo | None], top: AlgorithmSpec) -> Iterator[Rule]:
    """The rules with the specs of their algorithms; rules with the same algorithm share its optimizer-wide values."""
    shared_values = _optimizer_wide_values(rules, infos, top)
    for rule in rules:
        info = infos[rule.name]
        if info is None:
            yield rule
            continue
        shared = shared_values[info.name]
        if info.name == top.algorithm:
            shared = {
                key: value for key, value in top.hyperparameters.items() if not info.hyperparameters[key].per_group
            }
        spec = AlgorithmSpec(algorithm=info.name, hyperparameters={**info.defaults, **shared}, given=frozenset(shared))
        effects = {key: value for key, value in rule.effects.items() if key not in shared}
        yield replace(rule, spec=spec, effects=effects)


def _optimizer_wide_values(
    rules: Iterable[Rule], infos: Mapping[str, OptimizerInfo | None], top: AlgorithmSpec
) -> dict[str, dict[str, Any]]:
    """By algorithm that a rule has: the hyperparameters that its rules set and that cannot differ between groups."""
    values: dict[str, dict[str, Any]] = {}
    setters: dict[tuple[str, str], Rule] = {}
    for rule in rules:
        info = infos[rule.name]
        if info is None:
            continue
        found = values.setdefault(info.name, {})
        for name, value in rule.effects.items():
            if name not in info.hyperparameters or info.hyperparameters[name].per_group:
                continue
            if info.name == top.algorithm:
                raise ConfigError(
                    f"{rule.key}.{name}: {name} applies to all groups of {info.name}, the config's top-level "
                    f"algorithm. Move it to the top level: {name}: {to_yaml(value)}"
                )
            setter = setters.setdefault((info.name, name), rule)
            if found.setdefault(name, value) != value:
                raise ConfigError(
                    f"{rule.key}.{name}: {to_yaml(value)}, but {setter.key}.{name}: {to_yaml(found[name])}, and it "
                    f"applies to all groups of {info.name}. Set it in one of them"
                )
    return values


def _per_group(info: OptimizerInfo) -> list[str]:
    return [name for name, hyperparameter in info.hyperparameters.items() if hyperparameter.per_group]
