"""One script of gradients for any optimizer: gradients that come and go, and a group that joins late."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_optim import list_optimizers, optim, optimizer_info
from tests.support.save_and_load import save_and_load

MEMBERS = [name for name in list_optimizers() if optimizer_info(name).own]
KINDS = (
    *("adamw", "lion", "nadam", "adan", "madgrad", "amsgrad", "prodigy", "storm", "lamb", "lars", "adamp", "adam_mini"),
    *("adai", "ef_sgd", "sophia_g", "muon", "soap"),
)
"""Of each structure of a rule one member.

One buffer or several; a scalar in the state; a state from the start; two gradients; sums over all parameters, over
tensors and over rows; a Hessian; matrices.
"""
MEMBERS_WITH_TWO_GRADIENTS = [name for name in MEMBERS if optimizer_info(name).evaluations > 1]

MATRIX_MEMBERS = [name for name in MEMBERS if optimizer_info(name).matrices_only]
MEMBERS_IN_TORCH = [name for name in MEMBERS if not optimizer_info(name).is_native_only and name not in MATRIX_MEMBERS]
"""Those of matrices are in tests/optim/test_matrices.py: torch's Muon has neither foreach nor maximize."""
TRACED_MEMBERS = [name for name in MEMBERS if name not in MATRIX_MEMBERS]
"""The members that kernels are made of."""
MEMBERS_WITH_SUMS = {
    "adai", "adam_mini", "adamp", "ef_sgd", "lamb", "lars", "mars", "novograd", "prodigy", "stable_adamw",
}  # fmt: skip
"""Those of them whose kernels add up elements."""

SHAPES = [(3, 4), (5,), (), (2, 3, 2), (7,)]
MATRIX_SHAPES = [(3, 4), (5, 2), (3, 4), (2, 3, 2, 1), (7, 3)]
"""For members that take matrices only; two can be stacked."""
LATE = len(SHAPES) - 1
"""The index of the parameter that joins late."""
NUM_STEPS = 18
JOINS_AT = 6
FROZEN = range(4, 9)
"""The steps in which the second parameter has no gradient."""
RESUMES_AT = (5, 12)
"""An odd and an even number of steps: a rule of two gradients a step resumes between them, and after both."""

# What reaches every branch of a member's rule, besides its defaults.
VARIANTS = {
    "sgd": [{"momentum": 0.9, "dampening": 0.5}, {"momentum": 0.9, "nesterov": True}],
    "muon": [
        {"matrix": "batch", "nesterov": False},
        {"coefficients": "polar_express", "adjust_lr_fn": "match_rms_adamw"},
    ],
    "normuon": [{"matrix": "batch", "adjust_lr_fn": "original"}, {"nesterov": True}],
    "adamuon": [{"matrix": "batch", "sign": False}, {"nesterov": True}],
    "soap": [{"matrix": "batch", "precondition_frequency": 3}, {"max_size": 3, "shampoo_beta": 0.5}],
    "shampoo": [{"matrix": "batch", "momentum": 0.9, "beta2": 0.9}, {"precondition_frequency": 3}],
    "adam": [{"amsgrad": True}, {"optimized_update": True}],
    "adamw": [{"amsgrad": True}],
    "radam": [{"amsgrad": True}, {"optimized_update": False}, {"degenerate_to_sgd": False}],
    "adagrad": [{"lr_decay": 0.1, "initial_accumulator_value": 0.5}],
    "rmsprop": [{"momentum": 0.9}, {"centered": True}, {"momentum": 0.5, "centered": True}],
    "adabelief": [{"rectify": False}, {"amsgrad": True}, {"degenerate_to_sgd": False}],
    "adabound": [{"amsbound": True}],
    "adaboundw": [{"amsbound": True}],
    "qhadam": [{"nus": (0.7, 0.9)}],
    "padam": [{"amsgrad": False}],
    "ademamix": [{"alpha_warmup": 8, "beta3_warmup": 8}],
    "adopt": [{"clip": False}],
    "madgrad": [{"momentum": 0.0}],
    "lars": [{"momentum": 0.0}],
    "novograd": [{"grad_averaging": True}],
    "adamp": [{"delta": 1.0}, {"nesterov": True}],
    "signum": [{"momentum": 0.0}],
    "adam_mini": [{"num_blocks": None}],
    "optimistic_adam": [{"amsgrad": True}],
    "ef_sgd": [{"comp": "sign"}, {"memory": False}, {"momentum": 0.9}],
    "extra_sgd": [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}],
    "extra_adam": [{"amsgrad": True}, {"optimized_update": True}],
    "prodigy": [{"bias_correction": True, "growth_rate": 1.5}, {"safeguard_warmup": True, "beta3": 0.9}],
}
SETTINGS = [(name, options) for name in MEMBERS for options in [{}, *VARIANTS.get(name, [])]]
"""Each member with its defaults and with each variant."""
TRACED_SETTINGS = [(name, options) for name, options in SETTINGS if name in TRACED_MEMBERS]


def settings_of(name: str) -> list[dict[str, Any]]:
    """The options of one member's settings."""
    return [options for member, options in SETTINGS if member == name]


def shapes_of(name: str) -> list[tuple[int, ...]]:
    """Shapes of parameters that a member takes."""
    return MATRIX_SHAPES if name in MATRIX_MEMBERS else SHAPES


def _shapes_for(cls: Any) -> list[tuple[int, ...]]:
    is_of_matrices = getattr(cls, "multiplies_matrices", False) or cls is torch.optim.Muon
    return MATRIX_SHAPES if is_of_matrices else SHAPES


def setting_id(setting: tuple[str, dict[str, Any]]) -> str:
    name, options = setting
    return ",".join([name, *(f"{key}={value}".replace(" ", "") for key, value in options.items())])


def native_class(name: str) -> type[Optimizer]:
    """Our class of a member, also where torch has one of the same rule."""
    return optimizer_info(name).load(own=True)


def new_params(dtype: torch.dtype = torch.float32, shapes: Sequence[tuple[int, ...]] = SHAPES) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, dtype=dtype, generator=generator)) for shape in shapes]


def new_grads(
    dtype: torch.dtype = torch.float32, shapes: Sequence[tuple[int, ...]] = SHAPES, *, num_steps: int = NUM_STEPS
) -> list[list[Tensor | None]]:
    """Gradients by step and parameter: each is None now and then, the second one for several steps."""
    generator = torch.Generator().manual_seed(1)
    script = []
    for step in range(num_steps):
        grads = [torch.randn(shape, dtype=dtype, generator=generator) for shape in shapes]
        script.append([None if (step + i) % 7 == 3 or (i == 1 and step in FROZEN) else g for i, g in enumerate(grads)])
        if step % 11 == 5:
            script[-1][0] = torch.zeros(shapes[0], dtype=dtype)
    return script


def set_grads(params: Sequence[nn.Parameter], grads: Sequence[Tensor | None]) -> None:
    for param, grad in zip(params, grads, strict=True):
        param.grad = None if grad is None else grad.clone()


def give_hessian(optimizer: Optimizer, params: Iterable[nn.Parameter], value: float = 1.0) -> None:
    """Give Sophia-G an estimate of the Hessian, without which it stops soon; with 0, its steps are those without."""
    if isinstance(optimizer, optim.SophiaG):
        optimizer.update_hessian(1, {param: torch.full_like(param, value) for param in params})


def trajectory(
    cls: Callable[..., Optimizer],
    *,
    dtype: torch.dtype = torch.float32,
    num_steps: int = NUM_STEPS,
    script: list[list[Tensor | None]] | None = None,
    before_step: Callable[[int, Optimizer], Optimizer] = lambda step, optimizer: optimizer,
    **options: Any,
) -> list[list[Tensor]]:
    """The parameters after each step of the script; `before_step` may replace the optimizer."""
    shapes = _shapes_for(cls)
    params = new_params(dtype, shapes)
    optimizer = cls(params[:LATE], **options)
    give_hessian(optimizer, params)
    weights = []
    for step, grads in enumerate(script or new_grads(dtype, shapes, num_steps=num_steps)):
        optimizer = before_step(step, optimizer)
        if step == JOINS_AT:
            optimizer.add_param_group({"params": [params[LATE]], "lr": 0.02})
        set_grads(params, grads)
        optimizer.step()
        weights.append([param.detach().clone() for param in params])
    return weights


def differences(ours: Sequence[Sequence[Tensor]], theirs: Sequence[Sequence[Tensor]]) -> list[tuple[int, int]]:
    """`(step, parameter)` of each tensor that differs in at least one bit."""
    return [
        (step, i)
        for step, (some, others) in enumerate(zip(ours, theirs, strict=True))
        for i, (a, b) in enumerate(zip(some, others, strict=True))
        if not torch.equal(a, b)
    ]


def resuming(
    cls: Callable[..., Optimizer], at: Collection[int] = RESUMES_AT, **options: Any
) -> Callable[[int, Optimizer], Optimizer]:
    """For `before_step`: a new optimizer from a file before these steps, built with another lr and decay."""

    def before_step(step: int, optimizer: Optimizer) -> Optimizer:
        if step not in at:
            return optimizer
        groups = [{"params": group["params"], "lr": 0.5, "weight_decay": 0.3} for group in optimizer.param_groups]
        resumed = cls(groups, **options)
        resumed.load_state_dict(save_and_load(optimizer.state_dict()))
        return resumed

    return before_step
