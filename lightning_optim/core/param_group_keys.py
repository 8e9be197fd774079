"""Keys that a torch param group of ours carries beside its hyperparameters."""

from __future__ import annotations

ALGORITHM = "algorithm"
"""The registry name of the optimizer that steps the group, where one optimizer holds several algorithms."""
SCHEDULE = "schedule"
"""How the group's schedule differs from the run's: what `schedule:` in its rule says."""

GROUP_METADATA = ("params", "param_names", "name", ALGORITHM, SCHEDULE, "peak_lr", "configured")
"""What describes the group, as opposed to its hyperparameters and to what schedulers store in it."""
EXECUTION_FLAGS = ("foreach", "fused")
"""How a step is executed: always the current run's choice, never a checkpoint's."""
