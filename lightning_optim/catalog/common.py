"""What several catalog entries share: hyperparameters, and lines of their equations."""

from __future__ import annotations

from ..core.hyperparameters import Flag, Hyperparameter, Number, Numbers
from .decay import decay_options
from .modifiers import MODIFIERS

_EXECUTION_FLAGS = {
    "foreach": "run over lists of tensors; null: where that is faster",
    "fused": "one kernel for the whole step; null: where there is one",
    "capturable": "allow capturing the step in a CUDA graph; torch's class only",
    "differentiable": "allow autograd through the step; torch's class only",
}


def lr(default: float, help: str = "learning rate; with a schedule, its peak") -> Number:
    """The learning rate."""
    return Number(default=default, low=0, help=help)


def weight_decay(default: float = 0.0) -> Number:
    """The coefficient of the weight decay."""
    return Number(default=default, low=0, help="weight decay coefficient")


def beta(default: float, help: str = "") -> Number:
    """The decay rate of a running average."""
    return Number(default=default, low=0, high=1, open_high=True, help=help)


def betas(
    first: float = 0.9,
    second: float = 0.999,
    help: str = "decay rates of the running averages of the gradient and of its square",
) -> Numbers:
    """The decay rates of two running averages."""
    return Numbers(default=(first, second), items=(beta(first), beta(second)), help=help)


def eps(default: float = 1e-8, help: str = "added to the denominator") -> Number:
    """The term that keeps a denominator above zero."""
    return Number(default=default, low=0, help=help)


def execution_flags(*names: str) -> dict[str, Hyperparameter]:
    """Flags for how a step is executed, not for what it computes; they are set for the whole optimizer."""
    return {
        name: Flag(
            default=None if name in ("foreach", "fused") else False,
            optional=name in ("foreach", "fused"),
            per_group=False,
            help=_EXECUTION_FLAGS[name],
        )
        for name in names
    }


MOMENTS = "m ← β1 m + (1 - β1) g;  v ← β2 v + (1 - β2) g²"
V_HAT = "v̂ = the maximum of all v so far with amsgrad, else v"

MAXIMIZE = Flag(default=False, help="ascend instead of descend")
AMSGRAD = Flag(default=False, help="divide by the maximum of all second moments so far (arXiv:1904.09237)")
OPTIMIZED_UPDATE = Flag(
    default=False, help="add eps to the root of the uncorrected second moment (arXiv:1412.6980, end of section 2)"
)
DEGENERATE_TO_SGD = Flag(
    default=True, help="while the variance cannot be rectified, take an SGD step with momentum; false: only decay"
)
DECOUPLED = Flag(default=False, help="decoupled weight decay instead of L2 (arXiv:1711.05101)")

SHARED_OPTIONS: dict[str, Hyperparameter] = {
    **decay_options(None),
    **MODIFIERS,
    "maximize": MAXIMIZE,
    **execution_flags("foreach", "fused"),
}
"""The options that every native optimizer accepts besides its own hyperparameters."""

COMMON_HYPERPARAMETERS: dict[str, Hyperparameter] = {
    "lr": lr(1e-3),
    "betas": betas(),
    "eps": eps(),
    "momentum": Number(default=0.9, low=0, help="momentum factor"),
    "weight_decay": weight_decay(),
}
"""What hyperparameters of these names mean in an optimizer that is not in the catalog."""


def shared_options(decay: str) -> dict[str, Hyperparameter]:
    """`SHARED_OPTIONS` of an optimizer whose default `weight_decay_mode` is `decay`."""
    return {**SHARED_OPTIONS, **decay_options(decay)}
