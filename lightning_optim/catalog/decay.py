"""The modes of weight decay, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.hyperparameters import Choice, Flag, Hyperparameter

DECAY_MODES = {
    "l2": "g ← g + λ p",
    "l1": "g ← g + λ sign(p)",
    "decoupled": "p ← p (1 - lr λ)",
    "absolute": "p ← p (1 - λ), nothing while lr = 0",
    "relative": "p ← p (1 - λ lr / peak_lr)",
    "corrected": "p ← p (1 - λ lr² / peak_lr)",
    "update": "λ p inside the update rule",
}
"""What each `weight_decay_mode` does with `weight_decay` λ; all but `update` do it before the update rule."""

# `update` is only for rules with a trust ratio or a norm of their own, whose default mode it is.
COMMON_MODES = tuple(mode for mode in DECAY_MODES if mode != "update")
GRADIENT_MODES = ("l2", "l1")
PARAMETER_MODES = ("decoupled", "absolute", "relative", "corrected")
PEAK_LR_MODES = ("relative", "corrected")
"""The modes that divide by the param group's `peak_lr`."""


def decay_options(default_mode: str | None) -> dict[str, Hyperparameter]:
    """The hyperparameters that say how `weight_decay` is applied, for an optimizer with this default mode."""
    modes = (*COMMON_MODES, *(("update",) if default_mode == "update" else ()))
    null = "; null: l2, or decoupled with decoupled_weight_decay: true" if default_mode is None else ""
    return {
        "weight_decay_mode": Choice(
            default=default_mode,
            options=modes,
            optional=default_mode is None,
            help=f"how weight_decay is applied{null}",
        ),
        "cautious_decay": Flag(
            default=False,
            help="decay only where the update does not oppose it (arXiv:2510.12402); not with l2, l1, update",
        ),
    }


def find_cautious_conflict(mode: str) -> str | None:
    """Why `cautious_decay` cannot be used with this mode, or None."""
    if mode in PARAMETER_MODES:
        return None
    return (
        f"cautious_decay: true needs a mode that decays the parameter itself, unlike weight_decay_mode: {mode}. "
        "Remove it, or type for example weight_decay_mode: decoupled"
    )


def find_decay_conflict(values: Mapping[str, Any]) -> str | None:
    """What is wrong with a combination of weight-decay settings, or None."""
    mode = values["weight_decay_mode"]
    if values.get("decoupled_weight_decay"):
        if mode not in (None, "decoupled"):
            return f"decoupled_weight_decay: true, but weight_decay_mode: {mode}. Remove one of them"
        mode = "decoupled"
    if values["cautious_decay"] and (conflict := find_cautious_conflict(mode or "l2")):
        return conflict
    if mode in PEAK_LR_MODES and values["weight_decay"] > 0 and values["lr"] <= 0:
        return (
            f"lr: got {values['lr']:g}, but weight_decay_mode: {mode} divides by it. Type the lr of the schedule's peak"
        )
    return None
