"""A model that is made in `configure_model`: when built, the module has no parameters for rules or stages to see."""

from __future__ import annotations

import itertools

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch import nn

from lightning_optim import (
    ConfigError,
    OptimizerFactory,
    OptimizerMonitor,
    OptimizerOverride,
    SchedulerFactory,
    StagedUnfreeze,
    configure_optimizers,
)
from tests.support.user_environments import QUIET, batches, groups_of, trainer

pytestmark = QUIET

LR = 1e-2
FACTORY = OptimizerFactory("adamw", lr=LR, groups={"head": {"params": "head", "lr_scale": 10}})
STAGES = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.5}}


class Late(LightningModule):
    """Its layers come to be in `configure_model`; `configure_optimizers` is one that knows nothing of us."""

    def configure_model(self):
        if not hasattr(self, "head"):
            self.backbone, self.head = nn.Linear(4, 8), nn.Linear(8, 2)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.head(self.backbone(x)), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class OneLine(Late):
    def configure_optimizers(self):
        return configure_optimizers(self, FACTORY)


class Seen(Callback):
    """The groups at each epoch's end, and whether the backbone has moved."""

    def __init__(self):
        self.groups, self.moved = [], []

    def on_fit_start(self, trainer, pl_module):
        self.before = pl_module.backbone.weight.detach().clone()

    def on_train_epoch_end(self, trainer, pl_module):
        self.groups.append(groups_of(trainer.optimizers[0]))
        self.moved.append(not torch.equal(self.before, pl_module.backbone.weight))


def fit(module, folder, *callbacks, **options):
    assert not list(module.parameters())
    seen = Seen()
    training = trainer(folder, *callbacks, seen, max_epochs=2, enable_checkpointing=False, **options)
    training.fit(module, batches())
    return training, seen


def override():
    return OptimizerOverride(FACTORY)


def unfreeze():
    return StagedUnfreeze(STAGES)


def monitor():
    return OptimizerMonitor(1, to_callback_metrics=True)


@pytest.mark.parametrize(
    ("module", "callbacks"),
    [pytest.param(OneLine, [], id="one line"), pytest.param(Late, [override], id="override")],
)
def test_rules_see_the_layers(module, callbacks, tmp_path):
    training, seen = fit(module(), tmp_path, *(make() for make in callbacks))
    groups = training.optimizers[0].param_groups
    assert [(group["name"], group["lr"], group["param_names"]) for group in groups] == [
        ("default", LR, ["backbone.weight", "backbone.bias"]),
        ("head", LR * 10, ["head.weight", "head.bias"]),
    ]
    assert seen.moved == [True, True]


@pytest.mark.parametrize(
    ("module", "callbacks"),
    [
        pytest.param(module, order, id=f"{module.__name__}-{'-'.join(make.__name__ for make in order)}")
        for module, callbacks in ((OneLine, [unfreeze, monitor]), (Late, [override, unfreeze, monitor]))
        for order in itertools.permutations(callbacks)
    ],
)
def test_stages_thaw_the_layers_whatever_the_order_of_callbacks(module, callbacks, tmp_path):
    training, seen = fit(module(), tmp_path, *(make() for make in callbacks))
    assert seen.groups == [{"head": LR * 10}, {"head": LR * 10, "backbone": LR * 0.5}]
    assert seen.moved == [False, True]
    assert training.callback_metrics["optim/lr/backbone"] == pytest.approx(LR * 0.5)  # Lightning keeps float32


def test_stages_over_an_optimizer_that_is_not_ours(tmp_path):
    _, seen = fit(Late(), tmp_path, unfreeze())
    assert seen.groups == [{"head": 0.1}, {"head": 0.1, "backbone": 0.1 * 0.5}]
    assert seen.moved == [False, True]


def test_a_schedule_gets_the_length_of_the_run(tmp_path):
    schedule = SchedulerFactory("warmup_linear", warmup_steps=1)
    training, _ = fit(Late(), tmp_path, OptimizerOverride(FACTORY, schedule))
    assert training.lr_scheduler_configs[0].scheduler.last_epoch == 4
    assert groups_of(training.optimizers[0]) == {"default": 0.0, "head": 0.0}


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (StagedUnfreeze({"head": {"params": "haed"}}), r"stages\.head: .*Did you mean 'head'"),
        (
            OptimizerOverride(OptimizerFactory("adamw", groups={"head": {"params": "haed", "lr_scale": 10}})),
            r"groups\.head: .*Did you mean 'head'",
        ),
    ],
    ids=["stage", "rule"],
)
def test_a_selector_that_means_nothing_is_told_so_before_the_first_step(callback, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        fit(Late(), tmp_path, callback)
