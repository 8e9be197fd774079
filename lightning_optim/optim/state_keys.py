"""Keys that modifiers store in a parameter's state, next to those of its rule."""

from __future__ import annotations

MASTER = "master"
"""The float32 copy that a 16-bit parameter is rounded from."""
SLOW = "slow"
"""The slow weights of lookahead."""
SKIPPED = "skipped"
"""The number of steps that were skipped because a gradient was not finite."""
BASE = "schedule_free_z"
"""The point z that schedule-free steps; its average x and the training weight y are computed from it."""
TRAINING = "schedule_free_y"
"""The training weight y while x stands in for it, as `eval()` leaves it; else the parameter is y."""
WEIGHT_SUM, MAX_LR = "schedule_free_weight_sum", "schedule_free_max_lr"
"""The sum of the weights in the average, and the largest lr so far."""
AVERAGE_NUMBERS = (WEIGHT_SUM, MAX_LR)
AVERAGE_KEYS = (BASE, TRAINING, *AVERAGE_NUMBERS)
MODIFIER_TENSORS = (MASTER, SLOW, BASE, TRAINING)
"""Those of the parameter's shape."""
MODIFIER_KEYS = (MASTER, SLOW, SKIPPED, *AVERAGE_KEYS)
