"""A late group's lr, momentum and betas are bitwise those of a group there from the start, on any scheduler."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim import lr_scheduler as torch_schedulers
from torch.optim.lr_scheduler import LRScheduler

from lightning_optim import ConfigError, OptimizerFactory, optim
from lightning_optim.stages.staged import StagedOptimizer
from lightning_optim.stages.stages import claim, parse_stages

STEPS, THAW = 24, 7


class Foreign(LRScheduler):
    """A third party's, with a list of its own that has one entry a group."""

    def __init__(self, optimizer: Any) -> None:
        self.factors = [1.0 for _ in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["a_key_of_its_own"] = 0.5
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        self.factors = [factor * 0.9 for factor in self.factors]
        return [base * factor for base, factor in zip(self.base_lrs, self.factors, strict=True)]


def _sequential(optimizer: Any) -> LRScheduler:
    first = torch_schedulers.LinearLR(optimizer, 0.1, total_iters=5)
    then = torch_schedulers.CosineAnnealingLR(optimizer, T_max=15)
    return torch_schedulers.SequentialLR(optimizer, [first, then], milestones=[5])


def _chained(optimizer: Any) -> Any:
    parts = [torch_schedulers.ConstantLR(optimizer, 0.5, 4), torch_schedulers.ExponentialLR(optimizer, 0.9)]
    return torch_schedulers.ChainedScheduler(parts, optimizer)


SCHEDULERS = {
    "lambda": lambda o: torch_schedulers.LambdaLR(o, lambda t: 0.95**t),
    "multiplicative": lambda o: torch_schedulers.MultiplicativeLR(o, lambda t: 0.95),
    "step": lambda o: torch_schedulers.StepLR(o, 3),
    "multi_step": lambda o: torch_schedulers.MultiStepLR(o, [5, 9]),
    "constant": lambda o: torch_schedulers.ConstantLR(o, 0.1, 10),
    "linear": lambda o: torch_schedulers.LinearLR(o, 0.1, total_iters=12),
    "exponential": lambda o: torch_schedulers.ExponentialLR(o, 0.9),
    "sequential": _sequential,
    "cosine": lambda o: torch_schedulers.CosineAnnealingLR(o, T_max=9),
    "chained": _chained,
    "plateau": lambda o: torch_schedulers.ReduceLROnPlateau(o, factor=0.5, patience=1),
    "cyclic": lambda o: torch_schedulers.CyclicLR(o, 1e-3, 0.1, step_size_up=4),
    "warm_restarts": lambda o: torch_schedulers.CosineAnnealingWarmRestarts(o, T_0=5),
    "one_cycle": lambda o: torch_schedulers.OneCycleLR(o, [0.1, 0.05], total_steps=STEPS + 1),
    "polynomial": lambda o: torch_schedulers.PolynomialLR(o, 20, 2.0),
    "foreign": Foreign,
}
OPTIMIZERS = {
    "sgd": lambda groups: SGD(groups, lr=0.1, momentum=0.9),
    "adamw": lambda groups: AdamW(groups, lr=0.1),
    "nadamw": lambda groups: optim.NAdamW(groups, lr=0.1),
    "rmsprop": lambda groups: optim.RMSprop(groups, lr=0.1, momentum=0.9),
    "amsbound": lambda groups: optim.AMSBound(groups, lr=0.1, weight_decay=0.1, weight_decay_mode="relative"),
}


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"head": nn.Linear(3, 2), "backbone": nn.Linear(3, 3)})


def _groups(net: nn.Module) -> list[dict[str, Any]]:
    biases = [p for name, p in net.named_parameters() if name.endswith("bias")]
    weights = [p for name, p in net.named_parameters() if name.endswith("weight")]
    return [{"params": weights}, {"params": biases, "lr": 0.05}]


def _step(net: nn.Module, optimizer: Any, scheduler: Any, t: int) -> None:
    for number, parameter in enumerate(net.parameters()):
        parameter.grad = torch.full_like(parameter, float(t + number)) if parameter.requires_grad else None
    optimizer.step()
    # A metric that stops getting better, so that plateau drops a few times.
    scheduler.step(*([1.0] if isinstance(scheduler, torch_schedulers.ReduceLROnPlateau) else []))


def _stages(net: nn.Module, **backbone: Any) -> Any:
    return claim(
        parse_stages(
            {
                "head": {"params": "head", "allow_unused": True},
                "backbone": {"params": "backbone", "at": {"step": THAW}, **backbone},
            }
        ),
        net,
    )


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("make_scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_late_groups_are_on_the_curve(make_scheduler, make_optimizer) -> None:
    net, whole = _net(), _net()
    optimizer, oracle = make_optimizer(_groups(net)), make_optimizer(_groups(whole))
    scheduler, oracle_scheduler = make_scheduler(optimizer), make_scheduler(oracle)
    staged = StagedOptimizer(optimizer, net, _stages(net, lr_scale=0.25), [scheduler])
    staged.activate_stages(["head"])
    for t in range(STEPS):
        if t == THAW:
            assert [group.name for group in staged.thaw("backbone")] == ["backbone", "backbone.group1"]
            late = [group["lr"] for group in optimizer.param_groups[2:]]
            assert late == [group["lr"] * 0.25 for group in oracle.param_groups], "on the curve at once"
        staged.follow()
        for live, parent, scale in zip(
            optimizer.param_groups, oracle.param_groups * 2, [1, 1, 0.25, 0.25], strict=False
        ):
            assert live["lr"] == parent["lr"] * scale
            assert [live.get(key) for key in ("momentum", "betas")] == [
                parent.get(key) for key in ("momentum", "betas")
            ]
        assert len(optimizer.param_groups) == (2 if t < THAW else 4)
        _step(net, optimizer, scheduler, t)
        _step(whole, oracle, oracle_scheduler, t)
        assert torch.equal(net["head"].weight, whole["head"].weight)
        assert torch.equal(net["head"].bias, whole["head"].bias)


@pytest.mark.parametrize("name", ["adamw", "nadamw", "amsbound"])
@pytest.mark.parametrize("make_scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_resumes_bitwise_from_every_step(make_scheduler, name) -> None:
    def start() -> tuple[nn.Module, Any, Any, StagedOptimizer]:
        net = _net()
        optimizer = OPTIMIZERS[name](_groups(net))
        scheduler = make_scheduler(optimizer)
        return net, optimizer, scheduler, StagedOptimizer(optimizer, net, _stages(net, warmup_steps=4), [scheduler])

    def run(net: nn.Module, optimizer: Any, scheduler: Any, staged: StagedOptimizer, first: int = 0) -> list[Any]:
        saved = []
        with_hook = optimizer.register_step_post_hook(staged.after_step)
        for t in range(first, STEPS):
            saved.append([copy.deepcopy(part.state_dict()) for part in (net, optimizer, scheduler, staged)])
            if t == THAW:
                staged.thaw("backbone")
            staged.follow()
            _step(net, optimizer, scheduler, t)
        with_hook.remove()
        return saved

    net, *parts = start()
    parts[-1].activate_stages(["head"])
    for t, states in enumerate(run(net, *parts)):
        again, *parts = start()
        parts[-1].activate_stages(["head"] if t <= THAW else ["head", "backbone"])
        for part, state in zip((again, *parts), states, strict=True):
            part.load_state_dict(state)
        run(again, *parts, first=t)
        assert all(map(torch.equal, net.parameters(), again.parameters())), t


def test_warm_up_is_a_factor_on_the_curve() -> None:
    net = _net()
    optimizer = SGD(net.parameters(), lr=0.1)
    staged = StagedOptimizer(optimizer, net, _stages(net, warmup_steps=4, lr_scale=0.5, allow_unused=True), [])
    optimizer.register_step_post_hook(staged.after_step)
    staged.activate_stages(["head"])
    staged.thaw("backbone")
    lrs = []
    for _ in range(5):
        staged.follow()
        lrs.append(optimizer.param_groups[1]["lr"])
        optimizer.step()
    assert lrs == [0.1 * (0.5 * factor) for factor in (0.25, 0.5, 0.75, 1.0, 1.0)]


def test_a_lr_set_by_hand_is_refused_instead_of_undone() -> None:
    net = _net()
    optimizer = SGD(net.parameters(), lr=0.1)
    staged = StagedOptimizer(optimizer, net, _stages(net), [])
    optimizer.register_step_pre_hook(staged.before_step)
    staged.activate_stages(["head"])
    optimizer.param_groups[0]["lr"] = 0.05
    with pytest.raises(ConfigError, match="something other than a scheduler has set the lr of group 'head' to 0.05"):
        optimizer.step()


@pytest.mark.parametrize("first_without", [1, 2, 3])
def test_a_stage_without_gradients_is_found_in_its_first_two_steps(first_without) -> None:
    net = _net()
    optimizer = SGD(net.parameters(), lr=0.1)
    staged = StagedOptimizer(optimizer, net, _stages(net), [])
    optimizer.register_step_post_hook(staged.after_step)
    staged.activate_stages(["head", "backbone"])
    for t in range(1, 4):
        for name, parameter in net.named_parameters():
            gone = name == "backbone.bias" and t >= first_without
            parameter.grad = None if gone else torch.zeros_like(parameter)
        if t == first_without and t <= 2:
            with pytest.raises(ConfigError, match=rf"stages\.backbone: .* in step {t} .* backbone\.bias.*allow_unused"):
                optimizer.step()
            return
        optimizer.step()


def test_a_hand_made_optimizers_states_do_not_change_places() -> None:
    def staged(plan: dict[str, Any]) -> StagedOptimizer:
        net = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("a", "b")})
        made = StagedOptimizer(SGD(net.parameters(), 0.1), net, claim(parse_stages(plan), net), [])
        made.activate_stages(list(plan))
        return made

    saved = staged({"x": {"params": "a"}, "y": {"params": "b"}}).state_dict()
    with pytest.raises(ConfigError, match=r"they differ in 4 parameters: a\.bias, a\.weight, b\.bias"):
        staged({"x": {"params": "b"}, "y": {"params": "a"}}).load_state_dict(saved)


def test_state_made_at_construction_goes_with_its_group() -> None:
    net = _net()
    optimizer = OptimizerFactory("adagrad", fused=False)(net)
    staged = StagedOptimizer(optimizer, net, _stages(net), [])
    staged.activate_stages(["head"])
    assert set(optimizer.state) == set(net["head"].parameters())
    staged.thaw("backbone")
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert set(optimizer.state) == set(net.parameters())


def test_a_tensor_lr_is_filled_in_place() -> None:
    net = _net()
    optimizer = AdamW(net.parameters(), lr=torch.tensor(0.1))
    scheduler = torch_schedulers.ExponentialLR(optimizer, 0.5)
    staged = StagedOptimizer(optimizer, net, _stages(net), [scheduler])
    staged.activate_stages(["head"])
    held = optimizer.param_groups[0]["lr"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler.step()
    staged.follow()
    assert optimizer.param_groups[0]["lr"] is held
    assert held == torch.tensor(0.1) * 0.5


def test_lbfgs_is_refused() -> None:
    net = _net()
    with pytest.raises(ConfigError, match="lbfgs takes one param group"):
        StagedOptimizer(OptimizerFactory("lbfgs")(net), net, _stages(net), [])


def test_a_scheduler_without_an_optimizer_is_refused() -> None:
    net = _net()
    optimizer = SGD(net.parameters(), lr=0.1)
    with pytest.raises(ConfigError, match="no reference to the optimizer can be found in _Opaque"):
        StagedOptimizer(optimizer, net, _stages(net), [_Opaque()])


class _Opaque:
    """Keeps its optimizer where nobody finds it."""

    def step(self) -> None: ...
