"""Kernels within what else steps an optimizer: checkpoints, composites, gradient scalers, copies."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory, optim
from lightning_optim.optim import bucket
from lightning_optim.optim.fused.kernels import Kernels
from tests.support.fused_runs import count_skipped, relative_error


def new_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))


def train(model, optimizer, num_steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(num_steps):
        optimizer.zero_grad()
        model(torch.randn(5, 4, generator=generator)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True)], ids=["to the loop", "to kernels"])
def test_a_run_goes_on_in_the_other_execution(first, second):
    whole, resumed = new_model(), new_model()
    optimizer = optim.AdamP(whole.parameters(), lr=0.01, fused=False)
    train(whole, optimizer, 3)
    train(whole, optimizer, 3, seed=1)
    before = optim.AdamP(resumed.parameters(), lr=0.01, fused=first)
    train(resumed, before, 3)
    after = optim.AdamP(resumed.parameters(), lr=0.01, fused=second)
    after.load_state_dict(before.state_dict())
    train(resumed, after, 3, seed=1)
    assert all(group["fused"] is second for group in after.param_groups)
    assert relative_error([*resumed.parameters()], [*whole.parameters()]) <= 2e-7


def test_a_composite_has_fused_children(monkeypatch):
    counts = count_skipped(monkeypatch)
    runs = []
    for fused in (True, False):
        model = new_model()
        groups = {"hidden": {"params": "0", "optimizer": "lion", "fused": fused}}
        optimizer = OptimizerFactory("yogi", lr=0.01, fused=fused, groups=groups)(model)
        assert type(optimizer).__name__ == "Composite"
        train(model, optimizer, 4)
        runs.append([*model.parameters()])
    assert len(counts) == 2 * 4
    assert not any(counts)
    assert relative_error(*runs) <= 2e-7


def test_a_gradient_scaler_unscales_before_the_step():
    runs = []
    for fused in (True, False):
        model = new_model()
        optimizer = optim.LAMB(model.parameters(), lr=0.01, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for step in range(4):
            optimizer.zero_grad()
            loss = model(torch.ones(5, 4)).square().sum()
            scaler.scale(loss * (float("inf") if step == 2 else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
        runs.append([*model.parameters()])
    assert relative_error(*runs) <= 2e-7


def test_a_kernel_that_cannot_be_had_leaves_everything_as_it_is(monkeypatch):
    model = new_model()
    params = [*model.parameters()]
    optimizer = optim.AdamP(params, lr=0.01, fused=True)  # a launch for each shape
    train(model, optimizer, 2)
    before = copy.deepcopy((params, [optimizer.state[param] for param in params]))
    versions = [param._version for param in params]
    calls = []
    find = Kernels.find

    def fail_at_the_second(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise ConfigError("fused: no kernel")
        return find(*args, **kwargs)

    monkeypatch.setattr(Kernels, "find", fail_at_the_second)
    with pytest.raises(ConfigError, match="no kernel"):
        optimizer.step()
    after = params, [optimizer.state[param] for param in params]
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert [param._version for param in params] == versions
    optimizer.step()
    assert all(optimizer.state[param]["step"] == 3 for param in params)


def reset_counter(state):
    state["step"] = torch.tensor(0.0)


def move_counter(state):
    state["step"].data = torch.tensor(5.0)


def widen_counter(state):
    state["step"] = state["step"].double()


def count_by_a_number(state):
    state["step"] = 2.0


@pytest.mark.parametrize("change", [None, reset_counter, move_counter, widen_counter, count_by_a_number])
@pytest.mark.parametrize("of_all", [True, False], ids=["all", "one"])
def test_step_counters_are_read_where_they_are(change, of_all, monkeypatch):
    runs, steps = [], []
    for fused in (True, False):
        if not fused:
            monkeypatch.setattr(bucket, "find_addresses", lambda counters: None)  # each by torch
        model = new_model()
        params = [*model.parameters()]
        optimizer = optim.RAdam(params, lr=0.01, fused=fused)
        train(model, optimizer, 2)
        versions = [optimizer.state[param]["step"]._version for param in params]
        optimizer.step()
        counters = [optimizer.state[param]["step"] for param in params]
        assert [counter._version for counter in counters] == [version + 1 for version in versions]
        for param in params if of_all else params[1:2]:
            if change:
                change(optimizer.state[param])
        train(model, optimizer, 2, seed=1)
        runs.append(params)
        steps.append([optimizer.state[param]["step"] for param in params])
    assert list(map(float, steps[0])) == list(map(float, steps[1]))
    assert list(map(type, steps[0])) == list(map(type, steps[1]))
    assert relative_error(*runs) <= 2e-7


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_a_copy_steps_its_own_tensors(duplicate):
    model = new_model()
    optimizer = optim.Lion(model.parameters(), fused=True)
    train(model, optimizer, 2)
    values = [param.detach().clone() for param in model.parameters()]
    other = duplicate(optimizer)
    for param in other.param_groups[0]["params"]:
        param.grad = torch.ones_like(param)
    other.step()
    assert all(torch.equal(param, value) for param, value in zip(model.parameters(), values, strict=True))
    pairs = zip(other.param_groups[0]["params"], values, strict=True)
    assert not any(torch.equal(param, value) for param, value in pairs)
