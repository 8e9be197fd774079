"""RNGState: a resumed run draws the numbers that the uninterrupted one drew."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from lightning_optim import RNGState
from tests.support.training import BATCHES, Loader, Net, fit, same


def _net() -> Net:
    torch.manual_seed(0)
    return Net(lambda module: torch.optim.AdamW(module.parameters(), lr=0.01), dropout=0.5)


def _shuffled() -> Any:
    data = Loader()
    return DataLoader(TensorDataset(data.inputs.flatten(0, 1), data.targets.flatten()), batch_size=8, shuffle=True)


class Draws(Callback):
    """Notes what each generator gives at each batch."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_train_batch_start(self, *args: Any) -> None:
        self.seen.append((random.random(), np.random.rand(), np.random.randn(), torch.rand(1).item()))


@pytest.mark.parametrize(
    ("make_loader", "dones"),
    [(Loader, range(1, 3 * BATCHES)), (_shuffled, [BATCHES, 2 * BATCHES])],
    ids=["stateful loader, every step", "shuffled DataLoader, each epoch's end"],
)
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_goes_on_as_though_nothing_had_happened(tmp_path, make_loader, dones) -> None:
    module, draws = _net(), Draws()
    fit(module, tmp_path, RNGState(), draws, loader=make_loader(), epochs=3, save=True)
    for done in dones:
        again, later = _net(), Draws()
        checkpoint = tmp_path / f"step={done}.ckpt"
        fit(again, tmp_path, RNGState(), later, loader=make_loader(), epochs=3, ckpt_path=checkpoint, seed=99)
        assert later.seen == draws.seen[done:], done
        assert same(module.state_dict(), again.state_dict()), done


def test_the_same_for_checkpoints_of_an_epochs_end(tmp_path) -> None:
    module, draws = _net(), Draws()
    at_end = ModelCheckpoint(tmp_path, "{epoch}", save_on_train_epoch_end=True, save_top_k=-1)
    fit(module, tmp_path, RNGState(), draws, at_end, loader=_shuffled(), epochs=3, enable_checkpointing=True)
    for epoch in range(2):
        again, later = _net(), Draws()
        checkpoint = tmp_path / f"epoch={epoch}.ckpt"
        fit(again, tmp_path, RNGState(), later, loader=_shuffled(), epochs=3, ckpt_path=checkpoint, seed=99)
        assert later.seen == draws.seen[(epoch + 1) * BATCHES :], epoch
        assert same(module.state_dict(), again.state_dict()), epoch


@pytest.mark.filterwarnings("ignore")
def test_what_a_validation_loaded_does_not_rewind_the_next_fit(tmp_path) -> None:
    class Validated(Net):
        def validation_step(self, batch: Any, batch_idx: int) -> None: ...

    fit(_net(), tmp_path, RNGState(), epochs=1, save=True)
    fresh, later, generators = Draws(), Draws(), RNGState()
    fit(_net(), tmp_path, fresh, epochs=1, seed=7)
    trainer = Trainer(accelerator="cpu", callbacks=[generators], logger=False, enable_progress_bar=False)
    trainer.validate(Validated(_net().configure), Loader(), ckpt_path=tmp_path / "step=3.ckpt", verbose=False)
    fit(_net(), tmp_path, generators, later, epochs=1, seed=7)
    assert later.seen == fresh.seen


def test_without_it_the_run_differs(tmp_path) -> None:
    module = _net()
    fit(module, tmp_path, epochs=3, save=True)
    again = _net()
    fit(again, tmp_path, epochs=3, ckpt_path=tmp_path / "step=5.ckpt", seed=99)
    assert not same(module.state_dict(), again.state_dict())


def test_its_state_loads_with_weights_only(tmp_path) -> None:
    torch.save(RNGState().state_dict(), tmp_path / "state")
    (own,) = torch.load(tmp_path / "state", weights_only=True)["ranks"]
    assert set(own) == {"python", "numpy", "torch", "cuda"}


def test_another_number_of_ranks_is_said(tmp_path) -> None:
    fit(_net(), tmp_path, RNGState(), epochs=1, save=True)
    checkpoint = torch.load(tmp_path / "step=3.ckpt", weights_only=True)
    checkpoint["callbacks"]["RNGState"]["ranks"] *= 2
    torch.save(checkpoint, tmp_path / "two.ckpt")
    with pytest.warns(UserWarning, match="the generators of 2 ranks, and this run has 1"):
        fit(_net(), tmp_path, RNGState(), epochs=1, ckpt_path=tmp_path / "two.ckpt")
