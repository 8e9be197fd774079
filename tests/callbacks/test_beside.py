"""StagedUnfreeze beside what else a run has: precision, clipping, a compiled module, averaged weights, a second fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, WeightAveraging
from lightning.pytorch.loggers import CSVLogger

from lightning_optim import (
    OptimizerFactory,
    OptimizerMonitor,
    RNGState,
    SchedulerFactory,
    StagedUnfreeze,
    configure_optimizers,
)
from tests.support.training import BATCHES, Net, Witness, fit, same

PLAN = {
    "head": {"params": "head"},
    "backbone": {"params": "backbone", "at": {"epoch": 1}, "lr_scale": 0.25, "warmup_steps": 6},
}
MUON = {"hidden": {"params": "backbone", "kinds": ["matrix"], "optimizer": "muon", "lr": 0.02}}
EPOCHS = 3


def ours(**given: Any) -> Any:
    factory = OptimizerFactory(**{"name": "adamw", "lr": 0.02, **given})
    return lambda module: configure_optimizers(module, factory, SchedulerFactory("warmup_cosine", warmup_steps=2))


def run(folder: Any, configure: Any, ckpt_path: Any = None, compiled: bool = False, **arguments: Any) -> Any:
    torch.manual_seed(0)
    module, witness = Net(configure, dropout=0.3), Witness()
    if compiled:
        module.backbone = torch.compile(module.backbone, backend="eager")
    callbacks = [StagedUnfreeze(PLAN), RNGState(), witness, *arguments.pop("callbacks", list)()]
    trainer = fit(
        module, folder, *callbacks, epochs=EPOCHS, save=ckpt_path is None, ckpt_path=ckpt_path,
        seed=1 if ckpt_path is None else 2, **arguments,
    )  # fmt: skip
    return trainer, module, witness, callbacks


class Average(WeightAveraging):
    """Of every step's weights, so that those of a late stage are in it from its thaw on."""

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None


BESIDE: dict[str, dict[str, Any]] = {
    "bf16-mixed": {"precision": "bf16-mixed"},
    "clipping by norm": {"gradient_clip_val": 0.1},
    "clipping by value, accumulating": {
        "gradient_clip_val": 0.01,
        "gradient_clip_algorithm": "value",
        "accumulate_grad_batches": 2,
    },
    "compiled": {"compiled": True},
    "averaged weights": {"callbacks": lambda: [Average()]},
    "both monitors": {
        "callbacks": lambda: [LearningRateMonitor(), OptimizerMonitor(to_callback_metrics=True)],
        "logger": True,
    },
}


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("configure", [ours(), ours(groups=MUON)], ids=["adamw", "muon + adamw"])
def test_it_resumes_bitwise_at_the_thaw(configure, beside, tmp_path) -> None:
    given = dict(BESIDE[beside])
    torch.compiler.reset()
    if given.pop("logger", False):
        given |= {"logger": CSVLogger(tmp_path), "log_every_n_steps": 1}
    trainer, module, witness, callbacks = run(tmp_path, configure, **given)
    thaw = BATCHES // given.get("accumulate_grad_batches", 1)
    before, after = (set(groups) for groups in witness.seen[thaw - 1 : thaw + 1])
    assert before < after
    for step in (thaw - 1, thaw, thaw + 1):
        again, resumed, saw, others = run(tmp_path / "again", configure, tmp_path / f"step={step}.ckpt", **given)
        assert saw.seen == witness.seen[step:], step
        assert same(module.state_dict(), resumed.state_dict()), step
        assert same(trainer.optimizers[0].state_dict(), again.optimizers[0].state_dict()), step
        for one, other in zip(callbacks, others, strict=True):
            if isinstance(one, Average):
                assert same(one._average_model.state_dict(), other._average_model.state_dict()), step


def test_averaged_weights_have_the_late_stage_s_too(tmp_path) -> None:
    average = Average()
    module = run(tmp_path, ours(), callbacks=lambda: [average])[1]
    first = torch.load(tmp_path / f"step={BATCHES}.ckpt", weights_only=True)
    averaged = dict(module.named_parameters())["backbone.0.weight"]  # Lightning puts the average in place at the end
    assert not torch.equal(averaged, first["state_dict"]["backbone.0.weight"])


def test_a_second_fit_goes_on_with_stage_and_warm_up(tmp_path) -> None:
    unfreeze, witness = StagedUnfreeze(PLAN), Witness()
    module = Net(lambda module: torch.optim.SGD(module.parameters(), lr=1.0))
    fit(module, tmp_path, unfreeze, witness, epochs=2)
    fit(module, tmp_path, unfreeze, witness, epochs=1)
    climb = [groups.get("backbone") for groups in witness.seen]
    assert climb == [None] * BATCHES + [0.25 * min(1, step / 6) for step in range(1, 2 * BATCHES + 1)]


@pytest.mark.filterwarnings("ignore:.*(does not have many workers|LeafSpec|number of training batches)")
def test_a_second_fit_of_the_same_trainer_goes_on(tmp_path) -> None:
    unfreeze, witness = StagedUnfreeze(PLAN), Witness()
    module = Net(lambda module: torch.optim.SGD(module.parameters(), lr=1.0))
    trainer: Trainer = fit(module, tmp_path, unfreeze, witness, epochs=2)
    trainer.fit_loop.max_epochs = 3
    trainer.fit(module, trainer.train_dataloader)
    assert [len(groups) for groups in witness.seen] == [1] * BATCHES + [2] * 2 * BATCHES
