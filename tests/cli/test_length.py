"""How long a run is: as a trainer would say, or what to type."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory, configure_optimizers
from lightning_optim.callbacks.configure import run_length
from lightning_optim.cli.length import Length
from lightning_optim.stages.stages import Stage, claim, parse_stages
from tests.support.training import BATCHES, Net, Witness, fit


@pytest.mark.parametrize(
    ("epochs", "max_steps", "accumulate"), [(2, -1, 1), (2, -1, 3), (2, 3, 1), (2, 99, 1), (-1, 3, 1)]
)
def test_as_a_trainer_would_say(tmp_path, epochs, max_steps, accumulate) -> None:
    said: dict[str, Any] = {}

    def look(trainer: Any, module: Any) -> None:
        for interval in ("step", "epoch"):
            if interval == "step" or epochs > 0:
                said[interval] = run_length(trainer, interval)
        trainer.should_stop = True

    module = Net(lambda module: configure_optimizers(module, OptimizerFactory("sgd")))
    fit(module, tmp_path, Witness(look), epochs=epochs, max_steps=max_steps, accumulate_grad_batches=accumulate)
    length = Length(
        max_epochs=math.inf if epochs < 0 else epochs,
        max_steps=math.inf if max_steps < 0 else max_steps,
        steps_per_epoch=math.ceil(BATCHES / accumulate),
    )
    assert {interval: length.total(interval) for interval in said} == said


def staged(**at: Any) -> tuple[Stage, ...]:
    return claim(parse_stages({"head": {"params": "head"}, "backbone": {"params": "backbone", **at}}), Net(None))


BY_EPOCH = SchedulerFactory("exponential", interval="epoch", gamma=0.5)


@pytest.mark.parametrize(
    ("length", "scheduler", "stages", "message"),
    [
        (Length(), None, (), r"trainer: .*Type trainer.max_epochs=10.*trainer.max_steps"),
        (Length(max_epochs=0, steps_per_epoch=3), None, (), "trainer: the run has no steps"),
        (Length(max_epochs=3), None, (), r"--steps-per-epoch: the run ends after 3 epochs.*Type --steps-per-epoch N"),
        (Length(max_epochs=3, max_steps=9), None, (), "--steps-per-epoch: the run ends after 3 epochs"),
        (Length(max_steps=9), BY_EPOCH, (), "--steps-per-epoch: exponential steps once an epoch"),
        (Length(max_steps=9), None, staged(at={"epoch": 1}), "--steps-per-epoch: stages.backbone thaws by epochs"),
        (
            Length(max_steps=9),
            None,
            staged(layers="backbone.{i}", at={"step": 2}, each={"epochs": 1}, params=None),
            "--steps-per-epoch: stages.backbone thaws by epochs",
        ),
    ],
    ids=["endless", "nothing", "epochs", "both", "schedule", "stage", "a layer"],
)
def test_what_is_not_known(length, scheduler, stages, message) -> None:
    with pytest.raises(ConfigError, match=message):
        length.check(scheduler, stages)


@pytest.mark.parametrize(
    ("length", "scheduler", "stages"),
    [
        (Length(max_steps=9), None, ()),
        (Length(max_steps=9), SchedulerFactory("cosine_annealing"), staged(at={"step": 2})),
        (Length(max_steps=9, steps_per_epoch=2), BY_EPOCH, staged(at={"epoch": 1})),
    ],
    ids=["steps", "all in steps", "epochs"],
)
def test_what_is_known(length, scheduler, stages) -> None:
    length.check(scheduler, stages)


def test_epochs_cannot_be_counted_in_a_run_that_has_no_last() -> None:
    with pytest.raises(ConfigError, match=r"total_steps: .*Type trainer.max_epochs=10"):
        Length(max_steps=9, steps_per_epoch=2).total("epoch")


def test_in_words() -> None:
    assert str(Length(max_steps=1200)) == "1,200 optimizer steps"
    assert str(Length(max_epochs=2, steps_per_epoch=1500)) == "3,000 optimizer steps: 2 epochs of 1,500"
    assert str(Length(max_steps=10, steps_per_epoch=4)) == "10 optimizer steps: 2.5 epochs of 4"
