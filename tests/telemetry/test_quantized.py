"""State in few bits is measured as the numbers it stands for, or named as what is not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map

from lightning_optim.groups.plan import Plan
from lightning_optim.telemetry.inventory import Inventory
from lightning_optim.telemetry.reading import state
from lightning_optim.telemetry.snapshot import Snapshot


class Halved(torch.Tensor):
    """Stands for twice its elements."""

    @staticmethod
    def __new__(cls, codes: torch.Tensor) -> Halved:
        return torch.Tensor._make_wrapper_subclass(cls, codes.shape, dtype=torch.float32)

    def __init__(self, codes: torch.Tensor) -> None:
        self.codes = codes

    def __tensor_flatten__(self):
        return ["codes"], None

    @staticmethod
    def __tensor_unflatten__(parts, context, size, stride):
        return Halved(parts["codes"])

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return self.codes.to(dtype) * 2

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return function(*tree_map(lambda x: x.dequantize() if isinstance(x, Halved) else x, args), **(kwargs or {}))


class Opaque(Halved):
    dequantize = torch.Tensor.dequantize

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise NotImplementedError(f"{function} of what nobody knows")


def measured(state: dict, size: int = 300) -> tuple[dict, dict]:
    layer = nn.Linear(1, size, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    optimizer.state[layer.weight] = state
    plan = Plan.of(optimizer, layer)
    snapshot = Snapshot(Inventory(optimizer, plan), 0)
    snapshot.after()
    values = {signal: value for (signal, group), value in snapshot.read().values.items() if group == "default"}
    return values, dict(snapshot.skipped)


def test_a_tensor_that_can_be_dequantized() -> None:
    values, skipped = measured({"exp_avg": Halved(torch.full((300, 1), 3, dtype=torch.uint8))})
    assert values["norm/exp_avg"] == pytest.approx(math.sqrt(300) * 6) and not skipped
    assert values["state_mib"] == 300 / 2**20


@pytest.mark.parametrize("size", [300, 512])
def test_the_blockwise_code_of_bitsandbytes(size) -> None:
    """A table of 256 values, and a scale for each block of 256 elements."""
    codes = torch.arange(size).remainder(256).to(torch.uint8).view(size, 1)
    table, scales = torch.linspace(-1, 1, 256), torch.tensor([2.0, 0.5])
    values, skipped = measured({"step": 3, "state1": codes, "qmap1": table, "absmax1": scales}, size)
    exact = table[codes.flatten().long()] * torch.cat([scales[0].expand(256), scales[1].expand(size - 256)])
    assert values["norm/state1"] == pytest.approx(float(exact.double().norm()))
    assert not {"norm/qmap1", "norm/absmax1"} & values.keys()
    assert not skipped


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.zeros(300, dtype=torch.uint8), "Tensor of torch.uint8"),
        (Opaque(torch.zeros(300, dtype=torch.uint8)), "Opaque of torch.float32"),
    ],
    ids=["codes without a table", "a class that cannot"],
)
def test_what_nobody_can_read_is_named(value, said) -> None:
    values, skipped = measured({"momentum": value, "exp_avg": torch.ones(300, 1)})
    assert skipped == {"momentum": said}
    assert "norm/momentum" not in values and "norm/exp_avg" in values


def test_counts_and_masks_are_no_buffers() -> None:
    layer = nn.Linear(2, 2, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    optimizer.state[layer.weight] = {"step": torch.tensor(3.0), "seen": torch.ones(2, dtype=torch.int64), "on": True}
    assert state(optimizer, Plan.of(optimizer, layer))[:2] == ([], {})


def test_a_buffer_that_has_another_signal_s_name() -> None:
    values, _ = measured({"param": torch.ones(300, 1)})
    assert values["norm/state_param"] == pytest.approx(math.sqrt(300))
    assert values["norm/param"] != values["norm/state_param"]
