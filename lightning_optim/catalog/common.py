"""What several optimizers have: hyperparameters, and lines of their equations."""

from __future__ import annotations

from ..core.hyperparameters import Flag, Hyperparameter, Number, Numbers
from .decay import decay_options
from .modifiers import MODIFIERS


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


MOMENTS = "m ← β1 m + (1 - β1) g;  v ← β2 v + (1 - β2) g²"
V_HAT = "v̂ = the maximum of all v so far with amsgrad, else v"

MAXIMIZE = Flag(default=False, help="ascend instead of descend")
AMSGRAD = Flag(default=False, help="use the maximum of all second moments so far (arXiv:1904.09237)")
OPTIMIZED_UPDATE = Flag(
    default=False, help="add eps to the uncorrected second moment's root (arXiv:1412.6980, end of section 2)"
)
DEGENERATE_TO_SGD = Flag(default=True, help="take SGD's step while the variance cannot be rectified, else none")
DECOUPLED = Flag(default=False, help="decoupled weight decay instead of L2 (arXiv:1711.05101)")

OPTIONS: dict[str, Hyperparameter] = {
    **decay_options(None),
    **MODIFIERS,
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


def options(mode: str) -> dict[str, Hyperparameter]:
    """`OPTIONS` of an optimizer whose usual decay is `mode`."""
    return {**OPTIONS, **decay_options(mode)}
