"""What any optimizer of ours takes around its rule, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.hyperparameters import Fields, Flag, Hyperparameter, Number

LOOKAHEAD = Fields(
    optional=True,
    default=None,
    items={
        "k": Number(default=5, low=1, integer=True, help="steps from one synchronization to the next"),
        "alpha": Number(default=0.5, low=0, high=1, open_low=True, help="how far the slow weights follow"),
    },
    help="every k steps slow ← slow + α (p - slow), p ← slow (arXiv:1907.08610)",
)

MODIFIERS: dict[str, Hyperparameter] = {
    "skip_nonfinite": Flag(
        default=False, help="a step with a gradient that is not finite changes nothing; the state counts it"
    ),
    "centralize_gradients": Flag(default=False, help="subtract each row's mean from the gradient (arXiv:2004.01461)"),
    "adaptive_clip": Number(
        default=None,
        optional=True,
        low=0,
        open_low=True,
        help="clip each row's gradient to this part of the row's norm (arXiv:2102.06171)",
    ),
    "cautious_update": Flag(default=False, help="step only where the gradient agrees (arXiv:2411.16085)"),
    "lookahead": LOOKAHEAD,
    "master_weights": Flag(default=False, help="16-bit parameters are steered by float32 copies of them"),
}
"""Each may be set for a param group of its own."""


def evaluations_conflict(values: Mapping[str, Any], who: str, evaluations: int) -> str | None:
    """What is wrong with modifiers that count steps by gradients, or leave one out, where a step takes several."""
    for key in ("skip_nonfinite", "lookahead"):
        if evaluations > 1 and values.get(key):
            return f"{key}: {who} takes {evaluations} gradients a step, which {key} does not go with. Remove it"
    return None
