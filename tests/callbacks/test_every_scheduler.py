"""A staged run goes on bitwise from every optimizer step, under every scheduler of torch, ours and a third party's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch.optim import lr_scheduler

from lightning_optim import OptimizerFactory, RNGState, SchedulerFactory, StagedUnfreeze, configure_optimizers
from tests.schedule.test_factory import STATEFUL, TORCH
from tests.stages.test_staged import SCHEDULERS
from tests.support.training import BATCHES, Net, Witness, fit, same

EPOCHS = 3
PLAN = {
    "head": {"params": "head"},
    "norm": {"params": "backbone.1", "at": {"step": 2}, "weight_decay": 0.25},
    "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.25, "warmup_steps": 3},
}
GROUPS = {"no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0}, "head": {"params": "head", "lr_scale": 2.0}}


class Losses(Callback):
    """What a logger would show."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        self.seen.append(float(outputs["loss"]))


def by_hand(name: str) -> Any:
    def configure(module: Net) -> Any:
        biases = [p for name, p in module.named_parameters() if name.endswith("bias")]
        weights = [p for name, p in module.named_parameters() if name.endswith("weight")]
        groups = [{"params": weights}, {"params": biases, "lr": 0.05}]
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        config = {"scheduler": SCHEDULERS[name](optimizer), "interval": "step", "monitor": "loss"}
        return {"optimizer": optimizer, "lr_scheduler": config}

    return configure


def by_factory(name: str) -> Any:
    given = copy.deepcopy(STATEFUL[name])
    monitor = {"monitor": "loss"} if given["name"] == "reduce_on_plateau" else {}
    optimizer, scheduler = OptimizerFactory("adamw", lr=0.1, groups=GROUPS), SchedulerFactory(**given, **monitor)
    return lambda module: configure_optimizers(module, optimizer, scheduler)


def run(folder: Any, configure: Any, accumulate: int, ckpt_path: Any = None) -> Any:
    torch.manual_seed(0)
    module, witness, losses = Net(configure, dropout=0.3), Witness(), Losses()
    trainer = fit(
        module, folder, StagedUnfreeze(PLAN), RNGState(), witness, losses, epochs=EPOCHS, ckpt_path=ckpt_path,
        save=ckpt_path is None, seed=1 if ckpt_path is None else 2, accumulate_grad_batches=accumulate,
    )  # fmt: skip
    states = [module.state_dict(), trainer.optimizers[0].state_dict()]
    scheduler = trainer.lr_scheduler_configs[0].scheduler.state_dict()
    functions = {"lr_lambdas", "_schedulers"}  # another run's are other objects
    states.append({key: value for key, value in scheduler.items() if key not in functions})
    return states, witness.seen, losses.seen


FACTORY = (*TORCH, "sequential", "chained", "noam")
CASES = [
    *(pytest.param(by_hand, name, 1, id=f"by hand-{name}") for name in SCHEDULERS),
    *(pytest.param(by_hand, name, 2, id=f"by hand-{name}, accumulating") for name in SCHEDULERS),
    *(pytest.param(by_factory, name, 1, id=f"factory-{name}") for name in FACTORY),
    *(pytest.param(by_factory, name, 2, id=f"factory-{name}, accumulating") for name in FACTORY),
]


@pytest.mark.slow
@pytest.mark.parametrize(("how", "name", "accumulate"), CASES)
def test_it_resumes_bitwise_from_every_optimizer_step(how, name, accumulate, tmp_path) -> None:
    states, lrs, losses = run(tmp_path, how(name), accumulate)
    steps = EPOCHS * BATCHES // accumulate
    for step in range(1, steps):
        again, saw, lost = run(tmp_path / "again", how(name), accumulate, tmp_path / f"step={step}.ckpt")
        assert saw == lrs[step:], step
        assert lost == losses[step * accumulate :], step
        assert same(again, states), step


def test_every_scheduler_of_torch_is_among_them() -> None:
    groups = [{"params": [torch.ones(1)]}, {"params": [torch.ones(1)]}]
    made = {type(make(torch.optim.SGD(copy.deepcopy(groups), lr=0.1))) for make in SCHEDULERS.values()}
    assert {getattr(lr_scheduler, name) for name in lr_scheduler.__all__} - made == {lr_scheduler.LRScheduler}
