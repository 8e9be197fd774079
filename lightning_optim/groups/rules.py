"""Rules: what a config says of some parameters, each checked as far as it goes without the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..catalog.info import OptimizerInfo
from ..catalog.registry import algorithms_with, find_optimizer, list_optimizers, optimizer_info
from ..core.config_values import to_yaml
from ..core.errors import ConfigError, choices, format_names, leftover_hint
from ..core.hyperparameters import Flag, Hyperparameter, Number
from ..schedule.override import parse_override
from .index import Index
from .layers import Layer
from .patterns import check_pattern
from .selectors import SELECTORS, Selector, texts, uses_named

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
RESERVED_NAMES = ("all", "default")

SCALES = {"lr_scale": "lr", "weight_decay_scale": "weight_decay", "layer_decay": "lr"}
"""Effects that multiply, each with what it multiplies."""
_OWN_EFFECTS: dict[str, Hyperparameter] = {
    "lr_scale": Number(default=0.1, low=0, help="multiplies lr"),
    "weight_decay_scale": Number(default=0.1, low=0, help="multiplies weight_decay"),
    "layer_decay": Number(
        default=0.75, low=0, high=1, open_low=True, help="multiplies lr, once for each layer from the last on"
    ),
    "frozen": Flag(default=True, help="leave out of the optimizer and out of the gradient"),
}
EFFECTS = ("lr_scale", "weight_decay_scale", "layer_decay", "frozen", "optimizer", "schedule")
"""What a rule can say besides hyperparameters."""
_CONTROLS = ("priority", "allow_empty", "stem")
IN_RULES = (*SELECTORS, *EFFECTS, *_CONTROLS)
"""The words that only a rule has."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What the top of an optimizer's config, or `optimizer:` in a rule, says: the algorithm and its hyperparameters."""

    algorithm: str
    hyperparameters: Mapping[str, Any]
    """Every one, at its default where the config says nothing."""
    given: frozenset[str] = frozenset()
    """Those that the config gives."""
    own: bool = False
    """Whether our own class runs it, and not torch's or a registered one."""

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
    """Hyperparameters and `EFFECTS`, each checked."""
    spec: Spec | None = None
    """The algorithm that `optimizer` gives, at its own defaults."""
    stem: tuple[str, ...] | None = None
    """Globs on what `layer_decay` takes for the stem; None: what shares the layers' first segment and comes before."""
    priority: int = 0
    allow_empty: bool = False

    @property
    def key(self) -> str:
        """Where it stands in the config."""
        return f"groups.{self.name}"

    @property
    def algorithm(self) -> str | None:
        """The algorithm that it gives, if it gives one."""
        return self.spec.algorithm if self.spec else None

    def match(self, index: Index) -> dict[int, Layer | None]:
        """The places of the parameters it means, each with its layer where the rule has `layers`.

        Raises:
            ConfigError: one layer stands inside another.
        """
        uses = sorted(self.selector.uses(index))
        if not self.selector.layers:
            return {index.holders[use]: None for use in uses}
        layers = self.selector.find_layers(index)
        found: dict[int, Layer | None] = {}
        for use in uses:
            if layer := layers.layer(use):
                found.setdefault(index.holders[use], layer)
        if "layer_decay" in self.effects and found:
            stem = layers.before(index) if self.stem is None else uses_named(self.stem, index)
            for use in uses:
                if use in stem:
                    found.setdefault(index.holders[use], layers.stem())
        return found


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
    entries = {str(name): given[name] for name in sorted(given, key=str) if given[name] is not None}
    for name, entry in entries.items():
        _check_entry(name, entry)
    infos = {name: _algorithm(entry, f"groups.{name}.optimizer") for name, entry in entries.items()}
    known = list({info.name: info for info in (spec.info, *infos.values()) if info}.values())
    rules = [_parse_rule(name, entry, infos[name], known) for name, entry in entries.items()]
    return tuple(_with_algorithms(rules, infos, spec))


def check_name(name: str, key: str) -> None:
    """Whether a rule or stage may be called so: its name goes into tags, file names and checkpoints.

    Raises:
        ConfigError: it may not.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"{key}: the name {name!r} is not made of letters, digits, _ and -, beginning with no digit")
    if name in RESERVED_NAMES:
        raise ConfigError(f"{key}: {name!r} has a meaning of its own; take another name, for example {name}_params")


def _check_entry(name: str, given: Any) -> None:
    check_name(name, f"groups.{name}")
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"groups.{name}: got {given!r}. A rule is a mapping, "
            f"for example {name}: {{params: backbone, lr_scale: 0.1}}"
        )


def _algorithm(given: Mapping[str, Any], key: str) -> OptimizerInfo | None:
    name = given.get("optimizer")
    if name is None:
        return None
    if (info := find_optimizer(name)) is None:
        raise ConfigError(f"{key}: there is no optimizer {name!r}.{choices(str(name), list_optimizers())}")
    if info.stands_alone:
        raise ConfigError(
            f"{key}: {name} evaluates the model several times a step, so it cannot stand beside another optimizer. "
            f"Take it for the whole model, name: {name}, or another one here"
        )
    return info


def _parse_rule(name: str, given: Mapping[str, Any], info: OptimizerInfo | None, known: list[OptimizerInfo]) -> Rule:
    key = f"groups.{name}"
    selector = Selector.parse(given, key)
    effects = {
        str(effect): _effect(str(effect), value, f"{key}.{effect}", info, known)
        for effect, value in given.items()
        if effect not in (*SELECTORS, *_CONTROLS) and not (effect in EFFECTS and value is None)
    }
    # `layers` alone says something: each layer is a group to itself.
    if not effects and not selector.layers:
        allowed = ", ".join((*_per_group(info or known[0]), *EFFECTS))
        raise ConfigError(f"{key}: it selects parameters and says nothing of them. Give it at least one of {allowed}")
    if "layer_decay" in effects and not selector.layers:
        raise ConfigError(
            f"{key}.layer_decay: it needs the layers to count. Type for example {key}.layers: "
            "backbone.encoder.layer.{i}"
        )
    priority = given.get("priority", 0)
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise ConfigError(
            f"{key}.priority: got {priority!r}, which is not a whole number. Type for example priority: 1"
        )
    allow_empty = Flag(default=True).check(given.get("allow_empty", False), f"{key}.allow_empty")
    stem = _stem(given, effects, f"{key}.stem")
    return Rule(name=name, selector=selector, effects=effects, stem=stem, priority=priority, allow_empty=allow_empty)


def _stem(given: Mapping[str, Any], effects: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    stem = given.get("stem")
    if stem is None:
        return None
    if "layer_decay" not in effects:
        raise ConfigError(f"{key}: it is what layer_decay reaches last, and there is none. Remove stem, or add one")
    if isinstance(stem, (list, tuple)) and not stem:
        return ()
    for pattern in (patterns := texts(stem, key)):
        check_pattern(pattern, key)
    return patterns


def _effect(effect: str, value: Any, key: str, info: OptimizerInfo | None, known: Sequence[OptimizerInfo]) -> Any:
    """The value of one effect; `info` is the rule's own algorithm, without one it is any of the config's."""
    candidates = [info] if info else known
    if effect == "optimizer":
        return value
    if effect == "schedule":
        return parse_override(value, key)
    if effect in _OWN_EFFECTS:
        if effect in SCALES and not any(SCALES[effect] in one.hyperparameters for one in candidates):
            raise ConfigError(f"{key}: {candidates[0].name} has no {SCALES[effect]} to scale. Remove {effect}")
        return _OWN_EFFECTS[effect].check(value, key)
    if takers := [one for one in candidates if effect in one.hyperparameters]:
        return _hyperparameter(effect, value, key, takers, own=info is not None)
    everything = dict.fromkeys(
        (*SELECTORS, *(name for one in candidates for name in _per_group(one)), *EFFECTS, *_CONTROLS)
    )
    raise ConfigError(
        f"{key}: a rule of {format_names((one.name for one in candidates), 4)} has no key {effect!r}."
        f"{leftover_hint(effect, algorithms_with(effect))}{choices(effect, everything)}"
    )


def _hyperparameter(effect: str, value: Any, key: str, takers: Sequence[OptimizerInfo], *, own: bool) -> Any:
    """The value as one of these algorithms takes it; `compose` checks it for the one whose parameters it meets."""
    wrong: list[ConfigError] = []
    for info in takers:
        # A rule with an algorithm of its own may say what holds for all of it: it is the top for that algorithm.
        if not info.hyperparameters[effect].per_group and not own:
            wrong.append(
                ConfigError(
                    f"{key}: {effect} holds for the whole optimizer. Move it to the top: {effect}: {to_yaml(value)}"
                )
            )
            continue
        try:
            return info.hyperparameters[effect].check(value, key)
        except ConfigError as error:
            wrong.append(error)
    raise wrong[0]


def _with_algorithms(rules: Iterable[Rule], infos: Mapping[str, OptimizerInfo | None], top: Spec) -> Iterable[Rule]:
    """The rules with the specs of their algorithms: those of one algorithm share what holds for the whole of it."""
    rules = list(rules)
    options: dict[str, dict[str, tuple[Any, Rule]]] = {}
    for rule in rules:
        info = infos[rule.name]
        if info is None:
            continue
        shared = options.setdefault(info.name, {})
        for effect, value in rule.effects.items():
            if effect not in info.hyperparameters or info.hyperparameters[effect].per_group:
                continue
            if info.name == top.algorithm:
                raise ConfigError(
                    f"{rule.key}.{effect}: {effect} holds for the whole of {info.name}, which is the config's own "
                    f"algorithm. Move it to the top: {effect}: {to_yaml(value)}"
                )
            said, by = shared.setdefault(effect, (value, rule))
            if said != value:
                raise ConfigError(
                    f"{rule.key}.{effect}: {to_yaml(value)}, but {by.key}.{effect}: {to_yaml(said)}, and it holds for "
                    f"the whole of {info.name}. Set it in one of them"
                )
    for rule in rules:
        info = infos[rule.name]
        if info is None:
            yield rule
            continue
        said = {effect: value for effect, (value, _) in options[info.name].items()}
        if info.name == top.algorithm:
            said = {key: value for key, value in top.hyperparameters.items() if not info.hyperparameters[key].per_group}
        spec = Spec(algorithm=info.name, hyperparameters={**info.defaults, **said}, given=frozenset(said))
        effects = {key: value for key, value in rule.effects.items() if key not in said}
        yield replace(rule, spec=spec, effects=effects)


def _per_group(info: OptimizerInfo) -> list[str]:
    return [name for name, spec in info.hyperparameters.items() if spec.per_group]
