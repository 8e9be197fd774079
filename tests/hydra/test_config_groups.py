"""The config groups in a user's app: every option, changed rules, presets, the user's own files, and sweeps."""

from __future__ import annotations

import functools
import inspect
import json

import pytest
import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.utils import instantiate
from lightning.pytorch import Callback
from omegaconf import OmegaConf
from torch import nn

from lightning_optim import OptimizerFactory, OptimizerMonitor, SchedulerFactory, StagedUnfreeze, optimizer_info
from tests.support.apps import CHECKOUT
from tests.support.cases import every


def option_names(group: str) -> list[str]:
    return sorted(path.stem for path in (CHECKOUT / "conf" / group).glob("*.yaml"))


def matrices() -> nn.Module:
    """A model that every optimizer accepts, including those for matrices only."""
    return nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False))


def to_python(value):
    """A value of the YAML as a param group holds it."""
    return tuple(value) if isinstance(value, list) else value


# Every option.


FAST_OPTIMIZERS = ("adamw_groups", "lbfgs", "muon_adamw", "ranger")


@pytest.mark.parametrize(
    "name", every(dict.fromkeys([*FAST_OPTIMIZERS, *option_names("optimizer")[::5]]), fast=FAST_OPTIMIZERS)
)
def test_an_optimizer_is_built_with_the_values_of_its_file(name, write_app):
    job = write_app({"config.yaml": "defaults: [optimizer: adam]"}).compose(f"optimizer={name}")
    factory = instantiate(job.optimizer)
    assert type(factory) is OptimizerFactory
    written, info = OmegaConf.to_container(job.optimizer), optimizer_info(factory.name)
    assert written.keys() - {"_target_", "_partial_", "name", "implementation", "groups"} == info.defaults.keys()
    groups = {"groups": None} if written["groups"] else {}  # presets select parameters that this model does not have
    derived_if_null = {"foreach", "fused", "max_eval", "weight_decay_mode"}  # by the class or the device
    for implementation in ("auto", *(("own",) if info.own else ())):
        optimizer = instantiate(job.optimizer, **groups, implementation=implementation)(matrices())
        modified = any(written.get(key) for key in ("lookahead", "schedule_free"))  # ranger's, schedule_free_adamw's
        own = info.is_native_only or implementation == "own" or modified
        assert type(optimizer) is info.load(own=own)
        (group,) = optimizer.param_groups
        for key in info.signature(own=own):
            if not (key in derived_if_null and written[key] is None):
                assert group[key] == to_python(written[key]), key


FAST_SCHEDULERS = ("chained", "cyclic", "one_cycle", "reduce_on_plateau", "sequential", "warmup_cosine")


@pytest.mark.parametrize("name", every(option_names("scheduler"), fast=FAST_SCHEDULERS))
def test_a_scheduler_is_built_with_the_configured_lr_as_its_peak(name, write_app):
    job = write_app({"config.yaml": "defaults: [scheduler: constant]"}).compose(f"scheduler={name}")
    factory = instantiate(job.scheduler)
    assert type(factory) is SchedulerFactory
    assert factory.name == name
    optimizer = torch.optim.SGD(matrices().parameters(), lr=0.1, momentum=0.9)
    config = factory.config(optimizer, total_steps=10_000)
    assert config["interval"] == job.scheduler.interval
    assert config["scheduler"].optimizer is optimizer
    assert 0 <= optimizer.param_groups[0]["lr"] <= 0.1, "the configured lr is the maximum"


# Rules.

ADAMW = {"config.yaml": "defaults: [optimizer: adamw]"}
ADAMW_GROUPS = {"config.yaml": "defaults: [optimizer: adamw_groups]"}
NO_DECAY = {"kinds": ["bias", "norm", "no_weight_decay"], "weight_decay": 0}
MINE = {"optimizer/groups/head.yaml": "head: {params: head, lr_scale: 10}"}
HEAD = {"params": "head", "lr_scale": 10}
ADD_HEAD = "+optimizer.groups.head={params: head, lr_scale: 10}"


@pytest.mark.parametrize(
    ("files", "overrides", "rules"),
    [
        pytest.param(ADAMW, [], {}, id="adamw has none"),
        pytest.param(ADAMW_GROUPS, [], {"no_decay": NO_DECAY}, id="adamw_groups has no_decay"),
        pytest.param(ADAMW, ["+optimizer/groups=[no_decay]"], {"no_decay": NO_DECAY}, id="preset added to adamw"),
        pytest.param(
            ADAMW,
            ["+optimizer/groups@optimizer.groups=[no_decay]"],
            {"no_decay": NO_DECAY},
            id="preset added under an explicit package",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"config.yaml": "defaults: [optimizer: adamw, optimizer/groups: [no_decay]]"},
            [],
            {"no_decay": NO_DECAY},
            id="preset added in the primary config",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ADAMW_GROUPS | MINE,
            ["optimizer/groups=[no_decay,head]"],
            {"no_decay": NO_DECAY, "head": HEAD},
            id="presets chosen, one of them the user's",
        ),
        pytest.param(ADAMW_GROUPS, ["optimizer/groups=[]"], {}, id="no presets", marks=pytest.mark.slow),
        pytest.param(
            ADAMW_GROUPS,
            [ADD_HEAD],
            {"no_decay": NO_DECAY, "head": HEAD},
            id="rule added",
        ),
        pytest.param(ADAMW, [ADD_HEAD], {"head": HEAD}, id="rule added to adamw", marks=pytest.mark.slow),
        pytest.param(
            ADAMW_GROUPS,
            ["optimizer.groups.no_decay.weight_decay=0.05"],
            {"no_decay": {**NO_DECAY, "weight_decay": 0.05}},
            id="rule changed",
        ),
        pytest.param(ADAMW_GROUPS, ["optimizer.groups.no_decay=null"], {"no_decay": None}, id="rule set to null"),
        pytest.param(ADAMW_GROUPS, ["~optimizer.groups.no_decay"], {}, id="rule deleted", marks=pytest.mark.slow),
        pytest.param(ADAMW_GROUPS, ["optimizer.groups=null"], {}, id="groups set to null"),
    ],
)
def test_rules_can_be_chosen_and_changed_from_the_command_line(files, overrides, rules, write_app):
    factory = instantiate(write_app(files).compose(*overrides).optimizer)
    assert factory.groups == rules


@pytest.mark.parametrize("override", ["optimizer.groups.no_decay=null", "~optimizer.groups.no_decay"])
def test_a_removed_rule_gives_no_param_group(override, write_app):
    factory = instantiate(write_app(ADAMW_GROUPS).compose(override).optimizer)
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    assert [group["name"] for group in factory(model).param_groups] == ["default"]


@pytest.mark.parametrize(
    "overrides",
    [
        ["+optimizer.groups.hidden.split=[8,4,4]", "optimizer.groups.no_decay=null"],
        ["optimizer=muon", "optimizer.split=[8,4,4]"],
    ],
    ids=["rule", "optimizer"],
)
def test_the_rows_of_each_part_are_a_list_on_the_command_line(overrides, write_app):
    factory = instantiate(write_app({"config.yaml": "defaults: [optimizer: muon_adamw]"}).compose(*overrides).optimizer)
    model = nn.Sequential()
    model.add_module("backbone", nn.Linear(8, 16, bias=False))
    assert [group["split"] for group in factory(model).param_groups] == [(8, 4, 4)]


# Presets of callbacks, one node each.

CALLBACKS = {"config.yaml": "callbacks: {}\noptimizer: null\n"}


@pytest.mark.parametrize(
    ("override", "key", "kind"),
    [
        ("+monitor@callbacks.optim=default", "optim", OptimizerMonitor),
        ("+monitor@callbacks.optim=full", "optim", OptimizerMonitor),
        ("+unfreeze@callbacks.thaw=head_then_backbone", "thaw", StagedUnfreeze),
        ("+unfreeze@callbacks.thaw=gradual", "thaw", StagedUnfreeze),
        ("+unfreeze@callbacks.thaw=gradual_plateau", "thaw", StagedUnfreeze),
    ],
)
def test_a_preset_of_callbacks_is_one_node(override, key, kind, write_app):
    job = write_app(CALLBACKS).compose(override)
    assert list(job.callbacks) == [key]
    assert "_target_" in job.callbacks[key]
    callback = instantiate(job.callbacks[key])
    assert type(callback) is kind
    assert isinstance(callback, Callback)


def test_the_presets_of_the_monitor_have_every_argument(write_app):
    given = {}
    for name in ("default", "full"):
        node = write_app(CALLBACKS).compose(f"+monitor@callbacks.optim={name}").callbacks.optim
        given[name] = {key: value for key, value in node.items() if key != "_target_"}
        assert set(given[name]) == set(inspect.signature(OptimizerMonitor).parameters)
    changed = {key for key in given["full"] if given["full"][key] != given["default"][key]}
    assert changed == {"update_norm", "cosine", "per_parameter"}


def test_presets_can_be_combined_and_overridden(write_app):
    job = write_app(CALLBACKS).compose(
        "+monitor@callbacks.optim=default",
        "+unfreeze@callbacks.thaw=head_then_backbone",
        "callbacks.optim.every_n_steps=5",
        "callbacks.thaw.stages.head.params=net.head",
        "callbacks.thaw.stages.backbone={params: net.backbone, at: {epoch: 3}}",
    )
    monitor, thaw = (instantiate(job.callbacks[key]) for key in ("optim", "thaw"))
    assert monitor.every_n_steps == 5
    assert [(stage.name, stage.selector.params, str(stage.trigger)) for stage in thaw.stages] == [
        ("head", ("net.head",), "from the start"),
        ("backbone", ("net.backbone",), "epoch 3"),
    ]


def test_the_trigger_of_a_preset_can_be_replaced(write_app):
    """Hydra merges mappings, so the old trigger must be removed first."""
    job = write_app(CALLBACKS).compose(
        "+unfreeze@callbacks.thaw=head_then_backbone",
        "~callbacks.thaw.stages.backbone.at.epoch",
        "+callbacks.thaw.stages.backbone.at.step=5",
    )
    assert str(instantiate(job.callbacks.thaw).stages[1].trigger) == "step 5"


def test_unfreeze_none_is_an_empty_node(write_app):
    app = write_app({"config.yaml": "defaults: [unfreeze: none]"})
    assert app.compose().unfreeze == {}
    assert app.compose("unfreeze=head_then_backbone").unfreeze._target_ == "lightning_optim.StagedUnfreeze"


# A user's own file with the name of one of ours.

OWN_ADAMW = """
_target_: torch.optim.AdamW
_partial_: true
lr: 0.02
"""


def test_a_users_own_file_replaces_ours_completely(write_app):
    app = write_app({"config.yaml": "defaults: [optimizer: adamw]", "optimizer/adamw.yaml": OWN_ADAMW})
    job = app.compose()
    assert OmegaConf.to_container(job) == {"optimizer": OmegaConf.to_container(OmegaConf.create(OWN_ADAMW))}
    partial = instantiate(job.optimizer)
    assert isinstance(partial, functools.partial)
    built = partial(matrices().parameters())
    assert type(built) is torch.optim.AdamW
    assert built.param_groups[0]["lr"] == 0.02


def test_our_other_files_are_unaffected_by_a_users_own(write_app):
    app = write_app({"config.yaml": "defaults: [optimizer: adamw_groups]"})
    alone = app.compose()
    write_app({"config.yaml": "defaults: [optimizer: adamw]", "optimizer/adamw.yaml": OWN_ADAMW})
    assert app.compose("optimizer=adamw_groups") == alone
    assert instantiate(alone.optimizer) == OptimizerFactory(
        "adamw", groups={"no_decay": NO_DECAY}, **optimizer_info("adamw").defaults
    )


# Overrides of a group of ours, and of a key that has its name.


@pytest.mark.parametrize(
    ("defaults", "override", "composed"),
    [
        ("[optimizer: adamw]", "optimizer=sgd", {"optimizer": "sgd"}),
        pytest.param("[optimizer: '???']", "optimizer=sgd", {"optimizer": "sgd"}, marks=pytest.mark.slow),
        ("[optimizer: misspelt]", "optimizer=sgd", {"optimizer": "sgd"}),
        ("[optimizer: adamw]", "~optimizer", {}),
        pytest.param("[]", "+optimizer=null", {"optimizer": None}, marks=pytest.mark.slow),
        ("[]", "+optimizer=sgd", {"optimizer": "sgd"}),
        ("[]", "+optimizer=mine", {"optimizer": "mine"}),
        pytest.param("[]", "++optimizer=sgd", {"optimizer": "sgd"}, marks=pytest.mark.slow),
        ("[optimizer@model.optimizer: adamw]", "optimizer@model.optimizer=sgd", {"model": {"optimizer": "sgd"}}),
        ("[optimizer: adamw]", "+monitor=val_loss", {"optimizer": "adamw", "monitor": "val_loss"}),
    ],
)
def test_an_override_chooses_a_config_where_the_app_uses_the_group(defaults, override, composed, write_app):
    job = OmegaConf.to_container(write_app({"config.yaml": f"defaults: {defaults}"}).compose(override))

    def names(node):
        """The config with each of our nodes replaced by its name."""
        if isinstance(node, dict):
            return node["name"] if "_target_" in node else {key: names(value) for key, value in node.items()}
        return node

    assert names(job) == composed


@pytest.mark.parametrize(
    ("defaults", "override", "message"),
    [
        ("[optimizer: adamw]", "optimizer=adamww", "Could not find 'optimizer/adamww'\n\nAvailable options in 'opt"),
        ("[]", "optimizer=sgd", "Could not override 'optimizer'.\nTo append to your config use +optimizer=sgd"),
        ("[]", "+optimizer@model.optimizer=sdg", "Could not find 'optimizer/sdg'"),
        ("[optimizer: adamw]", "+optimizer/groups=[no_dcay]", "Could not load 'optimizer/groups/no_dcay'"),
        ("[optimizer: adamw]", "++optimizer=sgd", "force-add of config groups is not supported"),
    ],
)
def test_a_misspelt_override_is_refused(defaults, override, message, write_app):
    with pytest.raises(HydraException) as caught:
        write_app({"config.yaml": f"defaults: {defaults}"}).compose(override)
    assert message in str(caught.value)


def test_ours_are_listed_unless_the_app_has_configs_in_the_group(write_app):
    def options(group):
        with initialize_config_dir(str(app.root / "conf"), version_base="1.3"):
            return GlobalHydra.instance().config_loader().get_group_options(group)

    app = write_app({"config.yaml": "a: 1", **MINE})
    assert options("optimizer") == option_names("optimizer"), "there are presets, but no config"
    assert options("optimizer/groups") == ["head"]
    write_app({"optimizer/mine.yaml": OWN_ADAMW})
    assert options("optimizer") == ["mine"]
    assert write_app({}).compose("+optimizer=adamw").optimizer.name == "adamw", "can be chosen all the same"


# A sweep with Hydra's basic launcher.


@pytest.mark.slow
def test_a_sweep_runs_every_combination_of_optimizer_and_lr(installed, copy_app):
    environment, app = installed("wheel"), copy_app("plain")
    completed = environment.run(
        "show.py", "-m", "optimizer=adamw,sgd", "optimizer.lr=0.1,0.2", "hydra.sweep.dir=o", cwd=app
    )
    jobs = [json.loads(line) for line in completed.stdout.splitlines() if line.startswith("{")]
    assert [(job["name"], job["lr"]) for job in jobs] == [("adamw", 0.1), ("adamw", 0.2), ("sgd", 0.1), ("sgd", 0.2)]
