"""Patterns on names: globs, regexes, and globs with the placeholders `{i}` and `{j}` for a layer's number."""

from __future__ import annotations

import fnmatch
import re
import time
import warnings
from collections.abc import Callable

import regex

from ..core.errors import ConfigError

MAX_REGEX_LENGTH = 200
MAX_REGEX_TIME_S = 1.0
"""For all names of a model together: one that backtracks may take years for a name of 40 characters."""
LAYER_NUMBER, BLOCK_NUMBER = "{i}", "{j}"

_REGEX_PREFIX = "re:"
# In the library `regex`, `head{e<=1}` matches what resembles `head`; in Python's re it means the characters.
_FUZZY = re.compile(r"(?<!\\)(?<!\\N)\{(?![0-9,])")
_WILDCARD = re.compile(r"[*?\[]")


def compile_pattern(pattern: str) -> Callable[[str], object]:
    """A predicate on one clean name; for a regex that takes too long, it raises `ConfigError`.

    A glob must match the whole name or the name of a module above it; `*` crosses dots. So `head` means `head.*`, and
    never `decode_head.weight` or `head2.weight`. After `re:`, a regex must match the whole name.
    """
    if pattern.startswith(_REGEX_PREFIX):
        return _RegexMatcher(pattern)
    if not _WILDCARD.search(pattern):
        module_prefix = f"{pattern}."
        return lambda name: name == pattern or name.startswith(module_prefix)
    return re.compile(rf"(?:{_translate_glob(pattern)})(?:\..*)?", re.DOTALL).fullmatch


class _RegexMatcher:
    """The full match of a regex, within a limit of time for all names together."""

    def __init__(self, pattern: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)  # of what the two libraries read in different ways
            re.compile(pattern.removeprefix(_REGEX_PREFIX))  # the patterns of Python's re, no others
        if _FUZZY.search(pattern):
            raise re.error("a { that begins no repetition such as {2} or {1,3}; type \\{ for the character")
        self._pattern, self._left_s = pattern, MAX_REGEX_TIME_S
        self._regex = regex.compile(pattern.removeprefix(_REGEX_PREFIX), regex.VERSION0)

    def __call__(self, name: str) -> object:
        start = time.perf_counter()
        try:
            return self._regex.fullmatch(name, timeout=self._left_s)
        except TimeoutError:
            raise ConfigError(
                f"the regex {self._pattern!r} takes more than {MAX_REGEX_TIME_S:g} s: it tries very many ways to match "
                f"{name!r}. Write it without a repetition inside a repetition, such as (a+)*, or as a glob"
            ) from None
        finally:
            self._left_s = max(1e-3, self._left_s - (time.perf_counter() - start))


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
    except (re.error, regex.error, FutureWarning, OverflowError, RecursionError, ValueError) as error:
        raise ConfigError(f"{key}: {pattern!r} is not a valid regular expression: {error}") from None


def check_layer_pattern(pattern: str, key: str) -> None:
    """Check a glob on module paths with `{i}`, or with `{i}` and after it `{j}`.

    Raises:
        ConfigError: it is something else.
    """
    if not pattern.startswith(_REGEX_PREFIX):
        check_pattern(pattern, key)
    numbers = (
        [] if pattern.startswith(_REGEX_PREFIX) else list(_layer_regex(pattern).groupindex)
    )  # not those in a class, as in `[{i}]`
    counts = [pattern.count(number) for number in (LAYER_NUMBER, BLOCK_NUMBER)]
    if numbers not in (["i"], ["i", "j"]) or sum(counts) != len(numbers):
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
