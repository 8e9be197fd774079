"""EvalWeights: the module has the evaluation weights where it is evaluated or saved, and resumes bitwise."""

from __future__ import annotations

import copy
import csv
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EMAWeightAveraging,
    LearningRateFinder,
    ModelCheckpoint,
    ModelPruning,
    OnExceptionCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

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
from lightning_optim.callbacks.strategies import check_strategy_for_eval_weights
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
from tests.support.training import BATCHES, Loader, fit

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:UserWarning", "ignore:.*LeafSpec:FutureWarning"
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
    assert Counter(step for step, _ in validations) == dict.fromkeys(range(2, NUM_STEPS + 1, VALIDATES_EVERY), BATCHES)
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


def test_a_validation_between_accumulated_batches_changes_no_gradient(tmp_path) -> None:
    some, others = (
        fit_averaged(tmp_path, accumulate_grad_batches=2, val_check_interval=3, limit_val_batches=n)[2] for n in (0, 4)
    )
    assert len(others.at("validation")) and equal(some.at("train"), others.at("train"))


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
    assert equal([shown for _, shown in later.at("start")], [dict(weights.at("train"))[step]])
    for hook in ("train", "validation", "fit end"):
        expected = [(at, shown) for at, shown in weights.at(hook) if at > step or hook == "fit end"]
        assert equal([(at, shown) for at, shown in later.at(hook) if at > step or hook == "fit end"], expected), hook
    assert equal(dict(resumed.state_dict()), dict(whole.state_dict())), path.name


@pytest.mark.parametrize("step", every(range(1, NUM_STEPS + 1), fast=["1", "6", "12"]))
def test_a_run_resumes_bitwise_after_any_step(run, step) -> None:
    assert_resumes(saved(run[0], step), step, run)


VARIANTS: dict[str, dict[str, Any]] = {
    "stages": {},
    "accumulated": {"accumulate_grad_batches": 2, "epochs": 2 * EPOCHS},
    "16 bits": {"precision": "bf16-true"},
    "several algorithms": {},
    "stages of several algorithms": {},
    "with a warm-up by a schedule": {},
}


RADAM = OptimizerFactory("radam", lr=0.05, betas=[0.5, 0.95], schedule_free={"beta": 0.8, "r": 0.5}, groups=GROUPS)
SIGNS = {"params": "head", "optimizer": "lion", "lr": 0.01, "schedule_free": {"beta": 0.95}}
SEVERAL = OptimizerFactory("adamw", lr=0.05, schedule_free={"beta": 0.8}, groups={"signs": SIGNS})


def variant(name: str) -> tuple[Any, list[Callback]]:
    """The module and the callbacks of a variant."""
    factory = SEVERAL if "algorithms" in name else RADAM
    if name == "16 bits":
        factory = OptimizerFactory("sgd", lr=0.5, momentum=0.5, schedule_free={"beta": 0.9}, master_weights=True)
    scheduler = SchedulerFactory("constant", factor=1.0, warmup_steps=4) if "schedule" in name else None
    return AveragedNet(factory, scheduler), [StagedUnfreeze(PLAN)] if "stages" in name else []


def run_varied(folder: Path, kind: str) -> tuple[Path, Trainer, Any, Weights]:
    """A variant's run, with a checkpoint after each step and after each batch of each validation."""
    torch.manual_seed(0)
    module, callbacks = variant(kind)
    inside = SavesInValidation(folder)
    return folder, *fit_averaged(folder, *callbacks, inside, module=module, save=True, **VARIANTS[kind])


@pytest.fixture(scope="module", params=every(VARIANTS, fast=["stages"]))
def varied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A variant and its run."""
    return request.param, run_varied(tmp_path_factory.mktemp("varied"), request.param)


def step_of(name: str) -> int:
    return int(name.split("=")[1].split(".")[0])


def resume_varied(varied: Any, name: str) -> None:
    kind, run = varied
    torch.manual_seed(7)
    fresh, callbacks = variant(kind)
    assert_resumes(run[0] / name, step_of(name), run, *callbacks, module=fresh, **VARIANTS[kind])


def test_variants_resume_bitwise_after_a_step_and_from_within_a_validation(varied) -> None:
    """The fifth step is the last one before the thaw."""
    within = {path.name for path in varied[1][0].glob("val=*.ckpt")}
    assert len(within) == BATCHES * len({name.split(".")[0] for name in within})
    for name in ("step=5.ckpt", "val=6.1.ckpt" if "val=6.1.ckpt" in within else "val=5.1.ckpt"):
        resume_varied(varied, name)


@pytest.mark.slow
def test_200_resumes_are_bitwise(tmp_path) -> None:
    """From every step and every batch of every validation, for one more step: all that is saved then is the same."""
    resumes = 0
    for kind, arguments in VARIANTS.items():
        (folder := tmp_path / kind).mkdir()
        *_, weights = run_varied(folder, kind)
        names = sorted(path.name for path in folder.glob("*.ckpt") if step_of(path.name) < NUM_STEPS)
        for name in names:
            step, end = step_of(name), step_of(name) + 1
            module, callbacks = variant(kind)
            trainer, _, later = fit_averaged(
                tmp_path,
                *callbacks,
                module=module,
                ckpt_path=folder / name,
                max_steps=end,
                num_sanity_val_steps=0,
                **arguments,
            )
            assert trainer.global_step == end
            trainer.save_checkpoint(tmp_path / "end.ckpt")
            own, expected = (
                torch.load(path, weights_only=True) for path in (tmp_path / "end.ckpt", saved(folder, end))
            )
            for key in ("state_dict", "optimizer_states"):
                assert equal(own[key], expected[key]), (kind, name, key)
            shown, expected = dict(later.at("train")), dict(weights.at("train"))
            assert all(equal(shown[at], expected[at]) for at in range(step + 1, end + 1)), (kind, name)
            resumes += 1
    assert resumes >= 200


# Ends of a fit


class Stops(Callback):
    """Raises within the validation after a step, or right after the step."""

    def __init__(self, step: int, where: str) -> None:
        self.step, self.where = step, where

    def _raise(self, trainer: Trainer, where: str) -> None:
        if not trainer.sanity_checking and (trainer.global_step, where) == (self.step, self.where):
            raise RuntimeError("stopped")

    def on_validation_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        self._raise(trainer, "validation")

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._raise(trainer, "training")


@pytest.mark.parametrize(("where", "step", "order"), [("validation", 6, "before"), ("training", 5, "after")])
def test_a_fit_that_raises_leaves_and_saves_the_evaluation_weights(run, where, step, order, tmp_path) -> None:
    on_exception = OnExceptionCheckpoint(tmp_path, "stopped")
    callbacks = [on_exception, EvalWeights()] if order == "before" else [EvalWeights(), on_exception]
    module = seeded(ADAMW)
    with pytest.raises(RuntimeError, match="stopped"):
        fit_averaged(tmp_path, *callbacks, Stops(step, where), module=module, enable_checkpointing=True)
    in_run = torch.load(saved(run[0], step), weights_only=True)["state_dict"]
    evaluated = [in_run[name] for name, _ in module.named_parameters()]
    content = torch.load(tmp_path / "stopped.ckpt", weights_only=True)
    assert content["global_step"] == step
    assert equal([content["state_dict"][name] for name, _ in module.named_parameters()], evaluated)
    assert equal(copies(module), evaluated)
    assert_resumes(tmp_path / "stopped.ckpt", step, run)


def test_a_checkpoint_after_the_fit_resumes_bitwise(run, tmp_path) -> None:
    trainer, module, _ = fit_averaged(tmp_path, epochs=EPOCHS - 1)
    assert "save_checkpoint" not in vars(trainer)
    trainer.validate(module, verbose=False)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    assert_resumes(tmp_path / "end.ckpt", NUM_STEPS - BATCHES, run)


def test_a_fit_that_has_nothing_to_do_leaves_the_evaluation_weights(run, tmp_path) -> None:
    folder, _, module, _ = run
    _, finished, weights = fit_averaged(tmp_path, ckpt_path=saved(folder, NUM_STEPS), seed=7)
    assert not weights.at("train") and equal(copies(finished), copies(module))


def test_another_fit_starts_at_the_evaluation_weights(run, tmp_path) -> None:
    _, module, weights = fit_averaged(tmp_path, EvalWeights())
    again = EvalWeights()
    for _ in range(2):  # and with the same callback
        before = copies(module)
        _, _, weights = fit_averaged(tmp_path, again, module=module)
        assert equal(weights.at("sanity")[0][1], before)
        assert not equal(copies(module), before)


# Beside other callbacks


def test_a_tuner_before_the_fit_leaves_it_as_it_was(run, tmp_path) -> None:
    factory = OptimizerFactory("adamw", lr=0.05, betas=[0.0, 0.99], schedule_free={"beta": 0.9})
    finder = LearningRateFinder(num_training_steps=5, update_attr=False)
    plain, tuned = (
        fit_averaged(tmp_path, *callbacks, module=seeded(factory), check_val_every_n_epoch=None)[2]
        for callbacks in ([], [finder])
    )
    assert equal(plain.at("train"), tuned.at("train"))


class LearningRateFinderLater(LearningRateFinder):
    """Runs before the second epoch too, as Lightning's documentation has it."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            self.lr_find(trainer, pl_module)


class BatchSizeFinderLater(BatchSizeFinder):
    """The same."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            self.scale_batch_size(trainer, pl_module)


class SizedNet(AveragedNet):
    """Has the attribute that BatchSizeFinder sets, and the same batches whatever it is."""

    batch_size = 8

    def train_dataloader(self) -> Any:
        loader = Loader()
        rows = TensorDataset(loader.inputs.flatten(0, 1), loader.targets.flatten())
        return DataLoader(rows, batch_size=8)


@pytest.mark.slow
def test_tuners_in_the_middle_of_a_fit_leave_its_steps_and_validations_as_they_were(tmp_path) -> None:
    """A tuner saves and loads a checkpoint, and trains in between: the training weights are back after it."""
    factory = OptimizerFactory("adamw", lr=0.05, betas=[0.0, 0.99], schedule_free={"beta": 0.9})
    tuners: dict[str, list[Callback]] = {
        "none": [],
        "lr": [LearningRateFinderLater(num_training_steps=3, update_attr=False)],
        "batch size": [BatchSizeFinderLater(steps_per_trial=2, init_val=2, max_trials=1)],
    }
    seen = {}
    for name, callbacks in tuners.items():
        torch.manual_seed(0)
        trainer, module, weights = fit_averaged(tmp_path, *callbacks, module=SizedNet(factory))
        seen[name] = weights.at("train"), weights.at("validation")
        (optimizer,) = trainer.optimizers
        end = weights.at("fit end")[0][1]
        optimizer.eval()
        assert equal(copies(module), end), name
        # Lightning ends a fit in which BatchSizeFinder has run before an epoch, without EvalWeights too (2.6).
        assert trainer.global_step == (BATCHES if name == "batch size" else NUM_STEPS)
    assert equal(seen["none"], seen["lr"])
    steps, validations = seen["batch size"]
    assert equal(steps, seen["none"][0][: len(steps)]) and len(steps) == BATCHES
    assert equal(validations, seen["none"][1][: len(validations)]) and validations


def seeded(factory: OptimizerFactory, **kwargs: Any) -> AveragedNet:
    torch.manual_seed(0)
    return AveragedNet(factory, **kwargs)


def test_the_monitor_logs_the_norm_of_z_and_that_of_the_training_weights(tmp_path) -> None:
    logger = CSVLogger(tmp_path, version="")
    trainer, _, weights = fit_averaged(tmp_path, OptimizerMonitor(1), logger=logger, save=True)
    with open(tmp_path / "lightning_logs" / "metrics.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert not any("schedule_free_y" in key for row in rows for key in row)
    tags = ("optim/norm/schedule_free_z/all", "optim/norm/param/all")
    z, norms = ([float(row[tag]) for row in rows if row[tag]] for tag in tags)
    state = trainer.optimizers[0].state.values()
    assert len(z) == len(norms) == NUM_STEPS
    assert z[-1] == pytest.approx(float(torch.cat([s["schedule_free_z"].flatten() for s in state]).norm()), rel=1e-5)
    trained = [float(torch.cat([p.flatten() for p in shown]).norm()) for _, shown in weights.at("train")]
    assert norms == pytest.approx(trained, rel=1e-5)


OWN = OptimizerFactory("adamw", lr=0.01, implementation="own")


def staged(**values: Any) -> StagedUnfreeze:
    return StagedUnfreeze({"head": {"params": "head"}, "rest": {"params": "*", "at": {"epoch": 1}, **values}})


REFUSED: dict[str, tuple[Any, str]] = {
    "an average of Lightning's": (
        lambda: fit_averaged(Path(), EMAWeightAveraging()),
        r"^trainer\.callbacks: EMAWeightAveraging averages .* type schedule_free: null",
    ),
    "an average at the end": (
        lambda: fit_averaged(Path(), StochasticWeightAveraging(swa_lrs=0.1)),
        r"^trainer\.callbacks: StochasticWeightAveraging averages",
    ),
    "pruning before it": (
        lambda: fit_averaged(Path(), ModelPruning("l1_unstructured", amount=0.5), EvalWeights()),
        r"^trainer\.callbacks: .*ModelPruning sets pruned weights to 0.* Put EvalWeights before it",
    ),
    "no group with it": (
        lambda: fit_averaged(Path(), module=AveragedNet(OptimizerFactory("adamw"))),
        r"^EvalWeights: no param group has schedule_free\. Type for example optimizer=schedule_free_adamw",
    ),
    "no callback": (
        lambda: fit(AveragedNet(), Path()),
        r"^schedule_free: validations and checkpoints .* \+callbacks\.eval_weights\._target_=lightning_optim\.",
    ),
    "no callback, in a group": (
        lambda: fit(AveragedNet(OptimizerFactory("adamw", groups={"signs": SIGNS})), Path()),
        r"^schedule_free: validations",
    ),
    "no callback, in a stage": (
        lambda: fit(AveragedNet(OWN), Path(), staged(schedule_free={})),
        r"^schedule_free: validations",
    ),
    "a wrong argument": (lambda: EvalWeights(every=2), r"^every: EvalWeights has no"),
    "a wrong option": (lambda: EvalWeights(verify_checkpoints=1), r"^verify_checkpoints: got 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_along_is_refused_before_the_first_step(case) -> None:
    build, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        build()


def test_a_callback_of_a_class_derived_from_it_is_one(tmp_path) -> None:
    class Derived(EvalWeights):
        pass

    *_, plain = fit_averaged(tmp_path)
    *_, derived = fit_averaged(tmp_path, Derived())
    assert equal(derived.seen, plain.seen)


def test_a_stage_may_have_an_average_of_its_own(tmp_path) -> None:
    trainer, *_ = fit_averaged(tmp_path, staged(schedule_free={}), module=AveragedNet(OWN))
    assert [bool(group["schedule_free"]) for group in trainer.optimizers[0].param_groups] == [False, True]


def test_pruned_weights_stay_pruned(tmp_path) -> None:
    _, module, _ = fit_averaged(tmp_path, EvalWeights(), ModelPruning("l1_unstructured", amount=0.5))
    weights = [parameter for name, parameter in module.named_parameters() if name.endswith("weight")]
    assert sum(int((weight == 0).sum()) for weight in weights) >= sum(weight.numel() for weight in weights) // 3


@pytest.mark.parametrize("name", ["FSDPStrategy", "DeepSpeedStrategy"])
def test_strategies_that_flatten_parameters_are_refused(name) -> None:
    trainer: Any = SimpleNamespace(strategy=type(name, (), {})())
    with pytest.raises(ConfigError, match=rf"^trainer\.strategy: {name}: EvalWeights has not been tested"):
        check_strategy_for_eval_weights(trainer)


SCHEDULES = {"constant": False, "linear": False, "cosine_annealing": True, "warmup_cosine": True, "one_cycle": True}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_that_lowers_the_lr_is_warned_of(name, tmp_path) -> None:
    given = {"warmup_steps": 2} if name in ("constant", "warmup_cosine") else {}
    module = AveragedNet(scheduler=SchedulerFactory(name, **given))
    expected = pytest.warns(UserWarning, match=r"^EvalWeights: \w+ lowers the lr of groups with schedule_free")
    with expected if SCHEDULES[name] else nullcontext():
        fit_averaged(tmp_path, module=module, epochs=1)


def test_a_copy_made_in_a_fit_is_the_callback_as_configured(tmp_path) -> None:
    callback = EvalWeights(verify_checkpoints=False)

    class Copies(Callback):
        def on_train_start(self, *_: Any) -> None:
            self.copy = copy.copy(callback)

    keeps = Copies()
    fit_averaged(tmp_path, callback, keeps, epochs=1)
    assert repr(keeps.copy) == repr(callback) == "EvalWeights(verify_checkpoints=False)"
    assert keeps.copy._trainer is None and callback._trainer is not None
