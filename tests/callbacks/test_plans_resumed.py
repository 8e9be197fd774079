"""Plans whose stages wait for metrics resume bitwise, and continue in another fit of the same module."""

from __future__ import annotations

import copy
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_optim import RNGState, StagedUnfreeze
from tests.support.cases import each_value
from tests.support.equality import equal
from tests.support.staged_plans import FLAT_METRICS, REST, DeepNet, layers, on_plateau, thaw_steps, unfreeze
from tests.support.training import BATCHES, Loader, StepTrace, fit

METRICS = {
    "train/loss": "logged in each training step",
    "train/mean": "logged in each training step, averaged over the epoch",
    "end/size": "logged in on_train_epoch_end",
    "val/loss": "logged in each validation",
}
SAVING: dict[str, dict[str, Any]] = {
    "at each step": {"every_n_train_steps": 1},
    "after validation": {"every_n_epochs": 1, "save_on_train_epoch_end": False},
    "at the end of an epoch": {"every_n_epochs": 1, "save_on_train_epoch_end": True},
}
"""Arguments of ModelCheckpoint."""
EPOCHS, BATCHES_PER_EPOCH = 8, 3

Run = tuple[Trainer, DeepNet, StagedUnfreeze, StepTrace]


def gradual(metric: str) -> StagedUnfreeze:
    at = {"any": [{"epoch": 99}, on_plateau(metric)]}
    return unfreeze(top=layers(at=at, each=on_plateau(metric), lr_scale=0.5, warmup_steps=3), rest=REST)


def run(folder: Path, metric: str, saving: str, ckpt_path: Path | None = None, **arguments: Any) -> Run:
    """A full run that saves checkpoints, or the rest of one."""
    module, callback, trace = DeepNet(schedule="cosine_annealing"), gradual(metric), StepTrace()
    callbacks = [callback, RNGState(), trace]
    if ckpt_path is None:
        callbacks.append(ModelCheckpoint(folder, "{step}", save_top_k=-1, **SAVING[saving]))
    arguments |= {"epochs": EPOCHS, "loader": Loader(BATCHES_PER_EPOCH), "enable_checkpointing": ckpt_path is None}
    # Another seed when resuming: what is not restored shows.
    arguments |= {"seed": 1 if ckpt_path is None else 2, "ckpt_path": ckpt_path}
    return fit(module, folder, *callbacks, **arguments), module, callback, trace


def read_state(trainer: Trainer, module: DeepNet, callback: StagedUnfreeze, *_: Any) -> Any:
    state = callback.state_dict()
    plan = {key: state[key] for key in ("thawed", "thaw_times", "stage_plateaus", "optimizers")}
    return copy.deepcopy([module.state_dict(), trainer.optimizers[0].state_dict(), plan])


def select_steps(trace: StepTrace) -> list[int]:
    """Two epochs from the step before the first thaw on, and the last epoch."""
    per_epoch, last = len(trace.steps) // EPOCHS, len(trace.steps)
    first = max(thaw_steps(trace)["top.2"] - 1, 1)
    return sorted({*range(first, first + 2 * per_epoch), *range(last - per_epoch, last)})


def find_wrong(folder: Path, full: Run, steps: list[int], metric: str, **arguments: Any) -> list[int]:
    """The steps from which a resumed run differs."""
    wrong, state, trace = [], read_state(*full), full[-1]
    for step in steps:
        rest = run(folder / "resumed", metric, "", folder / f"step={step}.ckpt", **arguments)
        is_right = rest[-1].steps == trace.steps[step:] and equal(state, read_state(*rest))
        wrong += [] if is_right else [step]
    return wrong


@pytest.mark.parametrize(
    ("saving", "metric", "accumulate"),
    each_value(
        product(SAVING, METRICS, [1, 2]),
        fast=[
            "at each step, train/mean, accumulate 2",
        ],
        id=lambda case: "{}, {}, accumulate {}".format(*case),
    ),
)
def test_a_plan_by_layers_resumes_bitwise(tmp_path, saving, metric, accumulate) -> None:
    torch.manual_seed(0)
    full = run(tmp_path, metric, saving, accumulate_grad_batches=accumulate)
    trace = full[-1]
    assert len(thaw_steps(trace)) > 2, "no stage thawed on the metric"
    steps = sorted(int(path.stem.split("=")[1]) for path in tmp_path.glob("*.ckpt"))
    assert len(steps) == (len(trace.steps) if saving == "at each step" else EPOCHS)
    resumed = select_steps(trace) if saving == "at each step" else steps[:-1]
    assert find_wrong(tmp_path, full, resumed, metric, accumulate_grad_batches=accumulate) == []


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["val/loss", "train/loss"])
def test_resumes_bitwise_with_a_validation_after_each_batch(tmp_path, metric) -> None:
    torch.manual_seed(0)
    full = run(tmp_path, metric, "at each step", val_check_interval=1)
    assert len(thaw_steps(full[-1])) > 2, "no stage thawed on the metric"
    assert find_wrong(tmp_path, full, select_steps(full[-1]), metric, val_check_interval=1) == []


def test_the_checkpoint_loads_with_weights_only(tmp_path) -> None:
    run(tmp_path, "train/mean", "at each step")
    state = torch.load(tmp_path / "step=4.ckpt", weights_only=True)["callbacks"]["StagedUnfreeze"]
    assert state["thawed"] == ["head"]
    assert list(state["stage_plateaus"]) == ["top.2", "top.1", "top.0"]


def test_a_stage_has_its_hyperparameters_from_the_thaw_on_and_after_a_resume(tmp_path) -> None:
    def last_weight_decays(weight_decay: float, **arguments: Any) -> dict[str, float]:
        trace = StepTrace(lambda trainer, _: {g["name"]: g["weight_decay"] for g in trainer.optimizers[0].param_groups})
        rest = {"params": "backbone", "at": {"epoch": 1}, "weight_decay": weight_decay}
        fit(DeepNet(), tmp_path, unfreeze(rest=rest), RNGState(), trace, epochs=2, **arguments)
        return trace.steps[-1]

    assert last_weight_decays(0.25, save=True) == {"head": 0.01, "rest": 0.25}
    assert last_weight_decays(0.75, ckpt_path=tmp_path / "step=2.ckpt") == {"head": 0.01, "rest": 0.75}
    assert last_weight_decays(0.75, ckpt_path=tmp_path / "step=6.ckpt") == {"head": 0.01, "rest": 0.75}


@pytest.mark.slow
def test_an_edited_metric_is_watched_from_the_resume_on(tmp_path) -> None:
    def thaw_step(metric: str, **arguments: Any) -> int:
        trace = StepTrace()
        rest = {"params": "backbone", "at": on_plateau(metric, 3)}
        fit(DeepNet(), tmp_path, unfreeze(rest=rest), RNGState(), trace, epochs=8, **arguments)
        return thaw_steps(trace)["rest"]

    assert thaw_step("train/flat", save=True) == 4 * BATCHES
    done = 2 * BATCHES + 1
    resumed = [thaw_step(metric, ckpt_path=tmp_path / f"step={done}.ckpt") for metric in ("train/flat", "end/flat")]
    assert [step + done for step in resumed] == [4 * BATCHES, 6 * BATCHES]


# Another fit of the same module

WATCHING: dict[str, Any] = {
    "a stage": lambda metric: {
        "top": layers(at={"epoch": 1}),
        "rest": {"params": "backbone", "at": on_plateau(metric, 4)},
    },
    "a layer": lambda metric: {"top": layers(at={"epoch": 1}, each=on_plateau(metric, 4)), "rest": REST},
}


@pytest.mark.parametrize(
    ("stages", "metric"),
    each_value(
        product(WATCHING, FLAT_METRICS),
        fast=["a layer, train/flat_mean"],
        id=", ".join,
    ),
)
def test_another_fit_continues_to_watch(tmp_path, stages, metric) -> None:
    """From the start, a patience of 4 would take five epochs, and the thaw would come after them."""
    module, trace, callback = DeepNet(), StepTrace(), unfreeze(**WATCHING[stages](metric))
    validation = {} if metric == "val/flat" else {"limit_val_batches": 0}
    fit(module, tmp_path, callback, epochs=3, **validation)
    fit(module, tmp_path, callback, trace, epochs=5, **validation)
    steps = list(thaw_steps(trace).values())
    assert steps[:2] == [0, 0]
    assert len(steps) > 2


def test_another_fit_counts_epochs_from_its_own_start(tmp_path) -> None:
    module, trace = DeepNet(), StepTrace()
    callback = unfreeze(top=layers(at={"epoch": 1}), rest={"params": "backbone", "at": {"after": {"epochs": 2}}})
    fit(module, tmp_path, callback, epochs=2)
    fit(module, tmp_path, callback, trace, epochs=3)
    assert thaw_steps(trace) == {"head": 0, "top": 0, "rest": 2 * BATCHES}
