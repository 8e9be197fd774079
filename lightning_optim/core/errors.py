"""The one error a user's config can cause, and the words that help to mend it."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

# What other tools call it.
_OTHER_TOOLS = {
    "lr_mult": "lr_scale",
    "decay_mult": "weight_decay_scale",
    "weight_decay_mult": "weight_decay_scale",
    "wd": "weight_decay",
    "learning_rate": "lr",
    "lr_decay": "layer_decay",
    "freeze": "frozen",
    "types": "classes",
}
_MIN_PREFIX = 3


class ConfigError(ValueError):
    """Something in a config is wrong; the message names the key, what was given, what is allowed and what to type.

    Hydra shows the ``repr`` of the error that an ``instantiate`` ran into: hence the plain one.
    """

    __module__ = "lightning_optim"  # where users import it from: pickles outlive a move of this file

    def __repr__(self) -> str:
        return str(self)


@contextmanager
def prefix_errors(key: str) -> Iterator[None]:
    """Heads a ConfigError raised inside with the key in the config that it is about."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error


def requires_name(example: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorates a factory's `__init__`, for calls without a name, or with the parameters of a leftover `_partial_`."""
    return functools.partial(_takes_name, example=example)


def _takes_name(init: Callable[..., None], example: str) -> Callable[..., None]:
    @functools.wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        if args and "name" in kwargs:
            raise ConfigError("name: given twice: a _partial_: true is left over in the config. Type _partial_: false")
        if not args and "name" not in kwargs:
            raise ConfigError(f"name: {type(self).__name__} needs one, such as name: {example}")
        init(self, *args, **kwargs)

    return checked


def nearest(word: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The names in `known` most like `word`, best first; empty when none is near."""
    by_lower = {name.lower(): name for name in known}
    given = word.lower()
    found = [_OTHER_TOOLS[given]] if _OTHER_TOOLS.get(given) in by_lower else []
    for spelt in (given, given.rpartition(".")[2]):  # torch.optim.AdamW
        found += difflib.get_close_matches(spelt, by_lower, n=count, cutoff=0.6)
        if len(spelt) >= _MIN_PREFIX:
            found += [name for name in by_lower if name.startswith(spelt)]
    return [by_lower[name] for name in dict.fromkeys(found)][:count]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` with a leading blank, or nothing where no name is near."""
    found = nearest(word, known, count=1)
    return f" Did you mean '{found[0]}'?" if found else ""


def choices(word: str, known: Iterable[str]) -> str:
    """What there is instead of an unknown word, the nearest first: `` Did you mean 'x'? There are: x, y``."""
    known = list(known)
    return f"{did_you_mean(word, known)} There are: {', '.join(known)}"


def leftover_hint(key: str, owners: Iterable[str]) -> str:
    """A hint where a key is another's: most likely it was left over from a config below."""
    names = format_names(owners, 4)
    return f" {key} belongs to {names}: left over from a config below?" if names else ""


def not_yet(where: str, word: str) -> str:
    """The message for a word that has a meaning, but not in this version."""
    return f"{where}: {word} is not there yet in this version. Remove it"


def format_names(names: Iterable[str], limit: int = 12) -> str:
    """Names joined for a sentence, the rest counted."""
    names = list(names)
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
