"""`optimizer:` in a stage: its parameters are stepped by another algorithm, as by a rule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_optim import (
    ConfigError,
    OptimizerFactory,
    OptimizerOverride,
    SchedulerFactory,
    StagedUnfreeze,
    configure_optimizers,
)
from tests.support.equality import equal
from tests.support.training import Net, StepTrace, fit

PLAN: dict[str, Any] = {
    "head": {"params": "head"},
    "backbone": {
        "params": "backbone",
        "at": {"epoch": 1},
        "optimizer": "lion",
        "lr": 0.002,
        "weight_decay": 0.1,
        "lr_scale": 0.5,
        "warmup_steps": 2,
    },
}
WITHOUT_OPTIMIZER = {
    "head": {"params": "head"},
    "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.5, "warmup_steps": 2},
}
NO_DECAY = {"no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0}}
AS_A_RULE = {**NO_DECAY, "lion_params": {"params": "backbone", "optimizer": "lion", "lr": 0.002, "weight_decay": 0.1}}
PRIORITY = {"no_decay": {**NO_DECAY["no_decay"], "priority": 1}}


def factory(groups: dict[str, Any]) -> OptimizerFactory:
    return OptimizerFactory("adamw", lr=0.01, groups={**groups, **PRIORITY})


def configured(groups: dict[str, Any], scheduler: SchedulerFactory | None = None) -> Any:
    return lambda module: configure_optimizers(module, factory(groups), scheduler)


def trained(tmp_path: Any, configure: Any, plan: dict[str, Any], *callbacks: Any, **options: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    trace, module = StepTrace(), Net(configure)
    trainer = fit(module, tmp_path, StagedUnfreeze(plan), trace, *callbacks, epochs=3, **options)
    return [list(step.values()) for step in trace.steps], (
        module.state_dict(),
        trainer.optimizers[0].state_dict()["state"],
    )


@pytest.mark.parametrize("name", ["cosine_annealing", "one_cycle", None])
def test_it_trains_as_with_a_rule(tmp_path, name) -> None:
    scheduler = None if name is None else SchedulerFactory(name)
    expected = trained(tmp_path, configured(AS_A_RULE, scheduler), WITHOUT_OPTIMIZER)
    assert equal(trained(tmp_path, configured(NO_DECAY, scheduler), PLAN), expected)


def test_it_works_with_an_override(tmp_path) -> None:
    expected = trained(tmp_path, configured(AS_A_RULE), WITHOUT_OPTIMIZER)
    assert equal(trained(tmp_path, by_hand, PLAN, OptimizerOverride(factory(NO_DECAY))), expected)


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 5])
def test_it_resumes_bitwise(tmp_path, step) -> None:
    configure = configured(NO_DECAY, SchedulerFactory("cosine_annealing"))
    lrs, weights = trained(tmp_path, configure, PLAN, save=True)
    resumed = trained(tmp_path / "resumed", configure, PLAN, ckpt_path=tmp_path / f"step={step}.ckpt")
    assert equal(resumed, (lrs[step:], weights))


def test_each_layer_has_it_under_short_names() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))
            self.head = nn.Linear(2, 2)

    plan = {
        "head": {"params": "head"},
        "top": {"layers": "layer.{i}", "at": {"epoch": 1}, "each": {"epochs": 1}, "optimizer": "lion", "lr": 0.1},
    }
    rows = StagedUnfreeze(plan).explain(Deep(), OptimizerFactory("adamw", groups=NO_DECAY)).rows()
    groups = [(row["group"], row.get("algorithm"), row.get("lr")) for row in rows if row["group"].startswith("top")]
    assert groups == [(f"top.{i}{part}", "lion", 0.1) for i in (1, 0) for part in ("", ".no_decay")]


def test_settings_name_the_keys_of_the_stage() -> None:
    settings = StagedUnfreeze(PLAN).settings_of("backbone.0.weight", Net(configured({})), factory({}))
    rows = {field: (value, keys) for field, value, keys in settings.rows()}
    assert rows["optimizer"] == ("lion", "stages.backbone.optimizer")
    assert rows["lr"] == ("0.001", "stages.backbone.lr × stages.backbone.lr_scale")
    assert rows["lr_scale"] == ("0.5", "stages.backbone.lr_scale")


def stage(**keys: Any) -> dict[str, Any]:
    return {**PLAN, "backbone": {"params": "backbone", "at": {"epoch": 1}, **keys}}


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (stage(optimizer="lyon"), r"^stages\.backbone\.optimizer: name: there is no optimizer 'lyon'\. Did you mean"),
        (stage(optimizer="lion", eps=1e-8), r"^stages\.backbone\.eps: a stage has no key 'eps'"),
    ],
)
def test_what_the_constructor_refuses(plan, message) -> None:
    with pytest.raises(ConfigError, match=message):
        StagedUnfreeze(plan)


def by_hand(module: LightningModule) -> Any:
    return torch.optim.AdamW(module.parameters())


@pytest.mark.parametrize(
    ("configure", "plan", "message"),
    [
        (by_hand, PLAN, r"^stages\.backbone\.optimizer: lion, but .* has built adamw .* OptimizerOverride$"),
        (
            lambda module: {"optimizer": factory({})(module)},
            PLAN,
            r"^stages\.backbone\.optimizer: lion, but .* has built adamw",
        ),
        (
            configured({"backbone": {"params": "backbone", "lr": 0.1}}),
            PLAN,
            r"^stages\.backbone\.optimizer: .* a rule backbone",
        ),
        (configured({}), stage(optimizer="lion", lr=-1), r"^stages\.backbone\.lr: got -1"),
        (configured({}), stage(optimizer="muon", lr=0.1), r"^stages\.backbone\.optimizer: muon takes matrices"),
        (configured({}), stage(optimizer="lbfgs"), r"lbfgs"),
    ],
    ids=["torch's optimizer", "factory called by hand", "rule of the same name", "value", "vectors to muon", "lbfgs"],
)
def test_what_a_fit_refuses(tmp_path, configure, plan, message) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(Net(configure), tmp_path, StagedUnfreeze(plan))
