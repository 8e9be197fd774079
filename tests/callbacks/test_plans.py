"""When the stages of a plan thaw: layer by layer, on a plateau, at a fraction of the run, when a callable says so."""

from __future__ import annotations

import pickle
from itertools import product
from typing import Any

import pytest
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_optim import ConfigError, OptimizerFactory
from tests.support.cases import every
from tests.support.messages import check_message
from tests.support.staged_plans import FLAT_METRICS, REST, DeepNet, layers, on_plateau, thaw_steps, unfreeze
from tests.support.training import BATCHES, Loader, StepTrace, fit

# Layer by layer

BY_LAYER: dict[str, tuple[Any, Any, tuple[int, int, int]]] = {
    "by epochs": ({"epoch": 1}, {"epochs": 1}, (4, 8, 12)),
    "by two epochs": ({"epoch": 1}, {"epochs": 2}, (4, 12, 20)),
    "by steps": ({"step": 3}, {"steps": 2}, (3, 5, 7)),
    "from a step, by epochs": ({"step": 3}, {"epochs": 1}, (3, 4, 8)),
    "from the start, by steps": (None, {"steps": 5}, (0, 5, 10)),
}
"""`at`, `each`, and the optimizer steps before each layer thaws, with four steps per epoch."""


@pytest.mark.parametrize(
    ("name", "accumulate"),
    every(
        product(BY_LAYER, [1, 2]),
        fast=["by epochs, 2", "from the start, by steps, 2"],
        id=lambda case: f"{case[0]}, {case[1]}",
    ),
)
def test_layers_thaw_one_by_one_from_the_last(tmp_path, name, accumulate) -> None:
    at, each, steps = BY_LAYER[name]
    trace = StepTrace()
    callback = unfreeze(top=layers(at=at, each=each, lr_scale=0.5), rest=REST)
    loader = Loader(BATCHES * accumulate)
    fit(DeepNet(), tmp_path, callback, trace, epochs=6, loader=loader, accumulate_grad_batches=accumulate)
    top = dict(zip(("top.2", "top.1", "top.0"), steps, strict=True))
    assert thaw_steps(trace) == {"head": 0, **top, "rest": steps[-1] + 1}
    assert trace.steps[-1] == {"head": 0.01, **dict.fromkeys(top, 0.005), "rest": 0.01}


# On a plateau


@pytest.mark.parametrize(
    ("metric", "accumulate"),
    every(
        product(FLAT_METRICS, [1, 2]),
        fast=["train/flat_mean, 2", "val/flat, 2"],
        id=lambda case: f"{case[0]}, {case[1]}",
    ),
)
def test_layers_thaw_when_a_metric_stops_improving_wherever_it_is_logged(tmp_path, metric, accumulate) -> None:
    """A patience of 1 takes two epochs: the first value is the best so far, the second is no better."""
    trace = StepTrace()
    top = layers(at=on_plateau(metric), each=on_plateau(metric, 2))
    fit(DeepNet(), tmp_path, unfreeze(top=top, rest=REST), trace, epochs=9, accumulate_grad_batches=accumulate)
    epoch = BATCHES // accumulate
    expected = {"head": 0, "top.2": 2 * epoch, "top.1": 5 * epoch, "top.0": 8 * epoch, "rest": 8 * epoch + 1}
    assert thaw_steps(trace) == expected


@pytest.mark.parametrize(
    ("arguments", "thaw"),
    [
        pytest.param({}, 12, marks=pytest.mark.slow),
        ({"val_check_interval": 2, "accumulate_grad_batches": 2}, 3),
        pytest.param({"check_val_every_n_epoch": 2}, 24, marks=pytest.mark.slow),
        ({"val_check_interval": 3, "check_val_every_n_epoch": None}, 9),
    ],
    ids=["each epoch", "twice an epoch, accumulating", "every other epoch", "across epochs"],
)
def test_patience_counts_validations(tmp_path, arguments, thaw) -> None:
    """A patience of 2 takes three of them; the sanity check does not count."""
    trace = StepTrace()
    callback = unfreeze(rest={"params": "backbone", "at": on_plateau("val/flat", 2)})
    fit(DeepNet(), tmp_path, callback, trace, epochs=7, **arguments)
    assert thaw_steps(trace) == {"head": 0, "rest": thaw}


def test_a_validation_within_an_accumulation_counts(tmp_path) -> None:
    """One follows each batch: a patience of 2 takes three, and the thaw waits for the end of the accumulation."""
    trace = StepTrace()
    callback = unfreeze(rest={"params": "backbone", "at": on_plateau("val/flat", 2)})
    fit(DeepNet(), tmp_path, callback, trace, val_check_interval=1, accumulate_grad_batches=2)
    assert thaw_steps(trace) == {"head": 0, "rest": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "values", "epoch"),
    [
        ("max", [1, 2, 3, 3, 2, 9], 5),
        pytest.param("max", [3, 2, 1], 3, marks=pytest.mark.slow),
        ("min", [3, 2, 1, 1, 0, 0, 0], 7),
        pytest.param("min", [1, 2, 3], 3, marks=pytest.mark.slow),
    ],
    ids=["max, rises at first", "max, falls", "min, falls with one pause", "min, rises"],
)
def test_mode_says_which_values_are_better(tmp_path, mode, values, epoch) -> None:
    class ScriptedNet(DeepNet):
        def on_train_epoch_end(self) -> None:
            self.log("score", float([*values, 0][min(self.current_epoch, len(values))]))

    trace = StepTrace()
    at = on_plateau("score", 2, mode=mode)
    fit(ScriptedNet(), tmp_path, unfreeze(rest={"params": "backbone", "at": at}), trace, epochs=8)
    assert thaw_steps(trace) == {"head": 0, "rest": epoch * BATCHES}


def test_a_plateau_is_watched_from_the_thaw_of_the_stage_above(tmp_path) -> None:
    trace = StepTrace()
    callback = unfreeze(top=layers(at={"epoch": 3}), rest={"params": "backbone", "at": on_plateau("val/flat")})
    fit(DeepNet(), tmp_path, callback, trace, epochs=6)
    assert thaw_steps(trace) == {"head": 0, "top": 3 * BATCHES, "rest": 5 * BATCHES}


def test_a_metric_may_be_missing_before_the_first_validation(tmp_path) -> None:
    trace = StepTrace()
    callback = unfreeze(rest={"params": "backbone", "at": on_plateau("val/flat")})
    fit(DeepNet(), tmp_path, callback, trace, epochs=7, check_val_every_n_epoch=3)
    assert thaw_steps(trace) == {"head": 0, "rest": 6 * BATCHES}


@pytest.mark.parametrize(
    ("stages", "key", "parts", "num_steps"),
    [
        (
            {"rest": {"params": "backbone", "at": on_plateau("train/los")}},
            "stages.rest.at.plateau.monitor",
            ("'train/los'", "Did you mean 'train/loss'?", "self.log('train/los', ...)"),
            BATCHES,
        ),
        (
            {"rest": {"params": "backbone", "at": on_plateau("val/acc")}},
            "stages.rest.at.plateau.monitor",
            ("'val/acc'", "Available: end/flat", "val/loss", "self.log('val/acc', ...)"),
            BATCHES,
        ),
        (
            {"rest": {"params": "backbone", "at": {"any": [{"epoch": 9}, on_plateau("los")]}}},
            "stages.rest.at.any[1].plateau.monitor",
            ("'los'",),
            BATCHES,
        ),
        (
            {"top": layers(at={"epoch": 1}, each=on_plateau("val/los")), "rest": REST},
            "stages.top.each.plateau.monitor",
            ("'val/los'", "Did you mean 'val/loss'?"),
            2 * BATCHES,
        ),
    ],
    ids=["misspelt", "unknown", "in any", "in each"],
)
def test_a_metric_that_nothing_logs_is_refused_after_the_first_watched_epoch(
    tmp_path, stages, key, parts, num_steps
) -> None:
    trace = StepTrace()
    with pytest.raises(ConfigError) as caught:
        fit(DeepNet(), tmp_path, unfreeze(**stages), trace)
    check_message(caught, key, "nothing has logged a metric", *parts)
    assert len(trace.steps) == num_steps


def test_a_validation_metric_is_refused_in_a_run_without_validation(tmp_path) -> None:
    trace, callback = StepTrace(), unfreeze(rest={"params": "backbone", "at": on_plateau("val/loss")})
    with pytest.raises(ConfigError) as caught:
        fit(DeepNet(), tmp_path, callback, trace, limit_val_batches=0)
    check_message(caught, "stages.rest.at.plateau.monitor", "'val/loss'", "Available: end/flat", "train/loss")
    assert len(trace.steps) == BATCHES


def test_the_error_says_that_no_metric_is_logged_at_all(tmp_path) -> None:
    class SilentNet(DeepNet):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def on_train_epoch_end(self) -> None: ...

    callback = unfreeze(rest={"params": "backbone", "at": on_plateau("val/loss")})
    with pytest.raises(ConfigError) as caught:
        fit(SilentNet(), tmp_path, callback, limit_val_batches=0)
    check_message(caught, "stages.rest.at.plateau.monitor", "nor any other", "self.log('val/loss', ...)")


# After a fraction of the run, when a callable says so, at the first of several


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fraction", "arguments", "thaw"),
    [
        (0.5, {}, 4),
        (0.3, {}, 3),
        (0.5, {"max_steps": 6}, 3),
        (0.5, {"limit_train_batches": 2}, 2),
        (0.75, {"epochs": -1, "max_steps": 8}, 6),
    ],
    ids=["half", "rounded up", "half of max_steps", "half of limited epochs", "of max_steps alone"],
)
def test_a_fraction_is_of_the_optimizer_steps(tmp_path, fraction, arguments, thaw) -> None:
    trace = StepTrace()
    callback = unfreeze(rest={"params": "backbone", "at": {"fraction": fraction}})
    fit(DeepNet(), tmp_path, callback, trace, accumulate_grad_batches=2, **arguments)
    assert thaw_steps(trace) == {"head": 0, "rest": thaw}


@pytest.mark.parametrize(
    ("at", "key"),
    [
        ({"fraction": 0.5}, "stages.rest.at.fraction"),
        ({"any": [{"epoch": 1}, {"fraction": 0.5}]}, "stages.rest.at.any[1].fraction"),
    ],
    ids=["alone", "in any"],
)
def test_a_fraction_of_an_endless_run_is_refused(tmp_path, at, key) -> None:
    trace = StepTrace()
    with pytest.raises(ConfigError) as caught:
        fit(DeepNet(), tmp_path, unfreeze(rest={"params": "backbone", "at": at}), trace, epochs=-1)
    check_message(caught, key, "the trainer has no end", "{step: 500}")
    assert not trace.steps


@pytest.mark.parametrize(
    ("triggers", "thaw"),
    [
        ([on_plateau("val/flat"), {"epoch": 3}], 8),
        ([{"epoch": 1}, on_plateau("val/flat")], 4),
        ([on_plateau("val/flat", 9), {"fraction": 0.4}], 8),
        ([{"step": 7}, {"after": {"epochs": 1}}], 4),
        ([lambda trainer, module: trainer.global_step == 5, {"epoch": 3}], 5),
    ],
    ids=["plateau first", "epoch first", "fraction first", "after first", "callable first"],
)
def test_any_thaws_at_the_first_of_its_triggers(tmp_path, triggers, thaw) -> None:
    trace = StepTrace()
    fit(DeepNet(), tmp_path, unfreeze(rest={"params": "backbone", "at": {"any": triggers}}), trace, epochs=5)
    assert thaw_steps(trace) == {"head": 0, "rest": thaw}


def test_a_callable_is_called_before_each_step_until_it_returns_true(tmp_path) -> None:
    calls = []

    def at_step_five(trainer: Trainer, module: LightningModule) -> bool:
        calls.append((type(trainer), type(module), trainer.global_step))
        return trainer.global_step == 5

    trace = StepTrace()
    fit(DeepNet(), tmp_path, unfreeze(rest={"params": "backbone", "at": at_step_five}), trace, epochs=3)
    assert thaw_steps(trace) == {"head": 0, "rest": 5}
    assert calls == [(Trainer, DeepNet, step) for step in range(6)]


# Within accumulations


def test_a_thaw_that_is_due_within_an_accumulation_waits_for_its_end(tmp_path) -> None:
    class RecordingNet(DeepNet):
        def __init__(self) -> None:
            super().__init__()
            self.trainable: list[bool] = []

        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            self.trainable.append(self.backbone.stem.weight.requires_grad)
            return super().training_step(batch, batch_idx)

    def after_three_batches(trainer: Trainer, module: Any) -> bool:
        return len(module.trainable) >= 3

    module, trace = RecordingNet(), StepTrace()
    callback = unfreeze(rest={"params": "backbone", "at": after_three_batches})
    fit(module, tmp_path, callback, trace, loader=Loader(6), epochs=1, accumulate_grad_batches=2)
    assert module.trainable == [False] * 4 + [True] * 2
    assert thaw_steps(trace) == {"head": 0, "rest": 2}


def test_the_last_accumulation_of_an_epoch_may_be_shorter(tmp_path) -> None:
    """Of three batches, two make one step and the third another."""
    trace = StepTrace()
    callback = unfreeze(rest={"params": "backbone", "at": {"step": 1}})
    fit(DeepNet(), tmp_path, callback, trace, loader=Loader(3), epochs=2, accumulate_grad_batches=2)
    assert thaw_steps(trace) == {"head": 0, "rest": 1}


# What is printed


def test_the_stages_that_a_run_cannot_reach_are_named(tmp_path, monkeypatch) -> None:
    printed: list[str] = []
    for file in ("run_clock", "thaw_log", "unfreeze"):
        monkeypatch.setattr(f"lightning_optim.callbacks.{file}.rank_zero_info", printed.append)
    top = layers(at={"epoch": 1}, each={"epochs": 1})
    late = {"stem": {"params": "backbone.stem", "at": {"step": 8}}, "never": {"params": "dropout", "at": {"epoch": 2}}}
    late["never"]["allow_empty"] = True
    fit(DeepNet(), tmp_path, unfreeze(top=top, **late), epochs=2, max_steps=8)
    assert printed == [
        "StagedUnfreeze: this run ends before stem, never can thaw",
        "StagedUnfreeze: epoch 1, step 4: 'top.2' thaws (top.2)",
        "StagedUnfreeze: the fit has ended before top.1, top.0, stem, never could thaw",
    ]


def test_explain_shows_when_each_layer_thaws() -> None:
    stages = {"top": layers(at=on_plateau("val/loss", 2), each={"epochs": 2}), "rest": REST}
    rows = unfreeze(**stages).explain(DeepNet(), OptimizerFactory("adamw", lr=0.01)).rows()
    assert [(row["group"], row["thaws"]) for row in rows[:-1]] == [
        ("head", "from the start"),
        ("top.2", "plateau of val/loss, patience 2"),
        ("top.1", "2 epochs after top.2"),
        ("top.0", "2 epochs after top.1"),
        ("rest", "1 step after the stage above"),
    ]


def test_a_plan_by_layers_pickles() -> None:
    """As `strategy="ddp_spawn"` pickles callbacks."""
    callback = unfreeze(top=layers(at={"epoch": 1}, each={"steps": 5}), rest=REST)
    loaded = pickle.loads(pickle.dumps(callback))
    assert loaded.explain(DeepNet()).rows() == callback.explain(DeepNet()).rows()
