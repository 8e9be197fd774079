"""Ctrl-C: the current batch is finished, and the previous signal handler is restored."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from recipes.stopping import StopBetweenBatches
from tests.support.training import BATCHES, Net, fit


class PressCtrlC(Callback):
    """Sends SIGINT in the middle of a batch and records what still ran."""

    def __init__(self, batch: int, times: int = 1) -> None:
        self.batch, self.times, self.events = batch, times, list[str]()

    def on_before_backward(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.batch:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)
            self.events.append("backward")

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.batch + 1:
            self.events.append("batch")

    def on_validation_batch_start(self, *_: Any) -> None:
        self.events.append("validation")


def net() -> Net:
    return Net(lambda module: torch.optim.SGD(module.parameters(), lr=0.1))


@pytest.fixture(autouse=True)
def handler() -> Any:
    """The handler of SIGINT before the test, which must be installed again afterwards."""
    before = signal.getsignal(signal.SIGINT)
    yield before
    after = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)
    assert after in (before, signal.SIG_IGN)


@pytest.mark.parametrize("batch", [0, 1, BATCHES, 2 * BATCHES - 1], ids=["first", "middle", "first of epoch 1", "last"])
def test_current_batch_is_finished_first(batch, tmp_path) -> None:
    press = PressCtrlC(batch)
    with pytest.raises(SystemExit) as caught:
        fit(net(), tmp_path, press, StopBetweenBatches(), epochs=2)
    assert caught.value.code == 1
    assert press.events[:2] == ["backward", "batch"]


def test_second_ctrl_c_stops_at_once(tmp_path) -> None:
    press = PressCtrlC(1, times=2)
    with pytest.raises(SystemExit):
        fit(net(), tmp_path, press, StopBetweenBatches(), epochs=1)
    assert press.events == []


def test_handler_is_restored_after_a_complete_fit(handler, tmp_path) -> None:
    fit(net(), tmp_path, StopBetweenBatches(), epochs=1)
    assert signal.getsignal(signal.SIGINT) == handler


def test_handler_is_restored_after_a_failed_fit(handler, tmp_path) -> None:
    class Fails(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise RuntimeError("expected")

    with pytest.raises(RuntimeError, match="expected"):
        fit(net(), tmp_path, Fails(), StopBetweenBatches(), epochs=1)
    assert signal.getsignal(signal.SIGINT) == handler
