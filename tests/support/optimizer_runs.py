"""One way to drive any optimizer: tensors, gradients that come and go, a group that joins late."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor, nn

from lightning_optim import list_optimizers, optimizer_info

MEMBERS = [name for name in list_optimizers() if optimizer_info(name).own]
ALSO_TORCHS = [name for name in MEMBERS if not optimizer_info(name).is_ours]
SHAPES = [(3, 4), (5,), (), (2, 3, 2), (7,)]
LATE = len(SHAPES) - 1
JOINS_AT = 20

# What brings every line of a member's rule to run, beside its defaults.
VARIANTS = {
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
    "ademamix": [{"alpha_warmup": 30, "beta3_warmup": 30}],
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
SETTINGS = [(name, given) for name in MEMBERS for given in [{}, *VARIANTS.get(name, [])]]


def setting_id(value) -> str | None:
    if isinstance(value, dict):
        return ",".join(f"{key}={item}" for key, item in value.items()) or "default"
    return None


def class_of(name: str) -> type[torch.optim.Optimizer]:
    return optimizer_info(name).load(own=True)


# What each modifier is tried with.
VALUES: dict[str, dict[str, Any]] = {
    "skip_nonfinite": {"skip_nonfinite": True},
    "centralize_gradients": {"centralize_gradients": True},
    "adaptive_clip": {"adaptive_clip": 0.05},
    "cautious_update": {"cautious_update": True},
    "lookahead": {"lookahead": {"k": 3, "alpha": 0.25}},
    "master_weights": {"master_weights": True},
    "all": {
        "skip_nonfinite": True,
        "centralize_gradients": True,
        "adaptive_clip": 0.05,
        "cautious_update": True,
        "lookahead": {"k": 3, "alpha": 0.25},
        "master_weights": True,
        "weight_decay": 0.1,
    },
}
# Of several gradients a step, none can be skipped, and steps are not counted by gradients.
SEVERAL = [name for name in MEMBERS if class_of(name).evaluations > 1]
BY_STEPS = ("skip_nonfinite", "lookahead", "all")
MASKED = ("cautious_update", "all")
# What a step was, these make up for in the next one.
MAKE_UP = ("ef_sgd", "omd", "optimistic_adam")
PAIRS = [
    (name, modifier)
    for name in MEMBERS
    for modifier in VALUES
    if not (name in SEVERAL and modifier in BY_STEPS) and not (name in MAKE_UP and modifier in MASKED)
]


def new_params(dtype: torch.dtype = torch.float32, shapes=SHAPES) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, dtype=dtype, generator=generator)) for shape in shapes]


def new_grads(dtype: torch.dtype = torch.float32, shapes=SHAPES, *, num_steps: int = 50) -> list[list[Tensor | None]]:
    """Gradients by step and parameter: each vanishes now and then, the second is frozen for a while."""
    generator = torch.Generator().manual_seed(1)
    script = []
    for step in range(num_steps):
        grads = [torch.randn(shape, dtype=dtype, generator=generator) for shape in shapes]
        script.append([None if (step + i) % 7 == 3 or (i == 1 and 10 <= step < 25) else g for i, g in enumerate(grads)])
        if step % 11 == 5:
            script[-1][0] = torch.zeros(shapes[0], dtype=dtype)
    return script


def set_grads(params: list[nn.Parameter], grads: list[Tensor | None]) -> None:
    for param, grad in zip(params, grads, strict=True):
        param.grad = None if grad is None else grad.clone()


def drive(
    cls, *, dtype=torch.float32, num_steps: int = 50, script=None, each=lambda step, optimizer: optimizer, **given
):
    """The parameters after each step, the last one joining late; `each` may swap the optimizer before a step."""
    params = new_params(dtype)
    optimizer = cls(params[:LATE], **given)
    weights = []
    for step, grads in enumerate(script or new_grads(dtype, num_steps=num_steps)):
        optimizer = each(step, optimizer)
        if step == JOINS_AT:
            optimizer.add_param_group({"params": [params[LATE]], "lr": 0.02})
        set_grads(params, grads)
        optimizer.step()
        weights.append([param.detach().clone() for param in params])
    return weights


def differences(ours, theirs) -> list[tuple[int, int]]:
    """`(step, parameter)` of each that differs in a bit."""
    return [
        (step, i)
        for step, (some, others) in enumerate(zip(ours, theirs, strict=True))
        for i, (a, b) in enumerate(zip(some, others, strict=True))
        if not torch.equal(a, b)
    ]


def through_a_file(state_dict):
    """A state dict as it comes back from disk."""
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)
