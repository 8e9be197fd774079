"""Use in an app like lightning-hydra-template: in its configs, or on the command line over its own configs."""

from __future__ import annotations

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory, configure_optimizers
from tests.support.apps import APPS, App
from tests.support.short_runs import IGNORED_WARNINGS, build_loader, build_trainer, lr_by_group

pytestmark = IGNORED_WARNINGS

TEMPLATE = APPS / "template"
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
        id="on the command line",
    ),
    pytest.param(TOP, ["optimizer.lr=3e-4"], id="at the top level"),
]


@pytest.fixture(autouse=True)
def on_the_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TEMPLATE))


def our_config(write_app, *overrides: str) -> DictConfig:
    """Our configs in an app that has none of its own."""
    app = write_app({"config.yaml": "defaults: [optimizer: adamw_groups, scheduler: reduce_on_plateau]"})
    return app.compose(*overrides)


@pytest.mark.slow
@pytest.mark.parametrize(("app", "overrides"), FORMS)
def test_nothing_remains_of_the_templates_config(app, overrides, write_app):
    job, expected = app.compose(*overrides), our_config(write_app, "optimizer.lr=3e-4")
    OmegaConf.resolve(job)
    assert job.model.optimizer == expected.optimizer
    assert job.model.scheduler == expected.scheduler


@pytest.mark.parametrize(("app", "overrides"), FORMS)
def test_it_trains_and_its_best_checkpoint_is_tested(app, overrides, tmp_path):
    model = instantiate(app.compose(*overrides).model)
    assert type(model.hparams.optimizer) is OptimizerFactory
    assert type(model.hparams.scheduler) is SchedulerFactory

    best = ModelCheckpoint(tmp_path, monitor="val/loss")
    trainer = build_trainer(tmp_path, best, max_epochs=2)
    trainer.fit(model, build_loader(), build_loader())
    assert lr_by_group(trainer.optimizers[0]) == {"default": 3e-4, "no_decay": 3e-4}
    assert trainer.optimizers[0].param_groups[0]["param_names"] == ["net.backbone.0.weight", "net.head.weight"]
    (scheduler,) = trainer.lr_scheduler_configs
    assert type(scheduler.scheduler) is torch.optim.lr_scheduler.ReduceLROnPlateau
    assert scheduler.scheduler.last_epoch == 2, "stepped once an epoch, with the metric"

    (tested,) = trainer.test(model, build_loader(), ckpt_path=best.best_model_path)
    assert list(tested) == ["test/loss"]


def test_a_rule_may_use_the_names_in_the_lightning_module(tmp_path):
    job = INLINE.compose("model=adopted", "+model.optimizer.groups.head={params: net.head, lr_scale: 10}")
    trainer = build_trainer(tmp_path, enable_checkpointing=False)
    trainer.fit(instantiate(job.model), build_loader(), build_loader())
    low, high = 1e-3, 1e-3 * 10
    groups = {"default": low, "no_decay": low, "head": high, "head.no_decay": high}
    assert lr_by_group(trainer.optimizers[0]) == groups


def test_a_rule_with_the_names_in_the_net_is_refused_with_the_right_ones(tmp_path):
    job = INLINE.compose("model=adopted", "+model.optimizer.groups.head={params: head, lr_scale: 10}")
    with pytest.raises(ConfigError, match=r"groups\.head: .*Did you mean 'net\.head'"):
        build_trainer(tmp_path, enable_checkpointing=False).fit(instantiate(job.model), build_loader(), build_loader())


def test_a_schedule_that_needs_the_length_of_the_run_is_refused(tmp_path):
    """The template's `configure_optimizers` passes it the optimizer only, not the trainer."""
    model = instantiate(INLINE.compose("model=adopted", "scheduler@model.scheduler=warmup_cosine").model)
    with pytest.raises(ConfigError, match=r"scheduler\.total_steps.*configure_optimizers"):
        build_trainer(tmp_path, enable_checkpointing=False).fit(model, build_loader(), build_loader())


def test_a_schedule_by_epoch_with_a_given_length_trains(tmp_path):
    job = INLINE.compose(
        "model=adopted",
        "scheduler@model.scheduler=warmup_cosine",
        "model.scheduler.interval=epoch",
        "model.scheduler.total_steps=4",
    )
    trainer = build_trainer(tmp_path, enable_checkpointing=False, max_epochs=2)
    trainer.fit(instantiate(job.model), build_loader(), build_loader())
    assert lr_by_group(trainer.optimizers[0])["default"] == pytest.approx(5e-4), "half of the cosine"


def test_torchs_scheduler_is_refused_by_configure_optimizers():
    """Whoever uses our `configure_optimizers` in the template must use our scheduler too."""
    model = instantiate(INLINE.compose("+optimizer@model.optimizer=adamw_groups").model)
    with pytest.raises(ConfigError, match="scheduler: "):
        configure_optimizers(model, model.hparams.optimizer, model.hparams.scheduler)


# Our configs merged over an existing one.

SGD = "{_target_: torch.optim.SGD, _partial_: true, lr: 0.05, momentum: 0.9}"
PLATEAU = "{_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, _partial_: true, mode: max, patience: 3}"


PLACES = {
    "in a group, after _self_": {"config.yaml": "defaults: [_self_, model: mine]", "model/mine.yaml": "%s: %s"},
    "in a group, before _self_": {"config.yaml": "defaults: [model: mine, _self_]", "model/mine.yaml": "%s: %s"},
    "in the primary config": {"config.yaml": "model: {%s: %s}"},
}


@pytest.mark.parametrize("files", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize(
    ("node", "existing", "override"),
    [
        pytest.param("optimizer", SGD, "+optimizer@model.optimizer=sgd", id="optimizer"),
        pytest.param("scheduler", PLATEAU, "+scheduler@model.scheduler=reduce_on_plateau", id="scheduler"),
    ],
)
def test_our_values_replace_those_of_the_existing_config(node, existing, override, files, write_app):
    filled = {name: text % (node, existing) if "%" in text else text for name, text in files.items()}
    job = write_app(filled).compose(override)
    expected = write_app({"config.yaml": "{}"}).compose(override.replace(f"@model.{node}", ""))
    assert job.model[node] == expected[node]


@pytest.mark.parametrize(
    ("node", "existing", "override", "key"),
    [
        ("optimizer", SGD, "+optimizer@model.optimizer=adamw_groups", "momentum"),
        ("scheduler", PLATEAU, "+scheduler@model.scheduler=cosine_annealing", "mode"),
    ],
    ids=["optimizer", "scheduler"],
)
def test_a_key_left_over_from_the_existing_config_is_named(node, existing, override, key, write_app):
    job = write_app({"config.yaml": f"model: {{{node}: {existing}}}\n"}).compose(override)
    with pytest.raises((InstantiationException, ConfigError), match=rf"{key}: .*left over from a config below\?"):
        instantiate(job.model[node])


@pytest.mark.parametrize(
    ("node", "existing", "overrides"),
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
def test_a_left_over_key_can_be_removed_on_the_command_line(node, existing, overrides, write_app):
    job = write_app({"config.yaml": f"model: {{{node}: {existing}}}\n"}).compose(*overrides)
    assert instantiate(job.model[node]).name in ("adamw", "cosine_annealing")
