"""Modifiers: keys of a param group that change what happens around any rule of ours."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory, StagedUnfreeze, configure_optimizers, optim
from lightning_optim.catalog.modifiers import MODIFIERS
from lightning_optim.optim.modifiers import clip_by_param_norm
from tests.support.cases import every
from tests.support.modifier_cases import (
    COMPENSATING_MEMBERS,
    COUNTS_STEPS,
    MODIFIER_VALUES,
    allowed_modifiers,
)
from tests.support.optimizer_runs import (
    KINDS,
    MEMBERS_WITH_TWO_GRADIENTS,
    SHAPES,
    differences,
    native_class,
    new_grads,
    new_params,
    resuming,
    set_grads,
    shapes_of,
    trajectory,
)
from tests.support.save_and_load import save_and_load
from tests.support.training import BATCHES, Net, StepTrace, fit

ALONG_THE_GRADIENT = ("adadelta", "adagrad", "extra_sgd", "rmsprop", "sgd")
OFF = {key: spec.default for key, spec in MODIFIERS.items()}
# Two updates and a scalar in the state; two gradients a step.
REPRESENTATIVES = ("nadam", "extra_adam")
representatives_first = pytest.mark.parametrize("name", every((*KINDS, "extra_adam"), fast=REPRESENTATIVES))


@pytest.mark.parametrize("modifier", ["skip_nonfinite", "lookahead", "schedule_free"])
@pytest.mark.parametrize("name", MEMBERS_WITH_TWO_GRADIENTS)
def test_modifiers_that_count_steps_are_refused_where_a_step_takes_two_gradients(name, modifier) -> None:
    with pytest.raises(ConfigError, match=rf"{modifier}: {native_class(name).__name__} takes 2 gradients a step"):
        native_class(name)(new_params(), **MODIFIER_VALUES[modifier])
    assert modifier in COUNTS_STEPS


def test_every_modifier_is_tried() -> None:
    needs_closure = {"sharpness"}  # tried in test_sharpness
    assert set(MODIFIER_VALUES) - {"all"} == set(MODIFIERS) - needs_closure


@representatives_first
def test_foreach_is_the_loop_and_a_resumed_run_the_uninterrupted_one(name) -> None:
    cls = native_class(name)
    modifiers = allowed_modifiers(name)
    pairs = [(modifier, torch.float32) for modifier in modifiers if modifier != "master_weights"]
    pairs += [(modifier, torch.bfloat16) for modifier in ("master_weights", "all") if modifier in modifiers]
    for modifier, dtype in pairs:
        given = {"lr": 0.01, **MODIFIER_VALUES[modifier]}
        loop = trajectory(cls, dtype=dtype, foreach=False, **given)
        assert differences(trajectory(cls, dtype=dtype, foreach=True, **given), loop) == [], (modifier, dtype)
        resumed = trajectory(cls, dtype=dtype, before_step=resuming(cls, **given), **given)
        assert differences(resumed, loop) == [], (modifier, dtype)


@representatives_first
def test_a_modifier_has_an_effect_where_it_should(name) -> None:
    given = {"lr": 0.05, "num_steps": 18} | ({"d0": 0.01} if name == "prodigy" else {})  # its default starts slowly
    plain = {dtype: trajectory(native_class(name), dtype=dtype, **given) for dtype in (torch.float32, torch.bfloat16)}
    for modifier in allowed_modifiers(name):
        dtype = torch.bfloat16 if modifier == "master_weights" else torch.float32
        modified = trajectory(native_class(name), dtype=dtype, **given, **MODIFIER_VALUES[modifier])
        # These gradients are all finite; and a step along the gradient always agrees with it.
        nothing_to_do = modifier == "skip_nonfinite" or (modifier == "cautious_update" and name in ALONG_THE_GRADIENT)
        assert (differences(modified, plain[dtype]) != []) != nothing_to_do, modifier


@representatives_first
def test_a_modifier_at_its_default_changes_nothing(name) -> None:
    plain = trajectory(native_class(name), lr=0.01, num_steps=12)
    assert differences(trajectory(native_class(name), lr=0.01, num_steps=12, **OFF), plain) == []


class Hooked(optim.AdaptiveOptimizer):
    """SGD with momentum, written with the two hooks."""

    def __init__(self, params, lr=0.01, **options):
        super().__init__(params, {"lr": lr}, **options)

    def init_state(self, state, group, param):
        state["m"] = torch.zeros_like(param)

    def step_param(self, state, group, grad, param):
        param.sub_(state["m"].lerp_(grad, 0.1), alpha=group["lr"])


class Declared(optim.AdaptiveOptimizer):
    """The same in the declared form."""

    def __init__(self, params, lr=0.01, **options):
        super().__init__(params, {"lr": lr}, **options)

    def buffers(self, group):
        return ("m",)

    def coefficients(self, t, group):
        return {"lr": group["lr"]}

    @staticmethod
    def update(p, g, m, *, lr):
        return optim.Update(m.lerp_(g, 0.1), lr)


@pytest.mark.parametrize("modifier", MODIFIER_VALUES)
def test_an_optimizer_written_with_hooks_takes_every_modifier(modifier) -> None:
    dtype = torch.bfloat16 if modifier == "master_weights" else torch.float64
    given = {"dtype": dtype, "lr": 0.01, **MODIFIER_VALUES[modifier]}
    for some, others in zip(trajectory(Hooked, **given), trajectory(Declared, **given), strict=True):
        for a, b in zip(some, others, strict=True):
            # p - (p - step) is the step up to rounding; rounded to 16 bits, the two may differ.
            torch.testing.assert_close(a, b, rtol=1e-2 if dtype == torch.bfloat16 else 1e-12, atol=1e-12)
    resumed = resuming(Hooked, **MODIFIER_VALUES[modifier])
    assert differences(trajectory(Hooked, before_step=resumed, **given), trajectory(Hooked, **given)) == []


# Skipped steps


def step_with(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], grads: list[Any]) -> None:
    set_grads(params, grads)
    optimizer.step()


def weights_and_state(optimizer: torch.optim.Optimizer, params: list[nn.Parameter]) -> list[Any]:
    states = [{k: v for k, v in optimizer.state[p].items() if k != "skipped"} for p in params]
    return [
        [torch.as_tensor(v).clone() for v in (p.detach(), *s.values())] for p, s in zip(params, states, strict=True)
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "name",
    every(
        [name for name in KINDS if name not in MEMBERS_WITH_TWO_GRADIENTS], fast=["adamw", "nadam", "adai", "prodigy"]
    ),
)
def test_a_skipped_step_leaves_no_trace_but_its_count(name, value) -> None:
    shapes = shapes_of(name)
    script = new_grads(shapes=shapes, num_steps=10)
    ends = []
    for with_it in (True, False):
        params = new_params(shapes=shapes)
        groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.02}]
        optimizer = native_class(name)(groups, lr=0.01, weight_decay=0.1, skip_nonfinite=True)
        for step, grads in enumerate(script):
            if step == 5 and with_it:
                bad = [torch.ones(shape) for shape in shapes]
                bad[0][1, 2] = value
                step_with(optimizer, params, bad)
            step_with(optimizer, params, grads)
        ends.append(weights_and_state(optimizer, params))
        counts = [optimizer.state[p].get("skipped", 0) for p in params]
        assert counts == [1 if with_it else 0] * len(params)
    assert differences(*ends) == []


def test_skipped_steps_are_counted_from_the_first_step_and_through_a_file() -> None:
    params = new_params()
    optimizer = optim.Adam(params, skip_nonfinite=True)
    bad = [torch.full(shape, math.nan) for shape in SHAPES]
    step_with(optimizer, params, bad)
    other = optim.Adam(new_params(), skip_nonfinite=True)
    other.load_state_dict(save_and_load(optimizer.state_dict()))
    loaded = [p for group in other.param_groups for p in group["params"]]
    step_with(other, loaded, new_grads()[0])
    step_with(other, loaded, bad)
    assert [other.state[p]["skipped"] for p in loaded] == [2] * len(loaded)
    assert all(p.isfinite().all() for p in loaded)


@pytest.mark.parametrize("culprit", ["weight", "bias"])
def test_torchs_class_in_a_composite_skips_with_ours(culprit) -> None:
    """Muon, torch's class, has no such option; AdamW, ours, has it set."""
    rules = {"hidden": {"params": "*", "kinds": ["matrix"], "optimizer": "muon"}}
    model = nn.Linear(4, 4)
    optimizer = OptimizerFactory("adamw", skip_nonfinite=True, groups=rules)(model)
    before = copy.deepcopy(model)
    for name, p in model.named_parameters():
        p.grad = torch.full_like(p, math.nan if name == culprit else 1.0)
    optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before.parameters(), strict=True))
    assert optimizer.state[model.bias]["skipped"] == 1
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert not any(torch.equal(p, q) for p, q in zip(model.parameters(), before.parameters(), strict=True))


def test_torchs_class_loads_a_checkpoint_with_skipped_steps() -> None:
    params = new_params()
    ours, theirs = optim.Adam(params, skip_nonfinite=True), torch.optim.Adam(params)
    step_with(ours, params, [torch.full(shape, math.nan) for shape in SHAPES])
    theirs.load_state_dict(save_and_load(ours.state_dict()))
    step_with(theirs, params, new_grads()[0])
    assert all(p.isfinite().all() for p in params)


def test_a_gradient_whose_norm_overflows_is_finite() -> None:
    param = nn.Parameter(torch.zeros(4))
    optimizer = optim.Lion([param], lr=0.1, skip_nonfinite=True)
    step_with(optimizer, [param], [torch.full((4,), 3e38)])
    assert "skipped" not in optimizer.state[param]
    assert torch.equal(param.detach(), torch.full((4,), -0.1))


def test_groups_without_skip_nonfinite_take_the_step() -> None:
    params = new_params()
    groups = [{"params": params[:1], "skip_nonfinite": True}, {"params": params[1:]}]
    optimizer = optim.Adam(groups, lr=0.1)
    before = [p.detach().clone() for p in params]
    grads = [torch.ones(shape) for shape in SHAPES]
    grads[0][0, 0] = math.nan
    step_with(optimizer, params, grads)
    assert torch.equal(params[0], before[0])
    assert not torch.equal(params[1], before[1])


def test_in_a_composite_all_children_skip_together() -> None:
    rules = {"signs": {"params": "0", "optimizer": "lion", "skip_nonfinite": True}}
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    optimizer = OptimizerFactory("adabelief", skip_nonfinite=True, groups=rules)(model)
    before = [p.detach().clone() for p in model.parameters()]
    for index, p in enumerate(model.parameters()):
        p.grad = torch.full_like(p, math.nan if index == 0 else 1.0)
    optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert {state["skipped"] for state in optimizer.state.values()} == {1}
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert not any(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


# Each modifier and its equations


def test_lookahead_is_its_algorithm() -> None:
    """arXiv:1907.08610, algorithm 1, in float64 around SGD with momentum; each parameter counts its own steps."""
    k, alpha, lr = 4, 0.3, 0.05
    params = new_params(torch.float64)
    fast = [p.detach().clone() for p in params]
    slow, counts = [p.clone() for p in fast], [0] * len(fast)
    optimizer = Declared(params, lr=lr, lookahead={"k": k, "alpha": alpha})
    momenta = [torch.zeros_like(p) for p in fast]
    for grads in new_grads(torch.float64):
        step_with(optimizer, params, grads)
        for i, grad in enumerate(grads):
            if grad is None:
                continue
            momenta[i] = momenta[i] + 0.1 * (grad - momenta[i])
            fast[i] = fast[i] - lr * momenta[i]
            counts[i] += 1
            if counts[i] % k == 0:
                slow[i] = slow[i] + alpha * (fast[i] - slow[i])
                fast[i] = slow[i].clone()
        for p, f, s in zip(params, fast, slow, strict=True):
            torch.testing.assert_close(p.detach(), f, rtol=0, atol=1e-14)
            if "slow" in optimizer.state[p]:
                torch.testing.assert_close(optimizer.state[p]["slow"], s, rtol=0, atol=1e-14)


def test_slow_weights_survive_a_thaw(tmp_path) -> None:
    plan = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.5}}
    factory = OptimizerFactory("radam", lr=0.05, lookahead={"k": 3, "alpha": 0.5})

    def run(ckpt_path: Any = None) -> Any:
        torch.manual_seed(0)
        module = Net(lambda module: configure_optimizers(module, factory, SchedulerFactory("one_cycle")))
        trace = StepTrace(lambda trainer, module: [s["slow"].clone() for s in trainer.optimizers[0].state.values()])
        fit(module, tmp_path, StagedUnfreeze(plan), trace, epochs=3, save=ckpt_path is None, ckpt_path=ckpt_path)
        return trace.steps

    uninterrupted = run()
    assert [len(slow) for slow in uninterrupted] == [2] * BATCHES + [8] * 2 * BATCHES
    for step in (BATCHES - 1, BATCHES, BATCHES + 2):
        for some, others in zip(run(tmp_path / f"step={step}.ckpt"), uninterrupted[step:], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(some, others, strict=True)), step


def test_centralized_gradients_are_those_less_the_mean_of_each_row() -> None:
    params, grads = [nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(3))], [torch.rand(2, 3), torch.rand(3)]
    optimizer = Declared(params, lr=1.0, centralize_gradients=True)
    step_with(optimizer, params, grads)
    rows = grads[0] - grads[0].mean(dim=1, keepdim=True)
    torch.testing.assert_close(optimizer.state[params[0]]["m"], 0.1 * rows)
    torch.testing.assert_close(optimizer.state[params[1]]["m"], 0.1 * grads[1])


def test_gradients_are_clipped_row_by_row() -> None:
    """arXiv:2102.06171, eq. 3: λ max(‖W_i‖, 10⁻³) / ‖G_i‖ G_i where ‖G_i‖ is more than that part."""
    p = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [30.0, 40.0]])
    g = torch.tensor([[6.0, 8.0], [0.0, 0.0], [1.0, 0.0], [0.06, 0.08]])
    expected = torch.tensor([[0.3, 0.4], [0.0, 0.0], [1e-4, 0.0], [0.06, 0.08]])
    torch.testing.assert_close(clip_by_param_norm(g, p, 0.1), expected)
    torch.testing.assert_close(clip_by_param_norm(g[0], p[0], 0.1), expected[0])
    assert clip_by_param_norm(torch.tensor([math.nan]), torch.ones(1), 0.1).isnan()


def test_a_float16_row_whose_norm_overflows_is_clipped() -> None:
    p, g = torch.full((3, 4), 100.0, dtype=torch.float16), torch.full((3, 4), 60_000.0, dtype=torch.float16)
    torch.testing.assert_close(clip_by_param_norm(g, p, 0.01), torch.ones(3, 4, dtype=torch.float16), rtol=1e-3, atol=0)


@pytest.mark.parametrize("modifier", ["centralize_gradients", "adaptive_clip"])
def test_rows_of_complex_numbers_are_refused_and_nothing_changes(modifier) -> None:
    param = nn.Parameter(torch.ones(3, 2, dtype=torch.complex64))
    optimizer = optim.Adam([("weight", param)], **MODIFIER_VALUES[modifier])
    with pytest.raises(ConfigError, match=rf"^weight: it is complex, and {modifier} works on rows of real numbers"):
        step_with(optimizer, [param], [torch.ones_like(param)])
    assert torch.equal(param.detach(), torch.ones_like(param)) and not optimizer.state


@pytest.mark.parametrize("name", COMPENSATING_MEMBERS)
def test_cautious_update_is_refused_where_the_next_step_makes_up_for_the_last(name) -> None:
    with pytest.raises(ConfigError, match=r"cautious_update: .* Remove it"):
        native_class(name)(new_params(), cautious_update=True)
    with pytest.raises(ConfigError, match=rf"{name}: cautious_update: .* Remove it"):
        OptimizerFactory(name, cautious_update=True)
    params = new_params()
    with pytest.raises(ConfigError, match=r"^param_groups\[1\]\.cautious_update: "):
        native_class(name)([{"params": params[:1]}, {"params": params[1:], "cautious_update": True}])


def test_cautious_update_is_allowed_without_error_feedback() -> None:
    assert optim.EFSGD(new_params(), memory=False, cautious_update=True).defaults["cautious_update"]


def test_a_cautious_update_drops_elements_that_oppose_the_gradient_and_enlarges_the_others() -> None:
    """arXiv:2411.16085: the momentum's step where it has the gradient's sign, divided by the share of such elements."""
    param = nn.Parameter(torch.zeros(4))
    optimizer = Declared([param], lr=1.0, cautious_update=True)
    step_with(optimizer, [param], [torch.tensor([1.0, 1.0, 1.0, 1.0])])
    torch.testing.assert_close(param.detach(), torch.full((4,), -0.1))
    step_with(optimizer, [param], [torch.tensor([-0.5, 1.0, 1.0, 0.0])])
    m = torch.tensor([0.04, 0.19, 0.19, 0.09])
    torch.testing.assert_close(param.detach(), -0.1 - m * torch.tensor([0.0, 1.0, 1.0, 0.0]) / 0.5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_with_masters_the_parameters_are_those_of_a_float32_run_rounded(dtype) -> None:
    script = [[None if g is None else g.to(dtype) for g in grads] for grads in new_grads()]
    params, exact = new_params(dtype), [nn.Parameter(p.detach().float()) for p in new_params(dtype)]
    ours, theirs = optim.AdamW(params, lr=1e-3, master_weights=True), optim.AdamW(exact, lr=1e-3)
    plain_params = new_params(dtype)
    plain = optim.AdamW(plain_params, lr=1e-3, eps=1e-4 if dtype == torch.float16 else 1e-8)
    for grads in script:
        step_with(ours, params, grads)
        step_with(plain, plain_params, grads)
        step_with(theirs, exact, [None if g is None else g.float() for g in grads])
        for p, q in zip(params, exact, strict=True):
            assert torch.equal(p, q.to(dtype))
            if "master" in ours.state[p]:
                assert torch.equal(ours.state[p]["master"], q)
                assert ours.state[p]["exp_avg"].dtype == torch.float32
    assert any(not torch.equal(p, q) for p, q in zip(params, plain_params, strict=True))
    other = optim.AdamW(new_params(dtype), lr=1e-3, master_weights=True)
    other.load_state_dict(save_and_load(ours.state_dict()))
    for mine, loaded in zip(ours.state.values(), other.state.values(), strict=True):
        assert {k: v.dtype for k, v in mine.items()} == {k: v.dtype for k, v in loaded.items()}
        assert all(torch.equal(mine[key], loaded[key]) for key in mine)


def test_float32_parameters_have_no_master() -> None:
    params = new_params()
    optimizer = optim.Adam(params, master_weights=True)
    step_with(optimizer, params, new_grads()[0])
    assert all("master" not in state for state in optimizer.state.values())


# Switched on or off between runs


@pytest.mark.parametrize("cls", [optim.Lion, optim.AdamW, Hooked], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
def test_masters_may_be_switched_on_or_off_at_a_resume(cls, on) -> None:
    params = new_params(torch.bfloat16)
    script = new_grads(torch.bfloat16)[:6]
    optimizer = cls(params, lr=0.01, master_weights=not on)
    for grads in script[:3]:
        step_with(optimizer, params, grads)
    saved = save_and_load(optimizer.state_dict())
    other = cls(params, lr=0.01)
    other.load_state_dict(saved)
    for group in other.param_groups:
        group["master_weights"] = on  # as the factory does where the config says so
    for grads in script[3:]:
        step_with(other, params, grads)
    for p in params:
        state = other.state[p]
        assert ("master" in state) == on
        tensors = {key: value for key, value in state.items() if key != "step" and isinstance(value, torch.Tensor)}
        assert {value.dtype for value in tensors.values()} == {torch.float32 if on else torch.bfloat16}
        assert not on or torch.equal(state["master"].bfloat16(), p)


def test_slow_weights_are_dropped_without_lookahead_and_restart_with_it() -> None:
    param = nn.Parameter(torch.zeros(1))
    optimizer = optim.Lion([param], lr=1.0, lookahead={"k": 2, "alpha": 0.5})
    for lookahead, expected in [
        ({"k": 2, "alpha": 0.5}, [-1, -1]),
        (None, [-2, -3]),
        ({"k": 2, "alpha": 0.5}, [-4, -4]),
    ]:
        optimizer.param_groups[0]["lookahead"] = lookahead
        for weight in expected:
            step_with(optimizer, [param], [torch.ones(1)])
            assert param.item() == weight


def test_a_checkpoint_of_torchs_class_leaves_modifiers_as_configured() -> None:
    params = new_params()
    theirs = torch.optim.AdamW(params, lr=0.25)
    step_with(theirs, params, new_grads()[0])
    given = {"cautious_update": True, "lookahead": {"k": 2, "alpha": 0.5}, "skip_nonfinite": True}
    ours = optim.AdamW(params, **given)
    ours.load_state_dict(save_and_load(theirs.state_dict()))
    assert {key: ours.param_groups[0][key] for key in given} == given
    assert ours.param_groups[0]["lr"] == 0.25


# From a config


def test_the_factory_chooses_our_class_for_a_modifier() -> None:
    for key, value in MODIFIER_VALUES.items():
        if key != "all":
            assert type(OptimizerFactory("adamw", **value)(nn.Linear(2, 1))) is optim.AdamW
    assert type(OptimizerFactory("adamw", lookahead=None)(nn.Linear(2, 1))) is torch.optim.AdamW
    with pytest.raises(ConfigError, match="lookahead: our adamw takes it, torch's does not"):
        OptimizerFactory("adamw", lookahead={"k": 2}, implementation="torch")


def test_a_group_may_have_its_own_modifiers() -> None:
    rules = {"head": {"params": "head", "lookahead": {"k": 2}, "cautious_update": True}}
    optimizer = OptimizerFactory("lion", groups=rules)(Net(None))  # type: ignore[arg-type]
    values = {group["name"]: (group["lookahead"], group["cautious_update"]) for group in optimizer.param_groups}
    assert values == {"default": (None, False), "head": ({"k": 2, "alpha": 0.5}, True)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lookahead": True}, r"lookahead: got True, which is not a mapping of k .* Type for example lookahead: {k: 5"),
        ({"lookahead": {"kk": 3}}, r"lookahead\.kk: lookahead has no key 'kk'\. Did you mean 'k'"),
        ({"lookahead": {"k": 0}}, r"lookahead\.k: got 0, which is not an integer >= 1"),
        ({"lookahead": {"alpha": 2}}, r"lookahead\.alpha: got 2"),
        ({"lookahead": {"alpha": 0}}, r"lookahead\.alpha: got 0, which is not a finite number > 0 and <= 1"),
        ({"adaptive_clip": 0}, r"adaptive_clip: got 0, which is not a finite number > 0 or null"),
        ({"cautious_update": "yes"}, r"cautious_update: got 'yes'"),
        ({"skip_nonfinit": True}, r"skip_nonfinit: .* Did you mean 'skip_nonfinite'"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value),
)
def test_wrong_values_are_refused(given, message) -> None:
    with pytest.raises(ConfigError, match=message):
        OptimizerFactory("lion", **given)
    with pytest.raises(ConfigError):
        optim.Lion(new_params(), **given)
