"""StagedUnfreeze's plans under Lightning: layer by layer, by metrics and by answers, resumed, as presets, refused."""

from __future__ import annotations

import copy
import pickle
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_optim import (
    ConfigError,
    OptimizerFactory,
    RNGState,
    SchedulerFactory,
    StagedUnfreeze,
    configure_optimizers,
)
from tests.support.messages import check_message
from tests.support.training import BATCHES, Loader, Net, Witness, fit, same

CONF = Path(__file__).parents[2] / "conf"
HEAD = {"params": "head"}
REST = {"params": "backbone", "at": {"after": {"steps": 1}}}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small only wait for a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 8)
        self.layer = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU()) for _ in range(3))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.stem(inputs)
        for layer in self.layer:
            hidden = layer(hidden)
        return hidden


def jumping(value: Tensor) -> Tensor:
    """A metric that gets better and worse, and is another wherever a bit of `value` is."""
    return torch.sin(1000 * value.detach())


class Deep(Net):
    """A stem, three layers and a head; logs two metrics in every way there is: one jumps, one never gets better."""

    def __init__(self, optimizer: OptimizerFactory | None = None, schedule: str | None = None) -> None:
        factory = optimizer or OptimizerFactory("adamw", lr=0.01)
        scheduler = SchedulerFactory(schedule) if schedule else None
        super().__init__(lambda module: configure_optimizers(module, factory, scheduler), dropout=0.3)
        self.backbone = Backbone()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log_dict({"train/loss": jumping(loss), "train/flat": 1.0})
        self.log_dict({"train/mean": jumping(loss), "train/flat_mean": 1.0}, on_step=False, on_epoch=True)
        return loss

    def on_train_epoch_end(self) -> None:
        self.log_dict({"end/size": jumping(self.head.weight.square().sum()), "end/flat": 1.0})

    def val_dataloader(self) -> Any:
        return Loader(1)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log_dict({"val/loss": jumping(loss), "val/flat": 1.0})


def plateau(monitor: str, patience: int = 1, **options: Any) -> dict[str, Any]:
    return {"plateau": {"monitor": monitor, "patience": patience, **options}}


def layers(**options: Any) -> dict[str, Any]:
    return {"layers": "backbone.layer.{i}", **options}


def plan(**stages: Any) -> StagedUnfreeze:
    return StagedUnfreeze({"head": HEAD, **stages})


def joined(witness: Witness) -> dict[str, int]:
    """By group, in their order: how many optimizer steps were done when it joined."""
    return {name: next(t for t, groups in enumerate(witness.seen) if name in groups) for name in witness.seen[-1]}


# Layer by layer


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("at", "each", "moments"),
    [
        ({"epoch": 1}, {"epochs": 1}, (4, 8, 12)),
        ({"epoch": 1}, {"epochs": 2}, (4, 12, 20)),
        ({"step": 3}, {"steps": 2}, (3, 5, 7)),
        ({"step": 3}, {"epochs": 1}, (3, 4, 8)),
        (None, {"steps": 5}, (0, 5, 10)),
    ],
    ids=["by epochs", "by two epochs", "by steps", "from a step, by epochs", "from the start, by steps"],
)
def test_layers_thaw_one_by_one_from_the_last(tmp_path, at, each, moments, accumulate) -> None:
    """Epochs have four optimizer steps, whatever is accumulated."""
    witness = Witness()
    unfreeze = plan(top=layers(at=at, each=each, lr_scale=0.5), rest=REST)
    loader = Loader(BATCHES * accumulate)
    fit(Deep(), tmp_path, unfreeze, witness, epochs=6, loader=loader, accumulate_grad_batches=accumulate)
    top = dict(zip(("top.2", "top.1", "top.0"), moments, strict=True))
    assert joined(witness) == {"head": 0, **top, "rest": moments[-1] + 1}
    assert witness.seen[-1] == {"head": 0.01, **dict.fromkeys(top, 0.005), "rest": 0.01}


FLAT = ["train/flat", "train/flat_mean", "end/flat", "val/flat"]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("metric", FLAT)
def test_layers_thaw_when_a_metric_gets_no_better_wherever_it_is_logged(tmp_path, metric, accumulate) -> None:
    """A patience of 1 is two epochs: the first value is the best so far, the second no better."""
    witness = Witness()
    top = layers(at=plateau(metric), each=plateau(metric, 2))
    fit(Deep(), tmp_path, plan(top=top, rest=REST), witness, epochs=9, accumulate_grad_batches=accumulate)
    epoch = BATCHES // accumulate
    moments = {"head": 0, "top.2": 2 * epoch, "top.1": 5 * epoch, "top.0": 8 * epoch, "rest": 8 * epoch + 1}
    assert joined(witness) == moments


@pytest.mark.parametrize(
    ("arguments", "thaw"),
    [
        ({}, 12),
        ({"val_check_interval": 2}, 6),
        ({"val_check_interval": 2, "accumulate_grad_batches": 2}, 3),
        ({"check_val_every_n_epoch": 2}, 24),
        ({"val_check_interval": 3, "check_val_every_n_epoch": None}, 9),
    ],
    ids=["each epoch", "twice an epoch", "twice an epoch, accumulating", "every other epoch", "across epochs"],
)
def test_patience_counts_validations(tmp_path, arguments, thaw) -> None:
    """A patience of 2 is three of them; the sanity check is none."""
    witness = Witness()
    fit(
        Deep(),
        tmp_path,
        plan(rest={"params": "backbone", "at": plateau("val/flat", 2)}),
        witness,
        epochs=8,
        **arguments,
    )
    assert joined(witness) == {"head": 0, "rest": thaw}


def test_a_validation_amid_an_accumulation_is_counted(tmp_path) -> None:
    """After each batch one: three are a patience of 2, and the thaw waits for the end of the accumulation."""
    witness = Witness()
    unfreeze = plan(rest={"params": "backbone", "at": plateau("val/flat", 2)})
    fit(Deep(), tmp_path, unfreeze, witness, val_check_interval=1, accumulate_grad_batches=2)
    assert joined(witness) == {"head": 0, "rest": 2}


@pytest.mark.parametrize(
    ("mode", "values", "epoch"),
    [("max", [1, 2, 3, 3, 2, 9], 5), ("max", [3, 2, 1], 3), ("min", [3, 2, 1, 1, 0, 0, 0], 7), ("min", [1, 2, 3], 3)],
    ids=["rising, then not", "falling from the first", "falling, once not", "rising from the first"],
)
def test_the_mode_says_what_is_better(tmp_path, mode, values, epoch) -> None:
    class Scripted(Deep):
        def on_train_epoch_end(self) -> None:
            self.log("score", float([*values, 0][min(self.current_epoch, len(values))]))

    witness = Witness()
    at = plateau("score", 2, mode=mode)
    fit(Scripted(), tmp_path, plan(rest={"params": "backbone", "at": at}), witness, epochs=8)
    assert joined(witness) == {"head": 0, "rest": epoch * BATCHES}


def test_a_stage_is_watched_from_the_thaw_above_it_on(tmp_path) -> None:
    """Whatever the metric did before that."""
    witness = Witness()
    unfreeze = plan(top=layers(at={"epoch": 3}), rest={"params": "backbone", "at": plateau("val/flat")})
    fit(Deep(), tmp_path, unfreeze, witness, epochs=6)
    assert joined(witness) == {"head": 0, "top": 3 * BATCHES, "rest": 5 * BATCHES}


# Fractions, answers, any of several


@pytest.mark.parametrize(
    ("fraction", "arguments", "thaw"),
    [
        (0.5, {}, 4),
        (0.3, {}, 3),
        (0.5, {"max_steps": 6}, 3),
        (0.5, {"limit_train_batches": 2}, 2),
        (0.75, {"epochs": -1, "max_steps": 8}, 6),
    ],
    ids=["half", "rounded up", "half of max_steps", "half of what is left of an epoch", "of max_steps alone"],
)
def test_a_fraction_is_one_of_the_optimizer_steps(tmp_path, fraction, arguments, thaw) -> None:
    witness = Witness()
    unfreeze = plan(rest={"params": "backbone", "at": {"fraction": fraction}})
    fit(Deep(), tmp_path, unfreeze, witness, accumulate_grad_batches=2, **arguments)
    assert joined(witness) == {"head": 0, "rest": thaw}


@pytest.mark.parametrize(
    ("at", "key"),
    [
        ({"fraction": 0.5}, "stages.rest.at.fraction"),
        ({"any": [{"epoch": 1}, {"fraction": 0.5}]}, "stages.rest.at.any[1].fraction"),
    ],
    ids=["alone", "in any"],
)
def test_a_fraction_of_a_run_without_an_end_is_refused(tmp_path, at, key) -> None:
    witness = Witness()
    with pytest.raises(ConfigError) as caught:
        fit(Deep(), tmp_path, plan(rest={"params": "backbone", "at": at}), witness, epochs=-1)
    check_message(caught, key, "the trainer has no end", "{step: 500}")
    assert not witness.seen


@pytest.mark.parametrize(
    ("triggers", "thaw"),
    [
        ([plateau("val/flat"), {"epoch": 3}], 8),
        ([{"epoch": 1}, plateau("val/flat")], 4),
        ([plateau("val/flat", 9), {"fraction": 0.4}], 8),
        ([{"step": 7}, {"after": {"epochs": 1}}], 4),
        ([lambda trainer, module: trainer.global_step == 5, {"epoch": 3}], 5),
    ],
    ids=["metric first", "epoch first", "fraction first", "after first", "answer first"],
)
def test_any_thaws_at_the_first_of_them(tmp_path, triggers, thaw) -> None:
    witness = Witness()
    fit(Deep(), tmp_path, plan(rest={"params": "backbone", "at": {"any": triggers}}), witness, epochs=5)
    assert joined(witness) == {"head": 0, "rest": thaw}


def test_a_callable_is_asked_before_each_step_until_it_says_so(tmp_path) -> None:
    asked = []

    def question(trainer: Trainer, module: LightningModule) -> bool:
        asked.append((type(trainer), type(module), trainer.global_step))
        return trainer.global_step == 5

    witness = Witness()
    fit(Deep(), tmp_path, plan(rest={"params": "backbone", "at": question}), witness, epochs=3)
    assert joined(witness) == {"head": 0, "rest": 5}
    assert asked == [(Trainer, Deep, step) for step in range(6)]


def test_what_is_due_amid_an_accumulation_waits_for_its_end(tmp_path) -> None:
    class Counting(Deep):
        trained: list[bool] = []

        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            self.trained.append(self.backbone.stem.weight.requires_grad)
            return super().training_step(batch, batch_idx)

    def question(trainer: Trainer, module: Any) -> bool:
        return len(module.trained) >= 3

    module = Counting()
    module.trained, witness = [], Witness()
    unfreeze = plan(rest={"params": "backbone", "at": question})
    fit(module, tmp_path, unfreeze, witness, loader=Loader(6), epochs=1, accumulate_grad_batches=2)
    assert module.trained == [False] * 4 + [True] * 2
    assert joined(witness) == {"head": 0, "rest": 2}


def test_the_rest_of_an_epoch_is_an_accumulation_to_itself(tmp_path) -> None:
    """Of three batches two are one step and the third is one."""
    witness = Witness()
    unfreeze = plan(rest={"params": "backbone", "at": {"step": 1}})
    fit(Deep(), tmp_path, unfreeze, witness, loader=Loader(3), epochs=2, accumulate_grad_batches=2)
    assert joined(witness) == {"head": 0, "rest": 1}


# What is said


def test_the_stages_that_a_run_cannot_reach_are_named(tmp_path, monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("lightning_optim.callbacks.unfreeze.rank_zero_info", said.append)
    top = layers(at={"epoch": 1}, each={"epochs": 1})
    late = {"stem": {"params": "backbone.stem", "at": {"step": 8}}, "never": {"params": "dropout", "at": {"epoch": 2}}}
    late["never"]["allow_empty"] = True
    fit(Deep(), tmp_path, plan(top=top, **late), epochs=2, max_steps=8)
    assert said == [
        "StagedUnfreeze: this run ends before stem, never can thaw",
        "StagedUnfreeze: epoch 1, step 4: 'top.2' thaws (top.2)",
    ]


def test_explain_shows_when_each_layer_thaws() -> None:
    stages = {"top": layers(at=plateau("val/loss", 2), each={"epochs": 2}), "rest": REST}
    rows = plan(**stages).explain(Deep(), OptimizerFactory("adamw", lr=0.01)).rows()
    assert [(row["group"], row["thaws"]) for row in rows[:-1]] == [
        ("head", "from the start"),
        ("top.2", "plateau of val/loss, patience 2"),
        ("top.1", "2 epochs after top.2"),
        ("top.0", "2 epochs after top.1"),
        ("rest", "1 step after the stage above"),
    ]


def test_a_gradual_plan_pickles() -> None:
    """So does Lightning with `strategy="ddp_spawn"`."""
    unfreeze = plan(top=layers(at={"epoch": 1}, each={"steps": 5}), rest=REST)
    again = pickle.loads(pickle.dumps(unfreeze))
    assert again.explain(Deep()).rows() == unfreeze.explain(Deep()).rows()


# Resumed

RESUMED = {
    "train/loss": "logged in each training step",
    "train/mean": "logged in each training step, a mean over the epoch",
    "end/size": "logged in on_train_epoch_end",
    "val/loss": "logged in each validation",
}
SAVES: dict[str, dict[str, Any]] = {
    "at each step": {"every_n_train_steps": 1},
    "after validation": {"every_n_epochs": 1, "save_on_train_epoch_end": False},
    "at the end of an epoch": {"every_n_epochs": 1, "save_on_train_epoch_end": True},
}
EPOCHS, PER_EPOCH = 8, 3


def gradual(metric: str) -> StagedUnfreeze:
    at = {"any": [{"epoch": 99}, plateau(metric)]}
    return plan(top=layers(at=at, each=plateau(metric), lr_scale=0.5, warmup_steps=3), rest=REST)


def run(folder: Path, metric: str, saving: str, ckpt_path: Path | None = None, **arguments: Any) -> Any:
    """A whole run, or the rest of one: the trainer, the module, the callback, and the live groups of each step."""
    module, unfreeze, witness = Deep(schedule="cosine_annealing"), gradual(metric), Witness()
    callbacks = [unfreeze, RNGState(), witness]
    if ckpt_path is None:
        callbacks.append(ModelCheckpoint(folder, "{step}", save_top_k=-1, **SAVES[saving]))
    arguments |= {"epochs": EPOCHS, "loader": Loader(PER_EPOCH), "enable_checkpointing": ckpt_path is None}
    # Another seed when resuming: what is not restored shows.
    arguments |= {"seed": 1 if ckpt_path is None else 2, "ckpt_path": ckpt_path}
    trainer = fit(module, folder, *callbacks, **arguments)
    return trainer, module, unfreeze, witness


def end_of(trainer: Trainer, module: Deep, unfreeze: StagedUnfreeze, *_: Any) -> Any:
    state = unfreeze.state_dict()
    of_plan = {key: state[key] for key in ("thawed", "moments", "watches", "optimizers")}
    return copy.deepcopy([module.state_dict(), trainer.optimizers[0].state_dict(), of_plan])


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("metric", RESUMED)
@pytest.mark.parametrize("saving", SAVES)
def test_a_gradual_plan_resumes_bitwise_from_every_checkpoint(tmp_path, saving, metric, accumulate) -> None:
    torch.manual_seed(0)
    whole = run(tmp_path, metric, saving, accumulate_grad_batches=accumulate)
    witness = whole[-1]
    assert len(joined(witness)) > 2, "it must have something to lose"
    checkpoints = sorted(tmp_path.glob("*.ckpt"), key=lambda path: int(path.stem.split("=")[1]))
    assert len(checkpoints) == (len(witness.seen) if saving == "at each step" else EPOCHS)
    wrong = []
    for checkpoint in checkpoints[:-1]:
        step = int(checkpoint.stem.split("=")[1])
        again = run(tmp_path / "again", metric, saving, checkpoint, accumulate_grad_batches=accumulate)
        good = again[-1].seen == witness.seen[step:] and same(end_of(*whole), end_of(*again))
        wrong += [] if good else [step]
    assert wrong == []


@pytest.mark.parametrize("metric", ["val/loss", "train/loss"])
def test_it_resumes_bitwise_where_validation_comes_within_an_epoch(tmp_path, metric) -> None:
    torch.manual_seed(0)
    whole = run(tmp_path, metric, "at each step", val_check_interval=1)
    assert len(joined(whole[-1])) > 2, "it must have something to lose"
    wrong = []
    for step in range(1, EPOCHS * PER_EPOCH):
        again = run(tmp_path / "again", metric, "", tmp_path / f"step={step}.ckpt", val_check_interval=1)
        good = again[-1].seen == whole[-1].seen[step:] and same(end_of(*whole), end_of(*again))
        wrong += [] if good else [step]
    assert wrong == []


def test_the_checkpoint_of_a_gradual_plan_loads_with_weights_only(tmp_path) -> None:
    run(tmp_path, "train/mean", "at each step")
    state = torch.load(tmp_path / "step=4.ckpt", weights_only=True)["callbacks"]["StagedUnfreeze"]
    assert state["thawed"] == ["head"]
    assert list(state["watches"]) == ["top.2", "top.1", "top.0"]


def test_a_stage_has_its_hyperparameters_from_the_thaw_on_and_after_a_resume(tmp_path) -> None:
    def run(weight_decay: float, **arguments: Any) -> dict[str, float]:
        look = Witness(lambda trainer, _: {g["name"]: g["weight_decay"] for g in trainer.optimizers[0].param_groups})
        rest = {"params": "backbone", "at": {"epoch": 1}, "weight_decay": weight_decay}
        fit(Deep(), tmp_path, plan(rest=rest), RNGState(), look, epochs=2, **arguments)
        return look.seen[-1]

    assert run(0.25, save=True) == {"head": 0.01, "rest": 0.25}
    assert run(0.75, ckpt_path=tmp_path / "step=2.ckpt") == {"head": 0.01, "rest": 0.75}
    assert run(0.75, ckpt_path=tmp_path / "step=6.ckpt") == {"head": 0.01, "rest": 0.75}


def test_a_metric_that_was_edited_is_watched_anew_after_a_resume(tmp_path) -> None:
    def run(metric: str, **arguments: Any) -> Witness:
        witness = Witness()
        rest = {"params": "backbone", "at": plateau(metric, 3)}
        fit(Deep(), tmp_path, plan(rest=rest), RNGState(), witness, epochs=8, **arguments)
        return witness

    assert joined(run("train/flat", save=True))["rest"] == 4 * BATCHES
    ahead = 2 * BATCHES + 1
    again = [run(metric, ckpt_path=tmp_path / f"step={ahead}.ckpt") for metric in ("train/flat", "end/flat")]
    assert [joined(witness)["rest"] + ahead for witness in again] == [4 * BATCHES, 6 * BATCHES]


# Another fit of the same module


WATCHING: dict[str, Any] = {
    "a stage": lambda metric: {
        "top": layers(at={"epoch": 1}),
        "rest": {"params": "backbone", "at": plateau(metric, 4)},
    },
    "a layer": lambda metric: {"top": layers(at={"epoch": 1}, each=plateau(metric, 4)), "rest": REST},
}


@pytest.mark.parametrize("stages", WATCHING.values(), ids=WATCHING)
@pytest.mark.parametrize("metric", FLAT)
def test_another_fit_goes_on_watching(tmp_path, metric, stages) -> None:
    """Begun anew, a patience of 4 would take five epochs, and the thaw would come after them."""
    module, witness, unfreeze = Deep(), Witness(), plan(**stages(metric))
    validated = {} if metric == "val/flat" else {"limit_val_batches": 0}
    fit(module, tmp_path, unfreeze, epochs=3, **validated)
    fit(module, tmp_path, unfreeze, witness, epochs=5, **validated)
    moments = list(joined(witness).values())
    assert moments[:2] == [0, 0]
    assert len(moments) > 2


def test_another_fit_counts_from_its_own_start(tmp_path) -> None:
    module, witness = Deep(), Witness()
    unfreeze = plan(top=layers(at={"epoch": 1}), rest={"params": "backbone", "at": {"after": {"epochs": 2}}})
    fit(module, tmp_path, unfreeze, epochs=2)
    fit(module, tmp_path, unfreeze, witness, epochs=3)
    assert joined(witness) == {"head": 0, "top": 0, "rest": 2 * BATCHES}


# A metric that nothing logs


@pytest.mark.parametrize(
    ("stages", "key", "parts", "steps"),
    [
        (
            {"rest": {"params": "backbone", "at": plateau("train/los")}},
            "stages.rest.at.plateau.monitor",
            ("'train/los'", "Did you mean 'train/loss'?", "self.log('train/los', ...)"),
            BATCHES,
        ),
        (
            {"rest": {"params": "backbone", "at": plateau("val/acc")}},
            "stages.rest.at.plateau.monitor",
            ("'val/acc'", "There are: end/flat", "val/loss", "self.log('val/acc', ...)"),
            BATCHES,
        ),
        (
            {"rest": {"params": "backbone", "at": {"any": [{"epoch": 9}, plateau("los")]}}},
            "stages.rest.at.any[1].plateau.monitor",
            ("'los'",),
            BATCHES,
        ),
        (
            {"top": layers(at={"epoch": 1}, each=plateau("val/los")), "rest": REST},
            "stages.top.each.plateau.monitor",
            ("'val/los'", "Did you mean 'val/loss'?"),
            2 * BATCHES,
        ),
    ],
    ids=["misspelt", "another's", "in any", "in each"],
)
def test_a_metric_that_nothing_logs_is_refused_at_the_first_look(tmp_path, stages, key, parts, steps) -> None:
    """At the end of the first epoch in which it is watched."""
    witness = Witness()
    with pytest.raises(ConfigError) as caught:
        fit(Deep(), tmp_path, plan(**stages), witness)
    check_message(caught, key, "nothing has logged a metric", *parts)
    assert len(witness.seen) == steps


def test_without_a_validation_what_it_would_log_is_refused_too(tmp_path) -> None:
    witness, unfreeze = Witness(), plan(rest={"params": "backbone", "at": plateau("val/loss")})
    with pytest.raises(ConfigError) as caught:
        fit(Deep(), tmp_path, unfreeze, witness, limit_val_batches=0)
    check_message(caught, "stages.rest.at.plateau.monitor", "'val/loss'", "There are: end/flat", "train/loss")
    assert len(witness.seen) == BATCHES


def test_where_nothing_at_all_is_logged_it_is_said_so(tmp_path) -> None:
    class Silent(Deep):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def on_train_epoch_end(self) -> None: ...

    unfreeze = plan(rest={"params": "backbone", "at": plateau("val/loss")})
    with pytest.raises(ConfigError) as caught:
        fit(Silent(), tmp_path, unfreeze, limit_val_batches=0)
    check_message(caught, "stages.rest.at.plateau.monitor", "nor any other", "self.log('val/loss', ...)")


def test_a_metric_is_not_asked_for_before_its_first_validation(tmp_path) -> None:
    witness = Witness()
    unfreeze = plan(rest={"params": "backbone", "at": plateau("val/flat")})
    fit(Deep(), tmp_path, unfreeze, witness, epochs=7, check_val_every_n_epoch=3)
    assert joined(witness) == {"head": 0, "rest": 6 * BATCHES}


# The presets


def preset(name: str, *overrides: str) -> StagedUnfreeze:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose(overrides=[f"+unfreeze={name}", *overrides]).unfreeze)


@pytest.mark.parametrize(
    ("name", "epochs_each"), [("gradual", 1), ("gradual_plateau", 3)], ids=["gradual", "gradual_plateau"]
)
def test_a_preset_thaws_the_layers_then_the_rest(tmp_path, name, epochs_each) -> None:
    class Validated(Deep):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val/loss", 1.0)

    module, witness = Validated(), Witness()
    before = copy.deepcopy(module.state_dict())
    fit(module, tmp_path, preset(name), witness, epochs=4 * epochs_each + 1, loader=Loader(2))
    thaws = ("top.2", "top.1", "top.0", "rest")
    assert joined(witness) == {"head": 0, **{part: 2 * epochs_each * (n + 1) for n, part in enumerate(thaws)}}
    assert witness.seen[-1] == {"head": 0.01, **dict.fromkeys(thaws, 0.001)}
    assert [name for name, p in module.named_parameters() if torch.equal(p, before[name])] == []


@pytest.mark.parametrize("pattern", ["layers", "blocks", "h"])
def test_a_preset_knows_the_names_of_layers(pattern) -> None:
    model = nn.Module()
    model.backbone, model.head = nn.Module(), nn.Linear(2, 2)
    model.backbone.encoder = nn.Module()
    model.backbone.embed = nn.Linear(2, 2)
    setattr(model.backbone.encoder, pattern, nn.ModuleList(nn.Linear(2, 2) for _ in range(2)))
    rows = preset("gradual").explain(model).rows()
    assert [row["group"] for row in rows[:-1]] == ["head", "top.1", "top.0", "rest"]


@pytest.mark.parametrize(
    ("name", "overrides", "triggers"),
    [
        (
            "gradual",
            ["unfreeze.stages.top.each.epochs=2", "unfreeze.stages.rest.at.after.epochs=5"],
            ["from the start", "epoch 1", "2 epochs after x", "5 epochs after the stage above"],
        ),
        (
            "gradual",
            ["unfreeze.stages.top.each.epochs=null", "+unfreeze.stages.top.each.steps=500"],
            ["from the start", "epoch 1", "500 steps after x", "1 epoch after the stage above"],
        ),
        (
            "gradual",
            ["unfreeze.stages.top.at=null", "unfreeze.stages.head=null"],
            ["from the start", "1 epoch after x", "1 epoch after the stage above"],
        ),
        (
            "gradual_plateau",
            [f"unfreeze.stages.{key}.plateau.monitor=val/acc" for key in ("top.at", "top.each", "rest.at")]
            + [f"+unfreeze.stages.{key}.plateau.mode=max" for key in ("top.at", "top.each", "rest.at")],
            ["from the start", *["plateau of val/acc, patience 2"] * 3],
        ),
        (
            "gradual_plateau",
            ["unfreeze.stages.rest.at.plateau=null", "+unfreeze.stages.rest.at.epoch=9"],
            ["from the start", *["plateau of val/loss, patience 2"] * 2, "epoch 9"],
        ),
    ],
    ids=["other epochs", "by steps", "no head", "another metric", "an epoch instead"],
)
def test_a_preset_is_changed_on_the_command_line(name, overrides, triggers) -> None:
    said = []
    for stage in preset(name, *overrides).stages:
        said += [str(stage.trigger)] + ([] if stage.each is None else [str(stage.each("x"))])
    assert said == triggers


@pytest.mark.parametrize("name", ["gradual", "gradual_plateau"])
def test_what_a_presets_comment_says_to_type_is_taken(name) -> None:
    lines = [line for line in (CONF / f"unfreeze/{name}.yaml").read_text().splitlines() if "unfreeze.stages." in line]
    words = [word.rstrip(";,") for line in lines for word in shlex.split(line) if "unfreeze.stages." in word]
    assert words
    for word in words:
        assert isinstance(preset(name, word), StagedUnfreeze)


# Refused before the first step

LATE = {"params": "backbone", "at": {"epoch": 1}}
TOP = layers(at={"epoch": 1}, each={"epochs": 1})
WRONG_PLANS: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    # The plan
    "no mapping": ([], "stages", ("got []", "stages: {head: {params: head}")),
    "no stage": ({}, "stages", ("got {}", "stages: {head: {params: head}")),
    "all stages null": ({"head": None}, "stages", ("none is trained from the start", "head.at: null")),
    "none from the start": ({"head": {**HEAD, "at": {"step": 1}}}, "stages", ("head.at: null",)),
    "stage no mapping": ({"head": "head"}, "stages.head", ("got 'head'", "head: {params: backbone")),
    "name with a blank": ({"the head": HEAD}, "stages.the head", ("'the head'", "letters, digits, _ and -")),
    "name with a point": ({"top.1": HEAD}, "stages.top.1", ("'top.1'",)),
    "reserved name": ({"default": HEAD}, "stages.default", ("default_params",)),
    # Its selectors
    "no selector": ({"head": {"lr_scale": 1}}, "stages.head", ("it selects nothing", "params: backbone")),
    "misspelt selector": ({"head": {"parms": "head"}}, "stages.head.parms", ("Did you mean 'params'?",)),
    "params a number": ({"head": {"params": 3}}, "stages.head.params", ("got 3", "params: [a, b]")),
    "params a broken regex": ({"head": {"params": "re:("}}, "stages.head.params", ("no regular expression",)),
    "unknown kind": ({"head": {"kinds": ["biass"]}}, "stages.head.kinds", ("Did you mean 'bias'?",)),
    "params match nothing": (
        {"head": HEAD, "rest": {**LATE, "params": "bakbone"}},
        "stages.rest",
        ("'bakbone'", "Did you mean 'backbone'", "stages.rest.allow_empty: true"),
    ),
    "classes match nothing": (
        {"head": {"classes": "Liner"}, "rest": LATE},
        "stages.head",
        ("Did you mean 'Linear'?", "allow_empty: true"),
    ),
    "selectors exclude each other": (
        {"head": {"params": "head", "kinds": ["norm"]}, "rest": LATE},
        "stages.head",
        ("none matches all of them",),
    ),
    "all taken": (
        {"body": LATE, "head": HEAD, "top": layers(at={"epoch": 2})},
        "stages.top",
        ("all 12 parameters it matches belong to a stage above it", "put the narrower stage first"),
    ),
    "some in no stage": (
        {"head": HEAD, "top": TOP},
        "stages",
        ("2 parameters that require a gradient belong to no stage: backbone.stem", "backbone: {params: backbone}"),
    ),
    # Its layers
    "layers without {i}": (
        {"head": HEAD, "top": {**TOP, "layers": "backbone.layer"}},
        "stages.top.layers",
        ("one {i}", "backbone.encoder.layer.{i}"),
    ),
    "layers match nothing": (
        {"head": HEAD, "top": {**TOP, "layers": "backbone.blocks.{i}"}, "rest": LATE},
        "stages.top",
        ("'backbone.blocks.{i}' matches no module", "backbone.layer.{i}", "allow_empty: true"),
    ),
    "layers within layers": (
        {"head": HEAD, "top": {**TOP, "layers": "*.{i}"}, "rest": LATE},
        "stages.top.layers",
        ("a layer inside layer", "with no * that reaches into a layer"),
    ),
    "each without layers": (
        {"head": HEAD, "top": {**LATE, "each": {"epochs": 1}}},
        "stages.top.each",
        ('stages.top.layers: "top.layer.{i}"',),
    ),
    # Its triggers: tests/stages/test_triggers.py has every way to get one wrong.
    "misspelt trigger": ({"head": HEAD, "rest": {**LATE, "at": {"epoc": 1}}}, "stages.rest.at.epoc", ("'epoch'?",)),
    "at a number": ({"head": HEAD, "rest": {**LATE, "at": 1}}, "stages.rest.at", ("got 1", "at: {epoch: 1}")),
    "two triggers": (
        {"head": HEAD, "rest": {**LATE, "at": {"epoch": 1, "step": 5}}},
        "stages.rest.at",
        ("at: {any: [{epoch: 1}, {step: 500}]}",),
    ),
    "negative epoch": (
        {"head": HEAD, "rest": {**LATE, "at": {"epoch": -1}}},
        "stages.rest.at.epoch",
        ("got -1", "epoch: 1"),
    ),
    "the whole run": (
        {"head": HEAD, "rest": {**LATE, "at": {"fraction": 1}}},
        "stages.rest.at.fraction",
        ("got 1", "fraction: 0.5"),
    ),
    "after nothing": (
        {"head": HEAD, "rest": {**LATE, "at": {"after": {}}}},
        "stages.rest.at.after",
        ("after: {epochs: 1}",),
    ),
    "any of nothing": (
        {"head": HEAD, "rest": {**LATE, "at": {"any": []}}},
        "stages.rest.at.any",
        ("any: [{epoch: 1}",),
    ),
    "no monitor": (
        {"head": HEAD, "rest": {**LATE, "at": {"plateau": {"patience": 2}}}},
        "stages.rest.at.plateau.monitor",
        ("got None", "val/loss"),
    ),
    "wrong within any": (
        {"head": HEAD, "rest": {**LATE, "at": {"any": [{"epoch": 1}, plateau("loss", 0)]}}},
        "stages.rest.at.any[1].plateau.patience",
        ("got 0", "patience: 3"),
    ),
    "wrong each": ({"head": HEAD, "top": {**TOP, "each": {"epoch": 1}}}, "stages.top.each.epoch", ("'epochs'?",)),
    # Its own options
    "lr_scale a text": ({"head": {**HEAD, "lr_scale": "x"}}, "stages.head.lr_scale", ("got 'x'", "lr_scale: 0.1")),
    "negative lr_scale": ({"head": {**HEAD, "lr_scale": -1}}, "stages.head.lr_scale", ("got -1", "lr_scale: 0.1")),
    "half a warm-up step": ({"head": {**HEAD, "warmup_steps": 0.5}}, "stages.head.warmup_steps", ("got 0.5",)),
    "allow_unused a text": ({"head": {**HEAD, "allow_unused": "yes"}}, "stages.head.allow_unused", ("got 'yes'",)),
    "allow_empty a number": ({"head": {**HEAD, "allow_empty": 1}}, "stages.head.allow_empty", ("got 1",)),
    "misspelt option": ({"head": {**HEAD, "warm_up_steps": 1}}, "stages.head.warm_up_steps", ("'warmup_steps'?",)),
    # The optimizer's: tests/stages/test_overrides.py has more.
    "misspelt hyperparameter": (
        {"head": HEAD, "rest": {**LATE, "weight_dcay": 0.1}},
        "stages.rest.weight_dcay",
        ("Did you mean 'weight_decay'?",),
    ),
    "of another optimizer": (
        {"head": HEAD, "rest": {**LATE, "momentum": 0.9}},
        "stages.rest.momentum",
        ("adamw has no momentum", "Remove it"),
    ),
    "of the whole optimizer": ({"head": HEAD, "rest": {**LATE, "foreach": True}}, "stages.rest.foreach", ("whole",)),
    "wrong value": ({"head": HEAD, "rest": {**LATE, "eps": -1}}, "stages.rest.eps", ("got -1", "eps: 1.0e-08")),
    "null value": ({"head": HEAD, "rest": {**LATE, "eps": None}}, "stages.rest.eps", ("got None", "leave eps out")),
}


@pytest.mark.parametrize(("stages", "key", "parts"), WRONG_PLANS.values(), ids=WRONG_PLANS)
def test_a_wrong_plan_is_refused_before_the_first_step(tmp_path, stages, key, parts) -> None:
    module, witness = Deep(), Witness()
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ConfigError) as caught:
        fit(module, tmp_path, StagedUnfreeze(stages), witness)
    check_message(caught, key, *parts)
    assert not witness.seen
    assert same(module.state_dict(), before)
