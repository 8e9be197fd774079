"""Keys that modifiers store in a parameter's state, next to those of its rule."""

from __future__ import annotations

MASTER = "master"
"""The float32 copy that a 16-bit parameter is rounded from."""
SLOW = "slow"
"""The slow weights of lookahead."""
SKIPPED = "skipped"
"""The number of steps that were skipped because a gradient was not finite."""
MODIFIER_KEYS = (MASTER, SLOW, SKIPPED)
