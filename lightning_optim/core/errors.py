"""`ConfigError`, raised for every mistake in a user's config, and helpers that word its messages."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

from .printable import escape_hidden

# Names that other tools use for a key of ours.
_SYNONYMS = {
    "lr_mult": "lr_scale",
    "decay_mult": "weight_decay_scale",
    "weight_decay_mult": "weight_decay_scale",
    "wd": "weight_decay",
    "learning_rate": "lr",
    "lr_decay": "layer_decay",
    "freeze": "frozen",
    "types": "classes",
}
# Attributes of a module, of the generator `module.parameters()`, and of an optimizer.
_CALL_ARGUMENT_MARKS = ("parameters", "__next__", "param_groups")
# Shorter words are not matched as the prefix of a name.
_MIN_PREFIX = 3
_MAX_NAME, _MAX_COMPARED = 300, 20_000
# Longer messages are cut in their middle; the longest list of choices has 3000 characters.
_MAX_MESSAGE = 4000


class ConfigError(ValueError):
    """A mistake in a config. The message names the key, what was given, what is allowed and what to type.

    Hydra shows the ``repr`` of an error raised inside ``instantiate``, so the ``repr`` is the plain message. Control
    characters of a config are escaped in it, and a value of many characters is cut.
    """

    __module__ = "lightning_optim"  # where users import it from: pickles outlive a move of this file

    def __init__(self, message: str) -> None:
        super().__init__(escape_hidden(_shorten(message)))

    def __repr__(self) -> str:
        return str(self)


def _shorten(message: str) -> str:
    if len(message) <= _MAX_MESSAGE:
        return message
    end = _MAX_MESSAGE // 4
    return f"{message[: _MAX_MESSAGE - end - 100]} ... ({len(message):,} characters) ... {message[-end:]}"


@contextmanager
def prefix_errors(key: str) -> Iterator[None]:
    """Prefix the message of a ConfigError raised inside the block with a config key."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error


def explain_call(argument: str) -> str:
    """What to type where a factory got the argument of its call in its constructor: from Python, or from a `partial`.

    Args:
        argument: `module` or `optimizer`.
    """
    return (
        f"the factory takes the {argument} when it is called, not when it is constructed. Type "
        f"hydra.utils.instantiate(cfg)({argument}). If that is what the code does, a _partial_: true is left over in "
        "the config. Type _partial_: false"
    )


def requires_name(example: str, argument: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a factory's `__init__` so that a call without `name`, or with something else in its place, is explained.

    Args:
        example: a name to type.
        argument: what a factory is called with, `module` or `optimizer`. `hydra.utils.instantiate(cfg, module)`, and a
            leftover `_partial_: true`, pass it to the constructor.
    """

    def decorate(init: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(init)
        def checked_init(self: Any, /, *args: Any, **kwargs: Any) -> None:
            cls = type(self).__name__
            if args and "name" in kwargs:
                if isinstance(args[0], str):
                    raise ConfigError(f"name: given twice: {args[0]!r} and {kwargs['name']!r}. Remove one of them")
                raise ConfigError(
                    f"name: given twice, the first time as a {type(args[0]).__name__}: {explain_call(argument)}"
                )
            if args and any(hasattr(args[0], mark) for mark in _CALL_ARGUMENT_MARKS):
                raise ConfigError(
                    f"name: got a {type(args[0]).__name__}. The factory takes the name first, and the {argument} when "
                    f"it is called. Type {cls}({example!r}, ...)({argument})"
                )
            if len(args) > 1:
                raise ConfigError(
                    f"{cls}: takes one value without a key, the name, and got {len(args)}. Type the key of each other "
                    f"one: {cls}({example!r}, key=value)"
                )
            if not args and "name" not in kwargs:
                raise ConfigError(f"name: {cls} needs one, such as name: {example}")
            init(self, *args, **kwargs)

        return checked_init

    return decorate


def checks_arguments(init: Callable[..., None]) -> Callable[..., None]:
    """Decorate the `__init__` of a callback so that a wrong key of its config is a `ConfigError`."""
    signature = inspect.signature(init)
    known = list(signature.parameters)[1:]

    @functools.wraps(init)
    def checked_init(self: Any, /, *args: Any, **kwargs: Any) -> None:
        cls = type(self).__name__
        for key in kwargs:
            if key not in known:
                choices = format_choices(key, known) if known else " It takes none"
                raise ConfigError(f"{key}: {cls} has no argument {key!r}.{choices}")
        try:
            signature.bind(self, *args, **kwargs)
        except TypeError as error:
            raise ConfigError(f"{cls}: {error}. Its arguments: {', '.join(known) or 'none'}") from None
        init(self, *args, **kwargs)

    return checked_init


def find_nearest(word: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Up to `limit` of the known names that are most similar to `word`, best first; empty where none is similar."""
    # Longer ones are no names, and to compare them takes seconds.
    by_lower = {name.lower(): name for name in islice(known, _MAX_COMPARED) if len(name) <= _MAX_NAME}
    given = word[:_MAX_NAME].lower()
    found = [_SYNONYMS[given]] if _SYNONYMS.get(given) in by_lower else []
    for spelling in (given, given.rpartition(".")[2]):  # torch.optim.AdamW
        found += difflib.get_close_matches(spelling, by_lower, n=limit, cutoff=0.6)
        if len(spelling) >= _MIN_PREFIX:
            found += [name for name in by_lower if name.startswith(spelling)]
    return [by_lower[name] for name in dict.fromkeys(found)][:limit]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` with a leading space, or an empty string where no known name is similar."""
    found = find_nearest(word, known, limit=1)
    return f" Did you mean '{found[0]}'?" if found else ""


def format_choices(word: str, known: Iterable[str]) -> str:
    """What to use instead of an unknown name: `` Did you mean 'x'? Available: x, y``."""
    known = list(known)
    return f"{did_you_mean(word, known)} Available: {', '.join(known)}"


def leftover_hint(key: str, owners: Iterable[str], source: str = "") -> str:
    """A hint that an unknown key belongs to other algorithms, and so may be left over from another config.

    Args:
        key: the unknown key.
        owners: the names that have it.
        source: the config that it comes from, and what to type; '' where that is not known.
    """
    names = format_names(owners, 4)
    return f" {key} belongs to {names}: left over from {source or 'a config below?'}" if names else ""


def find_source(key: str, given: Mapping[str, Any], configs: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The name of the config that a key is probably left over from.

    What was given comes from the config with the most keys, all of which are given; if that one does not have the key,
    the user has added it. A config of one key is no evidence.

    Args:
        key: an unknown key.
        given: all keys and values.
        configs: by name: keys and values. Of two with the same keys, the one with more of the given values is taken.
    """
    scores = {
        name: (len(values), sum(given[other] == value for other, value in values.items()))
        for name, values in configs.items()
        if len(values) > 1 and values.keys() <= given.keys()
    }
    source = max(scores, key=scores.__getitem__, default=None)
    return source if source is not None and key in configs[source] else None


def format_names(names: Iterable[str], limit: int = 12) -> str:
    """Names joined by commas; those beyond `limit` are counted: `a, b and 3 more`."""
    names = list(names)
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
