"""StagedOptimizer: a late group's lr, momentum and betas are bitwise those of a group that was there from the start."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau

from lightning_optim import ConfigError, OptimizerFactory, optim
from lightning_optim.stages.staged import StagedOptimizer
from lightning_optim.stages.stages import claim, parse_stages
from tests.support.cases import each_value
from tests.support.torch_schedulers import HAND_MADE_SCHEDULERS

STEPS, THAW = 24, 7
OPTIMIZERS = {
    "sgd": lambda groups: SGD(groups, lr=0.1, momentum=0.9),
    "adamw": lambda groups: AdamW(groups, lr=0.1),
    "nadamw": lambda groups: optim.NAdamW(groups, lr=0.1),
    "rmsprop": lambda groups: optim.RMSprop(groups, lr=0.1, momentum=0.9),
    "amsbound": lambda groups: optim.AMSBound(groups, lr=0.1, weight_decay=0.1, weight_decay_mode="relative"),
}


def build_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"head": nn.Linear(3, 2), "backbone": nn.Linear(3, 3)})


def build_groups(net: nn.Module) -> list[dict[str, Any]]:
    biases = [p for name, p in net.named_parameters() if name.endswith("bias")]
    weights = [p for name, p in net.named_parameters() if name.endswith("weight")]
    return [{"params": weights}, {"params": biases, "lr": 0.05}]


def claim_stages(net: nn.Module, **backbone: Any) -> Any:
    config = {
        "head": {"params": "head", "allow_unused": True},
        "backbone": {"params": "backbone", "at": {"step": THAW}, **backbone},
    }
    return claim(parse_stages(config), net)


def train_step(net: nn.Module, optimizer: Any, scheduler: Any, t: int) -> None:
    for number, parameter in enumerate(net.parameters()):
        parameter.grad = torch.full_like(parameter, float(t + number)) if parameter.requires_grad else None
    optimizer.step()
    # The metric does not improve, so that plateau drops the lr a few times.
    scheduler.step(*([1.0] if isinstance(scheduler, ReduceLROnPlateau) else []))


# Following the schedulers

ON_CURVE = [f"{scheduler}, {optimizer}" for scheduler in HAND_MADE_SCHEDULERS for optimizer in OPTIMIZERS]
FAST_ON_CURVE = [
    "lambda, rmsprop",
    "sequential, sgd",
    "chained, nadamw",
    "plateau, adamw",
    "cyclic, sgd",
    "one_cycle, adamw",
    "foreign, amsbound",
]


@pytest.mark.parametrize("case", each_value(ON_CURVE, fast=FAST_ON_CURVE))
def test_late_groups_are_on_the_curve_of_their_configured_group(case) -> None:
    build_scheduler, build_optimizer = HAND_MADE_SCHEDULERS[case.split(", ")[0]], OPTIMIZERS[case.split(", ")[1]]
    net, oracle_net = build_net(), build_net()
    optimizer, oracle = build_optimizer(build_groups(net)), build_optimizer(build_groups(oracle_net))
    scheduler, oracle_scheduler = build_scheduler(optimizer), build_scheduler(oracle)
    staged = StagedOptimizer(optimizer, net, claim_stages(net, lr_scale=0.25), [scheduler])
    staged.activate_stages(["head"])
    for t in range(STEPS):
        if t == THAW:
            assert [group.name for group in staged.thaw("backbone")] == ["backbone", "backbone.group1"]
            late = [group["lr"] for group in optimizer.param_groups[2:]]
            assert late == [group["lr"] * 0.25 for group in oracle.param_groups], "on the curve at once"
            for live, parent in zip(optimizer.param_groups[2:], oracle.param_groups, strict=True):
                assert parent.keys() <= live.keys(), "schedulers store keys of their own in a group"
        staged.sync()
        scales = [1, 1, 0.25, 0.25]
        for live, parent, scale in zip(optimizer.param_groups, oracle.param_groups * 2, scales, strict=False):
            assert live["lr"] == parent["lr"] * scale
            assert [live.get(key) for key in ("momentum", "betas")] == [
                parent.get(key) for key in ("momentum", "betas")
            ]
        assert len(optimizer.param_groups) == (2 if t < THAW else 4)
        train_step(net, optimizer, scheduler, t)
        train_step(oracle_net, oracle, oracle_scheduler, t)
        assert torch.equal(net["head"].weight, oracle_net["head"].weight)
        assert torch.equal(net["head"].bias, oracle_net["head"].bias)


RESUMED = [f"{scheduler}, {optimizer}" for scheduler in HAND_MADE_SCHEDULERS for optimizer in OPTIMIZERS]


class Run:
    """A run whose backbone thaws at `THAW`, with a warm-up of four steps."""

    def __init__(self, case: str, live: list[str]) -> None:
        build_scheduler, build_optimizer = HAND_MADE_SCHEDULERS[case.split(", ")[0]], OPTIMIZERS[case.split(", ")[1]]
        self.net = build_net()
        self.optimizer = build_optimizer(build_groups(self.net))
        self.scheduler = build_scheduler(self.optimizer)
        stages = claim_stages(self.net, warmup_steps=4)
        self.staged = StagedOptimizer(self.optimizer, self.net, stages, [self.scheduler])
        self.optimizer.register_step_post_hook(self.staged.after_step)
        self.staged.activate_stages(live)
        self.parts = (self.net, self.optimizer, self.scheduler, self.staged)

    def step(self, t: int) -> None:
        if t == THAW:
            self.staged.thaw("backbone")
        self.staged.sync()
        train_step(self.net, self.optimizer, self.scheduler, t)


@pytest.mark.parametrize("case", each_value(RESUMED, fast=["sequential, adamw", "cyclic, nadamw"]))
def test_run_resumes_bitwise_from_every_step(case) -> None:
    run, checkpoints = Run(case, ["head"]), []
    for t in range(STEPS):
        checkpoints.append([copy.deepcopy(part.state_dict()) for part in run.parts])
        run.step(t)
    for t, states in enumerate(checkpoints):
        resumed = Run(case, ["head"] if t <= THAW else ["head", "backbone"])
        for part, state in zip(resumed.parts, states, strict=True):
            part.load_state_dict(state)
        for step in range(t, STEPS):
            resumed.step(step)
        assert all(map(torch.equal, run.net.parameters(), resumed.net.parameters())), t


def give_gradients(net: nn.Module) -> None:
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)


def test_warmup_is_a_factor_on_the_curve() -> None:
    net = build_net()
    optimizer = SGD(net.parameters(), lr=0.1)
    staged = StagedOptimizer(optimizer, net, claim_stages(net, warmup_steps=4, lr_scale=0.5, allow_unused=True), [])
    optimizer.register_step_post_hook(staged.after_step)
    staged.activate_stages(["head"])
    staged.thaw("backbone")
    give_gradients(net)
    lrs = []
    for _ in range(5):
        staged.sync()
        lrs.append(optimizer.param_groups[1]["lr"])
        optimizer.step()
    assert lrs == [0.1 * (0.5 * factor) for factor in (0.25, 0.5, 0.75, 1.0, 1.0)]


def test_tensor_lr_is_filled_in_place() -> None:
    net = build_net()
    optimizer = AdamW(net.parameters(), lr=torch.tensor(0.1))
    scheduler = ExponentialLR(optimizer, 0.5)
    staged = StagedOptimizer(optimizer, net, claim_stages(net), [scheduler])
    staged.activate_stages(["head"])
    lr = optimizer.param_groups[0]["lr"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler.step()
    staged.sync()
    assert optimizer.param_groups[0]["lr"] is lr
    assert lr == torch.tensor(0.1) * 0.5


def test_a_scheduler_stepped_just_before_the_optimizer_sets_the_lr_of_that_step() -> None:
    """As under manual optimization, where no hook comes between the two."""
    net = build_net()
    optimizer = AdamW(net.parameters(), lr=0.1)
    scheduler = ExponentialLR(optimizer, 0.5)
    staged = StagedOptimizer(optimizer, net, claim_stages(net), [scheduler])
    staged.activate_stages(["head"])
    used = []
    optimizer.register_step_pre_hook(staged.before_step)
    optimizer.register_step_pre_hook(lambda *_: used.append([group["lr"] for group in optimizer.param_groups]))
    give_gradients(net)
    optimizer.step()
    scheduler.step()
    optimizer.step()
    assert used == [[0.1], [0.05]]


def test_state_created_by_the_constructor_is_removed_and_added_with_its_group() -> None:
    net = build_net()
    optimizer = OptimizerFactory("adagrad", fused=False)(net)
    staged = StagedOptimizer(optimizer, net, claim_stages(net), [])
    staged.activate_stages(["head"])
    assert set(optimizer.state) == set(net["head"].parameters())
    staged.thaw("backbone")
    give_gradients(net)
    optimizer.step()
    assert set(optimizer.state) == set(net.parameters())


# Refused


def test_lr_set_by_hand_is_refused_and_not_overwritten() -> None:
    net = build_net()
    optimizer = SGD(net.parameters(), lr=0.1)
    staged = StagedOptimizer(optimizer, net, claim_stages(net), [])
    optimizer.register_step_pre_hook(staged.before_step)
    staged.activate_stages(["head"])
    optimizer.param_groups[0]["lr"] = 0.05
    with pytest.raises(
        ConfigError, match=r"other than a scheduler has set the lr of group 'head' to 0.05, .* gives 0.1"
    ):
        optimizer.step()


@pytest.mark.parametrize("first_without", [1, 2, 3])
def test_parameter_without_gradient_is_refused_in_the_first_two_steps_of_its_stage(first_without) -> None:
    net = build_net()
    optimizer = SGD(net.parameters(), lr=0.1)
    staged = StagedOptimizer(optimizer, net, claim_stages(net), [])
    optimizer.register_step_post_hook(staged.after_step)
    staged.activate_stages(["head", "backbone"])
    for t in range(1, 4):
        for name, parameter in net.named_parameters():
            missing = name == "backbone.bias" and t >= first_without
            parameter.grad = None if missing else torch.zeros_like(parameter)
        if t == first_without and t <= 2:
            with pytest.raises(ConfigError, match=rf"stages\.backbone: .* in step {t} .* backbone\.bias.*allow_unused"):
                optimizer.step()
            return
        optimizer.step()


def test_hooks_ignore_steps_on_request() -> None:
    net = build_net()
    optimizer = SGD(net.parameters(), lr=0.1)
    staged = StagedOptimizer(optimizer, net, claim_stages(net, warmup_steps=4), [])
    optimizer.register_step_pre_hook(staged.before_step)
    optimizer.register_step_post_hook(staged.after_step)
    staged.activate_stages(["head", "backbone"])
    staged.ignore_steps = True
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()  # neither the lr nor the missing gradients raise
    assert staged.state_dict()["num_steps"] == {"head": 0, "backbone": 0}


def test_state_of_a_hand_made_optimizer_is_not_loaded_into_other_groups() -> None:
    def build(plan: dict[str, Any]) -> StagedOptimizer:
        net = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("a", "b")})
        staged = StagedOptimizer(SGD(net.parameters(), 0.1), net, claim(parse_stages(plan), net), [])
        staged.activate_stages(list(plan))
        return staged

    saved = build({"x": {"params": "a"}, "y": {"params": "b"}}).state_dict()
    with pytest.raises(ConfigError, match=r"they differ in 4 parameters: a\.bias, a\.weight, b\.bias"):
        build({"x": {"params": "b"}, "y": {"params": "a"}}).load_state_dict(saved)


def test_state_with_other_live_parameters_is_refused() -> None:
    def build(live: list[str]) -> StagedOptimizer:
        net = build_net()
        staged = StagedOptimizer(OptimizerFactory("sgd")(net), net, claim_stages(net), [])
        staged.activate_stages(live)
        return staged

    saved = build(["head", "backbone"]).state_dict()
    with pytest.raises(ConfigError, match=r"^stages: 2 parameters have thawed either .*: backbone\.bias, backbone\.w"):
        build(["head"]).load_state_dict(saved)


def test_parameter_of_the_optimizer_without_a_stage_is_refused() -> None:
    net = build_net()
    stages = claim(parse_stages({"head": {"params": "head"}}), net)
    with pytest.raises(
        ConfigError, match=r"^stages: the optimizer holds 2 parameters that belong to no stage: backbone"
    ):
        StagedOptimizer(SGD(net.parameters(), lr=0.1), net, stages, [])


def test_lbfgs_is_refused() -> None:
    net = build_net()
    with pytest.raises(ConfigError, match="lbfgs takes one param group"):
        StagedOptimizer(OptimizerFactory("lbfgs")(net), net, claim_stages(net), [])


class Opaque:
    """A scheduler that stores no reference to its optimizer."""

    def step(self) -> None: ...


def test_scheduler_without_a_reference_to_the_optimizer_is_refused() -> None:
    net = build_net()
    optimizer = SGD(net.parameters(), lr=0.1)
    with pytest.raises(ConfigError, match="^scheduler: no reference to the optimizer found in Opaque"):
        StagedOptimizer(optimizer, net, claim_stages(net), [Opaque()])


def test_a_step_without_any_gradient_counts_only_if_the_module_takes_it_by_hand() -> None:
    """Lightning steps after a batch whose `training_step` has returned None."""
    for by_hand, expected in ((False, 1), (True, 2)):
        net = build_net()
        optimizer = SGD(net.parameters(), lr=0.1)
        staged = StagedOptimizer(optimizer, net, claim_stages(net, allow_unused=True), [])
        staged.by_hand = by_hand
        optimizer.register_step_post_hook(staged.after_step)
        staged.activate_stages(["head"])
        optimizer.step()
        give_gradients(net)
        optimizer.step()
        assert staged.num_steps == expected


def test_steps_of_an_optimizer_are_restored_and_found_in_checkpoints_that_lack_them() -> None:
    net = build_net()
    staged = StagedOptimizer(SGD(net.parameters(), lr=0.1), net, claim_stages(net), [])
    staged.activate_stages(["head"])
    staged.by_hand = True
    for _ in range(3):
        staged.after_step()
    state = staged.state_dict()
    for saved in (state, {key: value for key, value in state.items() if key != "num_optimizer_steps"}):
        other = StagedOptimizer(SGD(net.parameters(), lr=0.1), net, claim_stages(net), [])
        other.activate_stages(["head"])
        other.load_state_dict(saved)
        assert other.num_steps == 3
