"""`show NAME --kernel`: the source of the kernel that a rule is traced to."""

from __future__ import annotations

from typing import Any

import torch
from rich.console import Console

from ..catalog.registry import optimizer_info
from ..core.errors import ConfigError
from ..optim.base import AdaptiveOptimizer
from ..optim.fused.emit_c import emit_c
from ..optim.fused.emit_triton import emit_triton

LANGUAGES = {"c": emit_c, "triton": emit_triton}


def print_kernel(console: Console, name: str, language: str) -> None:
    """Print what runs a step of an optimizer of ours: for float32 matrices, with the defaults, from its second step on.

    Args:
        console: to print to.
        name: the optimizer's name in the registry.
        language: `c` for the CPU, `triton` for a GPU.

    Raises:
        ConfigError: there is no such optimizer, it is not ours, or its rule has no kernel.
    """
    info = optimizer_info(name)
    if not info.own:
        raise ConfigError(f"--kernel: {name} is not one of our own optimizers, of which kernels are made")
    if info.matrices_only:
        raise ConfigError(
            f"--kernel: {name} multiplies matrices, which is done by torch's products and not by a kernel"
        )
    param = torch.nn.Parameter(torch.zeros(2, 2))
    cls: Any = info.load(own=True)
    optimizer = cls([param])
    if not isinstance(optimizer, AdaptiveOptimizer):
        raise ConfigError(f"--kernel: {name} does not step by a rule that is written once for all executions")
    program = optimizer.trace_group(optimizer.param_groups[0], param, t=2.0)
    console.print(LANGUAGES[language](program), markup=False, soft_wrap=True, end="")
