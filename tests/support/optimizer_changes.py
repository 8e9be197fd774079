"""Changes that users make to an optimizer between two steps, and that telemetry must see."""

from __future__ import annotations

import copy

import torch
from torch import nn


def replace_whole_state(optimizer: torch.optim.Optimizer) -> None:
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def replace_one_buffer(optimizer: torch.optim.Optimizer) -> None:
    state = next(iter(optimizer.state.values()))
    state["exp_avg"] = state["exp_avg"] * 3


def narrow_a_buffer(optimizer: torch.optim.Optimizer) -> None:
    state = next(iter(optimizer.state.values()))
    state["exp_avg"] = state["exp_avg"][:1]  # at the same address


def replace_data_of_a_buffer(optimizer: torch.optim.Optimizer) -> None:
    state = next(iter(optimizer.state.values()))
    state["exp_avg_sq"].data = state["exp_avg_sq"].double() * 5


def replace_data_of_a_parameter(optimizer: torch.optim.Optimizer) -> None:
    parameter = optimizer.param_groups[0]["params"][1]
    parameter.data = parameter.data * 7


def replace_a_parameter(optimizer: torch.optim.Optimizer) -> None:
    params = optimizer.param_groups[0]["params"]
    params[1] = nn.Parameter(params[1].detach() * 2)


def add_a_buffer(optimizer: torch.optim.Optimizer) -> None:
    for parameter, state in optimizer.state.items():
        state["more"] = torch.ones_like(parameter)


def replace_the_step_counts(optimizer: torch.optim.Optimizer) -> None:
    for state in optimizer.state.values():
        state["step"] = state["step"] + 100


def delete_a_state(optimizer: torch.optim.Optimizer) -> None:
    del optimizer.state[optimizer.param_groups[0]["params"][0]]


CHANGES = [
    replace_whole_state,
    replace_one_buffer,
    narrow_a_buffer,
    replace_data_of_a_buffer,
    replace_data_of_a_parameter,
    replace_a_parameter,
    add_a_buffer,
    replace_the_step_counts,
    delete_a_state,
]
