"""Keys of other libraries in param groups (SAM's `rho`, timm's `lr_scale`): let in by name, stored and not used."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ..core.errors import ConfigError

EXTRA_GROUP_KEYS = "extra_group_keys"
"""The option, and the key of the groups, that names them."""


def parse_extra_keys(given: Any, reserved: Collection[str], prefix: str = "") -> tuple[str, ...]:
    """The names that `extra_group_keys` lists.

    Args:
        given: what was given; None for no names.
        reserved: keys that mean something in the groups of this optimizer.
        prefix: comes before the key in the message.

    Raises:
        ConfigError: it is no list of names, or one of them is reserved.
    """
    names = [] if given is None else given
    key = f"{prefix}{EXTRA_GROUP_KEYS}"
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(f"{key}: got {given!r}, which is not a list of names. Type for example {key}: [rho]")
    for name in names:
        if name in reserved:
            raise ConfigError(
                f"{key}: {name} is a key of this optimizer itself, so it cannot be another library's. Remove {name}"
            )
    return tuple(dict.fromkeys(names))


def extra_keys_advice(group: Mapping[str, Any], known: Collection[str]) -> str:
    """What to type to keep the unknown keys of a group, with a leading full stop."""
    unknown = ", ".join(f'"{key}"' for key in group if key not in known)
    return f". If another library reads it, type {EXTRA_GROUP_KEYS}=[{unknown}] in the constructor or in the group"
