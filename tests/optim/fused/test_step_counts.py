"""A kernel counts its steps as torch does: in the tensors of the state, seen by autograd and by their views."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_optim import optim
from lightning_optim.optim.fused.step_counts import count_step


def take_step(optimizer: torch.optim.Optimizer) -> None:
    for param in optimizer.param_groups[0]["params"]:
        param.grad = torch.ones_like(param)
    optimizer.step()


def test_counters_are_the_same_tensors_and_their_versions_go_up():
    optimizer = optim.Lion([nn.Parameter(torch.ones(3)) for _ in range(2)], fused=True)
    take_step(optimizer)
    counters = [state["step"] for state in optimizer.state.values()]
    view, versions = counters[0].view(1), [counter._version for counter in counters]
    take_step(optimizer)
    assert [state["step"] for state in optimizer.state.values()] == counters == [2.0, 2.0]
    assert view.item() == 2
    assert all(counter._version > version for counter, version in zip(counters, versions, strict=True))


OTHERS = [torch.tensor(3.0, dtype=torch.float64), torch.tensor(3), nn.Parameter(torch.tensor(3.0))]


@pytest.mark.parametrize("counter", OTHERS, ids=str)
def test_other_counters_are_left_alone(counter):
    first = torch.tensor(3.0)
    assert not count_step([first, counter])
    assert (first, counter) == (3, 3)


def test_a_step_counts_in_whatever_dtype_the_counter_has():
    optimizer = optim.Lion([nn.Parameter(torch.ones(3))], fused=True)
    take_step(optimizer)
    state = next(iter(optimizer.state.values()))
    state["step"] = OTHERS[0].clone()
    take_step(optimizer)
    assert state["step"] == 4
