"""Patterns on names: globs, regexes, and globs with the placeholders `{i}` and `{j}` for a layer's number."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable

from ..core.errors import ConfigError

MAX_REGEX_LENGTH = 200
LAYER_NUMBER, BLOCK_NUMBER = "{i}", "{j}"

_REGEX_PREFIX = "re:"
_WILDCARD = re.compile(r"[*?\[]")


def compile_pattern(pattern: str) -> Callable[[str], object]:
    """A predicate on one clean name.

    A glob must match the whole name or the name of a module above it; `*` crosses dots. So `head` means `head.*`, and
    never `decode_head.weight` or `head2.weight`. After `re:`, a regex must match the whole name.
    """
    if pattern.startswith(_REGEX_PREFIX):
        return re.compile(pattern.removeprefix(_REGEX_PREFIX)).fullmatch
    if not _WILDCARD.search(pattern):
        module_prefix = f"{pattern}."
        return lambda name: name == pattern or name.startswith(module_prefix)
    return re.compile(rf"(?:{_translate_glob(pattern)})(?:\..*)?", re.DOTALL).fullmatch


def longest_literal(pattern: str) -> str:
    """A part of the pattern that every name it matches contains; empty for a regex."""
    if pattern.startswith(_REGEX_PREFIX):
        return ""
    return max(re.split(r"\*|\?|\[.*\]", pattern, flags=re.DOTALL), key=len)


def compile_layer_pattern(pattern: str) -> Callable[[str], re.Match[str] | None]:
    """A function from a module path to its full match, whose groups are the numbers."""
    return _layer_regex(pattern).fullmatch


def check_pattern(pattern: str, key: str) -> None:
    """Check a pattern on names.

    Raises:
        ConfigError: it is too long, or not a regular expression.
    """
    if len(pattern) > MAX_REGEX_LENGTH:
        raise ConfigError(f"{key}: the pattern has {len(pattern)} characters; at most {MAX_REGEX_LENGTH} are allowed")
    try:
        compile_pattern(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"{key}: {pattern!r} is not a valid regular expression: {error}") from None


def check_layer_pattern(pattern: str, key: str) -> None:
    """Check a glob on module paths with `{i}`, or with `{i}` and after it `{j}`.

    Raises:
        ConfigError: it is something else.
    """
    check_pattern(pattern, key)
    numbers = list(_layer_regex(pattern).groupindex)  # not those in a class, as in `[{i}]`
    counts = [pattern.count(number) for number in (LAYER_NUMBER, BLOCK_NUMBER)]
    if pattern.startswith(_REGEX_PREFIX) or numbers not in (["i"], ["i", "j"]) or sum(counts) != len(numbers):
        raise ConfigError(
            f"{key}: {pattern!r} is not a glob with one {LAYER_NUMBER} in place of the layer's number, or with "
            f"{LAYER_NUMBER} and then {BLOCK_NUMBER}. Type for example {key}: backbone.encoder.layer.{LAYER_NUMBER}, "
            f"backbone.stages.{LAYER_NUMBER}.blocks.{BLOCK_NUMBER}, or auto"
        )


def _layer_regex(pattern: str) -> re.Pattern[str]:
    regex = _translate_glob(pattern)
    for placeholder in (LAYER_NUMBER, BLOCK_NUMBER):
        regex = regex.replace(re.escape(placeholder), f"(?P<{placeholder[1]}>[0-9]+)", 1)
    return re.compile(regex, re.DOTALL)


def _translate_glob(glob: str) -> str:
    """`fnmatch.translate` without the anchor at the end."""
    return fnmatch.translate(glob).removesuffix(r"\Z").removesuffix(r"\z")
