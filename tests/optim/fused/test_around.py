"""Kernels within what else steps an optimizer: checkpoints, composites, gradient scalers, copies."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from lightning_optim import OptimizerFactory, optim
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
