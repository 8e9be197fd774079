"""Keys that our param groups hold besides hyperparameters."""

from __future__ import annotations

ALGORITHM = "algorithm"
"""The registry name of the optimizer that steps the group, where one optimizer combines several algorithms."""
SCHEDULE = "schedule"
"""The group's schedule override: the `schedule:` block of its rule."""

GROUP_METADATA = ("params", "param_names", "name", ALGORITHM, SCHEDULE, "peak_lr", "configured")
"""Keys that describe the group, as opposed to hyperparameters and to values that schedulers store in it."""
EXECUTION_FLAGS = ("foreach", "fused")
"""How a step is executed: always taken from the current run, never from a checkpoint."""
