"""The optimizers there are, as data: name, class, hyperparameters with defaults and bounds, paper (no torch).

Most of its length is one table.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, choices
from .hyperparameters import Choice, Flag, Hyperparameter, Number, Numbers

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class OptimizerInfo:
    """What the registry knows of one optimizer."""

    name: str
    """What a config writes: `name: adamw`."""
    summary: str
    """One line: what it does."""
    path: str
    """Where the class is, `package.module:Class`; imported when it is first needed."""
    paper: str
    """Where the algorithm comes from."""
    hyperparameters: Mapping[str, Hyperparameter]
    """Every key the config may set, in the order of the class's signature."""
    buffers: tuple[str, ...] = ()
    """State tensors of the parameter's shape, by their key in `optimizer.state[p]`."""
    decay: str = "l2"
    """What `weight_decay` means by default: `l2`, `decoupled`, or `none` where there is none."""
    fused: bool = False
    """Whether the class has a fused kernel."""
    single_group: bool = False
    """Whether it takes one param group only."""
    matrices_only: bool = False
    """Whether it takes 2-D parameters only."""
    conflict: Callable[[Mapping[str, Any]], str | None] = lambda values: None
    """What is wrong with a combination of values that are each allowed, or None."""

    def load(self) -> type[torch.optim.Optimizer]:
        """The class itself."""
        module, _, name = self.path.partition(":")
        cls: type[torch.optim.Optimizer] = getattr(import_module(module), name)
        return cls

    @property
    def defaults(self) -> dict[str, Any]:
        """Every hyperparameter's default."""
        return {key: spec.default for key, spec in self.hyperparameters.items()}


def list_optimizers(pattern: str = "*") -> list[str]:
    """The names of the registry that match a glob, sorted.

    Example:
        >>> list_optimizers("adam*")
        ['adam', 'adamax', 'adamw']
    """
    return sorted(name for name in _OPTIMIZERS if fnmatch.fnmatchcase(name, pattern))


def optimizer_info(name: str) -> OptimizerInfo:
    """What is known of one optimizer.

    Raises:
        ConfigError: no optimizer has that name.

    Example:
        >>> optimizer_info("adamw").hyperparameters["weight_decay"].default
        0.01
    """
    if not isinstance(name, str) or name not in _OPTIMIZERS:
        raise ConfigError(
            f"name: there is no optimizer {name!r}.{choices(str(name), list_optimizers())}. "
            "See them with: lightning-optim list"
        )
    return _OPTIMIZERS[name]


def name_of(cls: type) -> str | None:
    """The registry's name of a class, or None where it is not there."""
    for name, info in _OPTIMIZERS.items():
        package, _, wanted = info.path.partition(":")
        if cls.__name__ == wanted and f"{cls.__module__}.".startswith(f"{package}."):
            return name
    return None


def algorithms_with(hyperparameter: str) -> list[str]:
    """The optimizers that have a hyperparameter of this name."""
    return [name for name in list_optimizers() if hyperparameter in _OPTIMIZERS[name].hyperparameters]


def _lr(default: float) -> Number:
    return Number(default=default, low=0, help="learning rate; with a schedule, its peak")


def _weight_decay(default: float = 0.0) -> Number:
    return Number(default=default, low=0, help="weight decay coefficient")


def _beta(default: float) -> Number:
    return Number(default=default, low=0, high=1, open_high=True)


def _betas(first: float = 0.9, second: float = 0.999) -> Numbers:
    return Numbers(
        default=(first, second),
        items=(_beta(first), _beta(second)),
        help="decay rates of the running averages of the gradient and of its square",
    )


def _eps(default: float = 1e-8) -> Number:
    return Number(default=default, low=0, help="added to the denominator")


def _execution(*names: str) -> dict[str, Hyperparameter]:
    """Flags for how a step runs, not for what it computes: they are set for the whole optimizer."""
    help_of = {
        "foreach": "run over lists of tensors; null: torch's choice",
        "fused": "one kernel for the whole step; null: where the device has it",
        "capturable": "the step may be captured in a CUDA graph",
        "differentiable": "autograd may run through the step",
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


_MAXIMIZE = Flag(default=False, help="ascend instead of descend")
_AMSGRAD = Flag(default=False, help="use the maximum of all second moments so far (arXiv:1904.09237)")
_DECOUPLED = Flag(default=False, help="decoupled weight decay instead of L2 (arXiv:1711.05101)")


def _nesterov_conflict(values: Mapping[str, Any]) -> str | None:
    if values["nesterov"] and (values["momentum"] <= 0 or values["dampening"] != 0):
        return "nesterov: true needs momentum > 0 and dampening: 0"
    return None


_TORCH = (
    OptimizerInfo(
        name="sgd",
        summary="Stochastic gradient descent, with momentum if asked.",
        path="torch.optim:SGD",
        paper="Robbins & Monro 1951; Sutskever et al. 2013 (momentum)",
        hyperparameters={
            "lr": _lr(1e-3),
            "momentum": Number(default=0.0, low=0, help="momentum factor"),
            "dampening": Number(default=0.0, help="dampening of the momentum"),
            "weight_decay": _weight_decay(),
            "nesterov": Flag(default=False, help="Nesterov's momentum"),
            "maximize": _MAXIMIZE,
            **_execution("foreach", "differentiable", "fused"),
        },
        buffers=("momentum_buffer",),
        fused=True,
        conflict=_nesterov_conflict,
    ),
    OptimizerInfo(
        name="asgd",
        summary="SGD that also keeps the running average of the iterates.",
        path="torch.optim:ASGD",
        paper="Polyak & Juditsky 1992",
        hyperparameters={
            "lr": _lr(1e-2),
            "lambd": Number(default=1e-4, low=0, help="decay term of the step size"),
            "alpha": Number(default=0.75, low=0, help="power of the step-size update"),
            "t0": Number(default=1e6, low=0, help="step at which averaging starts"),
            "weight_decay": _weight_decay(),
            **_execution("foreach"),
            "maximize": _MAXIMIZE,
            **_execution("differentiable", "capturable"),
        },
        buffers=("ax",),
    ),
    OptimizerInfo(
        name="rprop",
        summary="Resilient backpropagation: step sizes from the signs of full-batch gradients.",
        path="torch.optim:Rprop",
        paper="Riedmiller & Braun 1993",
        hyperparameters={
            "lr": _lr(1e-2),
            "etas": Numbers(
                default=(0.5, 1.2),
                items=(
                    Number(default=0.5, low=0, high=1, open_low=True, open_high=True),
                    Number(default=1.2, low=1, open_low=True),
                ),
                help="factors that shrink and grow a step size",
            ),
            "step_sizes": Numbers(
                default=(1e-6, 50.0),
                items=(Number(default=1e-6, low=0), Number(default=50.0, low=0)),
                help="smallest and largest step size",
            ),
            **_execution("capturable", "foreach"),
            "maximize": _MAXIMIZE,
            **_execution("differentiable"),
        },
        buffers=("prev", "step_size"),
        decay="none",
    ),
    OptimizerInfo(
        name="lbfgs",
        summary="Limited-memory BFGS; full batches, one param group.",
        path="torch.optim:LBFGS",
        paper="Liu & Nocedal 1989",
        hyperparameters={
            "lr": _lr(1.0),
            "max_iter": Number(default=20, low=1, integer=True, help="iterations per step"),
            "max_eval": Number(default=None, low=1, integer=True, optional=True, help="evaluations per step"),
            "tolerance_grad": Number(default=1e-7, low=0, help="stop at this gradient"),
            "tolerance_change": Number(default=1e-9, low=0, help="stop at this change"),
            "history_size": Number(default=100, low=1, integer=True, help="updates kept"),
            "line_search_fn": Choice(default=None, options=("strong_wolfe",), optional=True, help="line search"),
        },
        decay="none",
        single_group=True,
    ),
    OptimizerInfo(
        name="sparse_adam",
        summary="Adam for sparse gradients: only the moments of rows that occur are updated.",
        path="torch.optim:SparseAdam",
        paper="arXiv:1412.6980",
        # torch refuses 0 for these two.
        hyperparameters={
            "lr": replace(_lr(1e-3), open_low=True),
            "betas": _betas(),
            "eps": replace(_eps(), open_low=True),
            "maximize": _MAXIMIZE,
        },
        buffers=("exp_avg", "exp_avg_sq"),
        decay="none",
    ),
    OptimizerInfo(
        name="muon",
        summary="Momentum orthogonalised by Newton-Schulz; for the 2-D parameters of hidden layers.",
        path="torch.optim:Muon",
        paper="Jordan et al. 2024; arXiv:2502.16982",
        hyperparameters={
            "lr": _lr(1e-3),
            "weight_decay": _weight_decay(0.1),
            "momentum": Number(default=0.95, low=0, help="momentum factor"),
            "nesterov": Flag(default=True, help="Nesterov's momentum"),
            "ns_coefficients": Numbers(
                default=(3.4445, -4.775, 2.0315),
                items=(Number(default=3.4445), Number(default=-4.775), Number(default=2.0315)),
                help="coefficients of the Newton-Schulz polynomial",
            ),
            "eps": Number(default=1e-7, low=0, help="added to the norm"),
            "ns_steps": Number(default=5, low=1, high=99, integer=True, help="Newton-Schulz iterations"),
            "adjust_lr_fn": Choice(
                default=None,
                options=("original", "match_rms_adamw"),
                optional=True,
                help="how lr follows the parameter's shape; null: original",
            ),
        },
        buffers=("momentum_buffer",),
        decay="decoupled",
        matrices_only=True,
    ),
    OptimizerInfo(
        name="adafactor",
        summary="Adam's second moment, factored into rows and columns.",
        path="torch.optim:Adafactor",
        paper="arXiv:1804.04235",
        hyperparameters={
            "lr": _lr(1e-2),
            "beta2_decay": Number(default=-0.8, high=0, help="decay rate of beta2"),
            "eps": Numbers(
                default=(None, 1e-3),
                items=(Number(default=None, low=0, optional=True), Number(default=1e-3, low=0)),
                help="regularisers of the squared gradient and of the parameter's scale",
            ),
            "d": Number(default=1.0, low=1, help="clipping threshold of the update's RMS"),
            "weight_decay": _weight_decay(),
            **_execution("foreach"),
            "maximize": _MAXIMIZE,
        },
        buffers=("row_var", "col_var", "variance"),
        decay="decoupled",
    ),
    OptimizerInfo(
        name="adam",
        summary="Adam: steps scaled by running averages of the gradient and its square.",
        path="torch.optim:Adam",
        paper="arXiv:1412.6980",
        hyperparameters={
            "lr": _lr(1e-3),
            "betas": _betas(),
            "eps": _eps(),
            "weight_decay": _weight_decay(),
            "amsgrad": _AMSGRAD,
            **_execution("foreach"),
            "maximize": _MAXIMIZE,
            **_execution("capturable", "differentiable", "fused"),
            "decoupled_weight_decay": _DECOUPLED,
        },
        buffers=("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
        fused=True,
    ),
    OptimizerInfo(
        name="adamw",
        summary="Adam with decoupled weight decay.",
        path="torch.optim:AdamW",
        paper="arXiv:1711.05101",
        hyperparameters={
            "lr": _lr(1e-3),
            "betas": _betas(),
            "eps": _eps(),
            "weight_decay": _weight_decay(1e-2),
            "amsgrad": _AMSGRAD,
            "maximize": _MAXIMIZE,
            **_execution("foreach", "capturable", "differentiable", "fused"),
        },
        buffers=("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
        decay="decoupled",
        fused=True,
    ),
    OptimizerInfo(
        name="adamax",
        summary="Adam with the infinity norm in place of the second moment.",
        path="torch.optim:Adamax",
        paper="arXiv:1412.6980, section 7.1",
        hyperparameters={
            "lr": _lr(2e-3),
            "betas": _betas(),
            "eps": _eps(),
            "weight_decay": _weight_decay(),
            **_execution("foreach"),
            "maximize": _MAXIMIZE,
            **_execution("differentiable", "capturable"),
        },
        buffers=("exp_avg", "exp_inf"),
    ),
    OptimizerInfo(
        name="nadam",
        summary="Adam with Nesterov's momentum.",
        path="torch.optim:NAdam",
        paper="Dozat 2016",
        hyperparameters={
            "lr": _lr(2e-3),
            "betas": _betas(),
            "eps": _eps(),
            "weight_decay": _weight_decay(),
            "momentum_decay": Number(default=4e-3, low=0, help="decay of the momentum schedule"),
            "decoupled_weight_decay": _DECOUPLED,
            **_execution("foreach"),
            "maximize": _MAXIMIZE,
            **_execution("capturable", "differentiable"),
        },
        buffers=("exp_avg", "exp_avg_sq"),
    ),
    OptimizerInfo(
        name="radam",
        summary="Adam with the variance of its adaptive rate rectified.",
        path="torch.optim:RAdam",
        paper="arXiv:1908.03265",
        hyperparameters={
            "lr": _lr(1e-3),
            "betas": _betas(),
            "eps": _eps(),
            "weight_decay": _weight_decay(),
            "decoupled_weight_decay": _DECOUPLED,
            **_execution("foreach"),
            "maximize": _MAXIMIZE,
            **_execution("capturable", "differentiable"),
        },
        buffers=("exp_avg", "exp_avg_sq"),
    ),
    OptimizerInfo(
        name="adagrad",
        summary="Steps scaled by the sum of all squared gradients so far.",
        path="torch.optim:Adagrad",
        paper="Duchi, Hazan & Singer 2011",
        hyperparameters={
            "lr": _lr(1e-2),
            "lr_decay": Number(default=0.0, low=0, help="lr / (1 + (t - 1) * lr_decay) at step t"),
            "weight_decay": _weight_decay(),
            # torch fills the accumulators from the constructor's value, never from a group's.
            "initial_accumulator_value": Number(default=0.0, low=0, per_group=False, help="start of the sum"),
            "eps": _eps(1e-10),
            **_execution("foreach"),
            "maximize": _MAXIMIZE,
            **_execution("differentiable", "fused"),
        },
        buffers=("sum",),
        fused=True,
    ),
    OptimizerInfo(
        name="adadelta",
        summary="Steps in the units of the parameter: the RMS of updates over the RMS of gradients.",
        path="torch.optim:Adadelta",
        paper="arXiv:1212.5701",
        hyperparameters={
            "lr": _lr(1.0),
            "rho": Number(default=0.9, low=0, high=1, help="decay rate of the running averages"),
            "eps": _eps(1e-6),
            "weight_decay": _weight_decay(),
            **_execution("foreach", "capturable"),
            "maximize": _MAXIMIZE,
            **_execution("differentiable"),
        },
        buffers=("square_avg", "acc_delta"),
    ),
    OptimizerInfo(
        name="rmsprop",
        summary="Steps scaled by a running average of the squared gradient.",
        path="torch.optim:RMSprop",
        paper="Tieleman & Hinton 2012; arXiv:1308.0850 (centered)",
        hyperparameters={
            "lr": _lr(1e-2),
            "alpha": Number(default=0.99, low=0, help="decay rate of the running average"),
            "eps": _eps(),
            "weight_decay": _weight_decay(),
            "momentum": Number(default=0.0, low=0, help="momentum factor"),
            "centered": Flag(default=False, help="subtract the squared mean gradient"),
            **_execution("capturable", "foreach"),
            "maximize": _MAXIMIZE,
            **_execution("differentiable"),
        },
        buffers=("square_avg", "momentum_buffer", "grad_avg"),
    ),
)

_OPTIMIZERS: dict[str, OptimizerInfo] = {info.name: info for info in _TORCH}
