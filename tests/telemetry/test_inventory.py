"""The cached contents of an optimizer are collected anew whenever a tensor is replaced, and only then."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_optim import optim
from lightning_optim.groups.plan import Plan
from lightning_optim.telemetry.inventory import Inventory
from lightning_optim.telemetry.snapshot import Snapshot
from tests.support.optimizer_changes import CHANGES, narrow_a_buffer, replace_one_buffer, replace_whole_state


def build(cls: type = torch.optim.AdamW, *, width: int = 8) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model and its optimizer after one step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, width), nn.Linear(width, 3))
    optimizer = cls(model.parameters())
    step(model, optimizer)
    return model, optimizer


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()


def new_inventory(model: nn.Module, optimizer: torch.optim.Optimizer) -> Inventory:
    return Inventory(optimizer, Plan.from_optimizer(optimizer, model))


def measure(inventory: Inventory) -> dict[tuple[str, str], float]:
    snapshot = Snapshot(inventory, 0)
    snapshot.after_step()
    return snapshot.read().values


@pytest.mark.parametrize("width", [8, 300], ids=["small", "large"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_is_measured(change, width) -> None:
    model, optimizer = build(width=width)
    inventory = new_inventory(model, optimizer)
    before = measure(inventory)
    change(optimizer)
    after = measure(inventory)
    assert after == measure(new_inventory(model, optimizer))
    if change is not replace_whole_state:
        assert after != before
    if change is not narrow_a_buffer:
        step(model, optimizer)
        assert measure(inventory) == measure(new_inventory(model, optimizer))


@pytest.mark.parametrize("cls", [torch.optim.AdamW, torch.optim.SGD, optim.AdamW, optim.Prodigy, optim.MADGRAD])
def test_cached_contents_follow_every_step(cls) -> None:
    model, optimizer = build(cls, width=300)
    inventory = new_inventory(model, optimizer)
    seen = []
    for _ in range(3):
        seen.append(measure(inventory))
        assert seen[-1] == measure(new_inventory(model, optimizer))
        step(model, optimizer)
    assert seen[0] != seen[1] != seen[2]


def test_contents_are_collected_again_only_after_a_change() -> None:
    model, optimizer = build()
    inventory = new_inventory(model, optimizer)
    contents = inventory.contents()
    step(model, optimizer)
    assert inventory.contents() is contents
    replace_one_buffer(optimizer)
    assert inventory.contents() is not contents


def test_tensors_computed_for_the_measurement_are_not_cached() -> None:
    """The dequantized numbers are not the optimizer's own tensors, and so do not change with it."""
    model, optimizer = build()
    for parameter, state in optimizer.state.items():
        state["state1"] = torch.zeros(parameter.shape, dtype=torch.uint8)
        state["qmap1"], state["absmax1"] = torch.arange(256.0), torch.ones(1)
    inventory = new_inventory(model, optimizer)
    assert measure(inventory)["norm/state1", "all"] == 0
    for state in optimizer.state.values():
        state["state1"].fill_(2)
    assert measure(inventory) == measure(new_inventory(model, optimizer))
    assert measure(inventory)["norm/state1", "all"] > 0
