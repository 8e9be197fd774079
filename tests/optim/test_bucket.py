"""Which parameters share a bucket, and whether it runs over lists or one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_optim import optim
from lightning_optim.optim import bucket
from tests.support.optimizer_runs import new_params


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
def test_on_the_cpu_lists_are_used_on_request_only(monkeypatch, given, calls):
    assert lists_of_a_step(monkeypatch, new_params(), **given) == calls


def test_where_lists_are_faster_plain_tensors_use_them(monkeypatch):
    for given, calls in (({}, [5]), ({"foreach": False}, [])):
        monkeypatch.setattr(bucket, "_LIST_DEVICES", ("cpu",))
        assert lists_of_a_step(monkeypatch, new_params(), **given) == calls
    monkeypatch.setattr(bucket, "_LIST_DEVICES", ("cpu",))
    others = [torch.ones(2).as_subclass(Subclass).requires_grad_() for _ in range(2)]
    assert lists_of_a_step(monkeypatch, others) == []


def test_a_bucket_has_one_type_dtype_step_count_and_scalar_state():
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
    indices = {id(param): i for i, param in enumerate(params)}

    def gathered(*scalars):
        chosen = params[:-1]
        columns = chosen, [param.grad for param in chosen], [states[param] for param in chosen]
        return [
            (b.t, dict(b.scalars), [indices[id(p)] for p in b.params]) for b in bucket.build_buckets(*columns, scalars)
        ]

    assert gathered() == [(1, {}, [0, 2]), (2, {}, [1]), (1, {}, [3]), (1, {}, [4])]
    assert gathered("mu") == [
        (1, {"mu": 1.0}, [0]),
        (2, {"mu": 1.0}, [1]),
        (1, {"mu": 0.5}, [2]),
        (1, {"mu": 1.0}, [3]),
        (1, {"mu": 1.0}, [4]),
    ]
