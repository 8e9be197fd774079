"""A step finds out nothing again about tensors that are as they were, and notices everything that is not."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from lightning_optim import ConfigError, optim
from lightning_optim.optim import fingerprint
from lightning_optim.optim.known_group import KnownGroups
from tests.support.cases import every

GUARDS = {"Dynamo's": fingerprint._Guards, "in Python": fingerprint._Descriptions}


@pytest.fixture(params=GUARDS, autouse=True)
def guards(request, monkeypatch):
    monkeypatch.setattr(fingerprint, "_Guards", GUARDS[request.param])


@pytest.fixture
def learned(monkeypatch):
    """The groups about which steps have found out something."""
    groups = []
    learn = KnownGroups.learn

    def recorded(self, group, state):
        groups.append(group)
        return learn(self, group, state)

    monkeypatch.setattr(KnownGroups, "learn", recorded)
    return groups


def new_params(dtype=torch.float32):
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(4, 4, dtype=dtype)) for _ in range(3)]


def give_gradients(params):
    for param in params:
        param.grad = torch.randn(param.shape, dtype=param.dtype)


def test_nothing_is_found_out_again_when_only_gradients_and_numbers_change(learned):
    params = new_params()
    optimizer = optim.AdamW([{"params": params[:2]}, {"params": params[2:]}], fused=True)
    for step in range(4):
        give_gradients(params)
        optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
        optimizer.step()
    assert len(learned) == 2


def test_sets_of_gradients_that_come_again_are_known(learned):
    params = new_params()
    optimizer = optim.AdamW(params, fused=True)
    for step in range(9):
        give_gradients(params)
        params[step % 3].grad = None
        optimizer.step()
    # The first three steps create states, and what is in one tells nothing about a step with others.
    assert len(learned) == 3


def data(change):
    def move(optimizer, params):
        params[0].data = change(params[0].data)

    return move


def state(change):
    def replace(optimizer, params):
        change(optimizer.state[params[0]])

    return replace


def no_gradient(optimizer, params):
    params[0].grad = None


def wide_gradient(optimizer, params):
    params[1].grad.data = params[1].grad.data.double()


def transposed_gradient(optimizer, params):
    params[0].grad = params[0].grad.t()


def negated_gradient(optimizer, params):
    params[0].grad = torch._neg_view(params[0].grad)


def other_gradient_in_its_place(optimizer, params):
    params[0].grad = params[1].grad


def reload_state(optimizer, params):
    optimizer.load_state_dict(optimizer.state_dict())


def set_lr(optimizer, params):
    optimizer.param_groups[0]["lr"] = 0.5


def add_group(optimizer, params):
    params.append(torch.nn.Parameter(torch.ones(4, 4)))
    optimizer.add_param_group({"params": params[-1:]})
    give_gradients(params[-1:])


def add_to_group(optimizer, params):
    params.append(torch.nn.Parameter(torch.ones(4, 4)))
    optimizer.param_groups[0]["params"].append(params[-1])
    give_gradients(params[-1:])


def replace_parameter(optimizer, params):
    params[0] = torch.nn.Parameter(torch.ones(4, 4))
    optimizer.param_groups[0]["params"][0] = params[0]
    give_gradients(params[:1])


def exchange_parameters(optimizer, params):
    optimizer.param_groups[0]["params"].reverse()


def forget_state(optimizer, params):
    optimizer.state.pop(params[0])


def add_slow_weights(optimizer, params):
    optimizer.state[params[-1]]["slow"] = torch.ones(4, 4)  # after all that was known


def keep_slow_weights(optimizer, params):
    optimizer.param_groups[0]["lookahead"] = {"k": 1, "alpha": 0.5}


def average_weights(optimizer, params):
    optimizer.param_groups[0]["schedule_free"] = {"beta": 0.8, "warmup_steps": 0, "r": 0.0, "weight_lr_power": 2.0}


def conjugated_gradient(optimizer, params):
    params[0].grad = params[0].grad.conj()


def clip_gradients(optimizer, params):
    optimizer.param_groups[0]["adaptive_clip"] = 0.1


def keep_masters(optimizer, params):
    optimizer.param_groups[0]["master_weights"] = True


def reshape(optimizer, params):
    params[0].data = params[0].data.view(2, 8)
    params[0].grad = torch.ones(2, 8)


def sparse_gradient(optimizer, params):
    params[0].grad = params[0].grad.to_sparse()


CHANGES = {
    "no gradient": no_gradient,
    "gradient of another dtype": wide_gradient,
    "gradient of another layout": transposed_gradient,
    "negated gradient": negated_gradient,
    "sparse gradient": sparse_gradient,
    "the same gradient twice": other_gradient_in_its_place,
    "parameter moved": data(torch.clone),
    "parameter transposed where it is": data(torch.t),
    "parameter reshaped where it is": reshape,
    "parameter of another dtype": data(torch.Tensor.double),
    "state moved": state(lambda s: setattr(s["exp_avg"], "data", s["exp_avg"].data.clone())),
    "state replaced": state(lambda s: s.update(exp_avg=torch.ones(4, 4))),
    "state of another dtype": state(lambda s: s.update(exp_avg=s["exp_avg"].double())),
    "counter replaced": state(lambda s: s.update(step=torch.tensor(7.0))),
    "counter as a number": state(lambda s: s.update(step=7.0)),
    "state that nothing asks for": add_slow_weights,
    "state forgotten": forget_state,
    "state loaded": reload_state,
    "other lr": set_lr,
    "group added": add_group,
    "parameter added to a group": add_to_group,
    "parameter replaced": replace_parameter,
    "parameters exchanged": exchange_parameters,
    "lookahead": keep_slow_weights,
    "schedule_free": average_weights,
}


# For which the parameters are not of float32.
OTHERS = {
    "conjugated gradient": (torch.complex64, conjugated_gradient),
    "clipping of complex gradients": (torch.complex64, clip_gradients),
    "masters": (torch.bfloat16, keep_masters),
}


def run(dtype, change, *, forgets):
    """Tensors, and errors, of steps around a change, with or without what earlier steps have found out."""
    params = new_params(dtype)
    optimizer = optim.AdamW([*params], lr=0.1, fused=True)
    before, errors = [], []
    for step in range(5):
        give_gradients(params)
        if step == 3:
            # Memory that would become that of another tensor shows whether it is still written to.
            before = [x.data for x in (*params, *(state["exp_avg"] for state in optimizer.state.values()))]
            change(optimizer, params)
        if forgets:
            optimizer._known_groups, optimizer._fused = KnownGroups(), None
        try:
            optimizer.step()
        except (ConfigError, RuntimeError) as error:
            errors.append(str(error))
    return [*before, *params, *(optimizer.state[param] for param in params)], errors


SLOW = ("masters", "lookahead", "parameter of another dtype", "state of another dtype")


@pytest.mark.parametrize("change", every([*CHANGES, *OTHERS], fast=[x for x in (*CHANGES, *OTHERS) if x not in SLOW]))
def test_what_changes_is_noticed(change):
    dtype, function = OTHERS.get(change) or (torch.float32, CHANGES[change])
    (known, errors), (fresh, expected) = (run(dtype, function, forgets=forgets) for forgets in (False, True))
    assert errors == expected
    torch.testing.assert_close(known, fresh, rtol=0, atol=0)


class Moves(optim.SGD):
    """A user's, whose scope changes what is stepped."""

    @contextmanager
    def step_scope(self, groups):
        for group in groups:
            for param in group["params"]:
                param.data = param.data.clone()
        yield


def test_what_changes_in_the_scope_of_a_step_is_noticed():
    params = new_params()
    optimizer = Moves(params, lr=1.0, fused=True)
    held = []
    for _ in range(3):
        for param in params:
            param.grad = torch.ones(4, 4)
        held += [param.data for param in params]
        optimizer.step()
    assert all(torch.equal(param, before - 1 - 1 - 1) for param, before in zip(params, held[:3], strict=True))


class Masked(optim.AdaptiveOptimizer):
    """Its state holds a tensor without an address."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    def init_state(self, state, group, param):
        state["mask"] = torch.eye(4).to_sparse()

    def step_param(self, state, group, grad, param):
        param.sub_(grad * state["mask"].to_dense())


def test_nothing_is_known_about_tensors_without_an_address():
    param = torch.nn.Parameter(torch.zeros(4, 4))
    optimizer = Masked([param], lr=1.0)
    for _ in range(3):
        param.grad = torch.ones(4, 4)
        optimizer.step()
    assert torch.equal(param, -3 * torch.eye(4))
