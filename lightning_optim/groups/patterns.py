"""Patterns on names: globs, regexes, and globs in which a layer's number stands."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable

from ..core.errors import ConfigError

MAX_REGEX_LENGTH = 200
NUMBER = "{i}"

_REGEX = "re:"
_MAGIC = re.compile(r"[*?\[]")


def matcher(pattern: str) -> Callable[[str], object]:
    """A test of one clean name: a glob matched whole, which means all beneath it too; a full match after `re:`.

    `*` crosses dots. `head` is `head.*`, and never `decode_head.weight` or `head2.weight`.
    """
    if pattern.startswith(_REGEX):
        return re.compile(pattern.removeprefix(_REGEX)).fullmatch
    if not _MAGIC.search(pattern):
        beneath = f"{pattern}."
        return lambda name: name == pattern or name.startswith(beneath)
    return re.compile(rf"(?:{_translated(pattern)})(?:\..*)?", re.DOTALL).fullmatch


def layer_matcher(pattern: str) -> Callable[[str], re.Match[str] | None]:
    """A full match of a module path with the number of its layer as the group `i`."""
    return _layer_regex(pattern).fullmatch


def check_pattern(pattern: str, key: str) -> None:
    """Whether it is a pattern on names.

    Raises:
        ConfigError: it is not.
    """
    if len(pattern) > MAX_REGEX_LENGTH:
        raise ConfigError(f"{key}: a pattern of {len(pattern)} characters; at most {MAX_REGEX_LENGTH} are taken")
    try:
        matcher(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"{key}: {pattern!r} is no regular expression: {error}") from None


def check_layer_pattern(pattern: str, key: str) -> None:
    """Whether it is a glob on module paths with one `{i}`.

    Raises:
        ConfigError: it is not.
    """
    check_pattern(pattern, key)
    whole = not pattern.startswith(_REGEX) and pattern.count(NUMBER) == 1
    if not whole or "i" not in _layer_regex(pattern).groupindex:  # as in `[{i}]`
        raise ConfigError(
            f"{key}: {pattern!r} is not a glob with one {NUMBER}, which stands where the layer's number does. "
            f"Type for example {key}: backbone.encoder.layer.{NUMBER}"
        )


def _layer_regex(pattern: str) -> re.Pattern[str]:
    return re.compile(_translated(pattern).replace(re.escape(NUMBER), "(?P<i>[0-9]+)"), re.DOTALL)


def _translated(glob: str) -> str:
    """As `fnmatch.translate`, without the anchor at its end."""
    return fnmatch.translate(glob).removesuffix(r"\Z").removesuffix(r"\z")
