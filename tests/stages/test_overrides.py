"""Hyperparameters that a stage sets: they hold for its groups from the thaw on as if a rule had set them."""

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
from tests.support.cases import each_value, every
from tests.support.messages import check_message

THAW, STEPS = 3, 9
LR = 0.5  # a power of two, as are all factors on it: products are exact
MUON = {"params": "backbone", "kinds": ["matrix"], "optimizer": "muon", "lr": 0.25}
NO_DECAY = {"kinds": ["bias"], "weight_decay": 0.0}


def build_net(*, bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"head": nn.Linear(3, 2, bias=bias), "backbone": nn.Linear(3, 3, bias=bias)})


def build_factory(name: str = "adamw", **arguments: Any) -> OptimizerFactory:
    return OptimizerFactory(name, **{"lr": LR, **arguments})


class Run:
    """A net whose backbone thaws at step `THAW`, and a training loop."""

    def __init__(self, build: Callable[[nn.Module], Optimizer], schedule: str | None = None, **backbone: Any) -> None:
        self.net = build_net()
        self.optimizer = build(self.net)
        self.schedulers = [SchedulerFactory(schedule)(self.optimizer, STEPS)] if schedule else []
        plan = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"step": THAW}, **backbone}}
        stages = claim(parse_stages(plan), self.net)
        self.staged = StagedOptimizer(self.optimizer, self.net, stages, self.schedulers)
        self.staged.activate_stages(["head"])

    def train(self, first: int = 0, until: int = STEPS) -> Run:
        for t in range(first, until):
            if t == THAW:
                self.staged.thaw("backbone")
            train_step(self.net, self.optimizer, t)
            for scheduler in self.schedulers:
                scheduler.step()
            self.staged.sync()
        return self

    def resume_from(self, other: Run, step: int) -> Run:
        self.staged.activate_stages(["head"] if step <= THAW else ["head", "backbone"])
        for part, saved in zip(self.parts, other.parts, strict=True):
            part.load_state_dict(copy.deepcopy(saved.state_dict()))
        return self

    @property
    def parts(self) -> list[Any]:
        return [self.net, self.optimizer, *self.schedulers, self.staged]

    def values(self, key: str) -> dict[str, Any]:
        """The values of a key by live group."""
        return {group["name"]: group.get(key) for group in self.optimizer.param_groups}


def train_step(net: nn.Module, optimizer: Optimizer, t: int) -> None:
    for number, (name, parameter) in enumerate(net.named_parameters()):
        frozen = name.startswith("backbone") and t < THAW
        parameter.grad = None if frozen else torch.full_like(parameter, float(t - 2 * number))
    optimizer.step()


def build_by_hand(net: nn.Module) -> Optimizer:
    biases = [p for name, p in net.named_parameters() if name.endswith("bias")]
    weights = [p for name, p in net.named_parameters() if name.endswith("weight")]
    return torch.optim.SGD([{"params": weights}, {"params": biases, "lr": 0.25}], lr=LR, momentum=0.75)


# As if a rule had set it

SET: dict[str, tuple[OptimizerFactory, dict[str, Any]]] = {
    "sgd": (build_factory("sgd"), {"momentum": 0.5, "weight_decay": 0.25, "nesterov": True}),
    "adam": (build_factory("adam"), {"betas": [0.5, 0.75], "eps": 0.125, "amsgrad": True}),
    "adamw (torch)": (build_factory(), {"betas": [0.5, 0.75], "eps": 0.125, "weight_decay": 0.25}),
    "adamw (own)": (build_factory(implementation="own"), {"betas": [0.5, 0.75], "eps": 0.125, "weight_decay": 0.25}),
    "decay mode": (build_factory(implementation="own"), {"weight_decay_mode": "relative", "weight_decay": 0.25}),
    "rmsprop": (build_factory("rmsprop"), {"alpha": 0.5, "momentum": 0.25, "centered": True}),
    "lion": (build_factory("lion"), {"betas": [0.5, 0.75], "weight_decay": 0.25}),
    "lamb": (build_factory("lamb"), {"weight_decay": 0.25}),
    "lr": (build_factory(), {"lr": 0.125}),
    "lr (own)": (build_factory("lion"), {"lr": 0.125, "weight_decay_mode": "relative", "weight_decay": 0.25}),
    "lr 0": (build_factory(), {"lr": 0.0}),
    "several algorithms": (build_factory(groups={"hidden": MUON}), {"weight_decay": 0.25, "lr": 0.125}),
}


CASES = [f"{case}, {schedule}" for case in SET for schedule in ("constant lr", "warmup_cosine")]
FAST = [
    "sgd, warmup_cosine",
    "adamw (torch), constant lr",
    "adamw (own), warmup_cosine",
    "decay mode, warmup_cosine",
    "lr, warmup_cosine",
    "lr 0, constant lr",
    "several algorithms, warmup_cosine",
]


@pytest.mark.parametrize("case", each_value(CASES, fast=FAST))
def test_late_stage_trains_as_if_a_rule_had_set_its_hyperparameters(case) -> None:
    name, schedule = case.split(", ")
    optimizer, hyperparameters = SET[name]
    late = Run(optimizer, None if schedule == "constant lr" else schedule, **hyperparameters).train()
    rule = {"late": {"params": "backbone", "priority": 1, **hyperparameters}}
    top = {"implementation": optimizer.implementation, **optimizer.hyperparameters}
    net = build_net()
    oracle = OptimizerFactory(optimizer.name, groups={**optimizer.groups, **rule}, **top)(net)
    scheduler = None if schedule == "constant lr" else SchedulerFactory(schedule)(oracle, STEPS)
    for t in range(STEPS):
        train_step(net, oracle, t)
        if scheduler is not None:
            scheduler.step()
    expected = dict(net.named_parameters())
    assert [name for name, p in late.net.named_parameters() if not torch.equal(p, expected[name])] == []


def test_other_stages_keep_the_configured_values() -> None:
    run = Run(build_factory(), weight_decay=0.25, betas=[0.5, 0.75]).train()
    assert run.values("weight_decay") == {"head": 0.01, "backbone": 0.25}
    assert run.values("betas") == {"head": (0.9, 0.999), "backbone": (0.5, 0.75)}


def test_hyperparameters_of_a_stage_override_those_of_rules() -> None:
    groups = {"no_decay": NO_DECAY, "fast": {"params": "backbone.bias", "lr_scale": 4.0}}
    run = Run(build_factory(groups=groups), weight_decay=0.25, lr=0.125).train()
    late = {"backbone": 0.25, "backbone.fast.no_decay": 0.25}
    assert run.values("weight_decay") == {"head": 0.01, "head.no_decay": 0.0, **late}
    assert run.values("lr") == {"head": LR, "head.no_decay": LR, **dict.fromkeys(late, 0.125)}


def test_value_is_converted_to_the_type_of_the_hyperparameter() -> None:
    (_, late) = Run(build_factory(), betas=[0.5, 0.75], weight_decay=1).train().optimizer.param_groups
    assert (late["betas"], late["weight_decay"]) == ((0.5, 0.75), 1.0)
    assert isinstance(late["weight_decay"], float)


def test_value_may_depend_on_a_configured_one() -> None:
    """`nesterov` needs momentum, which the optimizer's config sets."""
    run = Run(build_factory("sgd", momentum=0.9), nesterov=True).train()
    assert run.values("nesterov") == {"head": False, "backbone": True}


# lr is the peak of the stage's groups


@pytest.mark.parametrize("schedule", [None, "one_cycle", "cosine_annealing"])
@pytest.mark.parametrize(
    ("lr", "factor"),
    [({"lr": 0.125}, 0.25), ({"lr": 0.125, "lr_scale": 0.5}, 0.125), ({"lr": 2.0}, 4.0), ({"lr": 0}, 0.0)],
    ids=["a quarter", "a quarter with lr_scale", "four times", "lr 0"],
)
def test_lr_is_a_peak_on_the_curve_of_the_configured_group(schedule, lr, factor) -> None:
    run = Run(build_factory(), schedule, **lr)
    assert run.train(until=THAW + 1).values("peak_lr") == {"head": LR, "backbone": LR * factor}
    for t in range(THAW + 1, STEPS):
        lrs = run.values("lr")
        assert lrs["backbone"] == lrs["head"] * factor
        run.train(t, t + 1)


def test_explain_shows_the_values_of_the_stage() -> None:
    plan = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"step": 1}, "lr": 0.125, "eps": 0.5}}
    rows = StagedUnfreeze(plan).explain(build_net(), build_factory(weight_decay=0.25)).rows()
    assert [(row["group"], row["lr"], row["eps"], row["weight_decay"]) for row in rows[:-1]] == [
        ("head", LR, 1e-8, 0.25),
        ("backbone", 0.125, 0.5, 0.25),
    ]


# Momentum that schedulers cycle


@pytest.mark.parametrize(
    ("name", "key", "given"),
    [("sgd", "momentum", 0.5), ("adamw", "betas", (0.5, 0.75)), ("lion", "betas", (0.5, 0.75))],
)
def test_momentum_that_a_stage_sets_is_not_cycled(name, key, given) -> None:
    momentum = {"momentum": 0.9} if name == "sgd" else {}
    run = Run(build_factory(name, **momentum), "one_cycle", **{key: given})
    found = []
    for t in range(STEPS):
        run.train(t, t + 1)
        found.append(run.values(key))
    assert len({values["head"] for values in found}) > STEPS // 2, "that of the head is cycled"
    assert {values["backbone"] for values in found[THAW:]} == {given}


def test_momentum_that_no_stage_sets_is_cycled() -> None:
    run = Run(build_factory(), "one_cycle", eps=0.125)
    for t in range(STEPS):
        run.train(t, t + 1)
        betas = run.values("betas")
        assert betas.get("backbone", betas["head"]) == betas["head"]


# Hand-made optimizers


def test_stage_may_set_what_the_groups_of_a_hand_made_optimizer_have() -> None:
    run = Run(build_by_hand, weight_decay=0.25, momentum=0.5).train()
    late = ("backbone", "backbone.group1")
    assert run.values("weight_decay") == {"head": 0, "head.group1": 0, **dict.fromkeys(late, 0.25)}
    assert run.values("momentum") == {"head": 0.75, "head.group1": 0.75, **dict.fromkeys(late, 0.5)}


def test_late_groups_of_a_hand_made_optimizer_train_as_configured_groups() -> None:
    run = Run(build_by_hand, weight_decay=0.25, momentum=0.5).train()
    net = build_net()
    own = [{"params": [p]} for p in net.parameters()]
    for (name, _), group in zip(net.named_parameters(), own, strict=True):
        group |= {"lr": 0.25} if name.endswith("bias") else {}
        group |= {"weight_decay": 0.25, "momentum": 0.5} if name.startswith("backbone") else {}
    oracle = torch.optim.SGD(own, lr=LR, momentum=0.75)
    for t in range(STEPS):
        train_step(net, oracle, t)
    assert all(map(torch.equal, run.net.parameters(), net.parameters()))


def test_hyperparameters_of_a_user_s_optimizer_class_are_not_checked() -> None:
    class Mine(torch.optim.SGD):
        pass

    run = Run(lambda net: Mine(net.parameters(), lr=LR), momentum=0.5).train()
    assert run.values("momentum") == {"head": 0, "backbone": 0.5}


# Resuming

RESUMED: dict[str, Callable[[nn.Module], Optimizer]] = {
    "adamw (torch)": build_factory(),
    "adamw (own)": build_factory(implementation="own"),
    "several algorithms": build_factory(groups={"hidden": MUON}),
    "rules": build_factory(groups={"no_decay": NO_DECAY}),
}
builders = pytest.mark.parametrize("build", RESUMED.values(), ids=RESUMED)
ALL_RESUMED = {**RESUMED, "by hand": build_by_hand}


@pytest.mark.parametrize(
    "case",
    every(
        [f"{case}, {schedule}" for case in ALL_RESUMED for schedule in ("constant lr", "one_cycle")],
        fast=["adamw (torch), constant lr", "several algorithms, one_cycle", "by hand, one_cycle"],
    ),
)
def test_run_resumes_bitwise_from_every_step(case) -> None:
    name, schedule = case.split(", ")
    lr = {} if name == "by hand" else {"lr": 0.125}

    def start() -> Run:
        schedule_name = None if schedule == "constant lr" else schedule
        return Run(ALL_RESUMED[name], schedule_name, warmup_steps=4, weight_decay=0.25, **lr)

    expected = start().train()
    interrupted = start()
    for step in range(1, STEPS):
        interrupted.train(step - 1, step)
        resumed = start().resume_from(interrupted, step).train(step)
        assert all(map(torch.equal, expected.net.parameters(), resumed.net.parameters())), step
        assert resumed.optimizer.param_groups[-1]["weight_decay"] == 0.25, step


@pytest.mark.parametrize("step", [THAW - 1, THAW + 2], ids=["before the thaw", "after the thaw"])
@pytest.mark.parametrize("build", ALL_RESUMED.values(), ids=ALL_RESUMED)
def test_edited_value_holds_after_a_resume(build, step) -> None:
    before = Run(build, "one_cycle", weight_decay=0.25).train(until=step)
    after = Run(build, "one_cycle", weight_decay=0.75).resume_from(before, step).train(step)
    late = {value for name, value in after.values("weight_decay").items() if name.startswith("backbone")}
    assert late == {0.75}


@builders
def test_removed_value_is_the_configured_one_after_a_resume(build) -> None:
    before = Run(build, weight_decay=0.25).train(until=THAW + 2)
    after, never = Run(build).resume_from(before, THAW + 2), Run(build).train(until=THAW + 2)
    assert after.values("weight_decay") == never.values("weight_decay")


@builders
def test_added_value_holds_after_a_resume(build) -> None:
    before = Run(build).train(until=THAW + 2)
    after = Run(build, weight_decay=0.25).resume_from(before, THAW + 2)
    late = [value for name, value in after.values("weight_decay").items() if name.startswith("backbone")]
    assert set(late) == {0.25}


@builders
def test_edited_lr_resumes_at_the_same_fraction_of_its_peak(build) -> None:
    before = Run(build, "one_cycle", lr=0.25).train(until=THAW + 2)
    after = Run(build, "one_cycle", lr=1.0).resume_from(before, THAW + 2)
    expected = {n: lr * (4 if n.startswith("backbone") else 1) for n, lr in before.values("lr").items()}
    assert after.values("lr") == expected


# Refused

WRONG: dict[str, tuple[Any, dict[str, Any], str, tuple[str, ...]]] = {
    "misspelt": (
        build_factory(),
        {"weight_decoy": 0.1},
        "stages.backbone.weight_decoy",
        ("no key 'weight_decoy'", "Did you mean 'weight_decay'?", "lr_scale"),
    ),
    "name in another tool": (build_factory(), {"wd": 0.1}, "stages.backbone.wd", ("Did you mean 'weight_decay'?",)),
    "key of rules only": (
        build_factory(),
        {"layer_decay": 0.5},
        "stages.backbone.layer_decay",
        ("no key 'layer_decay'", "Available: params"),
    ),
    "of another algorithm": (
        build_factory(),
        {"momentum": 0.9},
        "stages.backbone.momentum",
        ("backbone.weight, backbone.bias", "adamw has no momentum", "Remove it, or narrow the selectors"),
    ),
    "of one algorithm of two": (
        build_factory(groups={"hidden": MUON}),
        {"betas": [0.5, 0.75]},
        "stages.backbone.betas",
        ("claims backbone.weight, optimized by muon", "muon has no betas", "narrow the selectors"),
    ),
    "of the other algorithm of two": (
        build_factory(groups={"hidden": MUON}),
        {"ns_steps": 3},
        "stages.backbone.ns_steps",
        ("claims backbone.bias, optimized by adamw", "adamw has no ns_steps"),
    ),
    "torch's internal key": (
        build_factory(),
        {"decoupled_weight_decay": False},
        "stages.backbone.decoupled_weight_decay",
        ("adamw has no decoupled_weight_decay", "Remove it"),
    ),
    "key that the variant fixes": (
        build_factory("amsgrad"),
        {"amsgrad": False},
        "stages.backbone.amsgrad",
        ("amsgrad has no amsgrad", "Remove it"),
    ),
    "foreach": (
        build_factory(),
        {"foreach": True},
        "stages.backbone.foreach",
        ("holds for the whole optimizer", "Set it"),
    ),
    "fused": (build_factory(), {"fused": True}, "stages.backbone.fused", ("holds for the whole optimizer",)),
    "capturable": (
        build_factory(),
        {"capturable": True},
        "stages.backbone.capturable",
        ("holds for the whole optimizer",),
    ),
    "null": (
        build_factory(),
        {"weight_decay": None},
        "stages.backbone.weight_decay",
        ("got None", "leave weight_decay out"),
    ),
    "lr null": (build_factory(), {"lr": None}, "stages.backbone.lr", ("got None", "leave lr out")),
    "too little": (
        build_factory(),
        {"weight_decay": -1},
        "stages.backbone.weight_decay",
        ("got -1", "weight_decay: 0.01"),
    ),
    "a text": (build_factory(), {"eps": "small"}, "stages.backbone.eps", ("got 'small'", "eps: 1.0e-08")),
    "one beta": (
        build_factory(),
        {"betas": 0.5},
        "stages.backbone.betas",
        ("got 0.5", "a list of 2", "betas: [0.9, 0.999]"),
    ),
    "a beta too large": (build_factory(), {"betas": [0.5, 1.5]}, "stages.backbone.betas", ("got [0.5, 1.5]",)),
    "negative lr": (build_factory(), {"lr": -0.1}, "stages.backbone.lr", ("got -0.1", ">= 0")),
    "lr a text": (build_factory(), {"lr": "1e-3"}, "stages.backbone.lr", ("got '1e-3'", "text", "lr: 1.0e-3")),
    "conflicting values": (
        build_factory("sgd", momentum=0.9),
        {"nesterov": True, "dampening": 0.5},
        "stages.backbone",
        ("nesterov: true needs momentum > 0 and dampening: 0", "backbone.weight"),
    ),
    "value that conflicts with a configured one": (
        build_factory("sgd"),
        {"nesterov": True},
        "stages.backbone",
        ("nesterov: true needs momentum > 0",),
    ),
    "lr where the configured one is 0": (
        build_factory(lr=0.0),
        {"lr": 0.1},
        "stages.backbone.lr",
        ("got 0.1", "its lr is 0", "stages.backbone.lr_scale: 0.1"),
    ),
    "lr, by hand": (
        build_by_hand,
        {"lr": 0.1},
        "stages.backbone.lr",
        ("got 0.1", "no OptimizerFactory has built it", "stages.backbone.lr_scale: 0.1"),
    ),
    "of another algorithm, by hand": (
        build_by_hand,
        {"betas": [0.5, 0.75]},
        "stages.backbone.betas",
        ("sgd has no betas",),
    ),
    "wrong value, by hand": (
        build_by_hand,
        {"momentum": "x"},
        "stages.backbone.momentum",
        ("got 'x'", "momentum: 0.0"),
    ),
}


@pytest.mark.parametrize(("build", "given", "key", "parts"), WRONG.values(), ids=WRONG)
def test_wrong_hyperparameter_is_refused(build, given, key, parts) -> None:
    with pytest.raises(ConfigError) as caught:
        Run(build, **given)
    check_message(caught, key, *parts)


WRONG_IN_EXPLAIN = {name: case for name, case in WRONG.items() if case[0] is not build_by_hand}


@pytest.mark.parametrize(("build", "given", "key", "parts"), WRONG_IN_EXPLAIN.values(), ids=WRONG_IN_EXPLAIN)
def test_wrong_hyperparameter_is_refused_by_explain(build, given, key, parts) -> None:
    plan = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"step": 1}, **given}}
    with pytest.raises(ConfigError) as caught:
        StagedUnfreeze(plan).explain(build_net(), build)
    check_message(caught, key, *parts)


@pytest.mark.parametrize("key", ["weight_decay_mode", "cautious_decay"])
def test_hyperparameter_of_our_implementation_only_is_refused_for_torch_s_class(key) -> None:
    """The catalog's adamw has it, torch's class does not."""
    given = {"weight_decay_mode": "relative", "cautious_decay": True}[key]
    with pytest.raises(ConfigError) as caught:
        Run(build_factory(), **{key: given})
    check_message(caught, f"stages.backbone.{key}", "implementation: own")


def test_hyperparameters_are_checked_for_the_groups_of_the_stage_only() -> None:
    run = Run(build_factory(groups={"hidden": {**MUON, "params": "head"}}), betas=[0.5, 0.75]).train()
    assert run.values("betas") == {"head.hidden": None, "head": (0.9, 0.999), "backbone": (0.5, 0.75)}
