"""Rules that a user writes: with hooks, declared, or as a subclass of a member."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn

from lightning_optim import ConfigError, optim
from lightning_optim.core.hyperparameters import Number
from tests.support.example_rules import BOTH_FORMS, DeclaredMomentum, Momentum
from tests.support.messages import check_message
from tests.support.optimizer_runs import (
    differences,
    new_grads,
    new_params,
    resuming,
    set_grads,
    trajectory,
)
from tests.support.save_and_load import save_and_load


@pytest.mark.parametrize("maximize", [False, True], ids=["descend", "ascend"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("cls", BOTH_FORMS)
def test_hooks_and_declared_form_are_torchs_sgd(cls, dtype, maximize):
    given = {"dtype": dtype, "lr": 0.01, "momentum": 0.9, "weight_decay": 0.1, "maximize": maximize}
    assert differences(trajectory(cls, **given), trajectory(torch.optim.SGD, foreach=False, **given)) == []


@pytest.mark.parametrize("mode", ["l2", "l1", "decoupled", "absolute", "relative", "corrected"])
def test_hooks_take_every_decay_mode(mode):
    given = {"lr": 0.01, "weight_decay": 0.1, "weight_decay_mode": mode}
    assert differences(trajectory(Momentum, **given), trajectory(DeclaredMomentum, **given)) == []


@pytest.mark.parametrize("mode", ["decoupled", "absolute", "relative", "corrected"])
def test_hooks_take_cautious_decay(mode):
    given = {"dtype": torch.float64, "lr": 0.01, "weight_decay": 0.1, "weight_decay_mode": mode, "cautious_decay": True}
    hooked, declared = trajectory(Momentum, **given), trajectory(DeclaredMomentum, **given)
    # Its step is known as a difference only, which rounds.
    for some, others in zip(hooked, declared, strict=True):
        torch.testing.assert_close(some, others, rtol=1e-12, atol=1e-12)
    assert differences(hooked, trajectory(Momentum, **{**given, "cautious_decay": False})) != []


@pytest.mark.parametrize("cls", BOTH_FORMS)
def test_both_forms_resume_copy_and_pickle(cls):
    assert differences(trajectory(cls, before_step=resuming(cls)), trajectory(cls)) == []
    params = new_params()
    optimizer = cls(params)
    set_grads(params, new_grads()[0])
    optimizer.step()
    for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert type(copied) is cls
        for mine, theirs in zip(optimizer.state.values(), copied.state.values(), strict=True):
            assert torch.equal(mine["momentum_buffer"], theirs["momentum_buffer"])


def test_a_hook_gets_the_lr_as_a_number():
    seen = []

    class Recorder(Momentum):
        def step_param(self, state, group, grad, param):
            seen.append((type(group["lr"]), state["step"].item()))

    param = nn.Parameter(torch.ones(1))
    param.grad = torch.ones(1)
    Recorder([param], lr=torch.tensor(0.5)).step()
    assert seen == [(float, 1.0)]


class Counting(Momentum):
    """Counts its steps itself, as torch's optimizers used to."""

    def init_state(self, state, group, param):
        state["step"] = 0
        state["first"] = torch.zeros_like(param)

    def step_param(self, state, group, grad, param):
        state["step"] += 1
        state["first"].lerp_(grad, 0.1)
        param.add_(state["first"], alpha=-group["lr"] / (1 - 0.9 ** state["step"]))


def test_a_hook_may_count_its_steps_itself():
    class Counted(Counting):
        def init_state(self, state, group, param):
            state["first"] = torch.zeros_like(param)

        def step_param(self, state, group, grad, param):
            state["first"].lerp_(grad, 0.1)
            param.add_(state["first"], alpha=-group["lr"] / (1 - 0.9 ** state["step"].item()))

    expected = trajectory(Counted)
    assert differences(trajectory(Counting), expected) == []
    assert differences(trajectory(Counting, before_step=resuming(Counting)), expected) == []


def test_changing_the_base_class_step_count_is_refused():
    class Twice(Counting):
        def init_state(self, state, group, param):
            state["first"] = torch.zeros_like(param)

    class OfItsOwn(Counting):
        def init_state(self, state, group, param):
            state["step"] = torch.zeros(())

    class DeclaredAndCounting(DeclaredMomentum):
        def init_state(self, state, group, param):
            super().init_state(state, group, param)
            state["step"] = 0

    for cls in (Twice, OfItsOwn, DeclaredAndCounting):
        params = new_params()
        optimizer = cls(params)
        set_grads(params, new_grads()[1])
        with pytest.raises(ConfigError, match=rf"^{cls.__name__}\.(init_state|step_param): .*the base class counts"):
            optimizer.step()


@pytest.mark.parametrize("key", ["master", "slow", "skipped"])
def test_a_hook_may_not_use_the_state_keys_of_modifiers(key):
    class Own(optim.AdaptiveOptimizer):
        def __init__(self, params, lr=0.01, **options):
            super().__init__(params, {"lr": lr}, **options)

        def init_state(self, state, group, param):
            state[key] = torch.zeros_like(param)

        def step_param(self, state, group, grad, param):
            param.sub_(grad)

    params = new_params()
    optimizer = Own(params)
    set_grads(params, new_grads()[0])
    with pytest.raises(
        ConfigError, match=rf"Own\.init_state: state\['{key}'\] is reserved for a modifier. Use another key"
    ):
        optimizer.step()


def test_state_of_hooks_keeps_the_dtype_it_was_saved_in():
    class FloatState(optim.AdaptiveOptimizer):
        def __init__(self, params, lr=0.01, **options):
            super().__init__(params, {"lr": lr}, **options)

        def init_state(self, state, group, param):
            state["m"] = torch.zeros_like(param, dtype=torch.float32)

        def step_param(self, state, group, grad, param):
            param.sub_(state["m"].lerp_(grad.float(), 0.1).to(param.dtype), alpha=group["lr"])

    given = {"dtype": torch.bfloat16, "lr": 0.01}

    def check_dtypes_after_resuming(step, optimizer):
        resumed = resuming(FloatState)(step, optimizer)
        assert {state["m"].dtype for state in resumed.state.values()} <= {torch.float32}
        return resumed

    resumed = trajectory(FloatState, before_step=check_dtypes_after_resuming, **given)
    assert differences(resumed, trajectory(FloatState, **given)) == []


def test_complex_parameters_are_refused_with_hooks():
    param = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    param.grad = torch.ones_like(param)
    with pytest.raises(ConfigError) as caught:
        Momentum([("phase", param)]).step()
    check_message(caught, "phase", "complex", "Momentum.step_param")


def test_an_optimizer_without_a_rule_is_refused_at_the_first_step():
    class Nothing(optim.AdaptiveOptimizer):
        pass

    param = nn.Parameter(torch.ones(1))
    param.grad = torch.ones(1)
    with pytest.raises(NotImplementedError, match="Nothing has neither step_param nor coefficients and update"):
        Nothing([param], {"lr": 0.1}).step()


# Declared dtypes


class Wide(optim.AdaptiveOptimizer):
    """Momentum with its buffer in float32, whatever the parameter is."""

    def __init__(self, params, lr=0.01, **options):
        super().__init__(params, {"lr": lr}, **options)

    def buffers(self, group):
        return {"sluggish": torch.float32}

    def coefficients(self, t, group):
        return {"size": group["lr"]}

    @staticmethod
    def update(p, g, m, *, size):
        return optim.Update(m.mul_(0.999).add_(g, alpha=0.001), size)


@pytest.mark.parametrize("foreach", [False, True], ids=["loop", "foreach"])
def test_a_buffer_keeps_its_declared_dtype_in_the_rule_and_through_a_file(foreach):
    given = {"dtype": torch.bfloat16, "lr": 1.0, "weight_decay": 0.1, "foreach": foreach}
    weights = trajectory(Wide, **given)
    assert {weight.dtype for weight in weights[-1]} == {torch.bfloat16}

    def check_dtypes_after_resuming(step, optimizer):
        resumed = resuming(Wide, foreach=foreach)(step, optimizer)
        assert {state["sluggish"].dtype for state in resumed.state.values()} <= {torch.float32}
        return resumed

    assert differences(trajectory(Wide, before_step=check_dtypes_after_resuming, **given), weights) == []
    # A bfloat16 buffer could not add a thousandth of a gradient to its value.
    param = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    optimizer = Wide([param], lr=0.0, foreach=foreach)
    for _ in range(3):
        param.grad = torch.ones(1, dtype=torch.bfloat16)
        optimizer.step()
    assert optimizer.state[param]["sluggish"].item() == pytest.approx(0.001 * (1 + 0.999 + 0.999**2), rel=1e-6)


def test_hooks_after_a_load_see_the_declared_dtypes():
    params = new_params(torch.bfloat16)
    optimizer, seen = Wide(params), []
    set_grads(params, new_grads(torch.bfloat16)[1])
    optimizer.step()
    optimizer.register_load_state_dict_post_hook(lambda o: seen.extend(s["sluggish"].dtype for s in o.state.values()))
    optimizer.load_state_dict(save_and_load(optimizer.state_dict()))
    assert set(seen) == {torch.float32}


def test_the_rule_gets_the_gradient_in_the_common_dtype_of_the_buffers():
    class Mixed(Wide):
        def buffers(self, group):
            return {"sluggish": torch.float32, "slower": torch.float64, "plain": None}

        @staticmethod
        def update(p, g, slow, slower, plain, *, size):
            assert (g.dtype, plain.dtype) == (torch.float64, torch.bfloat16)
            return optim.Update(slower.add_(g), size)

    params = new_params(torch.bfloat16)
    optimizer = Mixed(params)
    set_grads(params, new_grads(torch.bfloat16)[0])
    optimizer.step()
    assert {key: value.dtype for key, value in optimizer.state[params[0]].items()} == {
        "step": torch.float32,
        "sluggish": torch.float32,
        "slower": torch.float64,
        "plain": torch.bfloat16,
    }


# Subclasses of members


def test_a_subclass_of_a_member_may_change_the_gradient_before_the_rule():
    class Clipped(optim.NAdam):
        def step_param(self, state, group, grad, param):
            super().step_param(state, group, grad.clamp(-0.5, 0.5), param)

    params, clipped = new_params(), new_params()
    given = {"weight_decay": 0.1, "weight_decay_mode": "decoupled"}
    ours, theirs = Clipped(clipped, **given), optim.NAdam(params, **given)
    for grads in new_grads(num_steps=5):
        set_grads(clipped, grads)
        set_grads(params, [grad if grad is None else grad.clamp(-0.5, 0.5) for grad in grads])
        ours.step()
        theirs.step()
    assert all(torch.equal(a, b) for a, b in zip(params, clipped, strict=True))
    states = zip(ours.state.values(), theirs.state.values(), strict=True)
    assert all(mine["mu_product"] == other["mu_product"] for mine, other in states)


def test_a_subclass_of_a_member_keeps_its_own_signature():
    class Fixed(optim.Adam):
        def __init__(self, params, lr=0.5):
            super().__init__(params, lr, betas=(0.5, 0.5))

    assert list(inspect.signature(Fixed).parameters) == ["params", "lr"]
    assert Fixed(new_params()).defaults["betas"] == (0.5, 0.5)
    signature = inspect.signature(optim.Adam)
    assert signature.parameters["amsgrad"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert signature.parameters["maximize"].kind is inspect.Parameter.KEYWORD_ONLY


def test_a_subclass_of_a_member_may_add_a_hyperparameter():
    class Scaled(optim.Lion):
        """Lion with a factor of its own."""

        hyperparameters = {**optim.Lion.hyperparameters, "scale": Number(default=2.0, low=0)}

        def coefficients(self, t, group):
            numbers = super().coefficients(t, group)
            return {**numbers, "size": numbers["size"] * group["scale"]}

    params, others = new_params(), new_params()
    optimizer = Scaled([{"params": params[:2]}, {"params": params[2:], "scale": 0.5}], lr=0.01, weight_decay_mode="l1")
    expected = optim.Lion([{"params": others[:2], "lr": 0.02}, {"params": others[2:], "lr": 0.005}])
    for some, each in ((params, optimizer), (others, expected)):
        set_grads(some, new_grads()[1])
        each.step()
    assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True))
    for wrong in ({"scale": -1.0}, {"scael": 1.0}):
        with pytest.raises(ConfigError, match=r"^scale: |Did you mean 'scale'"):
            Scaled(params, **wrong)
