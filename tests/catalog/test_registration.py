"""Optimizers of others, registered: by name in configs, checked as ours, under rules, stages and the monitor."""

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
from tests.support.messages import check_message
from tests.support.tensorboard_events import fit_with_events
from tests.support.training import BATCHES, Net, Witness, fit, same


class Swallows(torch.optim.Optimizer):
    """Steps by the sign, as many libraries write it: takes any argument without a word."""

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


class Ours(optim.AdaptiveOptimizer):
    """Two hooks."""

    hyperparameters = {"friction": Number(default=0.1, low=0, high=1)}

    def __init__(self, params, lr=1e-2, friction=0.1, **options):
        super().__init__(params, {"lr": lr, "friction": friction}, **options)

    def init_state(self, state, group, param):
        state["velocity"] = torch.zeros_like(param)

    def step_param(self, state, group, grad, param):
        param.sub_(state["velocity"].mul_(1 - group["friction"]).add_(grad), alpha=group["lr"])


@pytest.fixture
def swallows():
    register_optimizer("swallows", Swallows, decay="decoupled", paper="none")


def test_what_a_config_may_set_is_the_signature(swallows) -> None:
    info = optimizer_info("swallows")
    assert info.defaults == {
        "lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": 0.0, "warm": True, "period": 10, "rank": None,
    }  # fmt: skip
    assert (info.summary, info.paper, info.decay) == (
        "Steps by the sign, as many libraries write it: takes any argument without a word.", "none", "decoupled",
    )  # fmt: skip
    assert "swallows" in list_optimizers("swa*")
    optimizer = OptimizerFactory("swallows", lr=0.5, betas=[0.8, 0.9], period=3, rank="any")(nn.Linear(2, 1))
    assert type(optimizer) is Swallows
    assert optimizer.period == 3
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"], group["rank"]) == (0.5, (0.8, 0.9), "any")


WRONG = {
    "misspelt": ({"wieght_decay": 0.1}, "wieght_decay", ("swallows has no hyperparameter", "'weight_decay'")),
    "another kind": ({"warm": "yes"}, "warm", ("got 'yes'", "true or false")),
    "a flag for a number": ({"period": True}, "period", ("got True", "a finite number")),
    "a list of another length": ({"betas": [0.9]}, "betas", ("a list of 2",)),
    "a negative lr": ({"lr": -1}, "lr", (">= 0",)),
    "torch's": ({"implementation": "torch"}, "implementation", ("torch has no swallows",)),
    "our own": ({"implementation": "own"}, "implementation", ("no swallows of our own",)),
    "in a rule": ({"groups": {"head": {"params": "head", "wram": False}}}, "groups.head.wram", ("'warm'",)),
    "one for all groups": (
        {"groups": {"head": {"params": "head", "period": 5}}}, "groups.head.period", ("one period for all",)
    ),
}  # fmt: skip


@pytest.mark.parametrize(("given", "key", "parts"), WRONG.values(), ids=WRONG)
def test_mistakes_are_refused(swallows, given, key, parts) -> None:
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory("swallows", **given)(Net(None))
    check_message(caught, key, *parts)


def test_what_has_no_default_must_be_given() -> None:
    class Needs(Swallows):
        def __init__(self, params, horizon, lr=0.1):
            super().__init__(params, lr)

    register_optimizer("needs", Needs)
    with pytest.raises(ConfigError, match=r"horizon: needs cannot do without it\. Type horizon: "):
        OptimizerFactory("needs")
    assert type(OptimizerFactory("needs", horizon=3)(nn.Linear(2, 1))) is Needs


def test_bounds_may_be_given() -> None:
    register_optimizer("swallows", Swallows, hyperparameters={"period": Number(default=10, low=1, integer=True)})
    with pytest.raises(ConfigError, match="period: got 0, which is not a whole number >= 1"):
        OptimizerFactory("swallows", period=0)
    with pytest.raises(ConfigError, match="Swallows takes no 'perod'"):
        register_optimizer("other", Swallows, hyperparameters={"perod": Number(default=10)})


@pytest.mark.parametrize(
    ("name", "cls", "said"),
    [
        ("adamw", Swallows, "there is an optimizer 'adamw' already"),
        ("Swallows", Swallows, "small letters"),
        ("layer", nn.Linear, "no subclass of torch.optim.Optimizer"),
    ],
)
def test_what_cannot_be_registered(name, cls, said) -> None:
    with pytest.raises(ConfigError, match=said):
        register_optimizer(name, cls)


def test_a_path_is_imported_when_it_is_needed(monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    register_optimizer("late", f"{__name__}:Swallows")
    register_optimizer("nowhere", "colorsys:Absent")
    assert {"late", "nowhere"} <= set(list_optimizers())
    assert "colorsys" not in sys.modules
    assert type(OptimizerFactory("late")(nn.Linear(2, 1))) is Swallows
    with pytest.raises(ConfigError, match="nowhere was registered as colorsys:Absent, which cannot be imported"):
        OptimizerFactory("nowhere")


def test_a_package_registers_by_its_entry_point(monkeypatch) -> None:
    entry = EntryPoint("from_a_package", f"{__name__}:Swallows", "lightning_optim.optimizers")
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry] if group == entry.group else [])
    registry._read_entry_points.cache_clear()
    assert "from_a_package" in list_optimizers()
    assert type(OptimizerFactory("from_a_package")(nn.Linear(2, 1))) is Swallows


def test_one_of_our_base_has_all_that_ours_have() -> None:
    register_optimizer("hooked", Ours)
    factory = OptimizerFactory("hooked", lr=0.1, weight_decay=0.5, weight_decay_mode="absolute", maximize=True)
    (group,) = factory(nn.Linear(2, 1)).param_groups
    assert (group["weight_decay_mode"], group["maximize"], group["peak_lr"]) == ("absolute", True, 0.1)
    with pytest.raises(ConfigError, match="friction: got 2, which is not a finite number >= 0 and <= 1"):
        OptimizerFactory("hooked", friction=2)


def test_the_command_line_shows_it(swallows) -> None:
    from rich.console import Console

    from lightning_optim.cli.list_and_show import print_list, print_optimizer

    console = Console(record=True, width=200)
    print_list(console, "swa*")
    print_optimizer(console, "swallows")
    shown = console.export_text()
    assert "Steps by the sign" in shown and "period" in shown


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
    module, witness = Net(configure, dropout=0.3), Witness()
    callbacks = [StagedUnfreeze(PLAN), RNGState(), witness, OptimizerMonitor(1, to_callback_metrics=True)]
    trainer = fit(
        module, folder, *callbacks, epochs=3, save=ckpt_path is None, ckpt_path=ckpt_path,
        seed=1 if ckpt_path is None else 2,
    )  # fmt: skip
    return module, trainer, witness


@pytest.mark.parametrize("name", ["swallows", "hooked", "soap"])
def test_rules_stages_and_monitor(tmp_path, name) -> None:
    if name == "soap":
        pytest.importorskip("pytorch_optimizer")
    register_optimizer("swallows", Swallows)
    register_optimizer("hooked", Ours)
    register_optimizer("soap", "pytorch_optimizer:SOAP", paper="arXiv:2409.11321", decay="decoupled")
    module, trainer, witness = staged(tmp_path, configured(name))
    (optimizer,) = trainer.optimizers
    assert [group["name"] for group in optimizer.param_groups] == [
        "head", "head.no_decay", "backbone", "backbone.no_decay",
    ]  # fmt: skip
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0, 0.1, 0]
    buffer = {"swallows": "momentum", "hooked": "velocity", "soap": "exp_avg"}[name]
    assert trainer.callback_metrics[f"optim/norm/{buffer}/backbone"] > 0
    for step in (BATCHES - 1, BATCHES, BATCHES + 1, 2 * BATCHES):
        again, resumed, saw = staged(tmp_path / "again", configured(name), tmp_path / f"step={step}.ckpt")
        assert saw.seen == witness.seen[step:], step
        assert same(again.state_dict(), module.state_dict()), step
        assert same(state_of(resumed.optimizers[0]), state_of(optimizer)), step


def test_beside_one_of_ours_in_a_rule(tmp_path, swallows) -> None:
    rules = {"hidden": {"params": "backbone", "kinds": ["matrix"], "optimizer": "swallows", "lr": 1e-3, "period": 4}}
    curves = fit_with_events(tmp_path, Net(configured("adamw", groups=rules)), OptimizerMonitor())
    assert {"optim/norm/momentum/hidden", "optim/norm/exp_avg/default"} <= curves.keys()


def test_from_a_config(swallows) -> None:
    node = {"_target_": "lightning_optim.OptimizerFactory", "_partial_": False, "name": "swallows", "lr": 0.5}
    assert type(instantiate(node)(nn.Linear(2, 1))) is Swallows
