"""Rules and stages see the layers of a module that builds them in `configure_model`, and so has none at first."""

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
from tests.support.short_runs import IGNORED_WARNINGS, build_loader, build_trainer, lr_by_group

pytestmark = IGNORED_WARNINGS

LR = 1e-2
FACTORY = OptimizerFactory("adamw", lr=LR, groups={"head": {"params": "head", "lr_scale": 10}})
STAGES = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.5}}


class Late(LightningModule):
    """Builds its layers in `configure_model`; its `configure_optimizers` does not use our package."""

    def configure_model(self):
        if not hasattr(self, "head"):
            self.backbone, self.head = nn.Linear(4, 8), nn.Linear(8, 2)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.head(self.backbone(x)), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class LateWithFactory(Late):
    def configure_optimizers(self):
        return configure_optimizers(self, FACTORY)


class Recorder(Callback):
    """Records the groups at the end of each epoch, and whether the backbone has changed."""

    def __init__(self):
        self.groups, self.changed = [], []

    def on_fit_start(self, trainer, pl_module):
        self.before = pl_module.backbone.weight.detach().clone()

    def on_train_epoch_end(self, trainer, pl_module):
        self.groups.append(lr_by_group(trainer.optimizers[0]))
        self.changed.append(not torch.equal(self.before, pl_module.backbone.weight))


def fit(module, folder, *callbacks, **options):
    assert not list(module.parameters())
    recorder = Recorder()
    trainer = build_trainer(folder, *callbacks, recorder, max_epochs=2, enable_checkpointing=False, **options)
    trainer.fit(module, build_loader())
    return trainer, recorder


def override():
    return OptimizerOverride(FACTORY)


def unfreeze():
    return StagedUnfreeze(STAGES)


def monitor():
    return OptimizerMonitor(1, to_callback_metrics=True)


@pytest.mark.parametrize(
    ("module", "callbacks"),
    [pytest.param(LateWithFactory, [], id="one line"), pytest.param(Late, [override], id="override")],
)
def test_rules_apply_to_late_layers(module, callbacks, tmp_path):
    trainer, recorder = fit(module(), tmp_path, *(make() for make in callbacks))
    groups = trainer.optimizers[0].param_groups
    assert [(group["name"], group["lr"], group["param_names"]) for group in groups] == [
        ("default", LR, ["backbone.weight", "backbone.bias"]),
        ("head", LR * 10, ["head.weight", "head.bias"]),
    ]
    assert recorder.changed == [True, True]


@pytest.mark.parametrize(
    ("module", "callbacks"),
    [
        pytest.param(module, order, id=f"{module.__name__}-{'-'.join(make.__name__ for make in order)}")
        for module, callbacks in ((LateWithFactory, [unfreeze, monitor]), (Late, [override, unfreeze, monitor]))
        for order in itertools.permutations(callbacks)
    ],
)
def test_stages_thaw_late_layers_whatever_the_order_of_callbacks(module, callbacks, tmp_path):
    trainer, recorder = fit(module(), tmp_path, *(make() for make in callbacks))
    assert recorder.groups == [{"head": LR * 10}, {"head": LR * 10, "backbone": LR * 0.5}]
    assert recorder.changed == [False, True]
    assert trainer.callback_metrics["optim/lr/backbone"] == pytest.approx(LR * 0.5)  # Lightning keeps float32


def test_stages_thaw_late_layers_of_another_optimizer(tmp_path):
    _, recorder = fit(Late(), tmp_path, unfreeze())
    assert recorder.groups == [{"head": 0.1}, {"head": 0.1, "backbone": 0.1 * 0.5}]
    assert recorder.changed == [False, True]


def test_a_schedule_has_the_length_of_the_run(tmp_path):
    schedule = SchedulerFactory("warmup_linear", warmup_steps=1)
    trainer, _ = fit(Late(), tmp_path, OptimizerOverride(FACTORY, schedule))
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == 4
    assert lr_by_group(trainer.optimizers[0]) == {"default": 0.0, "head": 0.0}


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
def test_a_selector_that_matches_nothing_is_refused_before_the_first_step(callback, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        fit(Late(), tmp_path, callback)
