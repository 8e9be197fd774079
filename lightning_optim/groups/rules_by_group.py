"""A mark on an optimizer: which rules made each of its groups; the names of groups do not tell."""

from __future__ import annotations

from collections.abc import Mapping

from torch.optim import Optimizer

_RULES = "_rules_by_group"


def mark_rules_by_group(optimizer: Optimizer, rules: Mapping[str, tuple[str, ...]]) -> None:
    """Record the rules of these groups, by name; those of groups that were recorded before stay."""
    setattr(optimizer, _RULES, {**rules_by_group(optimizer), **rules})


def rules_by_group(optimizer: Optimizer) -> Mapping[str, tuple[str, ...]]:
    """By name of a group: its rules; empty for an optimizer that no factory built."""
    rules: Mapping[str, tuple[str, ...]] = getattr(optimizer, _RULES, {})
    return rules
