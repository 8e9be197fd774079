"""What AdaptiveOptimizer does around a rule that somebody else wrote."""

from __future__ import annotations

import copy
import inspect
import pickle

import numpy as np
import pytest
import torch
from lightning.pytorch.cli import LightningArgumentParser
from omegaconf import OmegaConf
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory, WeightDecay, optim
from lightning_optim.core.hyperparameters import Number
from tests.support.messages import check_message
from tests.support.optimizer_runs import (
    MEMBERS,
    class_of,
    differences,
    drive,
    new_grads,
    new_params,
    set_grads,
    through_a_file,
)


class Momentum(optim.AdaptiveOptimizer):
    """SGD with momentum, as `torch.optim.SGD` has it, by the two hooks."""

    def __init__(self, params, lr=0.01, momentum=0.9, weight_decay=0.0, **options):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}, **options)

    def init_state(self, state, group, param):
        state["momentum_buffer"] = torch.zeros_like(param)

    def step_param(self, state, group, grad, param):
        step = state["momentum_buffer"].mul_(group["momentum"]).add_(grad)
        param.add_(step, alpha=-group["lr"])


class Declared(Momentum):
    """The same, declared."""

    init_state = optim.AdaptiveOptimizer.init_state
    step_param = optim.AdaptiveOptimizer.step_param

    def buffers(self, group):
        return ("momentum_buffer",)

    def coefficients(self, t, group):
        return {"mu": group["momentum"], "size": group["lr"]}

    @staticmethod
    def update(p, g, m, *, mu, size):
        return optim.Update(m.mul_(mu).add_(g), size)


TORCH_AND_NATIVE = [Momentum, Declared]


@pytest.mark.parametrize("maximize", [False, True], ids=["descend", "ascend"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("cls", TORCH_AND_NATIVE)
def test_hooks_and_declared_form_are_torch_s_sgd(cls, dtype, maximize):
    given = {"dtype": dtype, "lr": 0.01, "momentum": 0.9, "weight_decay": 0.1, "maximize": maximize}
    assert differences(drive(cls, **given), drive(torch.optim.SGD, foreach=False, **given)) == []


@pytest.mark.parametrize("mode", ["l2", "l1", "decoupled", "absolute", "relative", "corrected"])
def test_a_hook_s_optimizer_takes_every_decay(mode):
    given = {"lr": 0.01, "weight_decay": 0.1, "weight_decay_mode": mode}
    assert differences(drive(Momentum, **given), drive(Declared, **given)) == []


@pytest.mark.parametrize("mode", ["decoupled", "absolute", "relative", "corrected"])
def test_a_hook_s_optimizer_takes_cautious_decay(mode):
    given = {"dtype": torch.float64, "lr": 0.01, "weight_decay": 0.1, "weight_decay_mode": mode, "cautious_decay": True}
    hooked, declared = drive(Momentum, **given), drive(Declared, **given)
    # Its step is known as a difference only, which rounds.
    for some, others in zip(hooked, declared, strict=True):
        torch.testing.assert_close(some, others, rtol=1e-12, atol=1e-12)
    assert differences(hooked, drive(Momentum, **{**given, "cautious_decay": False})) != []


@pytest.mark.parametrize("cls", TORCH_AND_NATIVE)
def test_it_resumes_copies_and_pickles(cls):
    def from_disk(optimizer):
        other = cls([{"params": group["params"]} for group in optimizer.param_groups], lr=0.01)
        other.load_state_dict(through_a_file(optimizer.state_dict()))
        return other

    def unchanged(step, optimizer):
        return from_disk(optimizer) if step in (16, 33) else optimizer

    assert differences(drive(cls, each=unchanged), drive(cls)) == []
    params = new_params()
    optimizer = cls(params)
    set_grads(params, new_grads()[0])
    optimizer.step()
    for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert type(copied) is cls
        for mine, theirs in zip(optimizer.state.values(), copied.state.values(), strict=True):
            assert torch.equal(mine["momentum_buffer"], theirs["momentum_buffer"])


def test_a_group_that_joins_after_a_load_is_like_the_others():
    params = new_params()
    optimizer = optim.Lion(params[:2])
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.add_param_group({"params": params[2:]})
    first, late = optimizer.param_groups
    assert first.keys() == late.keys()
    # ZeroRedundancyOptimizer hands on a flag of torch's that skips_nonfinite for nothing.
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "differentiable": False})
    assert optimizer.param_groups[-1].keys() == first.keys()
    with pytest.raises(ConfigError, match="differentiable"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "differentiable": True})


class Counting(Momentum):
    """Counts by itself, as one does elsewhere."""

    def init_state(self, state, group, param):
        state["step"] = 0
        state["first"] = torch.zeros_like(param)

    def step_param(self, state, group, grad, param):
        state["step"] += 1
        state["first"].lerp_(grad, 0.1)
        param.add_(state["first"], alpha=-group["lr"] / (1 - 0.9 ** state["step"]))


def test_a_hook_may_count_by_itself():
    def from_disk(step, optimizer):
        if step not in (16, 33):
            return optimizer
        other = Counting([{"params": group["params"]} for group in optimizer.param_groups], lr=0.01)
        other.load_state_dict(through_a_file(optimizer.state_dict()))
        return other

    class Counted(Counting):
        def init_state(self, state, group, param):
            state["first"] = torch.zeros_like(param)

        def step_param(self, state, group, grad, param):
            state["first"].lerp_(grad, 0.1)
            param.add_(state["first"], alpha=-group["lr"] / (1 - 0.9 ** state["step"].item()))

    whole = drive(Counted)
    assert differences(drive(Counting), whole) == []
    assert differences(drive(Counting, each=from_disk), whole) == []


def test_a_counter_that_counts_by_itself_is_left_alone():
    class Twice(Counting):
        def init_state(self, state, group, param):
            state["first"] = torch.zeros_like(param)

    class OfItsOwn(Counting):
        def init_state(self, state, group, param):
            state["step"] = torch.zeros(())

    class DeclaredAndCounting(Declared):
        def init_state(self, state, group, param):
            super().init_state(state, group, param)
            state["step"] = 0

    for cls in (Twice, OfItsOwn, DeclaredAndCounting):
        params = new_params()
        optimizer = cls(params)
        set_grads(params, new_grads()[1])
        with pytest.raises(ConfigError, match=rf"^{cls.__name__}\.(init_state|step_param): .*counts by itself"):
            optimizer.step()


def test_a_subclass_may_put_something_before_a_member_s_rule():
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


def test_a_subclass_of_a_member_has_a_signature_of_its_own():
    class Fixed(optim.Adam):
        def __init__(self, params, lr=0.5):
            super().__init__(params, lr, betas=(0.5, 0.5))

    assert list(inspect.signature(Fixed).parameters) == ["params", "lr"]
    assert Fixed(new_params()).defaults["betas"] == (0.5, 0.5)
    signature = inspect.signature(optim.Adam)
    assert signature.parameters["amsgrad"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert signature.parameters["maximize"].kind is inspect.Parameter.KEYWORD_ONLY


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
def test_a_declared_dtype_holds_in_the_rule_and_through_a_file(foreach):
    given = {"dtype": torch.bfloat16, "lr": 1.0, "weight_decay": 0.1, "foreach": foreach}
    weights = drive(Wide, **given)
    assert {weight.dtype for weight in weights[-1]} == {torch.bfloat16}

    def from_disk(step, optimizer):
        if step not in (16, 33):
            return optimizer
        groups = [{"params": group["params"]} for group in optimizer.param_groups]
        other = Wide(groups, lr=1.0, weight_decay=0.1, foreach=foreach)
        other.load_state_dict(through_a_file(optimizer.state_dict()))
        assert {state["sluggish"].dtype for state in other.state.values()} == {torch.float32}
        return other

    assert differences(drive(Wide, each=from_disk, **given), weights) == []
    # In bfloat16 the buffer could not hold a thousandth of a gradient beside the rest.
    param = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    optimizer = Wide([param], lr=0.0, foreach=foreach)
    for _ in range(3):
        param.grad = torch.ones(1, dtype=torch.bfloat16)
        optimizer.step()
    assert optimizer.state[param]["sluggish"].item() == pytest.approx(0.001 * (1 + 0.999 + 0.999**2), rel=1e-6)


def test_dtypes_of_buffers_have_a_common_one():
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


def test_buffers_are_laid_out_as_their_parameter():
    param = nn.Parameter(torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last))
    param.grad = torch.ones_like(param)
    optimizer = optim.Adam([param])
    optimizer.step()
    assert optimizer.state[param]["exp_avg"].stride() == param.stride()


@pytest.mark.parametrize(
    ("make", "key", "parts"),
    [
        (lambda: Momentum(new_params(), momentm=0.5), "momentm", ("Did you mean 'momentum'?",)),
        (lambda: Momentum(new_params(), foreach=True), "param_groups[0].foreach", ("foreach: null",)),
        (lambda: Momentum(new_params(), momentum=-1.0), "momentum", (">= 0",)),
        (lambda: Momentum(new_params(), lr=-1.0), "lr", (">= 0",)),
        (lambda: Momentum(new_params(), weight_decay_mode="update"), "weight_decay_mode", ("decoupled",)),
        (lambda: Momentum(new_params(), weight_decay_mod="l1"), "weight_decay_mod", ("'weight_decay_mode'",)),
        (lambda: Momentum(new_params(), fused=True), "param_groups[0].fused", ("fused: null",)),
        (
            lambda: Momentum([{"params": new_params(), "momentm": 0.5, "name": "head"}]),
            "head.momentm",
            ("Did you mean 'momentum'?",),
        ),
        (lambda: optim.Adam(new_params(), 0.1, capturable=True), "capturable", ("implementation: torch",)),
        (
            lambda: optim.Adam(new_params(), decoupled_weight_decay=True, weight_decay_mode="l1"),
            "decoupled_weight_decay",
            ("Remove decoupled_weight_decay",),
        ),
        (lambda: optim.AMSGrad(new_params(), amsgrad=False), "amsgrad", ("Remove it",)),
        (lambda: optim.AdaBound(new_params(), lr=0.0), "param_groups[0].peak_lr", ("got 0", "the rule divides")),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_wrong_is_said(make, key, parts):
    with pytest.raises(ConfigError) as caught:
        make()
    check_message(caught, key, *parts)


def test_a_user_s_own_bounds_are_checked():
    class Bounded(Momentum):
        hyperparameters = {"momentum": Number(default=0.9, low=0.5, high=1)}

    with pytest.raises(ConfigError, match=r"^param_groups\[0\]\.momentum: .*>= 0.5 and <= 1"):
        Bounded([{"params": new_params(), "momentum": 0.25}])


def test_complex_parameters_are_refused_by_a_hook_that_is_not_told_so():
    param = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    param.grad = torch.ones_like(param)
    with pytest.raises(ConfigError) as caught:
        Momentum([("phase", param)]).step()
    check_message(caught, "phase", "complex", "Momentum.step_param")


def test_a_rule_that_is_nowhere_is_said():
    class Nothing(optim.AdaptiveOptimizer):
        pass

    param = nn.Parameter(torch.ones(1))
    param.grad = torch.ones(1)
    with pytest.raises(NotImplementedError, match="Nothing has neither step_param nor coefficients and update"):
        Nothing([param], {"lr": 0.1}).step()


def test_torch_s_words_are_taken_where_they_ask_for_nothing_else():
    params = new_params()
    theirs = torch.optim.Adam(params, lr=0.25, decoupled_weight_decay=True, amsgrad=True)
    group = {key: value for key, value in theirs.param_groups[0].items() if key != "fused"}
    ours = optim.Adam([group])
    assert ours.param_groups[0]["weight_decay_mode"] == "decoupled"
    assert ours.param_groups[0]["amsgrad"] is True
    assert optim.Adam(params, decoupled_weight_decay=True).defaults["weight_decay_mode"] == "decoupled"
    assert optim.Adam(params, decoupled_weight_decay=False).defaults["weight_decay_mode"] == "l2"
    given = {"decoupled_weight_decay": False, "weight_decay_mode": "l1"}
    assert optim.Adam(params, **given).defaults["weight_decay_mode"] == "l1"


def test_parameters_of_several_kinds_share_one_optimizer():
    given = [torch.ones(2), torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.bfloat16), torch.ones(2) * 1j]
    together = [nn.Parameter(value.clone()) for value in given]
    for foreach in (False, True):
        apart = [nn.Parameter(param.detach().clone()) for param in together]
        optimizers = [optim.AdamW(together, foreach=foreach), *(optim.AdamW([param]) for param in apart)]
        for param in (*together, *apart):
            param.grad = torch.full_like(param, 0.5)
        for optimizer in optimizers:
            optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(together, apart, strict=True))


def test_the_step_counter_is_a_cpu_tensor_of_its_own():
    # Lightning moves every tensor of the state to the device of its parameter, save the one called step.
    params = new_params()
    optimizer = optim.Lion(params)
    set_grads(params, new_grads()[1])
    optimizer.step()
    steps = [state["step"] for state in optimizer.state.values()]
    assert {(step.device.type, step.dtype, step.ndim) for step in steps} == {("cpu", torch.float32, 0)}
    assert len({id(step) for step in steps}) == len(steps)


def test_loading_takes_no_alias_of_the_counters():
    params = new_params()
    optimizer, other = optim.Lion(params), optim.Lion(params)
    set_grads(params, new_grads()[1])
    optimizer.step()
    other.load_state_dict(optimizer.state_dict())
    optimizer.step()
    assert (optimizer.state[params[0]]["step"].item(), other.state[params[0]]["step"].item()) == (2, 1)


def test_the_lr_of_a_group_is_a_number_where_a_hook_gets_it():
    seen = []

    class Looks(Momentum):
        def step_param(self, state, group, grad, param):
            seen.append((type(group["lr"]), state["step"].item()))

    param = nn.Parameter(torch.ones(1))
    param.grad = torch.ones(1)
    Looks([param], lr=torch.tensor(0.5)).step()
    assert seen == [(float, 1.0)]


# What a user's surroundings bring along


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_steps_are_counted_whatever_the_default_dtype(default):
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        param = nn.Parameter(torch.ones(1, dtype=torch.float32))
        optimizer = optim.NAdam([param])
        param.grad = torch.ones_like(param)
        optimizer.step()
        optimizer.state[param]["step"].fill_(4096.0)
        optimizer.step()
        other = optim.NAdam([param])
        other.load_state_dict(optimizer.state_dict())
        expected = torch.float64 if default == torch.float64 else torch.float32
        for each in (optimizer, other):
            step = each.state[param]["step"]
            assert (step.item(), step.dtype) == (4097.0, expected)
    finally:
        torch.set_default_dtype(before)


def test_numbers_of_numpy_and_omegaconf_are_numbers():
    given = {"lr": np.float32(0.5), "betas": OmegaConf.create([0.5, 0.75]), "weight_decay": np.int64(1)}
    for optimizer in (optim.Lion(new_params(), **given), optim.Lion([{"params": new_params(), **given}])):
        group = optimizer.param_groups[0]
        assert [group[key] for key in given] == [0.5, (0.5, 0.75), 1.0]
        assert {type(value) for value in (group["lr"], group["weight_decay"], *group["betas"])} == {float}


@pytest.mark.parametrize("number", [np.float32(0.5), torch.tensor(0.5)], ids=["numpy", "tensor"])
@pytest.mark.parametrize("name", ["lion", "lamb"])
def test_a_schedule_may_set_the_weight_decay(name, number):
    params, others = new_params(), new_params()
    optimizer, expected = (class_of(name)(some, weight_decay=0.25) for some in (params, others))
    optimizer.param_groups[0]["weight_decay"], expected.param_groups[0]["weight_decay"] = number, 0.5
    for some, each in ((params, optimizer), (others, expected)):
        set_grads(some, new_grads()[1])
        each.step()
    assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True))


@pytest.mark.parametrize(("mode", "lr"), [("relative", 0.3), ("corrected", 2.0)])
def test_a_decay_in_proportion_to_too_small_a_peak_is_refused_before_anything_changes(mode, lr):
    params = new_params()
    optimizer = optim.Lion(params, lr=0.1, weight_decay=0.5, weight_decay_mode=mode)
    optimizer.param_groups[0]["lr"] = lr
    before = [param.detach().clone() for param in params]
    set_grads(params, new_grads()[1])
    with pytest.raises(ConfigError) as caught:
        optimizer.step()
    check_message(caught, "weight_decay_mode", f"lr {lr:g} over peak_lr 0.1", "schedule's peak")
    assert all(torch.equal(param, was) for param, was in zip(params, before, strict=True))
    assert not optimizer.state


@pytest.mark.parametrize("peak", ["abc", -1.0, None])
def test_a_wrong_peak_is_refused(peak):
    with pytest.raises(ConfigError, match=r"^param_groups\[0\]\.peak_lr: "):
        optim.Lion([{"params": new_params(), "peak_lr": peak}])


def test_a_decay_turned_on_without_a_peak_is_refused():
    params = new_params()
    optimizer = optim.Lion(params, lr=0.0, weight_decay_mode="relative")
    optimizer.param_groups[0].update(lr=0.1, weight_decay=0.5)
    set_grads(params, new_grads()[1])
    with pytest.raises(ConfigError, match="peak_lr 0"):
        optimizer.step()


def test_hooks_after_a_load_see_the_declared_dtypes():
    params = new_params(torch.bfloat16)
    optimizer, seen = Wide(params), []
    set_grads(params, new_grads(torch.bfloat16)[1])
    optimizer.step()
    optimizer.register_load_state_dict_post_hook(lambda o: seen.extend(s["sluggish"].dtype for s in o.state.values()))
    optimizer.load_state_dict(through_a_file(optimizer.state_dict()))
    assert set(seen) == {torch.float32}


def test_a_subclass_may_have_a_hyperparameter_more():
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


def test_what_is_no_param_group_is_said():
    with pytest.raises(TypeError, match="a param group is a dict, not Parameter"):
        optim.Lion([{"params": new_params()[:1]}, new_params()[0]])


def test_a_flag_of_torch_s_that_asks_for_nothing_does_not_contradict_a_policy():
    decay = WeightDecay(0.5, "relative")
    assert optim.Adam(new_params(), weight_decay=decay, decoupled_weight_decay=False).defaults["weight_decay_mode"] == (
        "relative"
    )
    with pytest.raises(ConfigError, match="decoupled_weight_decay: true"):
        optim.Adam(new_params(), weight_decay_mode="relative", decoupled_weight_decay=True)


def test_a_factory_takes_a_policy_too():
    given = WeightDecay(0.5, "absolute", cautious=True)
    factory = OptimizerFactory("lion", weight_decay=given, groups={"head": {"params": "1", "weight_decay": given}})
    assert factory == OptimizerFactory("lion", **given.keys(), groups={"head": {"params": "1", **given.keys()}})
    assert type(pickle.loads(pickle.dumps(factory))) is OptimizerFactory


def test_lightning_s_command_line_takes_a_member():
    parser = LightningArgumentParser()
    parser.add_optimizer_args(optim.Lion)
    given = parser.parse_args(
        ["--optimizer.lr=0.5", "--optimizer.betas=[0.5,0.75]", "--optimizer.weight_decay_mode=l1"]
    )
    assert (given.optimizer.lr, given.optimizer.betas, given.optimizer.weight_decay_mode) == (0.5, (0.5, 0.75), "l1")


def test_what_hooks_keep_has_the_dtype_it_was_saved_in():
    class Wide(optim.AdaptiveOptimizer):
        def __init__(self, params, lr=0.01, **options):
            super().__init__(params, {"lr": lr}, **options)

        def init_state(self, state, group, param):
            state["m"] = torch.zeros_like(param, dtype=torch.float32)

        def step_param(self, state, group, grad, param):
            param.sub_(state["m"].lerp_(grad.float(), 0.1).to(param.dtype), alpha=group["lr"])

    given = {"dtype": torch.bfloat16, "lr": 0.01}

    def resumed(step, optimizer):
        if step != 20:
            return optimizer
        other = Wide([{"params": group["params"]} for group in optimizer.param_groups])
        other.load_state_dict(through_a_file(optimizer.state_dict()))
        assert {state["m"].dtype for state in other.state.values()} == {torch.float32}
        return other

    assert differences(drive(Wide, each=resumed, **given), drive(Wide, **given)) == []


@pytest.mark.parametrize("key", ["master", "slow", "skipped"])
def test_keys_of_modifiers_are_not_a_rule_s(key):
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
    with pytest.raises(ConfigError, match=rf"Own\.init_state: state\['{key}'\] is a modifier's. Take another key"):
        optimizer.step()


def test_an_empty_parameter_has_no_step():
    for name in MEMBERS:
        param, empty = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(0, 2))
        optimizer = class_of(name)([param, empty], lr=0.1)
        for p in (param, empty):
            p.grad = torch.ones_like(p)
        optimizer.step()
        tensors = [v for v in optimizer.state[empty].values() if isinstance(v, torch.Tensor)]
        assert all(v.isfinite().all() for v in tensors), name


def test_what_is_one_for_the_whole_optimizer_is_refused_in_a_group():
    params = new_params()
    for key, value in {"d_coef": 100.0, "d0": 1e-3, "growth_rate": 2.0}.items():
        with pytest.raises(
            ConfigError, match=rf"param_groups\[1\]\.{key}: got {value}, .* Type {key} at the top alone"
        ):
            optim.Prodigy([{"params": params[:1]}, {"params": params[1:], key: value}])
    optimizer = optim.Prodigy([{"params": params[:2]}, {"params": params[2:]}], d0=1e-3, d_coef=100.0)
    set_grads(params, [torch.ones_like(p) for p in params])
    for _ in range(3):
        optimizer.step()
    other = optim.Prodigy([{"params": params[:2]}, {"params": params[2:]}])
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    before = [p.detach().clone() for p in params]
    optimizer.step()
    ours = [p.detach().clone() for p in params]
    for p, b in zip(params, before, strict=True):
        p.data.copy_(b)
    other.step()
    assert all(torch.equal(p, o) for p, o in zip(params, ours, strict=True))
    assert other.state[params[0]]["d"] == optimizer.state[params[0]]["d"]
