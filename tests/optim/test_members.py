"""What holds for every member of the family: a row in the catalog is enough to be covered here.

The slow tests check every member and option. Of what can go wrong in a member's own lines, the fast ones check a member
of each kind, and of what the base class does for all, a few representatives; each member's equations have fast tests in
`test_oracles*.py`.
"""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_optim import ConfigError, WeightDecay, optim, optimizer_info
from lightning_optim.catalog.decay import PARAMETER_MODES
from lightning_optim.catalog.registration import describe_class
from tests.support.cases import every
from tests.support.messages import check_message
from tests.support.optimizer_runs import (
    JOINS_AT,
    KINDS,
    LATE,
    MATRIX_MEMBERS,
    MEMBERS,
    MEMBERS_WITH_TWO_GRADIENTS,
    SHAPES,
    TRACED_MEMBERS,
    differences,
    native_class,
    new_grads,
    new_params,
    resuming,
    set_grads,
    settings_of,
    shapes_of,
    trajectory,
)
from tests.support.save_and_load import save_and_load

# One buffer; a scalar in the state and two updates; sums over all parameters; two gradients a step; norms and `update`.
REPRESENTATIVES = ("lion", "nadam", "prodigy", "storm", "lamb")
each_member = pytest.mark.parametrize("name", MEMBERS)
TRACED_KINDS = [name for name in KINDS if name in TRACED_MEMBERS]
each_kind_first = pytest.mark.parametrize("name", every(MEMBERS, fast=REPRESENTATIVES))
representatives_first = pytest.mark.parametrize("name", every(KINDS, fast=REPRESENTATIVES))

# Prodigy's default d0 makes steps too small to see, and its square underflows in float16.
LARGE_ENOUGH: dict[str, dict[str, Any]] = {"prodigy": {"d0": 0.1}}
DECAYED = {"lr": 0.01, "weight_decay": 0.1}


@cache
def loop_trajectory(name: str, setting: int, *, resume: bool = False) -> list[list[Tensor]]:
    """The parameters after each step of one of a member's settings, tensor by tensor."""
    options = {**DECAYED, **settings_of(name)[setting]}
    extra = {"before_step": resuming(native_class(name), **options)} if resume else {}
    return trajectory(native_class(name), foreach=False, **options, **extra)


def trained(name: str, num_steps: int = 3, *, dtype: torch.dtype = torch.float32, **options: Any):
    """Named parameters and their optimizer after some steps."""
    params = new_params(dtype, shapes_of(name))
    optimizer = native_class(name)([(f"layer.{i}", param) for i, param in enumerate(params)], **options)
    for grads in new_grads(dtype, shapes_of(name), num_steps=num_steps):
        set_grads(params, grads)
        optimizer.step()
    return params, optimizer


def tensors_of(optimizer: Optimizer) -> list[list[Tensor]]:
    """Copies of every parameter and of every tensor or number in its state."""
    return [
        [torch.as_tensor(value).detach().clone() for value in (param, *optimizer.state[param].values())]
        for group in optimizer.param_groups
        for param in group["params"]
    ]


# One rule, two executions


@each_kind_first
def test_foreach_is_the_loop_bit_by_bit(name):
    for setting, options in enumerate(settings_of(name)):
        lists = trajectory(native_class(name), foreach=True, **DECAYED, **options)
        assert differences(lists, loop_trajectory(name, setting)) == [], options


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_foreach_is_the_loop_in_each_dtype_with_maximize(name):
    for options, dtype in product(settings_of(name), [torch.float32, torch.float64, torch.bfloat16]):
        given = {"dtype": dtype, "lr": 0.01, "maximize": True, **options}
        loop, lists = (trajectory(native_class(name), foreach=foreach, **given) for foreach in (False, True))
        assert differences(lists, loop) == [], (options, dtype)


@representatives_first
def test_foreach_is_the_loop_with_each_decay_and_each_has_an_effect(name):
    given = {**DECAYED, **LARGE_ENOUGH.get(name, {})}
    without_decay = trajectory(native_class(name), **{**given, "weight_decay": 0.0})
    for mode in optimizer_info(name).decay_modes:
        for cautious in (False, True) if mode in PARAMETER_MODES else (False,):
            policy = {"weight_decay_mode": mode, "cautious_decay": cautious}
            loop, lists = (trajectory(native_class(name), foreach=f, **given, **policy) for f in (False, True))
            assert differences(lists, loop) == [], policy
            assert differences(loop, without_decay) != [], policy


@pytest.mark.parametrize("name", every(TRACED_KINDS, fast=REPRESENTATIVES))
def test_complex_parameters_are_pairs_of_real_ones(name):
    torch.manual_seed(0)
    value, grads = torch.randn(4, 3, dtype=torch.complex64), torch.randn(8, 4, 3, dtype=torch.complex64)
    for options in settings_of(name):
        for foreach in (False, True):
            params = [nn.Parameter(value.clone()), nn.Parameter(torch.view_as_real(value).clone())]
            optimizers = [native_class(name)([p], **DECAYED, foreach=foreach, **options) for p in params]
            for grad in grads:
                params[0].grad, params[1].grad = grad.clone(), torch.view_as_real(grad).clone()
                for optimizer in optimizers:
                    optimizer.step()
            assert torch.equal(torch.view_as_real(params[0].detach()), params[1]), (options, foreach)
            assert not torch.equal(params[1], torch.view_as_real(value)), (options, foreach)
            assert all(
                v.is_complex() != (key in optimizer_info(name).reduced)
                for key, v in optimizers[0].state[params[0]].items()
                if key in optimizers[0].buffer_dtypes(optimizers[0].param_groups[0])
            ), (options, foreach)


# State


@representatives_first
def test_buffers_keep_their_dtype_and_bits_through_a_file(name):
    dtypes = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
    for options, dtype in product(settings_of(name), dtypes):
        given = options | LARGE_ENOUGH.get(name, {})
        if dtype == torch.float16 and "eps" in optimizer_info(name).hyperparameters:
            given["eps"] = 1e-3  # the default of most is 0 in float16
        _, optimizer = trained(name, dtype=dtype, **given)
        _, other = trained(name, 1, dtype=dtype, **given)
        other.load_state_dict(save_and_load(optimizer.state_dict()))
        for state, loaded in zip(optimizer.state.values(), other.state.values(), strict=True):
            assert list(state) == list(loaded)
            for key, value in state.items():
                assert type(value) is type(loaded[key])
                if isinstance(value, Tensor):
                    assert value.dtype == loaded[key].dtype == (torch.float32 if key == "step" else dtype), key
                    assert torch.equal(value, loaded[key]), key
        assert optimizer.state_dict()["param_groups"] == other.state_dict()["param_groups"]


@each_kind_first
def test_a_run_resumed_from_its_checkpoint_is_the_uninterrupted_run(name):
    for setting, options in enumerate(settings_of(name)):
        resumed = loop_trajectory(name, setting, resume=True)
        assert differences(resumed, loop_trajectory(name, setting)) == [], options


@representatives_first
def test_a_copy_trains_like_the_original(name):
    ways = [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))]
    for options, copied in product(settings_of(name), ways):
        params, optimizer = trained(name, weight_decay=0.1, **options)
        copied_params, copied_optimizer = copied((params, optimizer))
        for grads in new_grads(shapes=shapes_of(name), num_steps=3):
            for p, o in ((params, optimizer), (copied_params, copied_optimizer)):
                set_grads(p, grads)
                o.step()
        assert type(copied_optimizer) is type(optimizer)
        assert differences(tensors_of(optimizer), tensors_of(copied_optimizer)) == [], options


@each_member
def test_buffers_and_their_bytes_are_those_of_the_catalog(name):
    info = optimizer_info(name)
    for options in settings_of(name):
        params, optimizer = trained(name, **options)
        expected = info.active_buffers({**info.defaults, **options})
        for param in params:
            state = optimizer.state[param]
            tensors = {key: value for key, value in state.items() if key != "step" and isinstance(value, Tensor)}
            assert list(tensors) == expected == list(optimizer.buffer_dtypes(optimizer.param_groups[0]))
            if name in MATRIX_MEMBERS:  # whose other buffers have the size of rows or sides
                continue
            num_bytes = sum(tensor.nbytes for key, tensor in tensors.items() if key not in info.reduced)
            assert num_bytes == info.state_bytes({**info.defaults, **options}) * param.numel()
            assert all(tensors[key].numel() <= max(param.shape[:1], default=1) for key in info.reduced)


def test_a_registered_subclass_has_the_decay_modes_of_its_member():
    """A subclass of LAMB refused `update`, its own default, in a config."""
    for name in MEMBERS:
        info = describe_class("mine", type("Mine", (native_class(name),), {}))
        assert info.decay_modes == optimizer_info(name).decay_modes, name
        assert info.decay in info.decay_modes, name


# Gradients


def check_gradients_are_never_written(name: str, **options: Any) -> None:
    params = new_params(shapes=shapes_of(name))
    optimizer = native_class(name)(params, **DECAYED, **options)
    for grads in new_grads(shapes=shapes_of(name), num_steps=4):
        set_grads(params, grads)
        given = [param.grad for param in params]
        optimizer.step()
        for param, grad, before in zip(params, given, grads, strict=True):
            assert param.grad is grad, options
            assert grad is None or torch.equal(grad, before), options
    stored = [value for state in optimizer.state.values() for value in state.values()]
    assert not {id(value) for value in stored} & {id(grad) for grad in given}, "the state holds a gradient itself"


@representatives_first
def test_gradients_are_never_written(name):
    for foreach in (False, True):
        check_gradients_are_never_written(name, foreach=foreach)


@representatives_first
def test_gradients_are_never_written_with_any_decay(name):
    for mode, foreach, maximize in product(optimizer_info(name).decay_modes, (False, True), (False, True)):
        check_gradients_are_never_written(name, weight_decay_mode=mode, foreach=foreach, maximize=maximize)


@representatives_first
def test_without_a_gradient_parameter_and_state_do_not_change(name):
    for options in settings_of(name):
        # After an even number of gradients: between two gradients, a parameter without the second one is reset.
        params, optimizer = trained(name, 4, weight_decay=0.1, **options)
        fresh = nn.Parameter(torch.ones(2, 1))
        optimizer.add_param_group({"params": [("fresh", fresh)]})
        before = tensors_of(optimizer)
        set_grads(params, [None] * len(params))
        optimizer.step()
        assert differences(tensors_of(optimizer), before) == [], options
        set_grads(params, new_grads(shapes=shapes_of(name))[0])
        params[2].grad = None
        optimizer.step()
        after = tensors_of(optimizer)
        assert differences(after[2:3], before[2:3]) == [], options
        assert torch.equal(fresh, torch.ones(2, 1)), options
        assert differences(after[:1], before[:1]) != [], options


# Adai's mean is over all parameters.
@pytest.mark.parametrize("name", every([n for n in KINDS if n != "adai"], fast=REPRESENTATIVES))
def test_a_parameter_that_joins_late_starts_like_a_new_one(name):
    script = new_grads(shapes=shapes_of(name))
    if name in MEMBERS_WITH_TWO_GRADIENTS:  # which of a step's gradients it is depends on all parameters
        script = [[torch.ones(s) if g is None else g for g, s in zip(grads, SHAPES, strict=True)] for grads in script]
    for setting, options in enumerate(settings_of(name)):
        given = {**DECAYED, **options}
        if name in MEMBERS_WITH_TWO_GRADIENTS:
            weights = trajectory(native_class(name), script=script, **given)
        else:
            weights = loop_trajectory(name, setting)
        alone = new_params(shapes=shapes_of(name))[LATE]
        optimizer = native_class(name)([alone], **{**given, "lr": 0.02})
        for grads, expected in list(zip(script, weights, strict=True))[JOINS_AT:]:
            set_grads([alone], grads[LATE:])
            optimizer.step()
            assert torch.equal(alone, expected[LATE]), options


@representatives_first
def test_each_parameter_has_its_own_step_count(name):
    params, optimizer = trained(name, 9)
    counts = [sum(grads[i] is not None for grads in new_grads(num_steps=9)) for i in range(len(SHAPES))]
    assert [optimizer.state[param]["step"].item() for param in params] == counts
    assert len(set(counts)) > 1


@representatives_first
def test_sparse_gradients_are_refused_by_name_and_nothing_changes(name):
    params, optimizer = trained(name)
    before = tensors_of(optimizer)
    set_grads(params, new_grads(shapes=shapes_of(name))[0])
    params[1].grad = params[1].detach().to_sparse()
    with pytest.raises(ConfigError) as caught:
        optimizer.step()
    check_message(caught, "layer.1", "sparse", native_class(name).__name__, "sparse=False")
    assert differences(tensors_of(optimizer), before) == []
    unnamed = nn.Parameter(torch.ones(2, 1))
    unnamed.grad = torch.ones(2, 1).to_sparse()
    with pytest.raises(ConfigError, match=r"^param_groups\[1\]\['params'\]\[0\]: "):
        native_class(name)([{"params": [params[0]]}, {"params": [unnamed]}]).step()


@representatives_first
def test_a_closure_is_called_once_per_evaluation_with_gradients_enabled(name):
    param = nn.Parameter(torch.ones(1, 3))
    optimizer = native_class(name)([param], lr=0.1)
    losses = []

    def closure():
        optimizer.zero_grad()
        loss = (param * torch.tensor([1.0, 2.0, 3.0])).sum()
        loss.backward()
        losses.append(loss)
        return loss

    assert optimizer.step(closure) is losses[0]
    assert len(losses) == optimizer.evaluations == (2 if name in ("extra_adam", "extra_sgd", "storm") else 1)
    assert (param < 1).all() == (name != "adopt")  # its first gradient only initializes the state
    assert optimizer.step() is None


@representatives_first
def test_a_step_with_lr_0_and_zero_gradients_changes_no_parameter(name):
    # torch's distributed checkpoints take such a step with an optimizer that has no state.
    params = new_params(shapes=shapes_of(name))
    optimizer = native_class(name)(params, lr=0.1, weight_decay=0.1)
    before = [param.detach().clone() for param in params]
    set_grads(params, [torch.zeros_like(param) for param in params])
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(params, before, strict=True))


@representatives_first
def test_step_hooks_and_parameter_names_are_torchs(name):
    params, calls = new_params(shapes=shapes_of(name)), []
    optimizer = native_class(name)([(f"p{i}", param) for i, param in enumerate(params)])
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    set_grads(params, new_grads(shapes=shapes_of(name))[0])
    optimizer.step()
    assert calls == ["before", "after"]
    assert optimizer.param_groups[0]["param_names"] == [f"p{i}" for i in range(len(params))]
    assert isinstance(optimizer, Optimizer) and isinstance(optimizer, optim.AdaptiveOptimizer)


# Hyperparameters


@representatives_first
def test_a_tensor_lr_is_its_number(name):
    def halve_lr(step: int, optimizer: Optimizer) -> Optimizer:
        for group in optimizer.param_groups:
            if step in (4, 11):
                group["lr"] = group["lr"].mul_(0.5) if isinstance(group["lr"], Tensor) else group["lr"] * 0.5
        return optimizer

    for options in settings_of(name):
        given = {"weight_decay": 0.1, "before_step": halve_lr, **options}
        by_number, by_tensor = (
            trajectory(native_class(name), lr=lr, **given) for lr in (float(torch.tensor(0.01)), torch.tensor(0.01))
        )
        assert differences(by_tensor, by_number) == [], options


@representatives_first
def test_a_tensor_lr_stays_the_tensor_that_a_scheduler_writes_to(name):
    lr = torch.tensor([0.01])
    optimizer = native_class(name)(new_params(shapes=shapes_of(name)), lr=lr)
    assert optimizer.param_groups[0]["lr"] is lr
    assert type(optimizer.param_groups[0]["peak_lr"]) is float
    for wrong in (torch.tensor([0.1, 0.2]), torch.tensor(-0.1), torch.tensor(math.nan)):
        with pytest.raises(ConfigError, match=r"^lr: "):
            native_class(name)(new_params(shapes=shapes_of(name)), lr=wrong)


def wrong_values(name: str) -> Iterator[tuple[str, Any, str]]:
    """`(key, value, advice in the message)`."""
    info = optimizer_info(name)
    yield "weigth_decay", 0.1, "Did you mean 'weight_decay'?"
    yield "capturable", True, ""
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


@each_member
def test_wrong_hyperparameters_are_refused_at_the_top_and_in_a_group(name):
    cls, params = native_class(name), new_params(shapes=shapes_of(name))

    def message(make: Callable[[], Any]) -> str:
        with pytest.raises(ConfigError) as caught:
            make()
        return str(caught.value)

    optimizer = cls(params[:2])
    for key, value, advice in wrong_values(name):
        text = message(partial(cls, params, **{key: value}))
        assert text.startswith((f"{key}: ", f"{key}_mode: ", f"param_groups[0].{key}: ")), text
        assert advice in text
        for group, prefix in (({}, "param_groups[1]."), ({"name": "head"}, "head.")):
            wrong = {"params": params[2:], **group, key: value}
            text = message(partial(cls, [{"params": params[:2]}, wrong]))
            assert text.removeprefix(prefix).startswith((f"{key}: ", f"{key}_mode: ")), text
        message(partial(optimizer.add_param_group, {"params": params[2:], key: value}))
        assert len(optimizer.param_groups) == 1


def test_positional_arguments_are_those_of_the_signature():
    for name in MEMBERS:
        cls, params = native_class(name), new_params(shapes=shapes_of(name))
        assert next(iter(optimizer_info(name).signature(own=True))) == "lr"
        assert cls(params, 0.25).defaults["lr"] == 0.25
        with pytest.raises(TypeError, match=rf"{cls.__name__}\(params, lr: float = "):
            cls(params, 0.25, lr=0.25)
        with pytest.raises(TypeError, match="too many"):
            cls(params, *[0.25] * 20)


def test_the_callers_group_dicts_are_not_changed():
    for name in MEMBERS:
        group = {"params": new_params(shapes=shapes_of(name)), "lr": 0.25}
        given = list(group["params"])
        optimizer = native_class(name)([group])
        assert list(group) == ["params", "lr"] and group["params"] is not optimizer.param_groups[0]["params"]
        assert optimizer.param_groups[0]["params"] == given
        assert optimizer.param_groups[0]["peak_lr"] == 0.25
