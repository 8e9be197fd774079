"""Which parameters a rule or a stage means: globs on names, classes of owners, kinds."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from ..errors import ConfigError, choices, listed, nearest
from .names import Parameter

SELECTORS = ("params", "classes", "kinds")
KINDS = ("bias", "norm", "embedding", "matrix", "vector")
MAX_REGEX_LENGTH = 200

# `LayerNorm2d`, `Normalization`; not `NormalizingFlow`, `AbnormalHead`.
_NORM_CLASS = re.compile(r"Norm(?!al(?!ization))|norm$")
_NORM_NAME = re.compile(r"(^|_)(norm|layernorm|batchnorm|groupnorm|rmsnorm|ln|bn)\d*(_|$)", re.IGNORECASE)
_EMBEDDING = re.compile(r"embed", re.IGNORECASE)
_PLAIN_LAYERS = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


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

    @classmethod
    def parse(cls, given: Mapping[str, Any], key: str) -> Selector:
        """The selectors in a rule's or stage's config.

        Raises:
            ConfigError: there is none, or one is wrong.
        """
        found = {name: _strings(given[name], f"{key}.{name}") for name in SELECTORS if given.get(name) is not None}
        if not found:
            raise ConfigError(
                f"{key}: it selects nothing. Give it at least one of {', '.join(SELECTORS)}, "
                "for example params: backbone"
            )
        for kind in found.get("kinds", ()):
            if kind not in KINDS:
                raise ConfigError(f"{key}.kinds: there is no kind {kind!r}.{choices(kind, KINDS)}")
        for pattern in found.get("params", ()):
            _check_pattern(pattern, f"{key}.params")
        return cls(**found)

    def matches(self, parameter: Parameter) -> bool:
        """Whether it means this parameter, under any of its names."""
        return any(
            self._matches_one(parameter, name, owner)
            for name, owner in zip(parameter.names, parameter.owners, strict=True)
        )

    def needs_modules(self) -> bool:
        """Whether names alone cannot answer."""
        return bool(self.classes)

    def explain_miss(self, parameters: Sequence[Parameter]) -> str:
        """Why it matched none of `parameters`, and what is near."""
        names = [name for parameter in parameters for name in parameter.names]
        if self.params and not any(map(self._name_matches, names)):
            near = _near(self.params, names)
            return f"params {listed(map(repr, self.params))} matches none of {len(names)} names.{near}"
        owners = [owner for parameter in parameters for owner in parameter.owners]
        if self.classes and not any(_is_a(owner, wanted) for owner in owners for wanted in self.classes):
            known = sorted({type(owner).__name__ for owner in owners if owner is not None})
            return (
                f"classes {listed(self.classes)} own no parameter.{choices(self.classes[0].rpartition('.')[2], known)}."
            )
        kinds = {k for p in parameters for n, o in zip(p.names, p.owners, strict=True) for k in kinds_of(p, n, o)}
        if self.kinds and kinds.isdisjoint(self.kinds):
            return f"kinds {listed(self.kinds)}: the model's parameters are of the kinds {listed(sorted(kinds))}."
        return "each of its selectors matches something, but none matches all of them."

    def _matches_one(self, parameter: Parameter, name: str, owner: nn.Module | None) -> bool:
        return (
            (not self.params or self._name_matches(name))
            and (not self.classes or any(_is_a(owner, wanted) for wanted in self.classes))
            and (not self.kinds or not set(self.kinds).isdisjoint(kinds_of(parameter, name, owner)))
        )

    def _name_matches(self, name: str) -> bool:
        return any(pattern.fullmatch(name) for pattern in self._patterns)

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], ...]:
        return tuple(compile_pattern(pattern) for pattern in self.params)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A glob, or a regex after `re:`, as a pattern for `fullmatch` on a clean name."""
    if pattern.startswith("re:"):
        return re.compile(pattern[3:])
    # A glob that names a module means all beneath it: `head` is `head.*`, and never `head2.weight`.
    return re.compile(f"(?:{fnmatch.translate(pattern)[:-2]})(?:\\..*)?")


def kinds_of(parameter: Parameter, name: str, owner: nn.Module | None) -> frozenset[str]:
    """The kinds of a parameter under one of its names: by its owner's class first, then by name and shape."""
    leaf = name.rpartition(".")[2]
    kinds = {"vector"} if parameter.tensor.ndim <= 1 else set()
    if leaf == "bias" or leaf.startswith("bias_") or leaf.endswith("_bias"):
        kinds.add("bias")
    if _is_norm(name, owner):
        kinds.add("norm")
    elif _is_embedding(name, owner):
        kinds.add("embedding")
    elif parameter.tensor.ndim >= 2:
        kinds.add("matrix")
    return frozenset(kinds)


def _is_norm(name: str, owner: nn.Module | None) -> bool:
    if isinstance(owner, (*_PLAIN_LAYERS, nn.Embedding, nn.EmbeddingBag)):
        return False
    if owner is not None:
        return bool(_NORM_CLASS.search(type(owner).__name__))
    path = name.split(".")[:-1]
    return bool(path and _NORM_NAME.search(path[-1]))


def _is_embedding(name: str, owner: nn.Module | None) -> bool:
    if isinstance(owner, (nn.Embedding, nn.EmbeddingBag)):
        return True
    if isinstance(owner, _PLAIN_LAYERS):
        return False
    # A table held as a bare parameter (`pos_embed`), by a class of the user's own or where only names are known.
    leaf_and_owner = name.split(".")[-2:] if owner is None else [name.rpartition(".")[2], type(owner).__name__]
    return any(_EMBEDDING.search(part) for part in leaf_and_owner)


def _is_a(owner: nn.Module | None, wanted: str) -> bool:
    package, _, name = wanted.rpartition(".")
    return owner is not None and any(
        cls.__name__ == name and (not package or f"{cls.__module__}.".startswith(f"{package}."))
        for cls in type(owner).__mro__
    )


def _strings(given: Any, key: str) -> tuple[str, ...]:
    values = [given] if isinstance(given, str) else given
    if not isinstance(values, (list, tuple)) or not values or not all(isinstance(v, str) and v for v in values):
        raise ConfigError(
            f"{key}: got {given!r}, which is not a text or a list of texts. Type for example {key}: [a, b]"
        )
    return tuple(values)


def _check_pattern(pattern: str, key: str) -> None:
    if len(pattern) > MAX_REGEX_LENGTH:
        raise ConfigError(f"{key}: a pattern of {len(pattern)} characters; at most {MAX_REGEX_LENGTH} are taken")
    try:
        compile_pattern(pattern)
    except re.error as error:
        raise ConfigError(f"{key}: {pattern!r} is no regular expression: {error}") from None


def _near(patterns: Iterable[str], names: Sequence[str]) -> str:
    paths = {path for name in names for path in _prefixes(name)}
    found = [near for pattern in patterns for near in nearest(pattern.removesuffix(".*"), paths)]
    near = f" Did you mean {' or '.join(map(repr, found[:3]))}?" if found else ""
    return f"{near} Top-level names: {listed(dict.fromkeys(name.partition('.')[0] for name in names))}."


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]
