"""Modifiers: keys of a param group that stand around any rule of ours."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory, StagedUnfreeze, configure_optimizers, optim
from lightning_optim.catalog.modifiers import MODIFIERS
from lightning_optim.optim.modifiers import clipped
from tests.optim.test_members import resumed
from tests.support.optimizer_runs import (
    BY_STEPS,
    MAKE_UP,
    MEMBERS,
    PAIRS,
    SEVERAL,
    SHAPES,
    VALUES,
    class_of,
    differences,
    drive,
    new_grads,
    new_params,
    set_grads,
    through_a_file,
)
from tests.support.training import BATCHES, Net, Witness, fit

ALONG_THE_GRADIENT = ("adadelta", "adagrad", "extra_sgd", "rmsprop")
OFF = {key: spec.default for key, spec in MODIFIERS.items()}
ONE_OR_ANOTHER = pytest.mark.parametrize(("name", "modifier"), PAIRS)


@pytest.mark.parametrize("modifier", BY_STEPS[:2])
@pytest.mark.parametrize("name", SEVERAL)
def test_what_goes_by_steps_is_refused_where_a_step_takes_several_gradients(name, modifier) -> None:
    with pytest.raises(ConfigError, match=rf"{modifier}: {class_of(name).__name__} takes 2 gradients a step"):
        class_of(name)(new_params(), **VALUES[modifier])


def test_every_modifier_is_tried() -> None:
    assert set(VALUES) - {"all"} == set(MODIFIERS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@ONE_OR_ANOTHER
def test_foreach_is_the_loop(name, modifier, dtype) -> None:
    given = {"lr": 0.01, "dtype": dtype, **VALUES[modifier]}
    loop = drive(class_of(name), foreach=False, **given)
    assert differences(drive(class_of(name), foreach=True, **given), loop) == []


@ONE_OR_ANOTHER
def test_it_has_an_effect_where_it_should(name, modifier) -> None:
    given = {"dtype": torch.bfloat16 if modifier == "master_weights" else torch.float32, "lr": 0.05, "num_steps": 30}
    given |= {"d0": 0.01} if name == "prodigy" else {}  # from its default it takes longer to begin
    changed = differences(drive(class_of(name), **given, **VALUES[modifier]), drive(class_of(name), **given)) != []
    # These gradients are all finite; and a step along the gradient always agrees with it.
    nothing_to_do = modifier == "skip_nonfinite" or (modifier == "cautious_update" and name in ALONG_THE_GRADIENT)
    assert changed != nothing_to_do


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@ONE_OR_ANOTHER
def test_a_run_goes_on_from_its_checkpoint(name, modifier, dtype) -> None:
    given = {"lr": 0.01, **VALUES[modifier]}
    whole = drive(class_of(name), dtype=dtype, **given)
    assert differences(drive(class_of(name), dtype=dtype, each=resumed(class_of(name), **given), **given), whole) == []


@pytest.mark.parametrize("name", MEMBERS)
def test_off_is_as_though_it_were_not_there(name) -> None:
    plain = drive(class_of(name), lr=0.01, num_steps=12)
    assert differences(drive(class_of(name), lr=0.01, num_steps=12, **OFF), plain) == []


class Hooked(optim.AdaptiveOptimizer):
    """SGD with momentum by the two hooks."""

    def __init__(self, params, lr=0.01, **options):
        super().__init__(params, {"lr": lr}, **options)

    def init_state(self, state, group, param):
        state["m"] = torch.zeros_like(param)

    def step_param(self, state, group, grad, param):
        param.sub_(state["m"].lerp_(grad, 0.1), alpha=group["lr"])


class Declared(optim.AdaptiveOptimizer):
    """The same, declared."""

    def __init__(self, params, lr=0.01, **options):
        super().__init__(params, {"lr": lr}, **options)

    def buffers(self, group):
        return ("m",)

    def coefficients(self, t, group):
        return {"lr": group["lr"]}

    @staticmethod
    def update(p, g, m, *, lr):
        return optim.Update(m.lerp_(g, 0.1), lr)


@pytest.mark.parametrize("modifier", VALUES)
def test_an_optimizer_of_hooks_takes_them_too(modifier) -> None:
    dtype = torch.bfloat16 if modifier == "master_weights" else torch.float64
    given = {"dtype": dtype, "lr": 0.01, **VALUES[modifier]}
    for some, others in zip(drive(Hooked, **given), drive(Declared, **given), strict=True):
        for a, b in zip(some, others, strict=True):
            # p - (p - step) is not quite the step; where it is rounded to 16 bits, one of them may differ.
            torch.testing.assert_close(a, b, rtol=1e-2 if dtype == torch.bfloat16 else 1e-12, atol=1e-12)
    whole = drive(Hooked, **given)
    assert differences(drive(Hooked, each=resumed(Hooked, **VALUES[modifier]), **given), whole) == []


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
@pytest.mark.parametrize("name", [name for name in MEMBERS if name not in SEVERAL])
def test_a_step_that_is_not_finite_has_never_happened(name, value) -> None:
    script = new_grads(num_steps=20)
    ends = []
    for with_it in (True, False):
        params = new_params()
        groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.02}]
        optimizer = class_of(name)(groups, lr=0.01, weight_decay=0.1, skip_nonfinite=True)
        for step, grads in enumerate(script):
            if step == 10 and with_it:
                bad = [torch.ones(shape) for shape in SHAPES]
                bad[0][1, 2] = value
                step_with(optimizer, params, bad)
            step_with(optimizer, params, grads)
        ends.append(weights_and_state(optimizer, params))
        counts = [optimizer.state[p].get("skipped", 0) for p in params]
        assert counts == [1 if with_it else 0] * len(params)
    assert differences(*ends) == []


def test_it_is_counted_through_a_file_and_from_the_first_step_on() -> None:
    params = new_params()
    optimizer = optim.Adam(params, skip_nonfinite=True)
    bad = [torch.full(shape, math.nan) for shape in SHAPES]
    step_with(optimizer, params, bad)
    other = optim.Adam(new_params(), skip_nonfinite=True)
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    held = [p for group in other.param_groups for p in group["params"]]
    step_with(other, held, new_grads()[0])
    step_with(other, held, bad)
    assert [other.state[p]["skipped"] for p in held] == [2] * len(held)
    assert all(p.isfinite().all() for p in held)


@pytest.mark.parametrize("culprit", ["weight", "bias"])
def test_torchs_classes_beside_ours_are_skipped_too(culprit) -> None:
    """Muon cannot ask for it, and AdamW does."""
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


def test_a_checkpoint_of_skipped_steps_crosses_over_to_torch() -> None:
    params = new_params()
    ours, theirs = optim.Adam(params, skip_nonfinite=True), torch.optim.Adam(params)
    step_with(ours, params, [torch.full(shape, math.nan) for shape in SHAPES])
    theirs.load_state_dict(through_a_file(ours.state_dict()))
    step_with(theirs, params, new_grads()[0])
    assert all(p.isfinite().all() for p in params)


def test_a_large_gradient_is_finite() -> None:
    """Its norm is not, in float32."""
    param = nn.Parameter(torch.zeros(4))
    optimizer = optim.Lion([param], lr=0.1, skip_nonfinite=True)
    step_with(optimizer, [param], [torch.full((4,), 3e38)])
    assert "skipped" not in optimizer.state[param]
    assert torch.equal(param.detach(), torch.full((4,), -0.1))


def test_groups_that_do_not_ask_go_on() -> None:
    params = new_params()
    groups = [{"params": params[:1], "skip_nonfinite": True}, {"params": params[1:]}]
    optimizer = optim.Adam(groups, lr=0.1)
    before = [p.detach().clone() for p in params]
    grads = [torch.ones(shape) for shape in SHAPES]
    grads[0][0, 0] = math.nan
    step_with(optimizer, params, grads)
    assert torch.equal(params[0], before[0])
    assert not torch.equal(params[1], before[1])


def test_in_a_composite_it_is_everybodys_affair() -> None:
    rules = {"signs": {"params": "0", "optimizer": "lion", "skip_nonfinite": True}}
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    optimizer = OptimizerFactory("adabelief", skip_nonfinite=True, groups=rules)(model)
    before = [p.detach().clone() for p in model.parameters()]
    for place, p in enumerate(model.parameters()):
        p.grad = torch.full_like(p, math.nan if place == 0 else 1.0)
    optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert {state["skipped"] for state in optimizer.state.values()} == {1}
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert not any(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


# Each against its equations


def test_lookahead_against_a_straight_transcription() -> None:
    """arXiv:1907.08610, algorithm 1, in float64 around plain gradient descent; each parameter counts its own steps."""
    k, alpha, lr = 4, 0.3, 0.05
    params = new_params(torch.float64)
    fast = [p.detach().clone() for p in params]
    slow, counts = [p.clone() for p in fast], [0] * len(fast)
    optimizer = Declared(params, lr=lr, lookahead={"k": k, "alpha": alpha})
    momenta = [torch.zeros_like(p) for p in fast]
    for grads in new_grads(torch.float64, num_steps=30):
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
        witness = Witness(lambda trainer, module: [s["slow"].clone() for s in trainer.optimizers[0].state.values()])
        fit(module, tmp_path, StagedUnfreeze(plan), witness, epochs=3, save=ckpt_path is None, ckpt_path=ckpt_path)
        return witness.seen

    whole = run()
    assert [len(slow) for slow in whole] == [2] * BATCHES + [8] * 2 * BATCHES
    for step in (BATCHES - 1, BATCHES, BATCHES + 2):
        for some, others in zip(run(tmp_path / f"step={step}.ckpt"), whole[step:], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(some, others, strict=True)), step


def test_gradients_without_their_mean() -> None:
    params, grads = [nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(3))], [torch.rand(2, 3), torch.rand(3)]
    optimizer = Declared(params, lr=1.0, centralize_gradients=True)
    step_with(optimizer, params, grads)
    rows = grads[0] - grads[0].mean(dim=1, keepdim=True)
    torch.testing.assert_close(optimizer.state[params[0]]["m"], 0.1 * rows)
    torch.testing.assert_close(optimizer.state[params[1]]["m"], 0.1 * grads[1])


def test_gradients_clipped_by_the_rows_of_their_parameter() -> None:
    """arXiv:2102.06171, eq. 3: λ max(‖W_i‖, 10⁻³) / ‖G_i‖ G_i where ‖G_i‖ is more than that part."""
    p = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [30.0, 40.0]])
    g = torch.tensor([[6.0, 8.0], [0.0, 0.0], [1.0, 0.0], [0.06, 0.08]])
    expected = torch.tensor([[0.3, 0.4], [0.0, 0.0], [1e-4, 0.0], [0.06, 0.08]])
    torch.testing.assert_close(clipped(g, p, 0.1), expected)
    torch.testing.assert_close(clipped(g[0], p[0], 0.1), expected[0])
    assert clipped(torch.tensor([math.nan]), torch.ones(1), 0.1).isnan()


def test_a_row_is_clipped_where_its_norm_is_beyond_float16() -> None:
    p, g = torch.full((3, 4), 100.0, dtype=torch.float16), torch.full((3, 4), 60_000.0, dtype=torch.float16)
    torch.testing.assert_close(clipped(g, p, 0.01), torch.ones(3, 4, dtype=torch.float16), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    "given", [VALUES["centralize_gradients"], VALUES["adaptive_clip"]], ids=lambda v: next(iter(v))
)
def test_rows_of_complex_numbers_are_refused_and_nothing_changes(given) -> None:
    param = nn.Parameter(torch.ones(3, 2, dtype=torch.complex64))
    optimizer = optim.Adam([("weight", param)], **given)
    with pytest.raises(
        ConfigError, match=rf"^weight: it is complex, and {next(iter(given))} is of rows of real numbers"
    ):
        step_with(optimizer, [param], [torch.ones_like(param)])
    assert torch.equal(param.detach(), torch.ones_like(param)) and not optimizer.state


@pytest.mark.parametrize("name", MAKE_UP)
def test_a_step_that_the_next_makes_up_for_is_not_masked(name) -> None:
    with pytest.raises(ConfigError, match=r"cautious_update: .* Remove it"):
        class_of(name)(new_params(), cautious_update=True)
    with pytest.raises(ConfigError, match=rf"{name}: cautious_update: .* Remove it"):
        OptimizerFactory(name, cautious_update=True)
    params = new_params()
    with pytest.raises(ConfigError, match=r"^param_groups\[1\]\.cautious_update: "):
        class_of(name)([{"params": params[:1]}, {"params": params[1:], "cautious_update": True}])


def test_without_a_memory_signs_may_be_masked() -> None:
    assert optim.EFSGD(new_params(), memory=False, cautious_update=True).defaults["cautious_update"]


def test_a_step_that_the_gradient_agrees_with() -> None:
    """arXiv:2411.16085: the momentum's step where it has the gradient's sign, times the share of such places."""
    param = nn.Parameter(torch.zeros(4))
    optimizer = Declared([param], lr=1.0, cautious_update=True)
    step_with(optimizer, [param], [torch.tensor([1.0, 1.0, 1.0, 1.0])])
    torch.testing.assert_close(param.detach(), torch.full((4,), -0.1))
    step_with(optimizer, [param], [torch.tensor([-0.5, 1.0, 1.0, 0.0])])
    m = torch.tensor([0.04, 0.19, 0.19, 0.09])
    torch.testing.assert_close(param.detach(), -0.1 - m * torch.tensor([0.0, 1.0, 1.0, 0.0]) / 0.5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_masters_are_a_float32_run_rounded(dtype) -> None:
    script = [[None if g is None else g.to(dtype) for g in grads] for grads in new_grads()]
    params, exact = new_params(dtype), [nn.Parameter(p.detach().float()) for p in new_params(dtype)]
    ours, theirs = optim.AdamW(params, lr=1e-3, master_weights=True), optim.AdamW(exact, lr=1e-3)
    plain_params = new_params(dtype)
    plain = optim.AdamW(plain_params, lr=1e-3)
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
    other.load_state_dict(through_a_file(ours.state_dict()))
    for mine, loaded in zip(ours.state.values(), other.state.values(), strict=True):
        assert {k: v.dtype for k, v in mine.items()} == {k: v.dtype for k, v in loaded.items()}
        assert all(torch.equal(mine[key], loaded[key]) for key in mine)


def test_masters_of_full_parameters_are_themselves() -> None:
    params = new_params()
    optimizer = optim.Adam(params, master_weights=True)
    step_with(optimizer, params, new_grads()[0])
    assert all("master" not in state for state in optimizer.state.values())


# Switched between runs


@pytest.mark.parametrize("cls", [optim.Lion, optim.AdamW, Hooked], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
def test_masters_may_be_switched_at_a_resume(cls, on) -> None:
    params = new_params(torch.bfloat16)
    script = new_grads(torch.bfloat16)[:6]
    optimizer = cls(params, lr=0.01, master_weights=not on)
    for grads in script[:3]:
        step_with(optimizer, params, grads)
    saved = through_a_file(optimizer.state_dict())
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


def test_slow_weights_are_those_of_the_run_that_asks_for_them() -> None:
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


def test_a_checkpoint_of_torch_s_leaves_modifiers_as_they_are() -> None:
    params = new_params()
    theirs = torch.optim.AdamW(params, lr=0.25)
    step_with(theirs, params, new_grads()[0])
    given = {"cautious_update": True, "lookahead": {"k": 2, "alpha": 0.5}, "skip_nonfinite": True}
    ours = optim.AdamW(params, **given)
    ours.load_state_dict(through_a_file(theirs.state_dict()))
    assert {key: ours.param_groups[0][key] for key in given} == given
    assert ours.param_groups[0]["lr"] == 0.25


# From a config


def test_a_key_of_the_factory_takes_our_class() -> None:
    for key, value in VALUES.items():
        if key != "all":
            assert type(OptimizerFactory("adamw", **value)(nn.Linear(2, 1))) is optim.AdamW
    assert type(OptimizerFactory("adamw", lookahead=None)(nn.Linear(2, 1))) is torch.optim.AdamW
    with pytest.raises(ConfigError, match="lookahead: our adamw takes it, torch's does not"):
        OptimizerFactory("adamw", lookahead={"k": 2}, implementation="torch")


def test_a_group_may_have_its_own() -> None:
    rules = {"head": {"params": "head", "lookahead": {"k": 2}, "cautious_update": True}}
    optimizer = OptimizerFactory("lion", groups=rules)(Net(None))  # type: ignore[arg-type]
    values = {group["name"]: (group["lookahead"], group["cautious_update"]) for group in optimizer.param_groups}
    assert values == {"default": (None, False), "head": ({"k": 2, "alpha": 0.5}, True)}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lookahead": True}, r"lookahead: got True, which is not a mapping of k .* Type for example lookahead: {k: 5"),
        ({"lookahead": {"kk": 3}}, r"lookahead\.kk: there is no 'kk' in it\. Did you mean 'k'"),
        ({"lookahead": {"k": 0}}, r"lookahead\.k: got 0, which is not a whole number >= 1"),
        ({"lookahead": {"alpha": 2}}, r"lookahead\.alpha: got 2"),
        ({"lookahead": {"alpha": 0}}, r"lookahead\.alpha: got 0, which is not a finite number > 0 and <= 1"),
        ({"adaptive_clip": 0}, r"adaptive_clip: got 0, which is not a finite number > 0 or null"),
        ({"cautious_update": "yes"}, r"cautious_update: got 'yes'"),
        ({"skip_nonfinit": True}, r"skip_nonfinit: .* Did you mean 'skip_nonfinite'"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value),
)
def test_wrong_values_are_refused(given, said) -> None:
    with pytest.raises(ConfigError, match=said):
        OptimizerFactory("lion", **given)
    with pytest.raises(ConfigError):
        optim.Lion(new_params(), **given)
