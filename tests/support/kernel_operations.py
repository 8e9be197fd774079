"""Operations of a kernel, the values they are tried on, and an optimizer that does nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lightning_optim import optim

_SPECIAL = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-42, -1e-42, 3e38, -3e38, 1.0, -1.0, 2.5, -0.3, 1e-8]

NUMBER = 0.7

# Called with two tensors and that number, which changes from step to step for a kernel.
EXACT = {
    "add": lambda x, y, k: x + y,
    "add a number": lambda x, y, k: x.add(k) + 2,
    "add alpha": lambda x, y, k: x.add(y, alpha=k),
    "sub": lambda x, y, k: x - y,
    "sub from a number": lambda x, y, k: 1 - x,
    "mul": lambda x, y, k: x * y,
    "mul by a number": lambda x, y, k: k * x,
    "div": lambda x, y, k: x / y,
    "reciprocal": lambda x, y, k: x.reciprocal(),
    "neg": lambda x, y, k: -x,
    "abs": lambda x, y, k: x.abs(),
    "sign": lambda x, y, k: x.sign(),
    "square": lambda x, y, k: x.square(),
    "pow of 2": lambda x, y, k: x.pow(2),
    "maximum": lambda x, y, k: x.maximum(y),
    "minimum": lambda x, y, k: x.minimum(y),
    "clamp": lambda x, y, k: x.clamp(-1.0, 0.5),
    "clamp_min": lambda x, y, k: x.clamp_min(k),
    "clamp_max of a tensor": lambda x, y, k: x.clamp_max(y),
    "where": lambda x, y, k: x.where(x.gt(y), 0.5),
    "comparisons": lambda x, y, k: x.where((x >= 0).logical_and(y < 1.0).logical_or(x == y), y),
    "nan_to_num": lambda x, y, k: x.clone().nan_to_num_(nan=1.0),
    "addcmul": lambda x, y, k: x.addcmul(y, y, value=k),
    "addcmul of 1": lambda x, y, k: x.addcmul(y, y),
    "addcdiv": lambda x, y, k: x.addcdiv(y, y.abs().add(1.0), value=k),
    "lerp": lambda x, y, k: x.lerp(y, 0.1),
    "lerp from the end": lambda x, y, k: x.lerp(y, k),
}
TO_A_UNIT = {
    "sqrt": lambda x, y, k: x.sqrt(),
    "rsqrt": lambda x, y, k: x.rsqrt(),
    "exp": lambda x, y, k: x.exp(),
    "log": lambda x, y, k: x.log(),
    "tanh": lambda x, y, k: x.tanh(),
    "sigmoid": lambda x, y, k: x.sigmoid(),
    "pow": lambda x, y, k: x.pow(k),
    "pow of a third": lambda x, y, k: x.pow(-1 / 3),
    "pow of 3": lambda x, y, k: x.pow(3),
    "pow of 0": lambda x, y, k: x.pow(k - k),
    "cube root": lambda x, y, k: x.pow(1 / 3),
}


def values(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Each special value with each, and ordinary ones: a length at which vector code has a tail."""
    x, y = (
        torch.tensor(v, dtype=dtype).reshape(-1)
        for v in zip(*((a, b) for a in _SPECIAL for b in _SPECIAL), strict=True)
    )
    generator = torch.Generator().manual_seed(0)
    ordinary = torch.randn((2, 1001), generator=generator, dtype=dtype) * 10
    return torch.cat([x, ordinary[0]]), torch.cat([y, ordinary[1]])


def by_kernel(
    operations: Mapping[str, Callable[..., Tensor]], x: Tensor, y: Tensor, k: float = NUMBER
) -> dict[str, Tensor]:
    """What one kernel computes for all of these operations."""

    class Operations(optim.AdaptiveOptimizer):
        def buffers(self, group):
            return tuple(operations)

        def coefficients(self, t, group):
            return {"k": k}

        @staticmethod
        def update(p, g, *buffers, k):
            for buffer, operation in zip(buffers, operations.values(), strict=True):
                buffer.copy_(operation(p, g, k))
            return ()

    param = torch.nn.Parameter(x.clone())
    param.grad = y.clone()
    optimizer = Operations([param], {"lr": 0.1}, fused=True)
    optimizer.step()
    return {name: optimizer.state[param][name] for name in operations}
