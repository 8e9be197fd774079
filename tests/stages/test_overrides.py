"""What a stage sets holds for its groups from the thaw on, as a rule would have it, and through every resume."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory, StagedUnfreeze
from lightning_optim.stages.staged import StagedOptimizer
from lightning_optim.stages.stages import claim, parse_stages
from tests.support.messages import check_message

THAW, STEPS = 3, 9
LR = 0.5  # a power of two, like every factor on it here: products are exact
MUON = {"params": "backbone", "kinds": ["matrix"], "optimizer": "muon", "lr": 0.25}
NO_DECAY = {"kinds": ["bias"], "weight_decay": 0.0}


def make_net(*, bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"head": nn.Linear(3, 2, bias=bias), "backbone": nn.Linear(3, 3, bias=bias)})


def factory(name: str = "adamw", **arguments: Any) -> OptimizerFactory:
    return OptimizerFactory(name, **{"lr": LR, **arguments})


class Run:
    """A net whose backbone thaws at `THAW`, and what stands in for a training loop."""

    def __init__(self, build: Callable[[nn.Module], Optimizer], schedule: str | None = None, **backbone: Any) -> None:
        self.net = make_net()
        self.optimizer = build(self.net)
        self.schedulers = [SchedulerFactory(schedule)(self.optimizer, STEPS)] if schedule else []
        plan = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"step": THAW}, **backbone}}
        stages = claim(parse_stages(plan), self.net)
        self.staged = StagedOptimizer(self.optimizer, self.net, stages, self.schedulers)
        self.staged.activate_stages(["head"])

    def go(self, first: int = 0, until: int = STEPS) -> Run:
        for t in range(first, until):
            if t == THAW:
                self.staged.thaw("backbone")
            step(self.net, self.optimizer, t)
            for scheduler in self.schedulers:
                scheduler.step()
            self.staged.follow()
        return self

    def resumed_from(self, other: Run, done: int) -> Run:
        self.staged.activate_stages(["head"] if done <= THAW else ["head", "backbone"])
        pairs = zip(self.parts, other.parts, strict=True)
        for part, saved in pairs:
            part.load_state_dict(copy.deepcopy(saved.state_dict()))
        return self

    @property
    def parts(self) -> list[Any]:
        return [self.net, self.optimizer, *self.schedulers, self.staged]

    def values(self, key: str) -> dict[str, Any]:
        """By live group."""
        return {group["name"]: group.get(key) for group in self.optimizer.param_groups}


def step(net: nn.Module, optimizer: Optimizer, t: int) -> None:
    for number, (name, parameter) in enumerate(net.named_parameters()):
        frozen = name.startswith("backbone") and t < THAW
        parameter.grad = None if frozen else torch.full_like(parameter, float(t - 2 * number))
    optimizer.step()


def by_hand(net: nn.Module) -> Optimizer:
    biases = [p for name, p in net.named_parameters() if name.endswith("bias")]
    weights = [p for name, p in net.named_parameters() if name.endswith("weight")]
    return torch.optim.SGD([{"params": weights}, {"params": biases, "lr": 0.25}], lr=LR, momentum=0.75)


# As a rule would have it

SET: dict[str, tuple[OptimizerFactory, dict[str, Any]]] = {
    "sgd": (factory("sgd"), {"momentum": 0.5, "weight_decay": 0.25, "nesterov": True}),
    "adam": (factory("adam"), {"betas": [0.5, 0.75], "eps": 0.125, "amsgrad": True}),
    "adamw": (factory(), {"betas": [0.5, 0.75], "eps": 0.125, "weight_decay": 0.25}),
    "adamw, ours": (factory(implementation="own"), {"betas": [0.5, 0.75], "eps": 0.125, "weight_decay": 0.25}),
    "adamw, decay mode": (factory(implementation="own"), {"weight_decay_mode": "relative", "weight_decay": 0.25}),
    "rmsprop": (factory("rmsprop"), {"alpha": 0.5, "momentum": 0.25, "centered": True}),
    "lion": (factory("lion"), {"betas": [0.5, 0.75], "weight_decay": 0.25}),
    "lamb": (factory("lamb"), {"weight_decay": 0.25}),
    "lr": (factory(), {"lr": 0.125}),
    "lr, ours": (factory("lion"), {"lr": 0.125, "weight_decay_mode": "relative", "weight_decay": 0.25}),
    "no lr": (factory(), {"lr": 0.0}),
    "several algorithms": (factory(groups={"hidden": MUON}), {"weight_decay": 0.25, "lr": 0.125}),
}


@pytest.mark.parametrize("schedule", [None, "warmup_cosine"])
@pytest.mark.parametrize(("optimizer", "hyperparameters"), SET.values(), ids=SET)
def test_a_late_stage_trains_as_if_a_rule_had_set_it(optimizer, hyperparameters, schedule) -> None:
    late = Run(optimizer, schedule, **hyperparameters).go()
    rule = {"late": {"params": "backbone", "priority": 1, **hyperparameters}}
    other = OptimizerFactory(optimizer.name, groups={**optimizer.groups, **rule}, **_top(optimizer))
    net = make_net()
    oracle = other(net)
    scheduler = SchedulerFactory(schedule)(oracle, STEPS) if schedule else None
    for t in range(STEPS):
        step(net, oracle, t)
        if scheduler is not None:
            scheduler.step()
    held = dict(net.named_parameters())
    assert [name for name, p in late.net.named_parameters() if not torch.equal(p, held[name])] == []


def _top(optimizer: OptimizerFactory) -> dict[str, Any]:
    return {"implementation": optimizer.implementation, **optimizer.hyperparameters}


def test_other_stages_keep_what_was_configured() -> None:
    run = Run(factory(), weight_decay=0.25, betas=[0.5, 0.75]).go()
    assert run.values("weight_decay") == {"head": 0.01, "backbone": 0.25}
    assert run.values("betas") == {"head": (0.9, 0.999), "backbone": (0.5, 0.75)}


def test_it_holds_for_all_groups_of_the_stage_whatever_rules_say() -> None:
    groups = {"no_decay": NO_DECAY, "fast": {"params": "backbone.bias", "lr_scale": 4.0}}
    run = Run(factory(groups=groups), weight_decay=0.25, lr=0.125).go()
    late = {"backbone": 0.25, "backbone.fast.no_decay": 0.25}
    assert run.values("weight_decay") == {"head": 0.01, "head.no_decay": 0.0, **late}
    assert run.values("lr") == {"head": LR, "head.no_decay": LR, **dict.fromkeys(late, 0.125)}


def test_a_value_is_checked_and_becomes_what_the_algorithm_takes() -> None:
    (_, late) = Run(factory(), betas=[0.5, 0.75], weight_decay=1).go().optimizer.param_groups
    assert (late["betas"], late["weight_decay"]) == ((0.5, 0.75), 1.0)
    assert isinstance(late["weight_decay"], float)


# lr: the peak of the stage's groups


@pytest.mark.parametrize("schedule", [None, "one_cycle", "cosine_annealing"])
@pytest.mark.parametrize(
    ("lr", "factor"),
    [({"lr": 0.125}, 0.25), ({"lr": 0.125, "lr_scale": 0.5}, 0.125), ({"lr": 2.0}, 4.0), ({"lr": 0}, 0.0)],
    ids=["a quarter", "a quarter and half of it", "four times", "none"],
)
def test_lr_is_a_peak_on_the_curve_of_the_group(schedule, lr, factor) -> None:
    run = Run(factory(), schedule, **lr)
    assert run.go(until=THAW + 1).values("peak_lr") == {"head": LR, "backbone": LR * factor}
    for t in range(THAW + 1, STEPS):
        lrs = run.values("lr")
        assert lrs["backbone"] == lrs["head"] * factor
        run.go(t, t + 1)


def test_the_plan_shows_the_values_of_the_stage() -> None:
    plan = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"step": 1}, "lr": 0.125, "eps": 0.5}}
    rows = StagedUnfreeze(plan).explain(make_net(), factory(weight_decay=0.25)).rows()
    assert [(row["group"], row["lr"], row["eps"], row["weight_decay"]) for row in rows[:-1]] == [
        ("head", LR, 1e-8, 0.25),
        ("backbone", 0.125, 0.5, 0.25),
    ]


# What schedulers cycle


@pytest.mark.parametrize(
    ("name", "key", "given"),
    [("sgd", "momentum", 0.5), ("adamw", "betas", (0.5, 0.75)), ("lion", "betas", (0.5, 0.75))],
)
def test_what_a_stage_sets_is_not_cycled(name, key, given) -> None:
    momentum = {"momentum": 0.9} if name == "sgd" else {}
    run = Run(factory(name, **momentum), "one_cycle", **{key: given})
    seen = []
    for t in range(STEPS):
        run.go(t, t + 1)
        seen.append(run.values(key))
    assert len({values["head"] for values in seen}) > STEPS // 2, "that of the head is cycled"
    assert {values["backbone"] for values in seen[THAW:]} == {given}


def test_what_a_stage_does_not_set_is_cycled_as_ever() -> None:
    run = Run(factory(), "one_cycle", eps=0.125)
    for t in range(STEPS):
        run.go(t, t + 1)
        betas = run.values("betas")
        assert betas.get("backbone", betas["head"]) == betas["head"]


# By hand


def test_a_hand_made_optimizer_takes_what_its_groups_have() -> None:
    run = Run(by_hand, weight_decay=0.25, momentum=0.5).go()
    late = ("backbone", "backbone.group1")
    assert run.values("weight_decay") == {"head": 0, "head.group1": 0, **dict.fromkeys(late, 0.25)}
    assert run.values("momentum") == {"head": 0.75, "head.group1": 0.75, **dict.fromkeys(late, 0.5)}


def test_a_hand_made_optimizers_late_groups_train_as_its_own_would() -> None:
    run = Run(by_hand, weight_decay=0.25, momentum=0.5).go()
    net = make_net()
    own = [{"params": [p]} for p in net.parameters()]
    for (name, _), group in zip(net.named_parameters(), own, strict=True):
        group |= {"lr": 0.25} if name.endswith("bias") else {}
        group |= {"weight_decay": 0.25, "momentum": 0.5} if name.startswith("backbone") else {}
    oracle = torch.optim.SGD(own, lr=LR, momentum=0.75)
    for t in range(STEPS):
        step(net, oracle, t)
    assert all(map(torch.equal, run.net.parameters(), net.parameters()))


def test_an_optimizer_of_the_users_own_takes_its_hyperparameters_unchecked() -> None:
    class Mine(torch.optim.SGD):
        pass

    run = Run(lambda net: Mine(net.parameters(), lr=LR), momentum=0.5).go()
    assert run.values("momentum") == {"head": 0, "backbone": 0.5}


# Resumed

RESUMED: dict[str, Callable[[nn.Module], Optimizer]] = {
    "adamw": factory(),
    "adamw, ours": factory(implementation="own"),
    "several algorithms": factory(groups={"hidden": MUON}),
    "rules": factory(groups={"no_decay": NO_DECAY}),
}
resumed = pytest.mark.parametrize("build", RESUMED.values(), ids=RESUMED)


@pytest.mark.parametrize("build", [*RESUMED.values(), by_hand], ids=[*RESUMED, "by hand"])
@pytest.mark.parametrize("schedule", [None, "one_cycle"])
def test_it_goes_on_bitwise_from_every_step(build, schedule) -> None:
    def new() -> Run:
        hyperparameters = {"weight_decay": 0.25} if build is by_hand else {"weight_decay": 0.25, "lr": 0.125}
        return Run(build, schedule, warmup_steps=4, **hyperparameters)

    whole = new().go()
    for done in range(1, STEPS):
        again = new().resumed_from(new().go(until=done), done).go(done)
        assert all(map(torch.equal, whole.net.parameters(), again.net.parameters())), done
        assert again.optimizer.param_groups[-1]["weight_decay"] == 0.25, done


@pytest.mark.parametrize("done", [THAW - 1, THAW + 2], ids=["before the thaw", "after it"])
@pytest.mark.parametrize("build", [*RESUMED.values(), by_hand], ids=[*RESUMED, "by hand"])
def test_an_edited_value_holds_after_a_resume(build, done) -> None:
    before = Run(build, "one_cycle", weight_decay=0.25).go(until=done)
    after = Run(build, "one_cycle", weight_decay=0.75).resumed_from(before, done).go(done)
    late = {value for name, value in after.values("weight_decay").items() if name.startswith("backbone")}
    assert late == {0.75}


@resumed
def test_a_value_that_was_taken_away_is_the_configured_one_again(build) -> None:
    before = Run(build, weight_decay=0.25).go(until=THAW + 2)
    after, never = Run(build).resumed_from(before, THAW + 2), Run(build).go(until=THAW + 2)
    assert after.values("weight_decay") == never.values("weight_decay")


@resumed
def test_a_value_that_was_added_holds(build) -> None:
    before = Run(build).go(until=THAW + 2)
    after = Run(build, weight_decay=0.25).resumed_from(before, THAW + 2)
    late = [value for name, value in after.values("weight_decay").items() if name.startswith("backbone")]
    assert set(late) == {0.25}


@resumed
def test_an_edited_lr_goes_on_at_the_same_part_of_its_peak(build) -> None:
    before = Run(build, "one_cycle", lr=0.25).go(until=THAW + 2)
    after = Run(build, "one_cycle", lr=1.0).resumed_from(before, THAW + 2)
    expected = {n: lr * (4 if n.startswith("backbone") else 1) for n, lr in before.values("lr").items()}
    assert after.values("lr") == expected


# Refused

WRONG: dict[str, tuple[Any, dict[str, Any], str, tuple[str, ...]]] = {
    "misspelt": (
        factory(),
        {"weight_decoy": 0.1},
        "stages.backbone.weight_decoy",
        ("no key 'weight_decoy'", "Did you mean 'weight_decay'?", "lr_scale"),
    ),
    "another tool's word": (factory(), {"wd": 0.1}, "stages.backbone.wd", ("Did you mean 'weight_decay'?",)),
    "what only a rule has": (
        factory(),
        {"layer_decay": 0.5},
        "stages.backbone.layer_decay",
        ("no key 'layer_decay'", "There are: params"),
    ),
    "of another algorithm": (
        factory(),
        {"momentum": 0.9},
        "stages.backbone.momentum",
        ("backbone.weight, backbone.bias", "adamw has no momentum", "Remove it, or narrow the selectors"),
    ),
    "of one algorithm of two": (
        factory(groups={"hidden": MUON}),
        {"betas": [0.5, 0.75]},
        "stages.backbone.betas",
        ("it claims backbone.weight, which go by muon", "muon has no betas", "narrow the selectors"),
    ),
    "of the other of two": (
        factory(groups={"hidden": MUON}),
        {"ns_steps": 3},
        "stages.backbone.ns_steps",
        ("it claims backbone.bias, which go by adamw", "adamw has no ns_steps"),
    ),
    "no hyperparameter of it, though torch keeps it in the group": (
        factory(),
        {"decoupled_weight_decay": False},
        "stages.backbone.decoupled_weight_decay",
        ("adamw has no decoupled_weight_decay", "Remove it"),
    ),
    "what a variant is named for": (
        factory("amsgrad"),
        {"amsgrad": False},
        "stages.backbone.amsgrad",
        ("amsgrad has no amsgrad", "Remove it"),
    ),
    "foreach": (factory(), {"foreach": True}, "stages.backbone.foreach", ("holds for the whole optimizer", "Set it")),
    "fused": (factory(), {"fused": True}, "stages.backbone.fused", ("holds for the whole optimizer",)),
    "capturable": (factory(), {"capturable": True}, "stages.backbone.capturable", ("holds for the whole optimizer",)),
    "null": (factory(), {"weight_decay": None}, "stages.backbone.weight_decay", ("got None", "leave weight_decay out")),
    "lr null": (factory(), {"lr": None}, "stages.backbone.lr", ("got None", "leave lr out")),
    "too little": (factory(), {"weight_decay": -1}, "stages.backbone.weight_decay", ("got -1", "weight_decay: 0.01")),
    "a text": (factory(), {"eps": "small"}, "stages.backbone.eps", ("got 'small'", "eps: 1.0e-08")),
    "one beta": (factory(), {"betas": 0.5}, "stages.backbone.betas", ("got 0.5", "a list of 2", "betas: [0.9, 0.999]")),
    "a beta too large": (factory(), {"betas": [0.5, 1.5]}, "stages.backbone.betas", ("got [0.5, 1.5]",)),
    "negative lr": (factory(), {"lr": -0.1}, "stages.backbone.lr", ("got -0.1", ">= 0")),
    "lr a text": (factory(), {"lr": "1e-3"}, "stages.backbone.lr", ("got '1e-3'", "lr: 0.001")),
    "values that exclude each other": (
        factory("sgd", momentum=0.9),
        {"nesterov": True, "dampening": 0.5},
        "stages.backbone",
        ("nesterov: true needs momentum > 0 and dampening: 0", "backbone.weight"),
    ),
    "a value that the configured one excludes": (
        factory("sgd"),
        {"nesterov": True},
        "stages.backbone",
        ("nesterov: true needs momentum > 0",),
    ),
    "lr, where the configured one is 0": (
        factory(lr=0.0),
        {"lr": 0.1},
        "stages.backbone.lr",
        ("got 0.1", "its lr is 0", "stages.backbone.lr_scale: 0.1"),
    ),
    "lr, by hand": (
        by_hand,
        {"lr": 0.1},
        "stages.backbone.lr",
        ("got 0.1", "no OptimizerFactory has built it", "stages.backbone.lr_scale: 0.1"),
    ),
    "of another algorithm, by hand": (by_hand, {"betas": [0.5, 0.75]}, "stages.backbone.betas", ("sgd has no betas",)),
    "wrong value, by hand": (by_hand, {"momentum": "x"}, "stages.backbone.momentum", ("got 'x'", "momentum: 0.0")),
}


@pytest.mark.parametrize(("build", "given", "key", "parts"), WRONG.values(), ids=WRONG)
def test_what_a_stage_cannot_set_is_refused(build, given, key, parts) -> None:
    with pytest.raises(ConfigError) as caught:
        Run(build, **given)
    check_message(caught, key, *parts)


BEFORE_IT_IS_BUILT = {name: case for name, case in WRONG.items() if case[0] is not by_hand}


@pytest.mark.parametrize(("build", "given", "key", "parts"), BEFORE_IT_IS_BUILT.values(), ids=BEFORE_IT_IS_BUILT)
def test_explain_refuses_the_same(build, given, key, parts) -> None:
    plan = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"step": 1}, **given}}
    with pytest.raises(ConfigError) as caught:
        StagedUnfreeze(plan).explain(make_net(), build)
    check_message(caught, key, *parts)


@pytest.mark.parametrize("key", ["weight_decay_mode", "cautious_decay"])
def test_what_only_our_implementation_has_is_refused_with_the_word_for_it(key) -> None:
    """adamw has it in the catalog: torch's class, which was taken, does not."""
    given = {"weight_decay_mode": "relative", "cautious_decay": True}[key]
    with pytest.raises(ConfigError) as caught:
        Run(factory(), **{key: given})
    check_message(caught, f"stages.backbone.{key}", "implementation: own")


def test_only_the_groups_of_the_stage_are_asked() -> None:
    run = Run(factory(groups={"hidden": {**MUON, "params": "head"}}), betas=[0.5, 0.75]).go()
    assert run.values("betas") == {"head.hidden": None, "head": (0.9, 0.999), "backbone": (0.5, 0.75)}
