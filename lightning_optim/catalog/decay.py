"""What `weight_decay` can mean, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.hyperparameters import Choice, Flag, Hyperparameter

DECAYS = {
    "l2": "g ← g + λ p",
    "l1": "g ← g + λ sign(p)",
    "decoupled": "p ← p (1 - lr λ)",
    "absolute": "p ← p (1 - λ), nothing while lr = 0",
    "relative": "p ← p (1 - λ lr / peak_lr)",
    "corrected": "p ← p (1 - λ lr² / peak_lr)",
    "update": "λ p inside the rule, as above",
}
"""What each `weight_decay_mode` does with `weight_decay` λ, before the rule."""

# `update` is only for rules with a ratio of their own, which have it as their usual mode.
AROUND_THE_RULE = tuple(mode for mode in DECAYS if mode != "update")
TO_GRADIENT = ("l2", "l1")
TO_PARAMETER = ("decoupled", "absolute", "relative", "corrected")
IN_PROPORTION = ("relative", "corrected")  # to the group's peak_lr


def decay_options(mode: str | None) -> dict[str, Hyperparameter]:
    """How the weight decay is applied, with the optimizer's usual mode."""
    modes = (*AROUND_THE_RULE, *(("update",) if mode == "update" else ()))
    usual = "; null: l2, or decoupled where decoupled_weight_decay: true" if mode is None else ""
    return {
        "weight_decay_mode": Choice(
            default=mode, options=modes, optional=mode is None, help=f"what weight_decay does{usual}"
        ),
        "cautious_decay": Flag(
            default=False,
            help="decay only where the step does not oppose it (arXiv:2510.12402); not with l2, l1, update",
        ),
    }


def nothing_to_mask(mode: str) -> str | None:
    """What is wrong with `cautious_decay` in this mode."""
    if mode in TO_PARAMETER:
        return None
    return (
        f"cautious_decay: true masks a decay of the parameter itself, not {mode}. Remove it, or type for example "
        "weight_decay_mode: decoupled"
    )


def decay_conflict(values: Mapping[str, Any]) -> str | None:
    """What is wrong with how the weight decay is set."""
    mode = values["weight_decay_mode"]
    if values.get("decoupled_weight_decay"):
        if mode not in (None, "decoupled"):
            return f"decoupled_weight_decay: true, but weight_decay_mode: {mode}. Remove one of them"
        mode = "decoupled"
    if values["cautious_decay"] and (wrong := nothing_to_mask(mode or "l2")):
        return wrong
    if mode in IN_PROPORTION and values["weight_decay"] > 0 and values["lr"] <= 0:
        return (
            f"lr: {values['lr']:g}, but weight_decay_mode: {mode} is in proportion to it. Type the lr of the "
            "schedule's peak"
        )
    return None
