"""Keys such as `groups.head.lr_scale`, with which LightningCLI's command line sets one key of one rule.

`--model.optimizer.groups.head.lr_scale=5` would replace the whole rule; `--model.optimizer.dict_kwargs.groups.head.
lr_scale=5` reaches the factory as the keyword `groups.head.lr_scale`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.errors import ConfigError, format_choices

_PREFIX = "groups."


def merge_dotted_keys(groups: Any, given: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The rules with the values of the dotted keys, and the keywords without them.

    Args:
        groups: the rules, by name.
        given: the other keywords of the factory.

    Raises:
        ConfigError: a dotted key names no rule, or sets a key inside something that is not a mapping.
    """
    keywords = {}
    for key, value in given.items():
        if key.startswith(_PREFIX):
            if not isinstance(groups or {}, Mapping):
                raise ConfigError(f"groups: got {groups!r}, which has no keys, and {key} sets one of them")
            groups = _set(groups or {}, key.split(".")[1:], value, key)
        else:
            keywords[key] = value
    return groups, keywords


def _set(mapping: Any, path: list[str], value: Any, dotted: str) -> dict[str, Any]:
    """A copy of the mapping with the value at the path."""
    name, *rest = path
    if rest and name not in mapping:
        raise ConfigError(f"{dotted}: there is no rule or key {name!r}.{format_choices(name, list(mapping))}")
    if rest and not isinstance(mapping[name], Mapping):
        raise ConfigError(f"{dotted}: {name} is {mapping[name]!r}, which has no keys")
    return {**mapping, name: _set(mapping[name], rest, value, dotted) if rest else value}
