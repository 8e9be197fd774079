"""RNGState: a resumed run draws the same random numbers as the uninterrupted one."""

from __future__ import annotations

import random
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from lightning_optim import OptimizerFactory, RNGState, SchedulerFactory, configure_optimizers
from tests.support.cases import every
from tests.support.equality import equal
from tests.support.staged_plans import DeepNet
from tests.support.training import BATCHES, Loader, Net, StepTrace, fit


def dropout_net() -> Net:
    torch.manual_seed(0)
    return Net(lambda module: torch.optim.AdamW(module.parameters(), lr=0.01), dropout=0.5)


def shuffled_loader() -> Any:
    data = Loader()
    return DataLoader(TensorDataset(data.inputs.flatten(0, 1), data.targets.flatten()), batch_size=8, shuffle=True)


class Draws(Callback):
    """A number of each generator at the start of each batch."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def on_train_batch_start(self, *args: Any) -> None:
        self.values.append((random.random(), np.random.rand(), np.random.randn(), torch.rand(1).item()))


@pytest.mark.parametrize(
    ("make_loader", "steps"),
    [(Loader, [1, 3, 4, 5, 8, 11]), (shuffled_loader, [BATCHES, 2 * BATCHES])],
    ids=["stateful loader", "shuffled DataLoader, at the end of an epoch"],
)
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_resumes_bitwise_from_checkpoints_of_steps(tmp_path, make_loader, steps) -> None:
    module, draws = dropout_net(), Draws()
    fit(module, tmp_path, RNGState(), draws, loader=make_loader(), epochs=3, save=True)
    for step in steps:
        resumed, rest = dropout_net(), Draws()
        checkpoint = tmp_path / f"step={step}.ckpt"
        fit(resumed, tmp_path, RNGState(), rest, loader=make_loader(), epochs=3, ckpt_path=checkpoint, seed=99)
        assert rest.values == draws.values[step:], step
        assert equal(module.state_dict(), resumed.state_dict()), step


def test_resumes_bitwise_from_checkpoints_of_an_epoch_s_end(tmp_path) -> None:
    module, draws = dropout_net(), Draws()
    at_end = ModelCheckpoint(tmp_path, "{epoch}", save_on_train_epoch_end=True, save_top_k=-1)
    fit(module, tmp_path, RNGState(), draws, at_end, loader=shuffled_loader(), epochs=3, enable_checkpointing=True)
    for epoch in range(2):
        resumed, rest = dropout_net(), Draws()
        checkpoint = tmp_path / f"epoch={epoch}.ckpt"
        fit(resumed, tmp_path, RNGState(), rest, loader=shuffled_loader(), epochs=3, ckpt_path=checkpoint, seed=99)
        assert rest.values == draws.values[(epoch + 1) * BATCHES :], epoch
        assert equal(module.state_dict(), resumed.state_dict()), epoch


@pytest.mark.filterwarnings("ignore")
def test_what_a_validation_has_loaded_is_dropped_in_the_next_fit(tmp_path) -> None:
    class Validated(Net):
        def validation_step(self, batch: Any, batch_idx: int) -> None: ...

    fit(dropout_net(), tmp_path, RNGState(), epochs=1, save=True)
    fresh, rest, generators = Draws(), Draws(), RNGState()
    fit(dropout_net(), tmp_path, fresh, epochs=1, seed=7)
    trainer = Trainer(accelerator="cpu", callbacks=[generators], logger=False, enable_progress_bar=False)
    trainer.validate(Validated(dropout_net().configure), Loader(), ckpt_path=tmp_path / "step=3.ckpt", verbose=False)
    fit(dropout_net(), tmp_path, generators, rest, epochs=1, seed=7)
    assert rest.values == fresh.values


def test_without_it_a_resumed_run_differs(tmp_path) -> None:
    module = dropout_net()
    fit(module, tmp_path, epochs=3, save=True)
    resumed = dropout_net()
    fit(resumed, tmp_path, epochs=3, ckpt_path=tmp_path / "step=5.ckpt", seed=99)
    assert not equal(module.state_dict(), resumed.state_dict())


def test_the_state_loads_with_weights_only(tmp_path) -> None:
    torch.save(RNGState().state_dict(), tmp_path / "state")
    (own,) = torch.load(tmp_path / "state", weights_only=True)["ranks"]
    assert set(own) == {"python", "numpy", "torch", "cuda"}


def test_another_number_of_ranks_is_warned_of(tmp_path) -> None:
    fit(dropout_net(), tmp_path, RNGState(), epochs=1, save=True)
    checkpoint = torch.load(tmp_path / "step=3.ckpt", weights_only=True)
    checkpoint["callbacks"]["RNGState"]["ranks"] *= 2
    torch.save(checkpoint, tmp_path / "two.ckpt")
    with pytest.warns(UserWarning, match="the generators of 2 ranks, and this run has 1"):
        fit(dropout_net(), tmp_path, RNGState(), epochs=1, ckpt_path=tmp_path / "two.ckpt")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("monitor", "interval"),
    every(
        [("train/loss", "step"), *product(("train/loss", "train/mean", "end/size", "val/loss"), ["epoch"])],
        fast=["train/mean by epoch"],
        id=" by ".join,
    ),
)
def test_reduce_on_plateau_resumes_bitwise_without_stages(tmp_path, monitor, interval) -> None:
    def run(**arguments: Any) -> tuple[Any, list[Any]]:
        plateau = {"patience": 0, "factor": 0.75, "threshold": 0.3, "threshold_mode": "abs"}
        scheduler = SchedulerFactory("reduce_on_plateau", interval=interval, monitor=monitor, **plateau)
        module, trace = DeepNet(), StepTrace()
        module.configure = lambda module: configure_optimizers(module, OptimizerFactory("adamw", lr=0.05), scheduler)
        trainer = fit(module, tmp_path, RNGState(), trace, epochs=4, **arguments)
        (config,) = trainer.lr_scheduler_configs
        return [module.state_dict(), trainer.optimizers[0].state_dict(), config.scheduler.state_dict()], trace.steps

    torch.manual_seed(0)
    state, steps = run(save=True)
    assert len({step["default"] for step in steps}) > 1, "the lr was never reduced"
    for done in range(1, len(steps), 3):  # four batches an epoch: each place in one
        torch.manual_seed(1)
        rest_state, rest = run(ckpt_path=tmp_path / f"step={done}.ckpt", seed=99)
        assert rest == steps[done:], done
        assert equal(rest_state, state), done
