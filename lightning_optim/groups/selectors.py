"""Which parameters a rule or a stage means: globs on names, classes of owners, kinds, layers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.errors import ConfigError, choices, did_you_mean, format_names, nearest
from .index import Index
from .kinds import KINDS
from .layers import Layers
from .patterns import NUMBER, check_layer_pattern, check_pattern, matcher

SELECTORS = ("params", "classes", "kinds", "layers")


@dataclass(frozen=True, kw_only=True)
class Selector:
    """A conjunction of selectors; a list inside one is an or."""

    params: tuple[str, ...] = ()
    """Globs on the clean name, matched whole, `*` crosses dots; one that names a module means all beneath it; a
    full-match regex after `re:`."""
    classes: tuple[str, ...] = ()
    """Classes of the owning module, by name or dotted name; subclasses count."""
    kinds: tuple[str, ...] = ()
    """Labels out of `KINDS`."""
    layers: tuple[str, ...] = ()
    """Globs on module paths with one `{i}`; each match with all below it is a layer."""
    key: str = "groups"
    """Where it stands in the config."""

    @classmethod
    def parse(cls, given: Mapping[str, Any], key: str) -> Selector:
        """The selectors in a rule's or stage's config.

        Raises:
            ConfigError: there is none, or one is wrong.
        """
        found = {name: texts(given[name], f"{key}.{name}") for name in SELECTORS if given.get(name) is not None}
        if not found:
            raise ConfigError(
                f"{key}: it selects nothing.{_meant(given)} Give it at least one of {', '.join(SELECTORS)}, "
                "for example params: backbone"
            )
        for kind in found.get("kinds", ()):
            if kind not in KINDS:
                raise ConfigError(f"{key}.kinds: there is no kind {kind!r}.{choices(kind, KINDS)}")
        for pattern in found.get("params", ()):
            check_pattern(pattern, f"{key}.params")
        for pattern in found.get("layers", ()):
            check_layer_pattern(pattern, f"{key}.layers")
        return cls(**found, key=key)

    def uses(self, index: Index) -> set[int]:
        """The uses that fulfil every selector but `layers`."""
        found = self._named(index)
        if self.classes:
            found &= index.classes(self.classes)
        if self.kinds:
            found &= index.kinds(self.kinds)
        return found

    def find_layers(self, index: Index) -> Layers:
        """The layers in a model: those that `params` allows, since a layer without a bias is a layer too.

        Raises:
            ConfigError: one layer stands inside another.
        """
        return Layers.find(self.layers, index, sorted(self._named(index)), f"{self.key}.layers")

    def select(self, index: Index) -> set[int]:
        """The places of the parameters it means, under any of their names.

        Raises:
            ConfigError: one layer stands inside another.
        """
        found = self.uses(index)
        if self.layers:
            found &= self.find_layers(index).numbers.keys()
        return {index.holders[use] for use in found}

    def needs_modules(self) -> bool:
        """Whether names alone cannot answer."""
        return bool(self.classes)

    def explain_miss(self, index: Index) -> str:
        """Why it matched nothing, and what is near."""
        if self.params and not self._named(index):
            return f"params {no_such_name(self.params, index.names)}"
        if self.classes and not index.classes(self.classes):
            known = sorted({cls.__name__ for cls in index.by_class})
            return f"classes {format_names(self.classes)} own no parameter.{choices(self.classes[0].rpartition('.')[2], known)}."
        if self.kinds and not index.kinds(self.kinds):
            return f"kinds {format_names(self.kinds)}: the model's parameters are of the kinds {format_names(sorted(index.by_kind))}."
        if self.layers and not self.find_layers(index).numbers:
            return f"layers {format_names(map(repr, self.layers))} matches no module.{_near_layers(self.layers, index.names)}"
        return "each of its selectors matches something, but none matches all of them."

    def _named(self, index: Index) -> set[int]:
        if not self.params:
            return set(range(len(index.names)))
        return uses_named(self.params, index)


def uses_named(patterns: Iterable[str], index: Index) -> set[int]:
    """The uses whose name, or role in a parametrization, any of the patterns matches."""
    found: set[int] = set()
    for pattern in patterns:
        matches = matcher(pattern)
        found.update(use for use, name in enumerate(index.names) if matches(name))
        found.update(use for use, role in index.roles.items() if matches(role))
    return found


def texts(given: Any, key: str) -> tuple[str, ...]:
    """A text or a list of texts, as a tuple.

    Raises:
        ConfigError: it is neither, or there is none in it.
    """
    values = [given] if isinstance(given, str) else given
    if not isinstance(values, (list, tuple)) or not values or not all(isinstance(v, str) and v for v in values):
        raise ConfigError(
            f"{key}: got {given!r}, which is not a text or a list of texts. Type for example {key}: [a, b]"
        )
    return tuple(values)


def no_such_name(patterns: Sequence[str], names: Iterable[str]) -> str:
    """That none of the patterns matches a name, and which ones are near."""
    names = list(names)
    return f"{format_names(map(repr, patterns))} matches none of {len(names)} names.{_near(patterns, names)}"


def _meant(given: Iterable[Any]) -> str:
    """The selector that a misspelt key was to be."""
    return next(filter(None, (did_you_mean(str(word), SELECTORS) for word in given if word not in SELECTORS)), "")


def _near(patterns: Iterable[str], names: Sequence[str]) -> str:
    paths = {path for name in names for path in _prefixes(name)}
    found = list(dict.fromkeys(near for pattern in patterns for near in nearest(pattern.removesuffix(".*"), paths)))
    near = f" Did you mean {' or '.join(map(repr, found[:3]))}?" if found else ""
    return f"{near} Top-level names: {format_names(dict.fromkeys(name.partition('.')[0] for name in names))}."


def _near_layers(patterns: Iterable[str], names: Sequence[str]) -> str:
    """The paths in the model in which a number stands, with `{i}` in its place, the nearest first."""
    modules = dict.fromkeys(path for name in names for path in _prefixes(name)[:-1])
    numbered = list(dict.fromkeys(re.sub(r"\d+$", NUMBER, path) for path in modules if path[-1].isdigit()))
    if not numbered:
        return " No module path of the model ends with a number."
    found = list(dict.fromkeys(near for pattern in patterns for near in nearest(pattern, numbered)))
    near = f" Did you mean {' or '.join(map(repr, found[:3]))}?" if found else ""
    return f"{near} Numbered modules: {format_names(numbered, 6)}."


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]
