"""The modifiers that every native optimizer accepts, as data: they change the gradient, the update or the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.hyperparameters import Fields, Flag, Hyperparameter, Number

LOOKAHEAD = Fields(
    optional=True,
    default=None,
    items={
        "k": Number(default=5, low=1, integer=True, help="steps between two synchronizations"),
        "alpha": Number(default=0.5, low=0, high=1, open_low=True, help="step size of the slow weights"),
    },
    help="every k steps slow ← slow + α (p - slow), p ← slow (arXiv:1907.08610)",
)

SHARPNESS = Fields(
    optional=True,
    default=None,
    items={
        "rho": Number(default=0.05, low=0, open_low=True, help="distance at which the gradient is taken"),
        "adaptive": Flag(default=False, help="a distance relative to each weight (ASAM, arXiv:2102.11600)"),
    },
    help="take the gradient at p + ρ g / ‖g‖, by a second pass of the closure (SAM, arXiv:2010.01412)",
)

SCHEDULE_FREE = Fields(
    optional=True,
    default=None,
    items={
        "beta": Number(
            default=0.9,
            low=0,
            high=1,
            open_low=True,
            help="weight of the average x in y = (1 - β) z + β x, where gradients are taken",
        ),
        "warmup_steps": Number(default=0, low=0, integer=True, help="steps in which lr rises linearly to its value"),
        "r": Number(default=0.0, low=0, help="step t has the weight t^r in the average"),
        "weight_lr_power": Number(default=2.0, low=0, help="times this power of the largest lr so far"),
    },
    help="z ← z - step, x ← (1 - c) x + c z; train at y, evaluate at x; needs EvalWeights (arXiv:2405.15682)",
)

MODIFIERS: dict[str, Hyperparameter] = {
    "skip_nonfinite": Flag(
        default=False, help="skip a step with a gradient that is not finite; the state counts skipped steps"
    ),
    "centralize_gradients": Flag(default=False, help="subtract each row's mean from the gradient (arXiv:2004.01461)"),
    "adaptive_clip": Number(
        default=None,
        optional=True,
        low=0,
        open_low=True,
        help="clip each row's gradient to this fraction of the row's norm (arXiv:2102.06171)",
    ),
    "cautious_update": Flag(
        default=False, help="apply the update only where its sign agrees with the gradient's (arXiv:2411.16085)"
    ),
    "lookahead": LOOKAHEAD,
    "schedule_free": SCHEDULE_FREE,
    "master_weights": Flag(default=False, help="update float32 copies of 16-bit parameters"),
    "sharpness": SHARPNESS,
}
"""Each may differ between param groups."""


def find_evaluations_conflict(values: Mapping[str, Any], optimizer: str, evaluations: int) -> str | None:
    """Why a modifier cannot be used with an optimizer of this many gradient evaluations per step, or None."""
    for key in ("skip_nonfinite", "lookahead", "schedule_free", "sharpness"):
        if evaluations > 1 and values.get(key):
            return f"{key}: {optimizer} takes {evaluations} gradients a step, which {key} does not support. Remove it"
    return None


def find_average_conflict(values: Mapping[str, Any]) -> str | None:
    """Why two modifiers that average the weights cannot be used together, or None."""
    if values.get("schedule_free") and values.get("lookahead"):
        return "schedule_free: lookahead averages the same weights in another way. Remove one of them"
    return None


def find_kernel_conflict(values: Mapping[str, Any], optimizer: str) -> str | None:
    """Why a kernel cannot be had of an optimizer that multiplies matrices, or None."""
    if values.get("fused"):
        return (
            f"fused: {optimizer} multiplies matrices, which is done by torch's products and not by a kernel of ours. "
            "Type fused: null"
        )
    return None
