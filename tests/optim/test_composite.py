"""Composite: several algorithms in one optimizer step exactly like separate optimizers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.optimizer import register_optimizer_step_post_hook

from lightning_optim import ConfigError, OptimizerFactory, optim
from lightning_optim.optim.composite import Composite
from tests.support.composites import (
    CLIP,
    HIDDEN,
    MUON_ADAMW,
    PAIRS,
    Deep,
    by_hand,
    check_children_share,
    check_refused_and_unchanged,
    each_pair,
    fit,
    is_hidden,
    new_group,
    parts_of,
    trained,
    weights_of,
)

# Steps
from tests.support.equality import equal


@each_pair
def test_it_steps_like_two_optimizers(factory, main, hidden) -> None:
    model, other = Deep(), Deep()
    optimizer = factory(model)
    assert isinstance(optimizer, Optimizer)
    assert type(optimizer) is Composite
    assert len(optimizer.children) == 2
    ours, theirs = fit(model, [optimizer], last=10), fit(other, by_hand(other, main, hidden), last=10)
    assert [equal(a, b) for a, b in zip(ours, theirs, strict=True)] == [True] * 10
    for first, last in zip(Deep().parameters(), model.parameters(), strict=True):
        assert not torch.equal(first, last), "each parameter is stepped"


@each_pair
def test_its_state_is_that_of_two_optimizers(factory, main, hidden) -> None:
    model, other = Deep(), Deep()
    optimizer, two = factory(model), by_hand(other, main, hidden)
    assert len(optimizer.state) == sum(len(one.state) for one in two), "adagrad has one before the first step"
    fit(model, [optimizer]), fit(other, two)
    theirs = {**two[0].state, **two[1].state}
    assert equal([optimizer.state[p] for p in model.parameters()], [theirs[p] for p in other.parameters()])


def test_the_main_algorithm_has_the_parameters_that_no_rule_takes() -> None:
    optimizer = MUON_ADAMW(Deep())
    assert [(group["name"], group["algorithm"], group["lr"]) for group in optimizer.param_groups] == [
        ("hidden", "muon", 0.02),
        ("default", "adamw", 1e-3),
    ]
    names = [group["param_names"] for group in optimizer.param_groups]
    assert names[0] == ["backbone.0.weight", "backbone.3.weight", "backbone.4.weight"]
    assert names[1][:2] == ["backbone.0.bias", "backbone.1.weight"]


@each_pair
def test_a_closure_is_called_once_a_step_with_gradients_enabled(factory, main, hidden) -> None:
    model, other = Deep(), Deep()
    optimizer, two, losses = factory(model), by_hand(other, main, hidden), []

    def closure() -> Tensor:
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        losses.append(model.loss(len(losses)))
        losses[-1].backward()
        return losses[-1]

    for t in range(5):
        with torch.no_grad():
            returned = optimizer.step(closure)
        assert len(losses) == t + 1
        assert returned is losses[-1]
        for one in two:
            one.zero_grad()
        other.loss(t).backward()
        for one in two:
            one.step()
        assert equal(weights_of(model), weights_of(other)), t


@pytest.mark.parametrize("clip", [True, False], ids=["clipped", "unclipped"])
@each_pair
def test_a_grad_scaler_skips_a_step_with_infinite_gradients_for_all_children(factory, main, hidden, clip) -> None:
    model, other = Deep(), Deep()
    optimizer, two = factory(model), by_hand(other, main, hidden)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for t in range(6):
        before = weights_of(model), copy.deepcopy(optimizer.state_dict())
        scaler.scale(model.loss(t)).backward()
        if t == 2:
            model.head.bias.grad[0] = torch.inf  # of one child only
        if clip:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if t == 2:
            assert equal(before, (weights_of(model), optimizer.state_dict()))
            assert scaler.get_scale() == 2.0**9
            continue
        other.loss(t).backward()
        if clip:
            nn.utils.clip_grad_norm_(other.parameters(), CLIP)
        for one in two:
            one.step(), one.zero_grad()
        # A scale that is a power of two does not round.
        assert equal(weights_of(model), weights_of(other)), t


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad_reaches_every_parameter(set_to_none) -> None:
    model, optimizer = trained()
    model.loss().backward()
    optimizer.zero_grad(set_to_none=set_to_none)
    for parameter in model.parameters():
        assert parameter.grad is None if set_to_none else not parameter.grad.any()


@pytest.mark.parametrize("frozen", ["head", "backbone"])
def test_parameters_without_gradients_do_not_change_and_get_no_state(frozen) -> None:
    model = Deep()
    optimizer = MUON_ADAMW(model)
    getattr(model, frozen).requires_grad_(False)
    before = weights_of(model)
    model.loss().backward()
    optimizer.step()
    for (name, parameter), was in zip(model.named_parameters(), before, strict=True):
        assert torch.equal(parameter, was) is name.startswith(frozen), name
        assert (parameter in optimizer.state) is not name.startswith(frozen), name


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("adamw", {"all_of_it": {"params": "*", "optimizer": "lion"}}),
        ("muon", {"rest": {"params": "*", "optimizer": "lion", "lr": 0.1}}),
        ("lion", {"hidden": {**HIDDEN, "optimizer": "lion", "lr": 0.1}}),
        ("lion", {"cold": {**HIDDEN, "frozen": True, "optimizer": "muon"}}),
    ],
    ids=["one rule takes all", "main is muon", "rule names the main one", "the other is frozen"],
)
def test_with_only_one_algorithm_the_factory_returns_its_class(name, groups) -> None:
    optimizer = OptimizerFactory(name, groups=groups)(Deep())
    assert type(optimizer) is optim.Lion
    assert all("algorithm" not in group for group in optimizer.param_groups)


def test_three_algorithms_two_with_several_groups_step_like_three_optimizers() -> None:
    groups = {
        "hidden": {**HIDDEN, "optimizer": "muon", "lr": 0.02},
        "stem": {"params": "backbone.0", "weight_decay_scale": 0.5},
        "head": {"params": "head", "optimizer": "lion", "lr": 0.01},
    }
    model, other = Deep(), Deep()
    optimizer = OptimizerFactory("adamw", groups=groups)(model)
    layers, norm = other.backbone, other.backbone[1]
    matrices = [{"params": [layers[3].weight, layers[4].weight]}, {"params": [layers[0].weight], "weight_decay": 0.05}]
    rest = [norm.weight, norm.bias, layers[3].bias, layers[4].bias]
    three = [
        torch.optim.Muon(matrices, lr=0.02),
        torch.optim.AdamW(
            [{"params": rest}, {"params": [layers[0].bias], "weight_decay": 0.005}],
            lr=1e-3,
            weight_decay=0.01,
            fused=True,
        ),
        optim.Lion(other.head.parameters(), lr=0.01),
    ]
    assert equal(fit(model, [optimizer]), fit(other, three))
    assert {g["name"] for g in optimizer.param_groups} == {"hidden", "hidden.stem", "stem", "default", "head"}


@pytest.mark.parametrize("name", ["muon", "adamw", "lion"])
def test_lbfgs_is_refused_next_to_another_algorithm(name) -> None:
    with pytest.raises(ConfigError, match=r"^groups\.hidden\.optimizer: .*lbfgs"):
        OptimizerFactory("lbfgs", groups={"hidden": {**HIDDEN, "optimizer": name}})
    with pytest.raises(ConfigError, match=r"^groups\.hidden\.optimizer: lbfgs"):
        OptimizerFactory(name, groups={"hidden": {**HIDDEN, "optimizer": "lbfgs"}})


# Groups that join


@pytest.mark.parametrize("algorithm", ["muon", "adamw"])
def test_a_group_joins_the_child_it_names(algorithm) -> None:
    _, optimizer = trained()
    group = new_group(algorithm=algorithm, name="late", lr=0.5)
    optimizer.add_param_group(group)
    late = optimizer.param_groups[-1]
    assert optimizer.children[algorithm].param_groups[-1] is late
    assert (late["name"], late["lr"], late["weight_decay"]) == ("late", 0.5, 0.1 if algorithm == "muon" else 0.01)
    check_children_share(optimizer)
    (parameter,) = late["params"]
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    alone = nn.Parameter(torch.ones(3, 2))
    alone.grad = torch.ones_like(alone)
    cls = {"muon": torch.optim.Muon, "adamw": torch.optim.AdamW}[algorithm]
    given = {} if algorithm == "muon" else {"fused": True}
    cls([alone], lr=0.5, weight_decay=late["weight_decay"], **given).step()
    assert torch.equal(parameter, alone)


def test_a_group_without_an_algorithm_joins_the_main_one() -> None:
    _, optimizer = trained()
    optimizer.add_param_group(new_group())
    assert optimizer.param_groups[-1]["algorithm"] == "adamw"
    assert optimizer.children["adamw"].param_groups[-1] is optimizer.param_groups[-1]


def test_a_bare_tensor_may_join_where_no_parameter_has_a_name() -> None:
    model = Deep()
    groups = [{"params": part, "algorithm": name} for name, part in zip(("lion", "muon"), parts_of(model), strict=True)]
    optimizer = Composite(groups, {"muon": torch.optim.Muon, "lion": optim.Lion}, main="lion")
    alone = nn.Parameter(torch.ones(2))
    optimizer.add_param_group({"params": alone})
    assert optimizer.children["lion"].param_groups[-1]["params"] == [alone]
    check_children_share(optimizer)


def test_a_group_of_an_unknown_algorithm_is_refused() -> None:
    _, optimizer = trained()
    caught = check_refused_and_unchanged(
        optimizer, lambda: optimizer.add_param_group(new_group(algorithm="muonn", name="late"))
    )
    assert "'late'" in str(caught.value) and "'muonn'" in str(caught.value) and "'muon'?" in str(caught.value)


@pytest.mark.parametrize("algorithm", ["muon", "adamw"])
@pytest.mark.parametrize("existing", ["backbone.3.weight", "head.bias"])
@pytest.mark.parametrize(
    "shape",
    [lambda p: p, lambda p: [p], lambda p: [("x", p)], lambda p: iter([p])],
    ids=["tensor", "list", "pairs", "iterator"],
)
def test_a_parameter_that_is_already_in_a_group_is_refused(algorithm, existing, shape) -> None:
    model, optimizer = trained()
    params = shape(model.get_parameter(existing))
    caught = check_refused_and_unchanged(
        optimizer,
        lambda: optimizer.add_param_group({"params": params, "algorithm": algorithm, "name": "late"}),
    )
    assert "late" in str(caught.value)


def test_a_generator_of_parameters_may_join() -> None:
    _, optimizer = trained()
    late = nn.Linear(2, 3)
    optimizer.add_param_group({"params": late.named_parameters()})
    assert len(optimizer.param_groups[-1]["params"]) == 2
    assert all(a is b for a, b in zip(optimizer.param_groups[-1]["params"], late.parameters(), strict=True))
    assert optimizer.param_groups[-1]["param_names"] == ["weight", "bias"]


def test_a_bias_cannot_join_muon_and_nothing_changes() -> None:
    _, optimizer = trained()
    bias = nn.Parameter(torch.ones(3))
    late = {"params": [("late", bias)], "algorithm": "muon"}
    check_refused_and_unchanged(optimizer, lambda: optimizer.add_param_group(late), ValueError)


def test_a_wrong_value_in_a_group_that_joins_is_refused_and_nothing_changes() -> None:
    _, optimizer = trained(PAIRS["lion + sgd"][0])
    check_refused_and_unchanged(optimizer, lambda: optimizer.add_param_group(new_group(algorithm="lion", lr=-1.0)))
    check_refused_and_unchanged(optimizer, lambda: optimizer.add_param_group(new_group(algorithm="lion", betta=1.0)))


def test_children_follow_groups_edited_in_place() -> None:
    model, optimizer = trained()
    all_groups = list(optimizer.param_groups)
    optimizer.param_groups[:] = [group for group in all_groups if group["algorithm"] == "adamw"]
    before = dict(zip(model.state_dict(), weights_of(model), strict=True))
    model.loss().backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) is is_hidden(name, parameter), name
    check_children_share(optimizer)
    assert len(optimizer.state_dict()["param_groups"]) == 1
    optimizer.param_groups.append(all_groups[0])
    optimizer.step()
    assert all(not torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    check_children_share(optimizer)


def test_reordered_groups_keep_their_algorithms_and_states() -> None:
    model, optimizer = trained()
    other, reference = trained()
    optimizer.param_groups.reverse()
    assert equal(fit(model, [optimizer], 3), fit(other, [reference], 3))
    state, theirs = optimizer.state_dict(), reference.state_dict()
    assert [group["name"] for group in state["param_groups"]] == ["default", "hidden"]
    for group, same in zip(state["param_groups"], reversed(theirs["param_groups"]), strict=True):
        ours, expected = ([part["state"][n] for n in g["params"]] for part, g in ((state, group), (theirs, same)))
        assert equal(ours, expected)


@pytest.mark.parametrize("algorithm", [{}, {"algorithm": "adam"}], ids=["without an algorithm", "unknown"])
@pytest.mark.parametrize("use", [lambda o: o.step(), lambda o: o.state_dict()], ids=["step", "state_dict"])
def test_a_group_appended_without_a_known_algorithm_is_refused(algorithm, use) -> None:
    _, optimizer = trained()
    optimizer.param_groups.append({**optimizer.param_groups[0], "name": "appended", "params": []})
    optimizer.param_groups[-1].pop("algorithm")
    optimizer.param_groups[-1].update(algorithm)
    with pytest.raises(ConfigError, match="'appended': algorithm: there is no"):
        use(optimizer)


# Hooks


def test_its_hooks_run_once_each() -> None:
    model, optimizer = trained()
    seen: list[str] = []

    def note(what: str) -> Any:
        return lambda *_: seen.append(what)

    optimizer.register_step_pre_hook(note("before a step"))
    optimizer.register_step_post_hook(note("after a step"))
    optimizer.register_state_dict_pre_hook(note("before a save"))
    optimizer.register_state_dict_post_hook(note("after a save"))
    optimizer.register_load_state_dict_pre_hook(note("before a load"))
    optimizer.register_load_state_dict_post_hook(note("after a load"))
    model.loss().backward()
    optimizer.step()
    assert seen == ["before a step", "after a step"]
    state_dict = optimizer.state_dict()
    assert seen[2:] == ["before a save", "after a save"]
    optimizer.load_state_dict(state_dict)
    assert seen[4:] == ["before a load", "after a load"]


def test_torchs_global_hooks_run_once_a_step() -> None:
    model, optimizer = trained()
    seen: list[Any] = []
    handle = register_optimizer_step_post_hook(lambda stepped, *_: seen.append(stepped))
    model.loss().backward()
    optimizer.step()
    handle.remove()
    assert seen == [optimizer]


def test_a_childs_own_hooks_run() -> None:
    """A third-party optimizer may register hooks on itself."""
    model, optimizer = trained()
    seen: list[Any] = []
    for child in optimizer.children.values():
        child.register_step_post_hook(lambda stepped, *_: seen.append(stepped))
    model.loss().backward()
    optimizer.step()
    assert seen == list(optimizer.children.values())


def test_the_callers_group_dict_is_not_changed() -> None:
    optimizer, given = (
        MUON_ADAMW(Deep()),
        {"params": [("late", nn.Parameter(torch.ones(2)))], "name": "late", "lr": 0.5},
    )
    before = dict(given)
    optimizer.add_param_group(given)
    assert given == before and optimizer.param_groups[-1] is not given


def test_hooks_may_replace_the_state_dict_at_a_save_and_at_a_load() -> None:
    model, optimizer = trained()
    optimizer.register_state_dict_post_hook(lambda _, state_dict: {**state_dict, "note": 1})
    state_dict = optimizer.state_dict()
    assert state_dict["note"] == 1
    resumed = MUON_ADAMW(model)

    def halve(_: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        return {**state_dict, "param_groups": [{**g, "lr": g["lr"] / 2} for g in state_dict["param_groups"]]}

    resumed.register_load_state_dict_pre_hook(halve)
    resumed.load_state_dict(state_dict)
    assert [group["lr"] for group in resumed.param_groups] == [0.01, 5e-4]


def test_torchs_scheduler_drives_every_group() -> None:
    model, other = Deep(), Deep()
    optimizer, two = MUON_ADAMW(model), by_hand(other, *PAIRS["muon + adamw"][1:])
    schedules = [lr_scheduler.ExponentialLR(one, 0.5) for one in (optimizer, *two)]
    for t in range(4):
        assert equal(fit(model, [optimizer], t, t + 1), fit(other, two, t, t + 1))
        for schedule in schedules:
            schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.02 / 16, 1e-3 / 16]


def test_its_repr_and_defaults_are_those_of_its_children() -> None:
    text = repr(MUON_ADAMW(Deep()))
    assert text.startswith("Composite(AdamW (") and "Muon (" in text
    defaults = MUON_ADAMW(Deep()).defaults
    assert {"lr", "weight_decay"} <= defaults.keys() and not {"betas", "momentum"} & defaults.keys(), (
        "only what all children have"
    )
    assert PAIRS["lion + sgd"][0](Deep()).defaults["lr"] == 0.05, "the main one's come first"
