"""The one error a user's config can cause, and the words that help to mend it."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable
from typing import Any


class ConfigError(ValueError):
    """Something in a config is wrong; the message names the key, what was given, what is allowed and what to type.

    Hydra shows the ``repr`` of the error that an ``instantiate`` ran into: hence the plain one.
    """

    def __repr__(self) -> str:
        return str(self)


def refuse_leftover_partial(init: Callable[..., None]) -> Callable[..., None]:
    """Wraps a factory's `__init__`, which a leftover `_partial_: true` of Hydra's calls with the parameters too."""

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        if args and "name" in kwargs:
            raise ConfigError("name: given twice: a _partial_: true is left over in the config. Type _partial_: false")
        init(self, *args, **kwargs)

    return checked


def nearest(word: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The names in `known` most like `word`, best first; empty when none is near."""
    by_lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), by_lower, n=count, cutoff=0.6)
    return [by_lower[name] for name in found]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` with a leading blank, or nothing where no name is near."""
    found = nearest(word, known, count=1)
    return f" Did you mean '{found[0]}'?" if found else ""


def choices(word: str, known: Iterable[str]) -> str:
    """What there is instead of an unknown word, the nearest first: `` Did you mean 'x'? There are: x, y``."""
    known = list(known)
    return f"{did_you_mean(word, known)} There are: {', '.join(known)}"


def left_over(key: str, owners: Iterable[str]) -> str:
    """A hint where a key is another's: most likely it was left over from a config below."""
    names = listed(owners, 4)
    return f" {key} belongs to {names}: left over from a config below?" if names else ""


def not_yet(where: str, word: str) -> str:
    """The message for a word that has a meaning, but not in this version."""
    return f"{where}: {word} is not there yet in this version. Remove it"


def listed(names: Iterable[str], limit: int = 12) -> str:
    """Names joined for a sentence, the rest counted."""
    names = list(names)
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
