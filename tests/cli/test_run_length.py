"""The length of a run is that of the trainer; where the config does not determine it, the error says what to type."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory, configure_optimizers
from lightning_optim.callbacks.run_length import get_run_length
from lightning_optim.cli.run_length import RunLength
from lightning_optim.stages.stages import Stage, claim, parse_stages
from tests.support.training import BATCHES, Net, StepTrace, fit


@pytest.mark.parametrize(
    ("epochs", "max_steps", "accumulate"), [(2, -1, 1), (2, -1, 3), (2, 3, 1), (2, 99, 1), (-1, 3, 1)]
)
def test_the_length_is_that_of_a_trainer(tmp_path, epochs, max_steps, accumulate) -> None:
    expected: dict[str, Any] = {}

    def record(trainer: Any, module: Any) -> None:
        for interval in ("step", "epoch"):
            if interval == "step" or epochs > 0:
                expected[interval] = get_run_length(trainer, interval)
        trainer.should_stop = True

    module = Net(lambda module: configure_optimizers(module, OptimizerFactory("sgd")))
    fit(module, tmp_path, StepTrace(record), epochs=epochs, max_steps=max_steps, accumulate_grad_batches=accumulate)
    length = RunLength(
        max_epochs=math.inf if epochs < 0 else epochs,
        max_steps=math.inf if max_steps < 0 else max_steps,
        steps_per_epoch=math.ceil(BATCHES / accumulate),
    )
    assert {interval: length.total(interval) for interval in expected} == expected


def build_stages(**at: Any) -> tuple[Stage, ...]:
    return claim(parse_stages({"head": {"params": "head"}, "backbone": {"params": "backbone", **at}}), Net(None))


BY_EPOCH = SchedulerFactory("exponential", interval="epoch", gamma=0.5)


@pytest.mark.parametrize(
    ("length", "scheduler", "stages", "message"),
    [
        (RunLength(), None, (), r"trainer: .*Type trainer.max_epochs=10.*trainer.max_steps"),
        (RunLength(max_epochs=0, steps_per_epoch=3), None, (), "trainer: the run has no steps"),
        (
            RunLength(max_epochs=3),
            None,
            (),
            r"--steps-per-epoch: the run ends after 3 epochs.*Type --steps-per-epoch N",
        ),
        (RunLength(max_epochs=3, max_steps=9), None, (), "--steps-per-epoch: the run ends after 3 epochs"),
        (RunLength(max_steps=9), BY_EPOCH, (), "--steps-per-epoch: exponential steps once an epoch"),
        (
            RunLength(max_steps=9),
            None,
            build_stages(at={"epoch": 1}),
            "--steps-per-epoch: stages.backbone thaws by epochs",
        ),
        (
            RunLength(max_steps=9),
            None,
            build_stages(layers="backbone.{i}", at={"step": 2}, each={"epochs": 1}, params=None),
            "--steps-per-epoch: stages.backbone thaws by epochs",
        ),
    ],
    ids=[
        "no limit",
        "no steps",
        "epochs",
        "epochs and steps",
        "schedule by epoch",
        "stage by epoch",
        "layers by epoch",
    ],
)
def test_an_unknown_length_is_refused(length, scheduler, stages, message) -> None:
    with pytest.raises(ConfigError, match=message):
        length.check(scheduler, stages)


@pytest.mark.parametrize(
    ("length", "scheduler", "stages"),
    [
        (RunLength(max_steps=9), None, ()),
        (RunLength(max_steps=9), SchedulerFactory("cosine_annealing"), build_stages(at={"step": 2})),
        (RunLength(max_steps=9, steps_per_epoch=2), BY_EPOCH, build_stages(at={"epoch": 1})),
    ],
    ids=["steps", "schedule and stages by step", "by epoch"],
)
def test_a_known_length_is_accepted(length, scheduler, stages) -> None:
    length.check(scheduler, stages)


def test_the_number_of_epochs_of_a_run_limited_by_steps_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"total_steps: .*Type trainer.max_epochs=10"):
        RunLength(max_steps=9, steps_per_epoch=2).total("epoch")


def test_the_length_in_words() -> None:
    assert str(RunLength(max_steps=1200)) == "1,200 optimizer steps"
    assert str(RunLength(max_epochs=2, steps_per_epoch=1500)) == "3,000 optimizer steps: 2 epochs of 1,500"
    assert str(RunLength(max_steps=10, steps_per_epoch=4)) == "10 optimizer steps: 2.5 epochs of 4"
