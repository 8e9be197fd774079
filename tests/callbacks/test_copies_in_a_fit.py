"""Copies and pickles made during a fit are those of the module and the callback as their authors wrote them."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader

from lightning_optim import OptimizerFactory, OptimizerOverride, SchedulerFactory, SophiaHessian, StagedUnfreeze
from tests.support.equality import equal
from tests.support.training import Loader, Net, StepTrace, fit

PLAN: dict[str, Any] = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}}}


def sgd(module: LightningModule) -> Any:
    return torch.optim.SGD(module.parameters(), lr=0.1)


def pickled(module: Any) -> Any:
    return pickle.loads(pickle.dumps(module))


def override() -> OptimizerOverride:
    return OptimizerOverride(OptimizerFactory("adamw", lr=0.1), SchedulerFactory("cosine_annealing"))


def sophia(module: LightningModule) -> Any:
    return OptimizerFactory("sophia_g", lr=0.1)(module)


CALLBACKS = {
    "override": (sgd, override),
    "stages": (sgd, lambda: StagedUnfreeze(PLAN)),
    "hessian": (sophia, SophiaHessian),
}
"""With the module's own `configure_optimizers`."""


class Keep(Callback):
    """Copies the module at the end of the first epoch, in each of Lightning's hooks that users copy it in."""

    def __init__(self, copy_of: Any) -> None:
        self.copy_of = copy_of
        self.kept: list[Any] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if not self.kept:
            self.kept.append(self.copy_of(pl_module))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.kept.append(self.copy_of(pl_module))


@pytest.mark.parametrize("copy_of", [copy.deepcopy, pickled], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("callback", CALLBACKS)
def test_a_copy_of_the_module_trains_with_its_own_optimizer(tmp_path, callback, copy_of) -> None:
    keep = Keep(copy_of)
    configure, make = CALLBACKS[callback]
    fit(Net(configure), tmp_path, make(), keep, epochs=1)
    for module in keep.kept:
        assert not {"configure_optimizers", "training_step"} & vars(module).keys()
        module.configure = sgd
        module.requires_grad_(True).train()  # frozen, and its norms in evaluation mode, when it was copied
        before = module.head.weight.clone()
        trainer = fit(module, tmp_path, epochs=1)
        assert type(trainer.optimizers[0]) is torch.optim.SGD
        assert not torch.equal(module.head.weight, before)
        assert int(module.backbone[1].num_batches_tracked) > 0, "no lock of ours on the copy"


@pytest.mark.parametrize("copy_of", [copy.deepcopy, pickled], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("make", [override, lambda: StagedUnfreeze(PLAN, frozen_dropout="eval")])
def test_a_used_callback_can_be_copied_and_used_again(tmp_path, make, copy_of) -> None:
    lrs: list[Any] = []
    callback = make()
    for _ in range(2):
        trace = StepTrace()
        fit(Net(sgd), tmp_path, callback, trace, epochs=2)
        lrs.append(trace.steps)
        callback = copy_of(callback)
    assert lrs[0] == lrs[1]


class Copying(Callback):
    def __init__(self) -> None:
        self.copies: list[StagedUnfreeze] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.copies = [copy_of(trainer.callbacks[0]) for copy_of in (copy.deepcopy, pickled)]


def test_a_callback_can_be_copied_during_a_fit(tmp_path) -> None:
    copying, trace = Copying(), StepTrace()
    fit(Net(sgd), tmp_path, StagedUnfreeze(PLAN), copying, trace, epochs=2)
    for callback in copying.copies:
        again = StepTrace()
        fit(Net(sgd), tmp_path, callback, again, epochs=2)
        assert again.steps == trace.steps


class Collating(Net):
    """Sends itself to the workers of its loader."""

    def collate(self, rows: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows])

    def train_dataloader(self) -> DataLoader[Any]:
        loader = Loader()
        rows = list(zip(loader.inputs.flatten(0, 1), loader.targets.flatten(), strict=True))
        return DataLoader(
            rows,
            batch_size=8,
            num_workers=1,
            persistent_workers=True,
            multiprocessing_context="spawn",
            collate_fn=self.collate,  # type: ignore[arg-type]
        )


@pytest.mark.slow
def test_the_module_reaches_spawned_workers(tmp_path) -> None:
    """With both callbacks that change it, since a worker takes seconds to start."""
    module = Collating(sgd)
    before = module.head.weight.clone()
    fit(module, tmp_path, override(), StagedUnfreeze(PLAN), epochs=1)
    assert not torch.equal(module.head.weight, before) and isinstance(module.head, nn.Linear)


@pytest.mark.parametrize("callback", CALLBACKS)
def test_what_lightning_sends_to_a_spawned_rank_trains_as_here(tmp_path, callback) -> None:
    """As `ddp_spawn` does: the trainer with its callbacks, and the module."""
    configure, make = CALLBACKS[callback]

    def train(send: Callable[[Any], Any]) -> Any:
        torch.manual_seed(0)
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = Trainer(
            max_epochs=2, accelerator="cpu", devices=1, callbacks=[make()], default_root_dir=tmp_path,
            enable_model_summary=False, **quiet,
        )  # fmt: skip
        trainer, module = send((trainer, Net(configure)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(module, Loader())
        return module.state_dict()

    assert equal(train(pickled), train(lambda sent: sent))
