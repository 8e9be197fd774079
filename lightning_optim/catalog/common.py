"""Hyperparameters that several optimizers have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..hyperparameters import Choice, Flag, Hyperparameter, Number, Numbers

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

# `update` is for rules with a ratio of their own.
AROUND_THE_RULE = tuple(mode for mode in DECAYS if mode != "update")


def lr(default: float) -> Number:
    """The learning rate."""
    return Number(default=default, low=0, help="learning rate; with a schedule, its peak")


def weight_decay(default: float = 0.0) -> Number:
    """The coefficient of the weight decay."""
    return Number(default=default, low=0, help="weight decay coefficient")


def beta(default: float) -> Number:
    """The decay rate of a running average."""
    return Number(default=default, low=0, high=1, open_high=True)


def betas(first: float = 0.9, second: float = 0.999) -> Numbers:
    """The decay rates of two running averages."""
    return Numbers(
        default=(first, second),
        items=(beta(first), beta(second)),
        help="decay rates of the running averages of the gradient and of its square",
    )


def eps(default: float = 1e-8, help: str = "added to the denominator") -> Number:
    """What keeps a denominator from zero."""
    return Number(default=default, low=0, help=help)


def execution(*names: str) -> dict[str, Hyperparameter]:
    """Flags for how a step runs, not for what it computes: they are set for the whole optimizer."""
    help_of = {
        "foreach": "run over lists of tensors; null: where that is faster",
        "fused": "one kernel for the whole step; null: where there is one",
        "capturable": "the step may be captured in a CUDA graph; torch's class only",
        "differentiable": "autograd may run through the step; torch's class only",
    }
    return {
        name: Flag(
            default=None if name in ("foreach", "fused") else False,
            optional=name in ("foreach", "fused"),
            per_group=False,
            help=help_of[name],
        )
        for name in names
    }


def decay_options(mode: str | None, *, in_rule: bool = False) -> dict[str, Hyperparameter]:
    """How the weight decay is applied, with the optimizer's usual mode."""
    modes = (*AROUND_THE_RULE, *(("update",) if in_rule else ()))
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


def decay_conflict(values: Mapping[str, Any]) -> str | None:
    """What is wrong with how the weight decay is set."""
    mode = values["weight_decay_mode"]
    if values.get("decoupled_weight_decay"):
        if mode not in (None, "decoupled"):
            return f"decoupled_weight_decay: true, but weight_decay_mode: {mode}. Remove one of them"
        mode = "decoupled"
    if values["cautious_decay"] and mode in (None, "l2", "l1", "update"):
        return (
            f"cautious_decay: true masks a decay of the parameter itself, not {mode or 'l2'}. Type for example "
            "weight_decay_mode: decoupled"
        )
    if mode in ("relative", "corrected") and values["weight_decay"] > 0 and values["lr"] <= 0:
        return (
            f"lr: {values['lr']:g}, but weight_decay_mode: {mode} is in proportion to it. Type the lr of the "
            "schedule's peak"
        )
    return None


MAXIMIZE = Flag(default=False, help="ascend instead of descend")
AMSGRAD = Flag(default=False, help="use the maximum of all second moments so far (arXiv:1904.09237)")
OPTIMIZED_UPDATE = Flag(
    default=False, help="add eps to the uncorrected second moment's root (arXiv:1412.6980, end of section 2)"
)
DEGENERATE_TO_SGD = Flag(default=True, help="take SGD's step while the variance cannot be rectified, else none")
DECOUPLED = Flag(default=False, help="decoupled weight decay instead of L2 (arXiv:1711.05101)")

OPTIONS: dict[str, Hyperparameter] = {
    "weight_decay_mode": Choice(default=None, options=AROUND_THE_RULE, optional=True, help="what weight_decay does"),
    "cautious_decay": decay_options("decoupled")["cautious_decay"],
    "maximize": MAXIMIZE,
    **execution("foreach", "fused"),
}
"""What every optimizer of ours takes."""

USUAL: dict[str, Hyperparameter] = {
    "lr": lr(1e-3),
    "betas": betas(),
    "eps": eps(),
    "momentum": Number(default=0.9, low=0, help="momentum factor"),
    "weight_decay": weight_decay(),
}
"""What hyperparameters of these names mean in an optimizer that the registry does not know."""


def options(mode: str, *, in_rule: bool = False) -> dict[str, Hyperparameter]:
    """`OPTIONS` of an optimizer whose usual decay is `mode`."""
    return {**OPTIONS, **decay_options(mode, in_rule=in_rule)}
