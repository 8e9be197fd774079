"""The arm `matrix`: Newton-Schulz over stacks of matrices of one shape, next to one matrix after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import nn
from torch.optim import Optimizer

from lightning_optim import optim

from .arm import Arm
from .measure import Case, Timing

NUM_MATRICES = {64: 400, 256: 100, 512: 20}
"""By the size of the square matrices."""
ONE_BY_ONE, STACKS, TORCH = "muon, one by one", "muon, stacks", "torch.optim.Muon"
_BUILDERS: Mapping[str, Callable[..., Optimizer]] = {
    ONE_BY_ONE: partial(optim.Muon, foreach=False),
    STACKS: optim.Muon,
    TORCH: torch.optim.Muon,
}


def make_cases(device: torch.device, num_matrices: Mapping[int, int] = NUM_MATRICES) -> Iterator[Case]:
    """A step of each, over as many square matrices of each size, each with its own parameters and gradients."""
    for size, number in num_matrices.items():
        for name, build in _BUILDERS.items():
            yield Case(name=case_name(name, size), run=build(_new_params(device, number, size), lr=0.02).step)


def case_name(name: str, size: int) -> str:
    """The name of an optimizer's case for matrices of a size."""
    return f"{name}, {size} × {size}"


def _new_params(device: torch.device, number: int, size: int) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(size, size, generator=generator).to(device)) for _ in range(number)]
    for param in params:
        param.grad = torch.randn(size, size, generator=generator).to(device)
    return params


def _derive_findings(timings: Mapping[str, Timing]) -> dict[str, float]:
    return {
        f"{size} × {size}: stacks, times as fast as {other}": timings[case_name(name, size)].median_ms
        / timings[case_name(STACKS, size)].median_ms
        for size in NUM_MATRICES
        for name, other in ((ONE_BY_ONE, "one by one"), (TORCH, TORCH))
    }


MATRIX = Arm(
    title=f"Muon over {', '.join(f'{n} of {size} × {size}' for size, n in NUM_MATRICES.items())}: a step",
    make_cases=lambda device: list(make_cases(device)),
    reference=case_name(ONE_BY_ONE, 256),
    uses_device=True,
    findings=_derive_findings,
)
