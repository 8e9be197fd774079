"""Detects when a metric stops improving."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(kw_only=True)
class Plateau:
    """Watches a metric as EarlyStopping does: reached after `patience` values in a row without improvement."""

    monitor: str
    """Name of the metric in `trainer.callback_metrics`."""
    key: str = "monitor"
    """Config key of `monitor`, for errors."""
    patience: int = 3
    """In validations, for a metric that is logged there; else in epochs."""
    mode: str = "min"
    """Whether lower values are better, `min`, or higher ones, `max`."""
    min_delta: float = 0.0
    """A change must be larger than this to count as an improvement."""

    best: float = math.inf
    """The best value so far, negated if `mode` is `max`."""
    wait_count: int = 0
    """Number of values in a row without improvement."""
    pending: bool = False
    """Whether the metric has a new value that has not been observed."""

    @property
    def reached(self) -> bool:
        """Whether the metric has not improved for `patience` values; stays True."""
        return self.wait_count >= self.patience

    def observe(self, value: float | None) -> None:
        """Take the next value; None if there is none."""
        self.pending = False
        if value is None or self.reached:
            return
        signed = value if self.mode == "min" else -value
        if signed < self.best - self.min_delta:
            self.best, self.wait_count = signed, 0
        else:
            self.wait_count += 1

    def state_dict(self) -> dict[str, Any]:
        """The progress so far, and the metric it belongs to."""
        metric = {"monitor": self.monitor, "mode": self.mode}
        return {**metric, "best": self.best, "wait_count": self.wait_count, "pending": self.pending}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the progress; ignored if the config now watches another metric or mode."""
        if (state["monitor"], state["mode"]) != (self.monitor, self.mode):
            return
        self.best, self.wait_count, self.pending = state["best"], state["wait_count"], state["pending"]

    def __str__(self) -> str:
        return f"plateau of {self.monitor}, patience {self.patience}"
