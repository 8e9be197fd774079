"""Selectors: which parameters a rule or a stage matches, by name, class of the owner module, kind and layer."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.errors import ConfigError, did_you_mean, find_nearest, format_choices, format_names, prefix_errors
from .auto_layers import find_auto_layers
from .index import ParameterIndex
from .kinds import KINDS, KINDS_BY_NAME
from .layer_patterns import match_layers
from .layers import AUTO, Layers
from .patterns import LAYER_NUMBER, check_layer_pattern, check_pattern, compile_pattern, longest_literal
from .presets import find_preset

SELECTORS = ("params", "classes", "kinds", "layers")

# The content of at most this many modules is listed in an error.
_MAX_LEVELS = 3


@dataclass(frozen=True, kw_only=True)
class Selector:
    """Selectors of which all must match; of several values of one selector, any may match."""

    params: tuple[str, ...] = ()
    """Globs on the clean name: matched whole, `*` crosses dots, a module's name includes all below it. After `re:`, a
    regex that must match the whole name."""
    classes: tuple[str, ...] = ()
    """Classes of the owner module, by name or dotted name; subclasses count."""
    kinds: tuple[str, ...] = ()
    """Labels from `KINDS`."""
    layers: tuple[str, ...] = ()
    """Globs on module paths with `{i}`, or `{i}` and `{j}`: each match, with all modules below it, is a layer. Or
    `auto`: the model's own layers."""
    key: str = "groups"
    """Its config key."""

    @classmethod
    def parse(cls, given: Mapping[str, Any], key: str) -> Selector:
        """The selectors in the config of a rule or a stage.

        Raises:
            ConfigError: there is none, or one is invalid.
        """
        found = {name: parse_strings(given[name], f"{key}.{name}") for name in SELECTORS if given.get(name) is not None}
        if not found:
            raise ConfigError(
                f"{key}: it has no selector.{_hint_misspelt_selector(given)} Give it at least one of "
                f"{', '.join(SELECTORS)}, for example params: backbone"
            )
        for kind in found.get("kinds", ()):
            if kind not in KINDS:
                raise ConfigError(f"{key}.kinds: there is no kind {kind!r}.{format_choices(kind, KINDS)}")
        for pattern in found.get("params", ()):
            check_pattern(pattern, f"{key}.params")
        for pattern in found.get("layers", ()):
            if found["layers"] == (AUTO,):
                break
            check_layer_pattern(pattern, f"{key}.layers")
        return cls(**found, key=key)

    def select_parameters(self, index: ParameterIndex) -> set[int]:
        """The positions in `index.parameters` of the parameters it matches, under any of their names.

        Raises:
            ConfigError: a layer is inside another one.
        """
        found = self.select_occurrences(index)
        if self.layers:
            found &= self.find_layers(index).layer_of.keys()
        return {index.parameter_of[occurrence] for occurrence in found}

    def select_occurrences(self, index: ParameterIndex) -> set[int]:
        """The occurrences that match every selector but `layers`."""
        found = self._select_names(index)
        if self.classes:
            found &= index.with_classes(self.classes)
        if self.kinds:
            found &= index.with_kinds(self.kinds)
        return found

    def find_layers(self, index: ParameterIndex) -> Layers:
        """The layers among the names that `params` matches; `kinds` and `classes` do not change how many there are.

        Raises:
            ConfigError: a layer is inside another one; or `auto` finds no layers, or does not know their order.
        """
        names, key = sorted(self._select_names(index)), f"{self.key}.layers"
        if self.layers == (AUTO,):
            try:
                return find_auto_layers(index, key).restrict(names)
            except ConfigError as error:
                if hint := self._hint_preset():
                    raise ConfigError(f"{error}.{hint}") from None
                raise
        return match_layers(self.layers, index, names, key)

    def find_selector_needing_modules(self) -> str | None:
        """The first selector that needs the modules and not only names, as in a message: `classes`, `kinds: norm`."""
        if self.classes:
            return "classes"
        if self.layers == (AUTO,):
            return f"layers: {AUTO}"
        kind = next((kind for kind in self.kinds if kind not in KINDS_BY_NAME), None)
        return None if kind is None else f"kinds: {kind}"

    def explain_miss(self, index: ParameterIndex) -> str:
        """Why it matches nothing, the nearest names, and what to type if it comes from a preset."""
        return self._explain_miss(index) + self._hint_preset()

    def _explain_miss(self, index: ParameterIndex) -> str:
        if self.params and not self._select_names(index):
            return f"params {format_no_match(self.params, index.names)}"
        if self.classes and not index.with_classes(self.classes):
            known = sorted({cls.__name__ for cls in index.by_class})
            choices = format_choices(self.classes[0].rpartition(".")[2], known)
            return f"classes {format_names(self.classes)} own no parameter.{choices}."
        if self.kinds and not index.with_kinds(self.kinds):
            known = sorted(index.by_kind)
            return f"kinds {format_names(self.kinds)} match no parameter. Kinds in the model: {format_names(known)}."
        if self.layers and not self.find_layers(index).layer_of:
            near = _hint_layers(self.layers, index.names)
            return f"layers {format_names(map(repr, self.layers))} matches no module.{near}"
        return "each of its selectors matches some parameters, but no parameter matches all of them."

    def _hint_preset(self) -> str:
        given = {name: values for name in SELECTORS if (values := getattr(self, name))}
        preset = find_preset(self.key, given)
        return f" {preset}" if preset else ""

    def _select_names(self, index: ParameterIndex) -> set[int]:
        if not self.params:
            return set(range(len(index.names)))
        return match_names(self.params, index, f"{self.key}.params")


def match_names(patterns: Iterable[str], index: ParameterIndex, key: str) -> set[int]:
    """The occurrences whose name, or effective name in a parametrization, any of the patterns matches.

    Raises:
        ConfigError: a regex takes too long; `key` is that of the patterns.
    """
    found: set[int] = set()
    for pattern in patterns:
        matches, part = compile_pattern(pattern), longest_literal(pattern)
        with prefix_errors(key):
            # To search a name for a part of the pattern is ten times faster than to match the whole pattern.
            found.update([position for position, name in enumerate(index.names) if part in name and matches(name)])
            found.update(position for position, name in index.effective_names.items() if matches(name))
    return found


def parse_strings(given: Any, key: str) -> tuple[str, ...]:
    """The strings of a string or a non-empty list of strings.

    Raises:
        ConfigError: it is something else, or a string is empty.
    """
    values = [given] if isinstance(given, str) else given
    if not isinstance(values, (list, tuple)) or not values or not all(isinstance(v, str) and v for v in values):
        raise ConfigError(
            f"{key}: got {given!r}, which is not a string or a list of strings. Type for example {key}: [a, b]"
        )
    return tuple(values)


def format_no_match(patterns: Sequence[str], names: Iterable[str]) -> str:
    """A message: none of the names matches any of the patterns; with the nearest names."""
    names = list(names)
    return f"{format_names(map(repr, patterns))} matches none of {len(names)} names.{_hint_names(patterns, names)}"


def _hint_misspelt_selector(given: Iterable[Any]) -> str:
    return next(filter(None, (did_you_mean(str(key), SELECTORS) for key in given if key not in SELECTORS)), "")


def _hint_names(patterns: Sequence[str], names: Sequence[str]) -> str:
    paths = {path for name in names for path in _prefixes(name)}
    near = _hint_nearest([pattern.removesuffix(".*") for pattern in patterns], paths)
    modules = {path for name in names for path in _prefixes(name)[:-1]}
    levels = dict.fromkeys(_longest_module(pattern, modules) for pattern in patterns)
    return near + "".join(_list_level(path, names, modules) for path in list(levels)[:_MAX_LEVELS])


def _longest_module(pattern: str, modules: Collection[str]) -> str:
    """The path of the deepest module that the pattern begins with; empty where it begins with none."""
    return next((path for path in reversed(_prefixes(pattern)) if path in modules), "")


def _list_level(path: str, names: Sequence[str], modules: Collection[str]) -> str:
    """What is directly in a module; without a path, how names begin, down to the first level with several entries."""
    if path:
        return f" {path} has: {format_names(_children(path, names))}."
    while len(children := _children(path, names)) == 1 and (below := f"{path}.{children[0]}".lstrip(".")) in modules:
        path = below
    return f" Names start with {format_names(f'{path}.{child}'.lstrip('.') for child in children)}."


def _children(path: str, names: Iterable[str]) -> list[str]:
    """The names directly in a module, in the model's order."""
    prefix = f"{path}." if path else ""
    return list(dict.fromkeys(n.removeprefix(prefix).partition(".")[0] for n in names if n.startswith(prefix)))


def _hint_layers(patterns: Iterable[str], names: Sequence[str]) -> str:
    """The numbered module paths of the model, written with `{i}`, the nearest first."""
    modules = dict.fromkeys(path for name in names for path in _prefixes(name)[:-1])
    numbered = list(dict.fromkeys(re.sub(r"\d+$", LAYER_NUMBER, path) for path in modules if path[-1].isdigit()))
    if not numbered:
        return " No module path of the model ends with a number."
    return f"{_hint_nearest(patterns, numbered)} Numbered modules: {format_names(numbered, 6)}."


def _hint_nearest(patterns: Iterable[str], known: Iterable[str]) -> str:
    found = list(dict.fromkeys(near for pattern in patterns for near in find_nearest(pattern, known)))
    return f" Did you mean {' or '.join(map(repr, found[:3]))}?" if found else ""


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]
