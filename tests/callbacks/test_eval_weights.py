"""EvalWeights: the module has the evaluation weights where it is evaluated or saved, and resumes bitwise."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    LearningRateFinder,
    ModelCheckpoint,
    OnExceptionCheckpoint,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from torch import nn

from lightning_optim import (
    ConfigError,
    EvalWeights,
    OptimizerFactory,
    OptimizerMonitor,
    OptimizerOverride,
    SchedulerFactory,
    StagedUnfreeze,
)
from lightning_optim.callbacks import eval_weights
from tests.support.averaged_fits import (
    ADAMW,
    EPOCHS,
    GROUPS,
    NUM_STEPS,
    PLAN,
    VALIDATES_EVERY,
    AveragedNet,
    Weights,
    copies,
    fit_averaged,
)
from tests.support.cases import every
from tests.support.equality import equal
from tests.support.training import BATCHES, Loader, Net, fit

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(does not have many workers|`.+load_from_checkpoint|Be aware that when using .ckpt_path):UserWarning",
    "ignore:.*LeafSpec:FutureWarning",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trainer, AveragedNet, Weights]:
    """A run with a checkpoint after every step."""
    folder = tmp_path_factory.mktemp("run")
    return folder, *fit_averaged(folder, save=True)


def saved(folder: Path, step: int) -> Path:
    return folder / f"step={step}.ckpt"


# Which weights are where


class Authors:
    """The same training in float64 without Lightning, by the authors' optimizer."""

    def __init__(self) -> None:
        library = pytest.importorskip("schedulefree")
        torch.manual_seed(0)
        self.module = AveragedNet().double()
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, p in self.module.named_parameters():
            lr, decay = (0.02 if name.startswith("head") else 0.05), (0.1 if p.ndim > 1 else 0.0)
            groups.setdefault((lr, decay), []).append(p)
        given = [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()]
        optimizer = library.AdamWScheduleFree(given, betas=(0.9, 0.99), eps=1e-4, warmup_steps=5)
        self.training: list[Any] = []
        self.evaluation: list[Any] = []
        loader = Loader()
        for epoch in range(EPOCHS):
            loader.set_epoch(epoch)
            for inputs, targets in loader:
                optimizer.train()
                self.module.zero_grad()
                nn.functional.cross_entropy(self.module(inputs.double()), targets).backward()
                optimizer.step()
                self.training.append(copies(self.module))
                optimizer.eval()
                self.evaluation.append(copies(self.module))


class DoubleNet(AveragedNet):
    def forward(self, inputs: Any) -> Any:
        return super().forward(inputs.double())


def assert_close(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_training_validation_checkpoint_and_final_weights_are_those_of_the_authors(tmp_path) -> None:
    authors = Authors()
    torch.manual_seed(0)
    _, module, weights = fit_averaged(tmp_path, module=DoubleNet().double(), save=True)
    for step, shown in weights.at("train"):
        assert_close(shown, authors.training[step - 1])
    validations = weights.at("validation")
    assert Counter(step for step, _ in validations) == {s: BATCHES for s in range(2, NUM_STEPS + 1, VALIDATES_EVERY)}
    for step, shown in validations:
        assert_close(shown, authors.evaluation[step - 1])
    for step in range(1, NUM_STEPS + 1):
        in_file = torch.load(saved(tmp_path, step), weights_only=True)["state_dict"]
        assert_close([in_file[name] for name, _ in module.named_parameters()], authors.evaluation[step - 1])
    assert_close(copies(module), authors.evaluation[-1])
    assert_close(weights.at("fit end")[0][1], authors.evaluation[-1])


def test_each_swap_happens_once(tmp_path, monkeypatch) -> None:
    """A validation and a checkpoint each swap the weights in once and out once; the end of the fit swaps them in."""
    swaps: list[str] = []

    def recording(name: str) -> Any:
        original = getattr(eval_weights, name)

        def swap(*args: Any) -> bool:
            changed = original(*args)
            swaps.extend([name.split("_")[1]] if changed else [])
            return changed

        return swap

    for name in ("show_evaluation_weights", "show_training_weights"):
        monkeypatch.setattr(eval_weights, name, recording(name))
    fit_averaged(tmp_path, save=True)
    times = NUM_STEPS // VALIDATES_EVERY + NUM_STEPS
    assert swaps == ["evaluation", "training"] * times + ["evaluation"]


def test_the_training_weights_are_untouched_by_validations_and_checkpoints(run, tmp_path) -> None:
    *_, weights = run
    _, _, plain = fit_averaged(tmp_path, limit_val_batches=0)
    assert equal(weights.at("train"), plain.at("train"))


@pytest.mark.parametrize("position", ["before", "after"])
def test_other_callbacks_see_the_same_weights_wherever_they_stand(run, position, tmp_path) -> None:
    other = Weights()
    order = [other, EvalWeights()] if position == "before" else [EvalWeights(), other]
    fit_averaged(tmp_path, *order)
    for hook in ("train", "validation", "fit end"):
        assert equal(other.at(hook), run[3].at(hook)), hook


def test_checkpoints_of_weights_only_have_the_evaluation_weights(run, tmp_path) -> None:
    folder, _, module, _ = run
    only = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=3, save_top_k=-1, save_weights_only=True)
    fit_averaged(tmp_path, only, enable_checkpointing=True)
    for step in (3, 6, 9, 12):
        some, others = (torch.load(saved(path, step), weights_only=True)["state_dict"] for path in (tmp_path, folder))
        assert equal(some, others), step
    loaded = AveragedNet.load_from_checkpoint(saved(tmp_path, 12), factory=ADAMW)
    assert equal(copies(loaded), copies(module))


def test_the_best_checkpoint_tests_as_it_validated(tmp_path) -> None:
    best = ModelCheckpoint(tmp_path, "best", monitor="val")
    trainer, module, _ = fit_averaged(tmp_path, best, enable_checkpointing=True)
    (result,) = trainer.test(module, ckpt_path="best", verbose=False)
    assert result["test"] == pytest.approx(float(best.best_model_score), rel=1e-6)
    at_best = copies(module)
    (again,) = trainer.validate(module, verbose=False)
    assert again["val"] == pytest.approx(result["test"], rel=1e-6)
    assert equal(copies(module), at_best)


def test_a_background_writer_saves_the_evaluation_weights(run, tmp_path) -> None:
    fit_averaged(tmp_path, save=True, plugins=[AsyncCheckpointIO()])
    for step in (1, 6, NUM_STEPS):
        some, others = (torch.load(saved(path, step), weights_only=True) for path in (tmp_path, run[0]))
        assert equal(some["state_dict"], others["state_dict"]), step
        assert equal(some["optimizer_states"], others["optimizer_states"]), step


def test_a_module_that_cannot_be_changed_gets_it_by_the_override(run, tmp_path) -> None:
    torch.manual_seed(0)
    module = AveragedNet()
    module.configure = lambda own: torch.optim.SGD(own.parameters(), lr=0.1)
    _, _, weights = fit_averaged(tmp_path, OptimizerOverride(ADAMW), module=module)
    assert equal(weights.at("validation"), run[3].at("validation"))


# Resumes


class SavesInValidation(Callback):
    """Saves after each batch of each validation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        if not trainer.sanity_checking:
            trainer.save_checkpoint(self.folder / f"val={trainer.global_step}.{args[2]}.ckpt")


def assert_resumes(
    path: Path, step: int, run: tuple[Path, Trainer, Any, Weights], *callbacks: Callback, **kwargs: Any
) -> None:
    """A run from a checkpoint is the whole run after every later step, in every later validation and at its end."""
    _, _, whole, weights = run
    trainer, resumed, later = fit_averaged(path.parent, *callbacks, ckpt_path=path, seed=7, **kwargs)
    assert trainer.global_step == NUM_STEPS
    for hook in ("train", "validation", "fit end"):
        expected = [(at, shown) for at, shown in weights.at(hook) if at > step or hook == "fit end"]
        assert equal([(at, shown) for at, shown in later.at(hook) if at > step or hook == "fit end"], expected), hook
    assert equal(dict(resumed.state_dict()), dict(whole.state_dict())), path.name


@pytest.mark.parametrize("step", every(range(1, NUM_STEPS + 1), fast=["1", "6", "12"]))
def test_a_run_resumes_bitwise_after_any_step(run, step) -> None:
    assert_resumes(saved(run[0], step), step, run)


VARIANTS: dict[str, dict[str, Any]] = {
    "stages": {},
    "accumulated": {"accumulate_grad_batches": 2, "epochs": 2 * EPOCHS, "val_check_interval": 3},
    "16 bits": {"precision": "bf16-true"},
    "several algorithms": {},
}


def variant(name: str) -> tuple[Any, list[Callback]]:
    """The module and the callbacks of a variant."""
    factory = OptimizerFactory(
        "radam", lr=0.05, betas=[0.5, 0.95], schedule_free={"beta": 0.8, "r": 0.5}, groups=GROUPS
    )
    if name == "16 bits":
        factory = OptimizerFactory("sgd", lr=0.5, momentum=0.5, schedule_free={"beta": 0.9}, master_weights=True)
    if name == "several algorithms":
        rules = {"signs": {"params": "head", "optimizer": "lion", "lr": 0.01, "schedule_free": {"beta": 0.95}}}
        factory = OptimizerFactory("adamw", lr=0.05, schedule_free={"beta": 0.8}, groups=rules)
    return AveragedNet(factory), [StagedUnfreeze(PLAN)] if name == "stages" else []


@pytest.fixture(scope="module", params=every(VARIANTS, fast=["stages"]))
def varied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A variant, its run with a checkpoint after each step and within each validation, and the training weights."""
    folder = tmp_path_factory.mktemp("varied")
    torch.manual_seed(0)
    module, callbacks = variant(request.param)
    inside = SavesInValidation(folder)
    return request.param, (
        folder,
        *fit_averaged(folder, *callbacks, inside, module=module, save=True, **VARIANTS[request.param]),
    )


def resume_varied(varied: Any, name: str, **kwargs: Any) -> None:
    kind, run = varied
    torch.manual_seed(7)
    fresh, callbacks = variant(kind)
    step = int(name.split("=")[1].split(".")[0])
    assert_resumes(run[0] / name, step, run, *callbacks, module=fresh, **VARIANTS[kind])


def test_variants_resume_bitwise_after_a_step_and_from_within_a_validation(varied) -> None:
    """The fifth step is the last one before the thaw."""
    within = {path.name for path in varied[1][0].glob("val=*.ckpt")}
    assert len(within) == BATCHES * len({name.split(".")[0] for name in within})
    for name in ("step=5.ckpt", "val=6.1.ckpt" if "val=6.1.ckpt" in within else "val=5.1.ckpt"):
        resume_varied(varied, name)
