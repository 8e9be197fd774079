"""A metric that is watched for the moment at which it gets no better."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(kw_only=True)
class Plateau:
    """Watches a metric as EarlyStopping does: after `patience` values in a row that are no better, it is reached."""

    monitor: str
    """The metric's name in `trainer.callback_metrics`."""
    key: str = "monitor"
    """Where that stands in the config."""
    patience: int = 3
    """In validations, for a metric that is logged there; else in epochs."""
    mode: str = "min"
    """Whether less is better, `min`, or more, `max`."""
    min_delta: float = 0.0
    """What counts as no better."""

    best: float = math.inf
    """The best so far, in the sign in which less is better."""
    num_bad: int = 0
    """How many values in a row were no better."""
    due: bool = False
    """Whether there is a value that has not been looked at."""

    @property
    def reached(self) -> bool:
        """Whether it has got no better for long enough."""
        return self.num_bad >= self.patience

    def observe(self, value: float | None) -> None:
        """Take the next value, if there is one."""
        self.due = False
        if value is None or self.reached:
            return
        signed = value if self.mode == "min" else -value
        if signed < self.best - self.min_delta:
            self.best, self.num_bad = signed, 0
        else:
            self.num_bad += 1

    def state_dict(self) -> dict[str, Any]:
        """What it has seen."""
        what = {"monitor": self.monitor, "mode": self.mode}
        return {**what, "best": self.best, "num_bad": self.num_bad, "due": self.due}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; where another metric is watched now, begin."""
        if (state["monitor"], state["mode"]) != (self.monitor, self.mode):
            return
        self.best, self.num_bad, self.due = state["best"], state["num_bad"], state["due"]

    def __str__(self) -> str:
        return f"plateau of {self.monitor}, patience {self.patience}"
