"""The arm `matrix`: Newton-Schulz over stacks of matrices of one shape, next to one matrix after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lightning_optim import optim

from .arm import Arm
from .measure import Case, Timing

NUM_MATRICES, SIZE = 100, 256
ONE_BY_ONE, STACKS, TORCH = "muon, one by one", "muon, stacks", "torch.optim.Muon"


def make_cases(device: torch.device, number: int = NUM_MATRICES, size: int = SIZE) -> Iterator[Case]:
    """A step of each, over as many square matrices of this size, each with its own parameters and gradients."""
    builders: Mapping[str, Callable[..., Optimizer]] = {
        ONE_BY_ONE: partial(optim.Muon, foreach=False),
        STACKS: optim.Muon,
        TORCH: torch.optim.Muon,
        "normuon, stacks": optim.NorMuon,
        "adamuon, stacks": optim.AdaMuon,
    }
    for name, build in builders.items():
        yield Case(name=name, run=build(_new_params(device, number, size), lr=0.02).step)


def _new_params(device: torch.device, number: int, size: int) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(size, size, generator=generator).to(device)) for _ in range(number)]
    for param in params:
        param.grad = torch.randn(size, size, generator=generator).to(device)
    return params


def _derive_findings(timings: Mapping[str, Timing]) -> dict[str, float]:
    stacks: Any = timings[STACKS].median_ms
    return {
        "stacks, times as fast as one by one": timings[ONE_BY_ONE].median_ms / stacks,
        "stacks, times as fast as torch.optim.Muon": timings[TORCH].median_ms / stacks,
    }


MATRIX = Arm(
    title=f"Muon over {NUM_MATRICES} matrices of {SIZE} × {SIZE}: a step",
    make_cases=lambda device: list(make_cases(device)),
    reference=ONE_BY_ONE,
    uses_device=True,
    findings=_derive_findings,
)
