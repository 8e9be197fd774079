"""Ctrl-C: what is under way is finished, and nothing is left as it was not before."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from recipes.stopping import StopBetweenBatches
from tests.support.training import BATCHES, Net, fit


class Press(Callback):
    """Ctrl-C in the middle of a batch, and what of that batch was still done."""

    def __init__(self, batch: int, times: int = 1) -> None:
        self.batch, self.times, self.done = batch, times, list[str]()

    def on_before_backward(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.batch:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)
            self.done.append("backward")

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.batch + 1:
            self.done.append("batch")

    def on_validation_batch_start(self, *_: Any) -> None:
        self.done.append("validation")


def net() -> Net:
    return Net(lambda module: torch.optim.SGD(module.parameters(), lr=0.1))


@pytest.fixture(autouse=True)
def handler() -> Any:
    before = signal.getsignal(signal.SIGINT)
    yield before
    found = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)
    assert found in (before, signal.SIG_IGN)


@pytest.mark.parametrize("batch", [0, 1, BATCHES, 2 * BATCHES - 1], ids=["first", "middle", "next epoch's", "last"])
def test_the_batch_is_finished_first(batch, tmp_path) -> None:
    press = Press(batch)
    with pytest.raises(SystemExit) as caught:
        fit(net(), tmp_path, press, StopBetweenBatches(), epochs=2)
    assert caught.value.code == 1
    assert press.done[:2] == ["backward", "batch"]


def test_a_second_press_stops_at_once(tmp_path) -> None:
    press = Press(1, times=2)
    with pytest.raises(SystemExit):
        fit(net(), tmp_path, press, StopBetweenBatches(), epochs=1)
    assert press.done == []


def test_a_fit_that_ends_by_itself_leaves_ctrl_c_as_it_was(handler, tmp_path) -> None:
    fit(net(), tmp_path, StopBetweenBatches(), epochs=1)
    assert signal.getsignal(signal.SIGINT) == handler


def test_so_does_one_that_fails(handler, tmp_path) -> None:
    class Fails(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        fit(net(), tmp_path, Fails(), StopBetweenBatches(), epochs=1)
    assert signal.getsignal(signal.SIGINT) == handler
