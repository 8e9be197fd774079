"""Which modifiers are tried, with which values, around which members."""

from __future__ import annotations

from typing import Any

from tests.support.optimizer_runs import MEMBERS, MEMBERS_WITH_TWO_GRADIENTS, TRACED_MEMBERS

MODIFIER_VALUES: dict[str, dict[str, Any]] = {
    "skip_nonfinite": {"skip_nonfinite": True},
    "centralize_gradients": {"centralize_gradients": True},
    "adaptive_clip": {"adaptive_clip": 0.05},
    "cautious_update": {"cautious_update": True},
    "lookahead": {"lookahead": {"k": 3, "alpha": 0.25}},
    "master_weights": {"master_weights": True},
}
MODIFIER_VALUES["all"] = {key: value for values in MODIFIER_VALUES.values() for key, value in values.items()}
MODIFIER_VALUES["schedule_free"] = {"schedule_free": {"beta": 0.8, "warmup_steps": 4}}  # not with lookahead
MODIFIER_VALUES["all"]["weight_decay"] = 0.1

COUNTS_STEPS = ("skip_nonfinite", "lookahead", "schedule_free", "all")
"""Refused where a step takes two gradients."""
MASKS_UPDATES = ("cautious_update", "all")
COMPENSATING_MEMBERS = ("ef_sgd", "omd", "optimistic_adam")
"""Members whose next step makes up for the last one: `cautious_update` is refused."""


AVERAGES_POINTS = ("madgrad",)
"""Members whose parameter is an average itself: `schedule_free` is refused."""


def allowed_modifiers(name: str) -> list[str]:
    """The modifiers that a member takes."""
    return [
        modifier
        for modifier in MODIFIER_VALUES
        if not (name in MEMBERS_WITH_TWO_GRADIENTS and modifier in COUNTS_STEPS)
        and not (name in AVERAGES_POINTS and modifier == "schedule_free")
        and not (name in COMPENSATING_MEMBERS and modifier in MASKS_UPDATES)
    ]


MEMBER_MODIFIER_PAIRS = [(name, modifier) for name in MEMBERS for modifier in allowed_modifiers(name)]
TRACED_PAIRS = [(name, modifier) for name, modifier in MEMBER_MODIFIER_PAIRS if name in TRACED_MEMBERS]
