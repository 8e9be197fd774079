"""Runs of one optimizer by the loop and by kernels, over the same gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_optim import optimizer_info
from lightning_optim.optim.fused.execution import FusedExecution
from lightning_optim.optim.members.sophia_g import STEPS_WITHOUT_HESSIAN
from tests.support.optimizer_runs import give_hessian

SHAPES = ((3, 5), (4,), (2, 3, 4), (), (40, 1000), (0, 2))
"""One tensor is longer than a chunk of a kernel."""


def train(
    name: str,
    num_steps: int,
    *,
    fused: bool,
    shapes: Sequence[tuple[int, ...]] = SHAPES,
    dtype: torch.dtype = torch.float32,
    through: torch.dtype = torch.float32,
    device: str = "cpu",
    **options: Any,
) -> list[Tensor]:
    """The parameters after some steps of a member, by kernels or by the loop.

    Initial values and gradients are the same for every dtype, rounded to that of `through`.
    """
    generator = torch.Generator().manual_seed(0)

    def random(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator).to(through).to(device, dtype)

    params = [torch.nn.Parameter(random(shape)) for shape in shapes]
    execution = {"fused": True} if fused else {"fused": False, "foreach": False}
    optimizer = optimizer_info(name).load(own=True)(params, **execution, **options)
    for step in range(num_steps):
        for index, param in enumerate(params):
            param.grad = None if index == step % 7 else random(tuple(param.shape))
        if step % STEPS_WITHOUT_HESSIAN == 0:
            give_hessian(optimizer, params, 0.5)
        optimizer.step()
    return params


def relative_error(values: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest norm of a difference, relative to the norm of what is expected."""
    pairs = [(x.detach().double(), y.detach().double()) for x, y in zip(values, expected, strict=True)]
    errors = [(x - y).norm() / y.norm().clamp_min(1e-300) for x, y in pairs if y.numel()]
    return torch.stack(errors).max().item()  # which keeps NaN


def count_skipped(monkeypatch: Any) -> list[int]:
    """A list that gets the number of tensors that each later run of a kernel leaves to the loop."""
    counts: list[int] = []
    run = FusedExecution.run

    def counting(self: FusedExecution, *args: Any, **kwargs: Any) -> list[int]:
        skipped = run(self, *args, **kwargs)
        counts.append(len(skipped))
        return skipped

    monkeypatch.setattr(FusedExecution, "run", counting)
    return counts
