"""Keys of a parameter's state that stand beside those of its rule."""

from __future__ import annotations

MASTER = "master"
"""The float32 copy that steers a 16-bit parameter."""
SLOW = "slow"
"""lookahead's slow weights."""
SKIPPED = "skipped"
"""How many steps were left out because a gradient was not finite."""
AROUND = (MASTER, SLOW, SKIPPED)
