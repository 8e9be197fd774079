"""What holds for every member of the family: one row in the registry buys all of these tests."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from lightning_optim import ConfigError, WeightDecay, optim, optimizer_info
from lightning_optim.catalog.decay import TO_PARAMETER
from lightning_optim.catalog.registration import describe_class
from tests.support.messages import check_message
from tests.support.optimizer_runs import (
    JOINS_AT,
    LATE,
    MEMBERS,
    SETTINGS,
    SHAPES,
    class_of,
    differences,
    drive,
    new_grads,
    new_params,
    set_grads,
    setting_id,
    through_a_file,
)

MODES = [(name, mode) for name in MEMBERS for mode in optimizer_info(name).decay_modes]
DECAYS = [(*pair, False) for pair in MODES] + [(*pair, True) for pair in MODES if pair[1] in TO_PARAMETER]


# Prodigy's first d makes steps that one does not see, and squares that float16 does not hold.
LARGE_ENOUGH = {"prodigy": {"d0": 0.1}}


def started(name, num_steps=3, *, dtype=torch.float32, shapes=SHAPES, **given):
    """Parameters and their optimizer after some steps, with names."""
    params = new_params(dtype, shapes)
    named = [(f"layer.{i}", param) for i, param in enumerate(params)]
    optimizer = class_of(name)(named, **given)
    for grads in new_grads(dtype, shapes, num_steps=num_steps):
        set_grads(params, grads)
        optimizer.step()
    return params, optimizer


def tensors_of(optimizer):
    """Every parameter and every tensor or number of its state, copied."""
    return [
        [torch.as_tensor(value).detach().clone() for value in (param, *optimizer.state[param].values())]
        for group in optimizer.param_groups
        for param in group["params"]
    ]


# One rule, two executions


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("name", "given"), SETTINGS, ids=setting_id)
def test_foreach_is_the_loop_bit_by_bit(name, given, dtype):
    given = {"dtype": dtype, "lr": 0.01, "maximize": True, **given}
    assert (
        differences(drive(class_of(name), foreach=True, **given), drive(class_of(name), foreach=False, **given)) == []
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("name", "mode", "cautious"), DECAYS)
def test_foreach_is_the_loop_under_every_decay(name, mode, cautious, dtype):
    given = {"dtype": dtype, "lr": 0.01, "weight_decay": 0.1, "weight_decay_mode": mode, "cautious_decay": cautious}
    given |= LARGE_ENOUGH.get(name, {})
    loop = drive(class_of(name), foreach=False, **given)
    assert differences(drive(class_of(name), foreach=True, **given), loop) == []
    without = drive(class_of(name), foreach=False, **{**given, "weight_decay": 0.0})
    assert differences(loop, without) != [], "the decay has no effect"


@pytest.mark.parametrize(("name", "given"), SETTINGS, ids=setting_id)
def test_complex_numbers_are_pairs_of_real_ones(name, given):
    torch.manual_seed(0)
    value, grads = torch.randn(4, 3, dtype=torch.complex64), torch.randn(8, 4, 3, dtype=torch.complex64)
    of_pairs = nn.Parameter(torch.view_as_real(value).clone())
    for foreach in (False, True):
        params = [nn.Parameter(value.clone()), nn.Parameter(torch.view_as_real(value).clone())]
        optimizers = [class_of(name)([p], lr=0.01, weight_decay=0.1, foreach=foreach, **given) for p in params]
        for grad in grads:
            params[0].grad, params[1].grad = grad.clone(), torch.view_as_real(grad).clone()
            for optimizer in optimizers:
                optimizer.step()
        assert torch.equal(torch.view_as_real(params[0].detach()), params[1])
        assert not torch.equal(params[1], of_pairs)
        assert all(
            v.is_complex() != (key in optimizer_info(name).reduced)
            for key, v in optimizers[0].state[params[0]].items()
            if key in optimizers[0].dtypes(optimizers[0].param_groups[0])
        )


# State


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("name", "given"), SETTINGS, ids=setting_id)
def test_buffers_keep_their_dtype_and_bits_through_a_file(name, given, dtype):
    given = given | LARGE_ENOUGH.get(name, {})
    _, optimizer = started(name, dtype=dtype, **given)
    _, other = started(name, 1, dtype=dtype, **given)
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    for mine, theirs in zip(optimizer.state.values(), other.state.values(), strict=True):
        assert list(mine) == list(theirs)
        for key, value in mine.items():
            assert type(value) is type(theirs[key])
            if isinstance(value, torch.Tensor):
                assert value.dtype == theirs[key].dtype == (torch.float32 if key == "step" else dtype)
                assert torch.equal(value, theirs[key])
    assert optimizer.state_dict()["param_groups"] == other.state_dict()["param_groups"]


def resumed(cls, **given):
    """Swaps in a new optimizer from a file before steps 16 and 33, with other hyperparameters than the file's."""

    def each(step, optimizer):
        if step not in (16, 33):
            return optimizer
        groups = [{"params": group["params"], "lr": 0.5, "weight_decay": 0.3} for group in optimizer.param_groups]
        other = cls(groups, **given)
        other.load_state_dict(through_a_file(optimizer.state_dict()))
        return other

    return each


@pytest.mark.parametrize(("name", "given"), SETTINGS, ids=setting_id)
def test_a_run_goes_on_from_its_checkpoint_bit_by_bit(name, given):
    given = {"lr": 0.01, "weight_decay": 0.1, **given}
    whole = drive(class_of(name), **given)
    assert differences(drive(class_of(name), each=resumed(class_of(name), **given), **given), whole) == []


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["deepcopy", "pickle"]
)
@pytest.mark.parametrize(("name", "given"), SETTINGS, ids=setting_id)
def test_a_copy_goes_on_like_the_original(name, given, copied):
    params, optimizer = started(name, weight_decay=0.1, **given)
    params_too, optimizer_too = copied((params, optimizer))
    for grads in new_grads(num_steps=3):
        for some, one in ((params, optimizer), (params_too, optimizer_too)):
            set_grads(some, grads)
            one.step()
    assert type(optimizer_too) is type(optimizer)
    assert differences(tensors_of(optimizer), tensors_of(optimizer_too)) == []


@pytest.mark.parametrize(("name", "given"), SETTINGS, ids=setting_id)
def test_buffers_are_those_of_the_registry_and_of_its_bytes(name, given):
    params, optimizer = started(name, **given)
    info = optimizer_info(name)
    held = info.buffers_under({**info.defaults, **given})
    for param in params:
        tensors = {key: v for key, v in optimizer.state[param].items() if key != "step" and isinstance(v, torch.Tensor)}
        assert list(tensors) == held == list(optimizer.dtypes(optimizer.param_groups[0]))
        assert (
            sum(tensor.nbytes for key, tensor in tensors.items() if key not in info.reduced)
            == info.state_bytes({**info.defaults, **given}) * param.numel()
        )
        assert all(tensors[key].numel() <= max(param.shape[:1], default=1) for key in info.reduced)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_registered_subclass_has_every_decay_of_its_member(name):
    """A subclass of LAMB refused `update`, its own default, in a config."""
    info = describe_class("mine", type("Mine", (class_of(name),), {}))
    assert info.decay_modes == optimizer_info(name).decay_modes
    assert info.decay in info.decay_modes


# Gradients


@pytest.mark.parametrize("maximize", [False, True], ids=["descend", "ascend"])
@pytest.mark.parametrize("foreach", [False, True], ids=["loop", "foreach"])
@pytest.mark.parametrize(("name", "mode"), MODES)
def test_gradients_are_never_written(name, mode, foreach, maximize):
    params = new_params()
    given = {"weight_decay": 0.1, "weight_decay_mode": mode, "foreach": foreach, "maximize": maximize}
    optimizer = class_of(name)(params, lr=0.01, **given)
    for grads in new_grads(num_steps=4):
        set_grads(params, grads)
        held = [param.grad for param in params]
        optimizer.step()
        for param, grad, before in zip(params, held, grads, strict=True):
            assert param.grad is grad
            assert grad is None or torch.equal(grad, before)
    states = [value for state in optimizer.state.values() for value in state.values()]
    assert not {id(value) for value in states} & {id(grad) for grad in held}


@pytest.mark.parametrize(("name", "given"), SETTINGS, ids=setting_id)
def test_without_a_gradient_parameter_and_state_stay(name, given):
    # After whole steps: from between two gradients, a parameter without the second goes home.
    params, optimizer = started(name, 4, weight_decay=0.1, **given)
    fresh = nn.Parameter(torch.ones(2))
    optimizer.add_param_group({"params": [("fresh", fresh)]})
    before = tensors_of(optimizer)
    set_grads(params, [None] * len(params))
    optimizer.step()
    assert differences(tensors_of(optimizer), before) == []
    set_grads(params, new_grads()[0])
    params[2].grad = None
    optimizer.step()
    after = tensors_of(optimizer)
    assert differences(after[2:3], before[2:3]) == []
    assert torch.equal(fresh, torch.ones(2))
    assert differences(after[:1], before[:1]) != []


@pytest.mark.parametrize(("name", "given"), SETTINGS, ids=setting_id)
def test_a_parameter_that_joins_late_starts_as_if_new(name, given):
    if name == "adai":
        pytest.skip("its mean is over all parameters")
    given = {"lr": 0.01, "weight_decay": 0.1, **given}
    script = new_grads()
    if class_of(name).evaluations > 1:  # which of a step's gradients it is, all parameters say together
        script = [[torch.ones(s) if g is None else g for g, s in zip(grads, SHAPES, strict=True)] for grads in script]
    weights = drive(class_of(name), script=script, **given)
    alone = new_params()[LATE]
    optimizer = class_of(name)([alone], **{**given, "lr": 0.02})
    for grads, expected in list(zip(script, weights, strict=True))[JOINS_AT:]:
        set_grads([alone], grads[LATE:])
        optimizer.step()
        assert torch.equal(alone, expected[LATE])


@pytest.mark.parametrize("name", MEMBERS)
def test_each_parameter_has_a_step_count_of_its_own(name):
    params, optimizer = started(name, 9)
    counts = [sum(grads[i] is not None for grads in new_grads(num_steps=9)) for i in range(len(SHAPES))]
    assert [optimizer.state[param]["step"].item() for param in params] == counts
    assert len(set(counts)) > 1


@pytest.mark.parametrize("name", MEMBERS)
def test_sparse_gradients_are_refused_by_name_and_nothing_changes(name):
    params, optimizer = started(name)
    before = tensors_of(optimizer)
    set_grads(params, new_grads()[0])
    params[1].grad = params[1].detach().to_sparse()
    with pytest.raises(ConfigError) as caught:
        optimizer.step()
    check_message(caught, "layer.1", "sparse", class_of(name).__name__, "sparse=False")
    assert differences(tensors_of(optimizer), before) == []
    unnamed = nn.Parameter(torch.ones(2))
    unnamed.grad = torch.ones(2).to_sparse()
    with pytest.raises(ConfigError, match=r"^param_groups\[1\]\['params'\]\[0\]: "):
        class_of(name)([{"params": [params[0]]}, {"params": [unnamed]}]).step()


@pytest.mark.parametrize("name", MEMBERS)
def test_a_closure_is_evaluated_as_often_as_it_says_with_gradients(name):
    param = nn.Parameter(torch.ones(3))
    optimizer = class_of(name)([param], lr=0.1)
    seen = []

    def closure():
        optimizer.zero_grad()
        loss = (param * torch.tensor([1.0, 2.0, 3.0])).sum()
        loss.backward()
        seen.append(loss)
        return loss

    assert optimizer.step(closure) is seen[0]
    assert len(seen) == optimizer.evaluations == (2 if name in ("extra_adam", "extra_sgd", "storm") else 1)
    assert (param < 1).all() == (name != "adopt")  # whose first gradient is only kept
    assert optimizer.step() is None


# Hyperparameters


@pytest.mark.parametrize(("name", "given"), SETTINGS, ids=setting_id)
def test_a_tensor_lr_is_its_number(name, given):
    lr = torch.tensor(0.01)

    def halved(step, optimizer):
        for group in optimizer.param_groups:
            if step in (7, 30):
                group["lr"] = group["lr"].mul_(0.5) if isinstance(group["lr"], torch.Tensor) else group["lr"] * 0.5
        return optimizer

    by_number = drive(class_of(name), lr=float(lr), weight_decay=0.1, each=halved, **given)
    by_tensor = drive(class_of(name), lr=lr, weight_decay=0.1, each=halved, **given)
    assert differences(by_tensor, by_number) == []


@pytest.mark.parametrize("name", MEMBERS)
def test_a_tensor_lr_stays_the_tensor_that_a_scheduler_writes_to(name):
    lr = torch.tensor([0.01])
    optimizer = class_of(name)(new_params(), lr=lr)
    assert optimizer.param_groups[0]["lr"] is lr
    assert type(optimizer.param_groups[0]["peak_lr"]) is float
    for wrong in (torch.tensor([0.1, 0.2]), torch.tensor(-0.1), torch.tensor(math.nan)):
        with pytest.raises(ConfigError, match=r"^lr: "):
            class_of(name)(new_params(), lr=wrong)


def wrong_values(name):
    info = optimizer_info(name)
    yield "weigth_decay", 0.1, "Did you mean 'weight_decay'?"
    yield "capturable", True, ""
    yield "fused", True, "fused: null"
    for key, value in {
        "lr": -1e-3,
        "betas": (0.9, 1.0),
        "eps": -1e-8,
        "weight_decay": -0.1,
        "weight_decay_mode": "decoupeld",
        "cautious_decay": "yes",
        "momentum": -0.1,
        "final_lr": -0.1,
        "gamma": -0.1 if name == "mars" else 0.0,
        "rho": 1.5 if name == "adadelta" else -0.5,
        "alpha": math.inf,
        "lr_decay": "0.1",
        "momentum_decay": -1.0,
        "amsgrad": 1,
        "rectify": None,
        "initial_accumulator_value": -0.1,
        "nus": (0.5, 1.5),
        "partial": 0.6,
        "beta3": 1.0,
        "alpha_warmup": 0,
        "beta3_warmup": 2.5,
        "clip": 1,
    }.items():
        if key in info.signature(own=True):
            yield key, value, ""
    yield "weight_decay", torch.tensor(0.1), ""
    if "update" not in info.decay_modes:
        yield "weight_decay_mode", "update", ""
        yield "weight_decay", WeightDecay(0.1, "update"), ""


WRONG = [(name, *wrong) for name in MEMBERS for wrong in wrong_values(name)]


@pytest.mark.parametrize(("name", "key", "value", "advice"), WRONG, ids=lambda value: str(value)[:30])
def test_wrong_hyperparameters_are_refused_at_the_top_and_in_a_group(name, key, value, advice):
    cls, params = class_of(name), new_params()
    with pytest.raises(ConfigError) as caught:
        cls(params, **{key: value})
    assert str(caught.value).startswith((f"{key}: ", f"{key}_mode: ", f"param_groups[0].{key}: ")), caught.value
    assert advice in str(caught.value)
    for group, where in (({}, "param_groups[1]."), ({"name": "head"}, "head.")):
        with pytest.raises(ConfigError) as caught:
            cls([{"params": params[:2]}, {"params": params[2:], **group, key: value}])
        assert str(caught.value).removeprefix(where).startswith((f"{key}: ", f"{key}_mode: ")), caught.value
    optimizer = cls(params[:2])
    with pytest.raises(ConfigError):
        optimizer.add_param_group({"params": params[2:], key: value})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("name", MEMBERS)
def test_arguments_by_place_are_those_of_the_signature(name):
    info, params = optimizer_info(name), new_params()
    by_place = [key for key in ("lr", "betas", "eps") if key in info.hyperparameters]
    assert next(iter(info.signature(own=True))) == "lr"
    assert class_of(name)(params, 0.25).defaults["lr"] == 0.25
    with pytest.raises(TypeError, match=rf"{class_of(name).__name__}\(params, lr: float = "):
        class_of(name)(params, 0.25, lr=0.25)
    with pytest.raises(TypeError, match="too many"):
        class_of(name)(params, *[0.25] * 20)
    assert by_place


@pytest.mark.parametrize("name", MEMBERS)
def test_groups_are_not_taken_from_the_caller(name):
    group = {"params": new_params(), "lr": 0.25}
    held = list(group["params"])
    optimizer = class_of(name)([group])
    assert list(group) == ["params", "lr"] and group["params"] is not optimizer.param_groups[0]["params"]
    assert optimizer.param_groups[0]["params"] == held
    assert optimizer.param_groups[0]["peak_lr"] == 0.25


@pytest.mark.parametrize("name", MEMBERS)
def test_a_step_with_lr_0_and_no_gradient_signal_changes_nothing(name):
    # What torch's distributed checkpoints do to an optimizer without state.
    params = new_params()
    optimizer = class_of(name)(params, lr=0.1, weight_decay=0.1)
    before = [param.detach().clone() for param in params]
    set_grads(params, [torch.zeros_like(param) for param in params])
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(params, before, strict=True))


@pytest.mark.parametrize("name", MEMBERS)
def test_step_hooks_and_names_are_torch_s(name):
    params, calls = new_params(), []
    optimizer = class_of(name)([(f"p{i}", param) for i, param in enumerate(params)])
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    set_grads(params, new_grads()[0])
    optimizer.step()
    assert calls == ["before", "after"]
    assert optimizer.param_groups[0]["param_names"] == [f"p{i}" for i in range(len(params))]
    assert isinstance(optimizer, torch.optim.Optimizer) and isinstance(optimizer, optim.AdaptiveOptimizer)
