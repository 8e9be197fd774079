"""A look that is kept: it must not outlive what it saw."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lightning_optim import optim
from lightning_optim.groups.plan import Plan
from lightning_optim.telemetry.inventory import Inventory
from lightning_optim.telemetry.snapshot import Snapshot


def stepped(cls=torch.optim.AdamW, *, width: int = 8) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, width), nn.Linear(width, 3))
    optimizer = cls(model.parameters())
    step(model, optimizer)
    return model, optimizer


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()


def values(inventory: Inventory) -> dict[tuple[str, str], float]:
    snapshot = Snapshot(inventory, 0)
    snapshot.after()
    return snapshot.read().values


def anew(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[tuple[str, str], float]:
    return values(Inventory(optimizer, Plan.of(optimizer, model)))


def replace_state(optimizer: torch.optim.Optimizer) -> None:
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def replace_one_buffer(optimizer: torch.optim.Optimizer) -> None:
    state = next(iter(optimizer.state.values()))
    state["exp_avg"] = state["exp_avg"] * 3


def narrow_a_buffer(optimizer: torch.optim.Optimizer) -> None:
    state = next(iter(optimizer.state.values()))
    state["exp_avg"] = state["exp_avg"][:1]  # of the same memory


def replace_the_data_of_a_buffer(optimizer: torch.optim.Optimizer) -> None:
    state = next(iter(optimizer.state.values()))
    state["exp_avg_sq"].data = state["exp_avg_sq"].double() * 5


def replace_the_data_of_a_parameter(optimizer: torch.optim.Optimizer) -> None:
    parameter = optimizer.param_groups[0]["params"][1]
    parameter.data = parameter.data * 7


def replace_a_parameter(optimizer: torch.optim.Optimizer) -> None:
    params = optimizer.param_groups[0]["params"]
    params[1] = nn.Parameter(params[1].detach() * 2)


def add_a_buffer(optimizer: torch.optim.Optimizer) -> None:
    for parameter, state in optimizer.state.items():
        state["more"] = torch.ones_like(parameter)


def forget_a_state(optimizer: torch.optim.Optimizer) -> None:
    del optimizer.state[optimizer.param_groups[0]["params"][0]]


CHANGES = [
    replace_state,
    replace_one_buffer,
    narrow_a_buffer,
    replace_the_data_of_a_buffer,
    replace_the_data_of_a_parameter,
    replace_a_parameter,
    add_a_buffer,
    forget_a_state,
]


@pytest.mark.parametrize("width", [8, 300], ids=["small", "large"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_changes_is_seen(change, width) -> None:
    model, optimizer = stepped(width=width)
    inventory = Inventory(optimizer, Plan.of(optimizer, model))
    before = values(inventory)
    change(optimizer)
    assert values(inventory) == anew(model, optimizer)
    if change is not replace_state:
        assert values(inventory) != before
    if change is not narrow_a_buffer:
        step(model, optimizer)
        assert values(inventory) == anew(model, optimizer)


@pytest.mark.parametrize("cls", [torch.optim.AdamW, torch.optim.SGD, optim.AdamW, optim.Prodigy, optim.MADGRAD])
def test_a_kept_look_sees_every_step(cls) -> None:
    model, optimizer = stepped(cls, width=300)
    inventory = Inventory(optimizer, Plan.of(optimizer, model))
    seen = []
    for _ in range(3):
        assert values(inventory) == anew(model, optimizer)
        seen.append(values(inventory))
        step(model, optimizer)
    assert seen[0] != seen[1] != seen[2]


def test_it_looks_again_only_where_something_has_changed() -> None:
    model, optimizer = stepped()
    inventory = Inventory(optimizer, Plan.of(optimizer, model))
    look = inventory.look()
    step(model, optimizer)
    assert inventory.look() is look
    replace_one_buffer(optimizer)
    assert inventory.look() is not look


def test_what_is_made_to_be_measured_is_not_kept() -> None:
    """A gradient's, a code's: tensors that are not the optimizer's own."""
    model, optimizer = stepped()
    for parameter, state in optimizer.state.items():
        state["state1"] = torch.zeros(parameter.shape, dtype=torch.uint8)
        state["qmap1"], state["absmax1"] = torch.arange(256.0), torch.ones(1)
    inventory = Inventory(optimizer, Plan.of(optimizer, model))
    assert values(inventory)["norm/state1", "all"] == 0
    for state in optimizer.state.values():
        state["state1"].fill_(2)
    assert values(inventory) == anew(model, optimizer)
    assert values(inventory)["norm/state1", "all"] > 0
