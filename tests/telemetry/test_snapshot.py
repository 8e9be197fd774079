"""A snapshot measures the gradients, updates and settings of one step, and the state after it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lightning_optim.groups.plan import Plan
from lightning_optim.telemetry.inventory import Inventory
from lightning_optim.telemetry.snapshot import Snapshot
from lightning_optim.telemetry.summary import Summary


def measure_step(
    optimizer: torch.optim.Optimizer, module: nn.Module, *, clip_factor: float = 1.0, **options: bool
) -> tuple[Snapshot, Summary]:
    """Measure a step with the gradients that the parameters have; they are clipped by a factor."""
    snapshot = Snapshot(Inventory(optimizer, Plan.from_optimizer(optimizer, module)), 0, **options)
    snapshot.before_clipping()
    for parameter in module.parameters():
        parameter.grad.mul_(clip_factor)
    snapshot.before_clipping()  # LBFGS clips again; the first call counts
    snapshot.before_step()
    optimizer.step()
    snapshot.after_step()
    assert snapshot.is_ready
    return snapshot, snapshot.read()


@pytest.fixture
def model() -> nn.Module:
    """Two weights of ones: `0.weight` of shape `(2, 2)` and `1.weight` of shape `(1, 2)`, with gradients of ones."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    for parameter in model.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.ones_like(parameter)
    return model


def sgd(model: nn.Module, **options: float) -> torch.optim.Optimizer:
    groups = [{"params": [parameter], "name": name} for name, parameter in zip("ab", model.parameters(), strict=True)]
    return torch.optim.SGD(groups, lr=0.5, **options)


def test_gradients_are_measured_before_and_after_clipping(model) -> None:
    values = measure_step(sgd(model), model, clip_factor=0.5)[1].values
    assert values["norm/grad_unclipped", "a"] == 2.0 and values["norm/grad", "a"] == 1.0
    assert values["norm/grad_unclipped", "all"] == pytest.approx(math.sqrt(6))


def test_the_update_is_the_change_of_the_parameters(model) -> None:
    values = measure_step(sgd(model), model, update=True)[1].values
    assert values["norm/update", "a"] == 1.0, "four elements, each changed by 0.5"
    assert values["norm/param", "a"] == 1.0, "after the step"
    assert values["ratio/update_param", "b"] == 1.0
    assert ("norm/update", "a") not in measure_step(sgd(model), model)[1].values


def test_the_cosine_is_that_of_the_gradient_and_the_momentum_before_the_step(model) -> None:
    optimizer = sgd(model, momentum=0.9)
    assert ("cos/grad_momentum", "a") not in measure_step(optimizer, model, cosine=True)[1].values, "no momentum yet"
    first, second = model.parameters()
    first.grad.mul_(-3)
    second.grad = torch.tensor([[1.0, -1.0]])
    values = measure_step(optimizer, model, cosine=True)[1].values
    assert values["cos/grad_momentum", "a"] == pytest.approx(-1.0)
    assert values["cos/grad_momentum", "b"] == pytest.approx(0.0)


def test_a_complex_gradient_counts_as_pairs_of_real_ones() -> None:
    module = nn.Module()
    module.weight = nn.Parameter(torch.tensor([3 + 4j]))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module.weight.grad = torch.tensor([1 + 0j])
    measure_step(optimizer, module)
    module.weight.grad = torch.tensor([0 + 1j])
    assert measure_step(optimizer, module, cosine=True)[1].values["cos/grad_momentum", "all"] == pytest.approx(0.0)


def test_settings_are_those_of_the_step_whether_numbers_or_tensors(model) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.25), weight_decay=0.125, betas=(0.5, 0.75))
    values = measure_step(optimizer, model)[1].values
    expected = {"lr": 0.25, "weight_decay": 0.125, "beta1": 0.5, "beta2": 0.75, "step": 1.0}
    assert {signal: values[signal, "default"] for signal in expected} == expected
    assert values["state_mib", "default"] == values["state_mib", "all"] == (2 * 6 + 2) * 4 / 2**20


def test_the_largest_step_count_of_a_group_counts(model) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first, second = model.parameters()
    optimizer.state[first]["step"], optimizer.state[second]["step"] = 7, torch.tensor(5.0)
    assert measure_step(optimizer, model)[1].values["step", "default"] == 7.0


def test_second_moments_have_a_root_mean_square(model) -> None:
    first, _ = model.parameters()
    keys = (
        *("exp_avg_sq", "max_exp_avg_sq", "exp_avg_var", "max_exp_avg_var", "square_avg", "acc_delta", "sum"),
        *("variance", "row_var", "col_var"),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.state[first] = {key: torch.full((2, 2), 4.0) for key in (*keys, "exp_avg")}
    values = measure_step(optimizer, model)[1].values
    assert {signal: value for (signal, group), value in values.items() if signal.startswith("rms/")} == {
        f"rms/{key}": 2.0 for key in keys
    }
    assert all(values[f"norm/{key}", "default"] == 8.0 for key in (*keys, "exp_avg"))


def test_histograms_have_every_measured_tensor(model) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    snapshot, _ = measure_step(optimizer, model, update=True, histograms=True)
    signals = ["norm/grad", "norm/param", "norm/exp_avg", "norm/exp_avg_sq", "norm/update"]
    assert sorted(signal.signal for signal in snapshot.histograms) == sorted(signals)
    assert all(signal.parameters == ["0.weight", "1.weight"] for signal in snapshot.histograms)
    gradients = next(signal.tensors for signal in snapshot.histograms if signal.signal == "norm/grad")
    assert all(map(torch.equal, gradients, [torch.ones(2, 2), torch.ones(1, 2)]))
    assert measure_step(optimizer, model)[0].histograms == []
