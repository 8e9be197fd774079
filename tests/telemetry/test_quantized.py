"""Quantized state is measured as the numbers that it stands for; state in an unknown format is named."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map

from lightning_optim.groups.plan import Plan
from lightning_optim.telemetry.inventory import Inventory
from lightning_optim.telemetry.reading import read_state
from lightning_optim.telemetry.snapshot import Snapshot


class Halved(torch.Tensor):
    """A tensor subclass that stands for twice its codes."""

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
    """A tensor subclass without a `dequantize` of its own."""

    dequantize = torch.Tensor.dequantize

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise NotImplementedError(f"{function} of an unknown format")


def measure(state: dict, size: int = 300) -> tuple[dict, dict]:
    """`(values by signal, what is unmeasured)` of an optimizer with this state for a parameter of `size` elements."""
    layer = nn.Linear(1, size, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    optimizer.state[layer.weight] = state
    snapshot = Snapshot(Inventory(optimizer, Plan.from_optimizer(optimizer, layer)), 0)
    snapshot.after_step()
    values = {signal: value for (signal, group), value in snapshot.read().values.items() if group == "default"}
    return values, list(snapshot.unmeasured)


def test_a_tensor_with_its_own_dequantize_is_measured_as_its_numbers() -> None:
    values, unmeasured = measure({"exp_avg": Halved(torch.full((300, 1), 3, dtype=torch.uint8))})
    assert values["norm/exp_avg"] == pytest.approx(math.sqrt(300) * 6) and not unmeasured
    assert values["state_mib"] == 300 / 2**20


@pytest.mark.parametrize("size", [300, 512])
def test_blockwise_codes_of_bitsandbytes_are_measured_as_their_numbers(size) -> None:
    """A table of 256 values, and a scale for each block of 256 elements."""
    codes = torch.arange(size).remainder(256).to(torch.uint8).view(size, 1)
    table, scales = torch.linspace(-1, 1, 256), torch.tensor([2.0, 0.5])
    values, unmeasured = measure({"step": 3, "state1": codes, "qmap1": table, "absmax1": scales}, size)
    exact = table[codes.flatten().long()] * torch.cat([scales[0].expand(256), scales[1].expand(size - 256)])
    assert values["norm/state1"] == pytest.approx(float(exact.double().norm()))
    assert not {"norm/qmap1", "norm/absmax1"} & values.keys()
    assert not unmeasured


@pytest.mark.parametrize(
    ("value", "description"),
    [
        (torch.zeros(300, dtype=torch.uint8), "Tensor of torch.uint8"),
        (Opaque(torch.zeros(300, dtype=torch.uint8)), "Opaque of torch.float32"),
    ],
    ids=["codes without a table", "subclass without dequantize"],
)
def test_state_in_an_unknown_format_is_skipped_and_named(value, description) -> None:
    values, unmeasured = measure({"momentum": value, "exp_avg": torch.ones(300, 1)})
    assert unmeasured == [f"the state 'momentum' is not measured: it is a {description}"]
    assert "norm/momentum" not in values and "norm/exp_avg" in values


def test_step_counts_integers_and_flags_are_not_buffers() -> None:
    layer = nn.Linear(2, 2, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    optimizer.state[layer.weight] = {"step": torch.tensor(3.0), "seen": torch.ones(2, dtype=torch.int64), "on": True}
    state = read_state(optimizer, Plan.from_optimizer(optimizer, layer))
    assert (state.buffers, state.skipped) == ([], {})


def test_a_buffer_named_like_another_signal_gets_a_name_of_its_own() -> None:
    values, _ = measure({"param": torch.ones(300, 1)})
    assert values["norm/state_param"] == pytest.approx(math.sqrt(300))
    assert values["norm/param"] != values["norm/state_param"]
