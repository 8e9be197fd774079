"""A scheduler that drives several curves, each over the param groups that follow it, and other values besides lr."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ..core.param_group_keys import SCHEDULE
from .group_view import GroupView
from .saved_schedule import check_curves
from .scheduler_state import advance, num_steps, saved_curves
from .value_curves import ValueCurves


class SchedulerByGroup(LRScheduler):
    """One torch scheduler per curve, stepped together.

    Args:
        optimizer: with all param groups.
        views: the groups of each curve; each group of the optimizer is in one of them.
        schedulers: one for each view.
    """

    values: ValueCurves | None = None
    """What it drives besides lr."""

    def __init__(self, optimizer: Optimizer, views: Sequence[GroupView], schedulers: Sequence[LRScheduler]) -> None:
        # Does not call LRScheduler.__init__, which would take a first step.
        self.optimizer = optimizer
        self._views = list(views)
        self._schedulers = list(schedulers)

    @property
    def curves(self) -> list[LRScheduler]:
        """The scheduler of each curve."""
        return list(self._schedulers)

    @property
    def last_epoch(self) -> int:  # type: ignore[override]
        """The number of steps taken."""
        return max(num_steps(scheduler.state_dict()) for scheduler in self._schedulers)

    @property
    def base_lrs(self) -> list[float]:  # type: ignore[override]
        """The initial lr of each group, in the optimizer's order."""
        return [group["initial_lr"] for group in self.optimizer.param_groups]

    def step(self, metrics: Any = None) -> None:
        """Step every curve; only ReduceLROnPlateau uses `metrics`."""
        for scheduler in self._schedulers:
            if isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step(metrics)
            else:
                scheduler.step()
        self.apply_values()

    def apply_values(self) -> None:
        """Set what it drives besides lr to the values of its step."""
        if self.values is not None:
            self.values.apply(self.optimizer.param_groups, self.last_epoch)

    def get_last_lr(self) -> list[float | Tensor]:
        """The current lr of each group, in the optimizer's order."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The state of each curve, with the `schedule` override and the momentum key of its groups."""
        return {
            "curves": [
                {SCHEDULE: view.override, "momentum": view.momentum, "state": scheduler.state_dict()}
                for view, scheduler in zip(self._views, self._schedulers, strict=True)
            ]
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load each curve from the saved curve with the same override; advance new ones to the saved step.

        Raises:
            ConfigError: as `advance`, and as a curve's own `load_state_dict`.
        """
        saved = saved_curves(state_dict)
        check_curves(saved)
        steps = max(num_steps(curve["state"]) for curve in saved)
        for view, scheduler in zip(self._views, self._schedulers, strict=True):
            same = [c for c in saved if (c[SCHEDULE], c["momentum"]) == (view.override, view.momentum)]
            same = same or [c for c in saved if c[SCHEDULE] == view.override and None in (c["momentum"], view.momentum)]
            if same:
                scheduler.load_state_dict(same[0]["state"])
            else:
                advance(scheduler, steps, [str(group.get("name")) for group in view.param_groups])
        self.apply_values()
