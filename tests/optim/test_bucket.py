"""Which parameters step together, and whether over lists or one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_optim import optim
from lightning_optim.optim import bucket
from tests.support.optimizer_runs import new_grads, new_params, set_grads


class Subclass(Tensor):
    """A tensor of another type."""


def lists_of_a_step(monkeypatch, params, **given):
    """How many tensors each call of a foreach function took in a step of Lion."""
    calls = []
    real = torch._foreach_lerp_
    monkeypatch.setattr(torch, "_foreach_lerp_", lambda *args: calls.append(len(args[0])) or real(*args))
    for param in params:
        param.grad = torch.ones_like(param)
    optim.Lion(params, **given).step()
    monkeypatch.undo()
    return calls


@pytest.mark.parametrize(("given", "calls"), [({}, []), ({"foreach": False}, []), ({"foreach": True}, [5])], ids=str)
def test_on_the_cpu_lists_are_for_those_who_ask(monkeypatch, given, calls):
    assert lists_of_a_step(monkeypatch, new_params(), **given) == calls


def test_where_lists_are_faster_plain_tensors_take_them(monkeypatch):
    for given, calls in (({}, [5]), ({"foreach": False}, [])):
        monkeypatch.setattr(bucket, "_LIST_DEVICES", ("cpu",))
        assert lists_of_a_step(monkeypatch, new_params(), **given) == calls
    monkeypatch.setattr(bucket, "_LIST_DEVICES", ("cpu",))
    others = [torch.ones(2).as_subclass(Subclass).requires_grad_() for _ in range(2)]
    assert lists_of_a_step(monkeypatch, others) == []


def test_a_bucket_is_one_type_device_dtype_and_step_count():
    params = [
        *(nn.Parameter(torch.ones(2)) for _ in range(3)),
        nn.Parameter(torch.ones(2, dtype=torch.float64)),
        torch.ones(2).as_subclass(Subclass).requires_grad_(),
        nn.Parameter(torch.ones(2)),
    ]
    for param in params[:-1]:
        param.grad = torch.ones_like(param)
    states = {param: {"step": torch.tensor(float(i == 1)), "mu": 1.0} for i, param in enumerate(params)}
    states[params[2]]["mu"] = 0.5
    places = {id(param): i for i, param in enumerate(params)}

    def gathered(*scalars):
        return [
            (b.t, dict(b.scalars), [places[id(p)] for p in b.params]) for b in bucket.gather(params, states, scalars)
        ]

    assert gathered() == [(1, {}, [0, 2]), (2, {}, [1]), (1, {}, [3]), (1, {}, [4])]
    assert gathered("mu") == [
        (1, {"mu": 1.0}, [0]),
        (2, {"mu": 1.0}, [1]),
        (1, {"mu": 0.5}, [2]),
        (1, {"mu": 1.0}, [3]),
        (1, {"mu": 1.0}, [4]),
    ]


def test_a_group_may_bring_along_what_schedulers_put_there():
    model = new_params()
    optimizer = optim.Lion(model, lr=torch.tensor(0.1))
    torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=3)
    torch.optim.lr_scheduler.CyclicLR(optim.Lion(new_params()), 0.1, 0.2)
    group = {**optimizer.param_groups[0], "swa_lr": 0.1, "params": new_params()}
    assert {"initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"} <= set(group)
    assert optim.Lion([group]).param_groups[0]["lr"] is group["lr"]


def test_a_group_may_leave_its_decay_to_the_optimizer():
    optimizer = optim.Adam([{"params": new_params(), "weight_decay_mode": None}], weight_decay_mode="absolute")
    assert optimizer.param_groups[0]["weight_decay_mode"] == "absolute"


def test_a_group_may_come_with_its_names_apart():
    params = new_params()
    names = [f"layer.{i}" for i in range(len(params))]
    optimizer = optim.Lion([{"params": params, "param_names": names}])
    assert optimizer.param_groups[0]["param_names"] == names
    set_grads(params, new_grads()[1])
    optimizer.step()
