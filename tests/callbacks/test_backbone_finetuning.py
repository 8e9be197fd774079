"""Lightning's BackboneFinetuning, which adds bare tensors in the middle of training, over the factories' optimizers."""

from __future__ import annotations

import warnings

import pytest
import torch
from lightning.pytorch.callbacks import BackboneFinetuning, Callback
from lightning.pytorch.loggers import CSVLogger

from lightning_optim import OptimizerFactory, OptimizerMonitor, SchedulerFactory
from tests.support.cases import every
from tests.support.equality import equal
from tests.support.training import Net, fit

OPTIMIZERS = {
    "adamw": OptimizerFactory("adamw", lr=0.01),
    "lion": OptimizerFactory("lion", lr=0.01),
    "adamw + lion": OptimizerFactory("adamw", lr=0.01, groups={"b": {"params": "head.bias", "optimizer": "lion"}}),
}
SCHEDULES = {"none": None, "cosine": SchedulerFactory("warmup_cosine", warmup_steps=2, total_steps=16)}


class Weights(Callback):
    """The weights after each step, by the number of steps."""

    def __init__(self) -> None:
        self.steps: dict[int, list[torch.Tensor]] = {}

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        self.steps[trainer.global_step] = [p.detach().clone() for p in pl_module.parameters()]


def trainable(module):
    return (p for p in module.parameters() if p.requires_grad)


def train(optimizer, schedule, folder, ckpt_path=None, **arguments):
    def configure(module):
        built = OPTIMIZERS[optimizer](trainable(module))
        if SCHEDULES[schedule] is None:
            return built
        return {"optimizer": built, "lr_scheduler": SCHEDULES[schedule].config(built)}

    torch.manual_seed(0)
    module, weights = Net(configure), Weights()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(previously run|lr_scheduler.step|provided params to be frozen).*")
        callbacks = (BackboneFinetuning(unfreeze_backbone_at_epoch=2), OptimizerMonitor(1), weights)
        trainer = fit(
            module,
            folder,
            *callbacks,
            save=ckpt_path is None,
            ckpt_path=ckpt_path,
            logger=CSVLogger(folder),
            **arguments,
        )
    return trainer, module, weights.steps


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", every(OPTIMIZERS, fast=["adamw"]))
def test_the_backbone_joins_by_its_names_and_the_run_resumes(optimizer, schedule, tmp_path):
    trainer, module, steps = train(optimizer, schedule, tmp_path)
    groups = trainer.optimizers[0].param_groups
    names = {id(p): name for name, p in module.named_parameters()}
    assert len({group["name"] for group in groups}) == len(groups)
    assert all([names[id(p)] for p in group["params"]] == group["param_names"] for group in groups)
    assert sum(len(group["params"]) for group in groups) == len(names)
    assert {"peak_lr", "configured", "name"} <= groups[-1].keys()
    _, _, resumed = train(optimizer, schedule, tmp_path / "before", ckpt_path=tmp_path / "step=6.ckpt")
    assert equal(resumed, {step: steps[step] for step in range(7, 17)})
    # Lightning's callback leaves the backbone frozen in a run that resumes after the thaw, but its state is there.
    after, _, resumed = train(optimizer, schedule, tmp_path / "after", ckpt_path=tmp_path / "step=10.ckpt")
    assert list(resumed) == list(range(11, 17))
    assert [group["name"] for group in after.optimizers[0].param_groups] == [group["name"] for group in groups]
    assert all(
        after.optimizers[0].state[param] for group in after.optimizers[0].param_groups for param in group["params"]
    )
    assert [g["lr"] for g in after.optimizers[0].param_groups] == pytest.approx([g["lr"] for g in groups])


def test_the_run_is_that_of_torch_s_class(tmp_path, monkeypatch):
    *_, ours = train("adamw", "none", tmp_path / "ours")
    monkeypatch.setitem(OPTIMIZERS, "adamw", lambda params: torch.optim.AdamW(params, lr=0.01, fused=True))
    *_, theirs = train("adamw", "none", tmp_path / "theirs")
    assert equal(ours, theirs)


@pytest.mark.parametrize("schedule", ["exponential", "one_cycle", "warmup_cosine", "reduce_on_plateau"])
def test_the_backbone_joins_at_the_lr_that_lightning_gives_it_and_follows_the_schedule(schedule):
    """Which is a part of the lr of that step, not of the peak."""
    options = {
        "exponential": {"gamma": 0.75},
        "one_cycle": {"total_steps": 20},
        "warmup_cosine": {"warmup_steps": 6, "total_steps": 20},
        "reduce_on_plateau": {"patience": 0, "monitor": "loss"},
    }
    module = Net(None)
    optimizer = OPTIMIZERS["adamw"](module.head)
    scheduler = SchedulerFactory(schedule, **options[schedule])(optimizer)

    def step():
        optimizer.step()
        scheduler.step(*([1.0] if schedule == "reduce_on_plateau" else []))

    for _ in range(3):
        step()
    BackboneFinetuning.unfreeze_and_add_param_group(module.backbone, optimizer, initial_denom_lr=2.0)
    for _ in range(9):
        head, backbone = optimizer.param_groups
        assert backbone["lr"] == pytest.approx(head["lr"] / 2, rel=1e-12)
        step()
    assert backbone["lr"] != backbone["peak_lr"] or schedule == "reduce_on_plateau"
