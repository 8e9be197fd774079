"""Adoption in an app like lightning-hydra-template: in its configs, or from the command line over its own blocks."""

from __future__ import annotations

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory, configure_optimizers
from tests.support.user_environments import HERE, QUIET, App, batches, groups_of, trainer

pytestmark = QUIET

TEMPLATE = HERE / "apps/template"
INLINE, TOP = App(TEMPLATE, "configs", "train"), App(TEMPLATE, "configs", "train_top")

FORMS = [
    pytest.param(INLINE, ["model=adopted", "model.optimizer.lr=3e-4"], id="in the model config"),
    pytest.param(
        INLINE,
        [
            "+optimizer@model.optimizer=adamw_groups",
            "model.optimizer.lr=3e-4",
            "+scheduler@model.scheduler=reduce_on_plateau",
        ],
        id="no edit, from the command line",
    ),
    pytest.param(TOP, ["optimizer.lr=3e-4"], id="at the top level"),
]


@pytest.fixture(autouse=True)
def on_the_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TEMPLATE))


def ours(write_app, *overrides: str) -> DictConfig:
    """Our configs alone, in an app without any of its own."""
    app = write_app({"config.yaml": "defaults: [optimizer: adamw_groups, scheduler: reduce_on_plateau]"})
    return app.compose(*overrides)


@pytest.mark.parametrize(("app", "overrides"), FORMS)
def test_nothing_of_the_templates_block_is_left(app, overrides, write_app):
    job, alone = app.compose(*overrides), ours(write_app, "optimizer.lr=3e-4")
    OmegaConf.resolve(job)
    assert job.model.optimizer == alone.optimizer
    assert job.model.scheduler == alone.scheduler


@pytest.mark.parametrize(("app", "overrides"), FORMS)
def test_it_trains_and_its_best_checkpoint_is_tested(app, overrides, tmp_path):
    model = instantiate(app.compose(*overrides).model)
    assert type(model.hparams.optimizer) is OptimizerFactory
    assert type(model.hparams.scheduler) is SchedulerFactory

    best = ModelCheckpoint(tmp_path, monitor="val/loss")
    training = trainer(tmp_path, best, max_epochs=2)
    training.fit(model, batches(), batches())
    assert groups_of(training.optimizers[0]) == {"default": 3e-4, "no_decay": 3e-4}
    assert training.optimizers[0].param_groups[0]["param_names"] == ["net.backbone.0.weight", "net.head.weight"]
    (scheduler,) = training.lr_scheduler_configs
    assert type(scheduler.scheduler) is torch.optim.lr_scheduler.ReduceLROnPlateau
    assert scheduler.scheduler.last_epoch == 2, "stepped once an epoch, with the metric"

    (tested,) = training.test(model, batches(), ckpt_path=best.best_model_path)
    assert list(tested) == ["test/loss"]


def test_a_rule_is_added_under_the_names_of_the_lightning_module(tmp_path):
    job = INLINE.compose("model=adopted", "+model.optimizer.groups.head={params: net.head, lr_scale: 10}")
    training = trainer(tmp_path, enable_checkpointing=False)
    training.fit(instantiate(job.model), batches(), batches())
    low, high = 1e-3, 1e-3 * 10
    groups = {"default": low, "no_decay": low, "head": high, "head.no_decay": high}
    assert groups_of(training.optimizers[0]) == groups


def test_a_rule_under_the_names_of_the_net_is_told_the_right_ones(tmp_path):
    job = INLINE.compose("model=adopted", "+model.optimizer.groups.head={params: head, lr_scale: 10}")
    with pytest.raises(ConfigError, match=r"groups\.head: .*Did you mean 'net\.head'"):
        trainer(tmp_path, enable_checkpointing=False).fit(instantiate(job.model), batches(), batches())


def test_a_schedule_that_needs_the_length_of_the_run_says_what_to_type(tmp_path):
    """The template's `configure_optimizers` gives it the optimizer, and no trainer to ask."""
    model = instantiate(INLINE.compose("model=adopted", "scheduler@model.scheduler=warmup_cosine").model)
    with pytest.raises(ConfigError, match=r"scheduler\.total_steps.*configure_optimizers"):
        trainer(tmp_path, enable_checkpointing=False).fit(model, batches(), batches())


def test_a_schedule_by_epochs_of_a_given_length_trains(tmp_path):
    job = INLINE.compose(
        "model=adopted",
        "scheduler@model.scheduler=warmup_cosine",
        "model.scheduler.interval=epoch",
        "model.scheduler.total_steps=4",
    )
    training = trainer(tmp_path, enable_checkpointing=False, max_epochs=2)
    training.fit(instantiate(job.model), batches(), batches())
    assert groups_of(training.optimizers[0])["default"] == pytest.approx(5e-4), "half of the cosine"


def test_torchs_own_scheduler_left_beside_the_one_line_is_told_what_to_type():
    """Who replaces the template's `configure_optimizers` by ours has to adopt the scheduler too."""
    model = instantiate(INLINE.compose("+optimizer@model.optimizer=adamw_groups").model)
    with pytest.raises(ConfigError, match="scheduler: "):
        configure_optimizers(model, model.hparams.optimizer, model.hparams.scheduler)


# Other blocks than the template's, under ours.

SGD = "{_target_: torch.optim.SGD, _partial_: true, lr: 0.05, momentum: 0.9}"
PLATEAU = "{_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, _partial_: true, mode: max, patience: 3}"


PLACES = {
    "in a group, after _self_": {"config.yaml": "defaults: [_self_, model: mine]", "model/mine.yaml": "%s: %s"},
    "in a group, before _self_": {"config.yaml": "defaults: [model: mine, _self_]", "model/mine.yaml": "%s: %s"},
    "in the primary config": {"config.yaml": "model: {%s: %s}"},
}


@pytest.mark.parametrize("files", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize(
    ("node", "block", "override"),
    [
        pytest.param("optimizer", SGD, "+optimizer@model.optimizer=sgd", id="optimizer"),
        pytest.param("scheduler", PLATEAU, "+scheduler@model.scheduler=reduce_on_plateau", id="scheduler"),
    ],
)
def test_every_value_of_ours_wins_over_a_block_with_the_same_keys(node, block, override, files, write_app):
    filled = {name: text % (node, block) if "%" in text else text for name, text in files.items()}
    job = write_app(filled).compose(override)
    alone = write_app({"config.yaml": "{}"}).compose(override.replace(f"@model.{node}", ""))
    assert job.model[node] == alone[node]


@pytest.mark.parametrize(
    ("node", "block", "override", "key"),
    [
        ("optimizer", SGD, "+optimizer@model.optimizer=adamw_groups", "momentum"),
        ("scheduler", PLATEAU, "+scheduler@model.scheduler=cosine_annealing", "mode"),
    ],
    ids=["optimizer", "scheduler"],
)
def test_a_key_left_over_from_the_block_is_named(node, block, override, key, write_app):
    job = write_app({"config.yaml": f"model: {{{node}: {block}}}\n"}).compose(override)
    with pytest.raises((InstantiationException, ConfigError), match=rf"{key}: .*left over from a config below\?"):
        instantiate(job.model[node])


@pytest.mark.parametrize(
    ("node", "block", "overrides"),
    [
        ("optimizer", SGD, ["+optimizer@model.optimizer=adamw_groups", "~model.optimizer.momentum"]),
        (
            "scheduler",
            PLATEAU,
            ["+scheduler@model.scheduler=cosine_annealing", "~model.scheduler.mode", "~model.scheduler.patience"],
        ),
    ],
    ids=["optimizer", "scheduler"],
)
def test_and_can_be_taken_away_from_the_command_line(node, block, overrides, write_app):
    job = write_app({"config.yaml": f"model: {{{node}: {block}}}\n"}).compose(*overrides)
    assert instantiate(job.model[node]).name in ("adamw", "cosine_annealing")
