"""Registered optimizers: available by name, checked like built-in ones, usable with rules, stages and the monitor."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from lightning_optim import (
    ConfigError,
    OptimizerFactory,
    OptimizerMonitor,
    RNGState,
    SchedulerFactory,
    StagedUnfreeze,
    configure_optimizers,
    list_optimizers,
    optim,
    optimizer_info,
    register_optimizer,
)
from lightning_optim.catalog import registry
from lightning_optim.core.hyperparameters import Number
from tests.support.cases import every
from tests.support.equality import equal
from tests.support.messages import check_message
from tests.support.tensorboard_events import fit_with_events
from tests.support.training import BATCHES, Net, StepTrace, fit


class AcceptsAnything(torch.optim.Optimizer):
    """Sign of the momentum. As in many libraries, the constructor ignores unknown arguments."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.99), weight_decay=0, warm=True, period: int = 10, rank=None, **_):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "warm": warm, "rank": rank})
        self.period = period

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    m = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    m.lerp_(p.grad, 1 - group["betas"][0])
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(m.sign(), alpha=group["lr"])
        return loss


class Native(optim.AdaptiveOptimizer):
    """A subclass of the base class of this package, with the two hooks."""

    hyperparameters = {"friction": Number(default=0.1, low=0, high=1)}

    def __init__(self, params, lr=1e-2, friction=0.1, **options):
        super().__init__(params, {"lr": lr, "friction": friction}, **options)

    def init_state(self, state, group, param):
        state["velocity"] = torch.zeros_like(param)

    def step_param(self, state, group, grad, param):
        param.sub_(state["velocity"].mul_(1 - group["friction"]).add_(grad), alpha=group["lr"])


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch):
    """Restores the registry after each test."""
    monkeypatch.setattr(registry, "_described", dict(registry._described))
    monkeypatch.setattr(registry, "_pending", dict(registry._pending))
    yield
    registry._read_entry_points.cache_clear()


@pytest.fixture
def swallows():
    register_optimizer("swallows", AcceptsAnything, decay="decoupled", paper="none")


def test_hyperparameters_are_read_from_the_signature(swallows) -> None:
    info = optimizer_info("swallows")
    assert info.defaults == {
        "lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": 0.0, "warm": True, "period": 10, "rank": None,
    }  # fmt: skip
    assert (info.summary, info.paper, info.decay) == (
        "Sign of the momentum. As in many libraries, the constructor ignores unknown arguments.", "none", "decoupled",
    )  # fmt: skip
    assert "swallows" in list_optimizers("swa*")
    optimizer = OptimizerFactory("swallows", lr=0.5, betas=[0.8, 0.9], period=3, rank="any")(nn.Linear(2, 1))
    assert type(optimizer) is AcceptsAnything
    assert optimizer.period == 3
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"], group["rank"]) == (0.5, (0.8, 0.9), "any")


WRONG = {
    "misspelt": ({"wieght_decay": 0.1}, "wieght_decay", ("swallows has no hyperparameter", "'weight_decay'")),
    "another type": ({"warm": "yes"}, "warm", ("got 'yes'", "true or false")),
    "flag for a number": ({"period": True}, "period", ("got True", "a finite number")),
    "list of another length": ({"betas": [0.9]}, "betas", ("a list of 2",)),
    "negative lr": ({"lr": -1}, "lr", (">= 0",)),
    "implementation torch": ({"implementation": "torch"}, "implementation", ("torch has no swallows",)),
    "implementation own": ({"implementation": "own"}, "implementation", ("no swallows of our own",)),
    "in a rule": ({"groups": {"head": {"params": "head", "wram": False}}}, "groups.head.wram", ("'warm'",)),
    "constructor argument in a rule": (
        {"groups": {"head": {"params": "head", "period": 5}}}, "groups.head.period", ("one period for all",)
    ),
}  # fmt: skip


@pytest.mark.parametrize(("given", "key", "parts"), WRONG.values(), ids=WRONG)
def test_wrong_values_are_refused(swallows, given, key, parts) -> None:
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory("swallows", **given)(Net(None))
    check_message(caught, key, *parts)


def test_an_argument_without_a_default_is_required() -> None:
    class Needs(AcceptsAnything):
        def __init__(self, params, horizon, lr=0.1):
            super().__init__(params, lr)

    register_optimizer("needs", Needs)
    with pytest.raises(ConfigError, match=r"horizon: needs requires it\. Type horizon: "):
        OptimizerFactory("needs")
    assert type(OptimizerFactory("needs", horizon=3)(nn.Linear(2, 1))) is Needs


def test_bounds_given_at_registration_are_checked() -> None:
    register_optimizer("swallows", AcceptsAnything, hyperparameters={"period": Number(default=10, low=1, integer=True)})
    with pytest.raises(ConfigError, match="period: got 0, which is not an integer >= 1"):
        OptimizerFactory("swallows", period=0)
    with pytest.raises(ConfigError, match="AcceptsAnything takes no 'perod'"):
        register_optimizer("other", AcceptsAnything, hyperparameters={"perod": Number(default=10)})


@pytest.mark.parametrize(
    ("name", "cls", "message"),
    [
        ("adamw", AcceptsAnything, "there is already an optimizer 'adamw'"),
        ("Swallows", AcceptsAnything, "must be lowercase letters, digits or _, like adam_mini"),
        ("layer", nn.Linear, "not a subclass of torch.optim.Optimizer"),
    ],
    ids=["taken", "uppercase", "not an optimizer"],
)
def test_a_wrong_name_or_class_cannot_be_registered(name, cls, message) -> None:
    with pytest.raises(ConfigError, match=message):
        register_optimizer(name, cls)


def test_a_class_registered_by_path_is_imported_when_it_is_needed(monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    register_optimizer("late", f"{__name__}:AcceptsAnything")
    register_optimizer("nowhere", "colorsys:Absent")
    assert {"late", "nowhere"} <= set(list_optimizers())
    assert "colorsys" not in sys.modules
    assert type(OptimizerFactory("late")(nn.Linear(2, 1))) is AcceptsAnything
    with pytest.raises(ConfigError, match="nowhere was registered as colorsys:Absent, which cannot be imported"):
        OptimizerFactory("nowhere")


def test_an_unknown_key_is_searched_in_classes_registered_by_path() -> None:
    register_optimizer("broken", "colorsys:Absent")
    register_optimizer("late", f"{__name__}:AcceptsAnything")
    with pytest.raises(ConfigError, match=r"period belongs to late: left over from a config below\?"):
        OptimizerFactory("adamw", period=3)


def entry_points_are(monkeypatch: pytest.MonkeyPatch, *entries: EntryPoint) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry for entry in entries if entry.group == group])
    registry._read_entry_points.cache_clear()


def test_a_package_registers_its_classes_by_entry_points(monkeypatch) -> None:
    entry_points_are(
        monkeypatch,
        EntryPoint("from_a_package", f"{__name__}:AcceptsAnything", "lightning_optim.optimizers"),
        EntryPoint("of_another_group", f"{__name__}:AcceptsAnything", "console_scripts"),
    )
    assert "from_a_package" in list_optimizers() and "of_another_group" not in list_optimizers()
    assert type(OptimizerFactory("from_a_package")(nn.Linear(2, 1))) is AcceptsAnything


def test_an_entry_point_that_is_not_valid_is_ignored_with_a_warning(monkeypatch) -> None:
    cls = f"{__name__}:AcceptsAnything"
    entry_points_are(
        monkeypatch, *(EntryPoint(name, cls, "lightning_optim.optimizers") for name in ("Bad Name", "adamw"))
    )
    with pytest.warns(UserWarning, match="is ignored") as caught:
        assert "Bad Name" not in list_optimizers()
    messages = [str(warning.message) for warning in caught]
    assert [message.partition(" is ignored: ")[0] for message in messages] == [
        f"entry point {name} = {cls} of lightning_optim.optimizers" for name in ("Bad Name", "adamw")
    ]
    assert optimizer_info("adamw").path == "torch.optim:AdamW"


def test_entry_points_are_read_only_for_names_that_are_not_built_in(monkeypatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: pytest.fail("entry points were read"))
    registry._read_entry_points.cache_clear()
    OptimizerFactory("adamw", groups={"bias": {"kinds": ["bias"], "optimizer": "lion"}})(nn.Linear(2, 1))
    with pytest.raises(pytest.fail.Exception, match="entry points were read"):
        optimizer_info("another")


def test_a_subclass_of_the_base_class_accepts_the_shared_options() -> None:
    register_optimizer("hooked", Native)
    factory = OptimizerFactory("hooked", lr=0.1, weight_decay=0.5, weight_decay_mode="absolute", maximize=True)
    (group,) = factory(nn.Linear(2, 1)).param_groups
    assert (group["weight_decay_mode"], group["maximize"], group["peak_lr"]) == ("absolute", True, 0.1)
    with pytest.raises(ConfigError, match="friction: got 2, which is not a finite number >= 0 and <= 1"):
        OptimizerFactory("hooked", friction=2)


def test_list_and_show_include_registered_optimizers(swallows) -> None:
    from rich.console import Console

    from lightning_optim.cli.list_presets import list_entries, print_entries
    from lightning_optim.cli.show_optimizer import print_optimizer

    console = Console(record=True, width=200)
    print_entries(console, "optimizer", list_entries("optimizer", "swa*"))
    print_optimizer(console, "swallows")
    shown = console.export_text()
    assert "Sign of the momentum" in shown and "period" in shown


def configured(name: str, **given: Any) -> Any:
    groups = {"no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0}, "head": {"params": "head", "lr_scale": 2}}
    factory = OptimizerFactory(name, **{"lr": 0.01, "weight_decay": 0.1, "groups": groups, **given})
    return lambda module: configure_optimizers(module, factory, SchedulerFactory("warmup_cosine", warmup_steps=2))


def state_of(optimizer: torch.optim.Optimizer) -> Any:
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group.pop("differentiable", None)  # torch's load puts it into groups that join after it
    return state


PLAN = {
    "head": {"params": "head"},
    "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.25, "warmup_steps": 3},
}


def staged(folder: Any, configure: Any, ckpt_path: Any = None) -> Any:
    torch.manual_seed(0)
    module, trace = Net(configure, dropout=0.3), StepTrace()
    callbacks = [StagedUnfreeze(PLAN), RNGState(), trace, OptimizerMonitor(1, to_callback_metrics=True)]
    trainer = fit(
        module, folder, *callbacks, epochs=3, save=ckpt_path is None, ckpt_path=ckpt_path,
        seed=1 if ckpt_path is None else 2,
    )  # fmt: skip
    return module, trainer, trace


# Before and after the thaw at step BATCHES; and at it, and at the end of an epoch.
AROUND_THAW, AT_EPOCH_END = (BATCHES - 1, BATCHES + 1), (BATCHES, 2 * BATCHES)
RESUMED = [("swallows", AROUND_THAW), ("swallows", AT_EPOCH_END)]
RESUMED += [(name, (*AROUND_THAW, *AT_EPOCH_END)) for name in ("hooked", "adapnm")]


@pytest.mark.parametrize(
    ("name", "steps"), every(RESUMED, fast=["swallows-3-5"], id=lambda case: "-".join(map(str, (case[0], *case[1]))))
)
def test_it_trains_with_rules_stages_and_monitor_and_resumes_bitwise(tmp_path, name, steps) -> None:
    if name == "adapnm":
        pytest.importorskip("pytorch_optimizer")
    register_optimizer("swallows", AcceptsAnything)
    register_optimizer("hooked", Native)
    register_optimizer("adapnm", "pytorch_optimizer:AdaPNM", paper="arXiv:2103.17182", decay="decoupled")
    module, trainer, trace = staged(tmp_path, configured(name))
    (optimizer,) = trainer.optimizers
    assert [group["name"] for group in optimizer.param_groups] == [
        "head", "head.no_decay", "backbone", "backbone.no_decay",
    ]  # fmt: skip
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0, 0.1, 0]
    buffer = {"swallows": "momentum", "hooked": "velocity", "adapnm": "exp_avg"}[name]
    assert trainer.callback_metrics[f"optim/norm/{buffer}/backbone"] > 0
    for step in steps:
        again, resumed, saw = staged(tmp_path / "again", configured(name), tmp_path / f"step={step}.ckpt")
        assert saw.steps == trace.steps[step:], step
        assert equal(again.state_dict(), module.state_dict()), step
        assert equal(state_of(resumed.optimizers[0]), state_of(optimizer)), step


def test_a_rule_can_use_it_together_with_a_built_in_optimizer(tmp_path, swallows) -> None:
    rules = {"hidden": {"params": "backbone", "kinds": ["matrix"], "optimizer": "swallows", "lr": 1e-3, "period": 4}}
    curves = fit_with_events(tmp_path, Net(configured("adamw", groups=rules)), OptimizerMonitor())
    assert {"optim/norm/momentum/hidden", "optim/norm/exp_avg/default"} <= curves.keys()


def test_hydra_instantiates_it_by_name(swallows) -> None:
    node = {"_target_": "lightning_optim.OptimizerFactory", "_partial_": False, "name": "swallows", "lr": 0.5}
    assert type(instantiate(node)(nn.Linear(2, 1))) is AcceptsAnything


# Native classes whose constructors do not take **options


class Bare(optim.AdaptiveOptimizer):
    """Takes two hyperparameters, and no options."""

    def __init__(self, params, lr=1e-3, weight_decay=0.0):
        super().__init__(params, {"lr": lr}, weight_decay=weight_decay)

    def step_param(self, state, group, grad, param):
        param.sub_(grad, alpha=group["lr"])


class WithoutDecay(Bare):
    """Takes one."""

    def __init__(self, params, lr=1e-3):
        super().__init__(params, lr)


class WithSome(optim.Lion):
    """A subclass of a member that takes one of the options."""

    def __init__(self, params, lr=1e-3, *, skip_nonfinite=False):
        super().__init__(params, lr=lr, skip_nonfinite=skip_nonfinite)


@pytest.mark.parametrize(
    ("cls", "given", "expected"),
    [
        (Bare, {"weight_decay": 0.1}, {"weight_decay": 0.1, "skip_nonfinite": False}),
        (Bare, {"skip_nonfinite": False}, {"weight_decay": 0.0}),
        (WithoutDecay, {}, {"weight_decay": 0.0}),
        (WithSome, {"skip_nonfinite": True}, {"skip_nonfinite": True}),
    ],
)
def test_a_native_class_that_takes_no_options_builds_alone_and_in_a_composite(cls, given, expected) -> None:
    register_optimizer("bare", cls)
    net = nn.Linear(3, 2)
    rule = {"kinds": ["bias"], "lr": 0.5}
    alone = OptimizerFactory("bare", lr=0.1, **given, groups={"b": rule})(net)
    composite = OptimizerFactory("adamw", groups={"b": {**rule, "optimizer": "bare", **given}})(net)
    assert type(alone) is cls
    for group, lr in ((alone.param_groups[0], 0.1), (alone.param_groups[1], 0.5), (composite.param_groups[1], 0.5)):
        assert {key: group[key] for key in (*expected, "lr")} == {**expected, "lr": lr}
    net(torch.ones(3)).sum().backward()
    before = [param.detach().clone() for param in net.parameters()]
    alone.step()
    assert not any(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize(
    ("cls", "given", "key"),
    [
        (Bare, {"skip_nonfinite": True}, "skip_nonfinite"),
        (Bare, {"weight_decay_mode": "decoupled"}, "weight_decay_mode"),
        (Bare, {"groups": {"b": {"kinds": ["bias"], "lookahead": {"k": 2}}}}, "groups.b.lookahead"),
        (WithoutDecay, {"weight_decay": 0.1}, "weight_decay"),
        (WithSome, {"maximize": True}, "maximize"),
    ],
)
def test_an_option_that_a_native_class_does_not_take_says_what_to_add(cls, given, key) -> None:
    register_optimizer("bare", cls)
    with pytest.raises(ConfigError, match=rf"^{key}: .* Add \*\*options to the signature of {cls.__name__}.__init__"):
        OptimizerFactory("bare", **given)(nn.Linear(3, 2))
