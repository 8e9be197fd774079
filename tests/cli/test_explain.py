"""`explain` prints the plans of the recipe and of users' apps, and a plain message for a mistake in a config."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_optim.groups.plan import Plan
from tests.support.apps import EXPLAIN_RECIPE
from tests.support.cases import every, every_row

ADAMW = "{_target_: lightning_optim.OptimizerFactory, name: adamw}"


@pytest.fixture
def explain(cli_output, explain_arguments) -> Callable[..., str]:
    """The output for a user's app with these configs, whose code is the module `mine`."""
    return lambda config, *arguments, **files: cli_output(*explain_arguments(config, *arguments, **files))


@pytest.fixture
def explain_error(cli_error, explain_arguments) -> Callable[..., str]:
    """The error for such an app."""
    return lambda config, *arguments, **files: cli_error(*explain_arguments(config, *arguments, **files))


def keys(out: str) -> list[str]:
    """The nodes for which a table was printed."""
    lines = out.splitlines()
    titles = [index for index, line in enumerate(lines) if line.strip() in ("Param groups", "Unfreeze plan")]
    return [lines[index - 1].strip() for index in titles]


def test_the_recipe_has_tables_of_its_optimizers_and_stages(cli_output) -> None:
    out = cli_output(*EXPLAIN_RECIPE, "model", "optimizer.lr=3e-4")
    assert keys(out) == ["optimizer: adamw", "unfreeze", "pretrain.optimizer: adamw"]
    assert "0.0003" in out and "backbone.no_decay" in out and "epoch 1" in out


# Users' apps.


@pytest.mark.parametrize(
    ("folder", "name"),
    every(
        [(folder, name) for folder in ("conf", "./conf", "../plain/conf") for name in ("config", "config.yaml")],
        fast=["conf, config", "../plain/conf, config.yaml"],
        id=", ".join,
    ),
)
def test_an_app_may_have_param_group_rules_of_its_own(cli_output, copy_app, monkeypatch, folder, name) -> None:
    monkeypatch.chdir(copy_app("plain"))
    out = cli_output("explain", "--config-dir", folder, "--config-name", name, "--module", "model")
    assert keys(out) == ["optimizer: adamw"], "shown once, though the model refers to it"
    assert "│ no_decay │       4 │" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "overrides", "key"),
    [
        ("train", ["model=adopted"], "model.optimizer"),
        ("train", ["+optimizer@model.optimizer=adamw_groups"], "model.optimizer"),
        ("train_top", [], "optimizer"),
    ],
    ids=["in the model config", "from the command line", "at the top level"],
)
def test_rules_see_the_names_in_the_templates_lightning_module(
    cli_output, copy_app, monkeypatch, config, overrides, key
) -> None:
    """lightning-hydra-template's LightningModule is given net, optimizer and scheduler."""
    monkeypatch.chdir(copy_app("template"))
    rule = f"+{key}.groups.top={{params: net.head, lr_scale: 10}}"
    command = ("explain", "--config-dir", "configs", "--config-name", config, "--module", "model")
    out = cli_output(*command, *overrides, rule)
    assert keys(out) == [f"{key}: adamw"]
    assert "│ no_decay.top │       1 │          2 │  0.01 │" in out


def test_an_app_without_a_factory_is_told_what_to_type(cli_error, copy_app, monkeypatch) -> None:
    monkeypatch.chdir(copy_app("template"))
    error = cli_error("explain", "--config-dir", "configs", "--config-name", "train", "--module", "model")
    assert "model.optimizer is torch.optim.Adam. Type +optimizer@model.optimizer=adamw_groups" in error


def test_a_config_composed_of_groups_takes_overrides(explain) -> None:
    out = explain(
        "defaults: [_self_, model: big, optimizer: sgd]",
        "model.width=3",
        "+optimizer.groups.h={params: head, lr_scale: 2}",
        model__big="{_target_: mine.Net, width: 64, optimizer: '${optimizer}'}",
    )
    assert keys(out) == ["optimizer: sgd"]
    assert "│ h     │ sgd       │       2 │          8 │ 0.002 │" in out


def test_hydra_resolvers_give_the_values_of_a_run(explain, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RUNS", "somewhere")
    out = explain(
        f"""
        hydra: {{run: {{dir: '${{oc.env:RUNS}}/${{task}}'}}}}
        task: train
        paths: {{out: '${{hydra:runtime.output_dir}}', cwd: '${{hydra:runtime.cwd}}', name: '${{hydra:job.name}}'}}
        model: {{_target_: mine.Printing, folder: '${{paths.out}} ${{paths.cwd}}'}}
        optimizer: {ADAMW}
        """
    )
    assert out.startswith(f"writes to {tmp_path}/somewhere/train {tmp_path}\n")
    assert not (tmp_path / "somewhere").exists()


def test_a_run_folder_that_cannot_be_resolved_matters_only_where_it_is_used(explain, monkeypatch) -> None:
    monkeypatch.delenv("RUNS", raising=False)
    out = explain(f"{{hydra: {{run: {{dir: '${{oc.env:RUNS}}'}}}}, model: {{_target_: mine.Net}}, optimizer: {ADAMW}}}")
    assert keys(out) == ["optimizer: adamw"]


def test_a_partial_model_is_called(explain) -> None:
    assert "│ default │ adamw     │       2 │         10 │" in explain(
        f"{{model: {{_target_: mine.Net, _partial_: true}}, optimizer: {ADAMW}}}"
    )


def test_layers_built_in_configure_model_are_shown(explain) -> None:
    assert "│ default │ adamw     │       2 │          8 │" in explain(
        f"{{model: {{_target_: mine.Late}}, optimizer: {ADAMW}}}"
    )


def test_layers_that_only_a_trainer_can_build_are_said_to_be_missing(explain) -> None:
    out = explain(f"{{model: {{_target_: mine.Late, has_stem: true, needs_trainer: true}}, optimizer: {ADAMW}}}")
    assert out.startswith("note: model.configure_model() fails without a trainer: RuntimeError: ")
    assert "│ default │ adamw     │       2 │          2 │" in out


def test_each_node_is_shown_once_under_the_key_where_it_is_written(explain) -> None:
    out = explain(
        f"""
        first: '${{model}}'
        also: {{optimizer: '${{spare.0}}', again: ['${{model.optimizer}}', '${{also.again}}']}}
        created: '${{oc.create:{{_target_: lightning_optim.OptimizerFactory, name: lion}}}}'
        broken: '${{nowhere}}'
        model: {{_target_: mine.Net, optimizer: {ADAMW}}}
        spare: [{{_target_: lightning_optim.OptimizerFactory, name: sgd}}]
        """
    )
    assert keys(out) == ["model.optimizer: adamw", "spare.0: sgd", "created: lion"]


def test_why_prints_the_rules_of_one_parameter_instead_of_tables(cli_output, cli_error) -> None:
    out = cli_output(*EXPLAIN_RECIPE, "model", "--why", "backbone.0.weight")
    assert keys(out) == []
    assert out.index("optimizer: adamw") < out.index("backbone.0.weight") < out.index("pretrain.optimizer: adamw")
    assert "backbone.0.weight" in cli_error(*EXPLAIN_RECIPE, "model", "--why", "backbone.0.wieght")


def test_why_prints_the_plans_settings_for_each_optimizer(cli_output, monkeypatch) -> None:
    monkeypatch.setattr(Plan, "settings_of", lambda self, name, *_: f"{name} is one of {len(self.tensors)}")
    out = cli_output(*EXPLAIN_RECIPE, "model", "--why", "head.1.bias")
    assert [line.strip() for line in out.splitlines()] == [
        "optimizer: adamw",
        "unfreeze",
        "head.1.bias is one of 11",
        "pretrain.optimizer: adamw",
        "head.1.bias is one of 11",
    ]


def test_why_shows_the_layer_and_the_stage_with_the_lr_after_its_thaw(explain) -> None:
    out = explain(
        f"""
        layer: {{_target_: torch.nn.Linear, in_features: 2, out_features: 2}}
        model: {{_target_: torch.nn.Sequential, _args_: ['${{layer}}', '${{layer}}']}}
        optimizer: {ADAMW[:-1]}, lr: 0.5, groups: {{depth: {{layers: '{{i}}', layer_decay: 0.5}}}}}}
        unfreeze:
          _target_: lightning_optim.StagedUnfreeze
          stages: {{top: {{params: '1'}}, rest: {{params: '0', at: {{epoch: 2}}, lr_scale: 0.25}}}}
        """,
        "--why",
        "0.weight",
    )
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if line[0] == "│"]
    assert ["stage", "rest", "stages.rest"] in rows
    assert ["thaws", "epoch 2", "stages.rest.at"] in rows
    assert ["layer", "0", "groups.depth.layers"] in rows
    assert ["lr", "0.03125", "lr × groups.depth.layer_decay ** 2 × stages.rest.lr_scale"] in rows
    titles = [line.strip() for line in out.splitlines()[:3]]
    assert titles == ["optimizer: adamw", "unfreeze", "0.weight: in the group rest.depth.0"]


def test_why_refuses_an_unknown_parameter_under_the_optimizers_key(cli_error) -> None:
    error = cli_error(*EXPLAIN_RECIPE, "model", "--why", "haed.1.weight")
    assert error.startswith("optimizer: 'haed.1.weight' matches none of ")


def test_an_error_of_a_factory_begins_with_its_key(cli_error) -> None:
    rule = "+pretrain.optimizer.groups={h: {params: heda, lr_scale: 2}}"
    assert cli_error(*EXPLAIN_RECIPE, "model", rule).startswith("pretrain.optimizer: groups.h")


# What is wrong, and what to type.


APP = """
defaults: [_self_, optimizer: adamw, unfreeze: head_then_backbone, monitor: default]
seed: 1
model: {_target_: mine.Net, width: 4}
"""
COMMAND_LINE_MISTAKES = {
    "misspelt module": (
        ["--module", "modle"],
        ["--module: modle is not a node with a _target_. Such nodes: ", "Did you mean 'model'?"],
    ),
    "module is a value": (["--module", "seed"], ["--module: seed is not a node with a _target_. Such nodes: "]),
    "module is not a module": (
        ["--module", "monitor"],
        ["--module: monitor gives a OptimizerMonitor, not a torch.nn.Module"],
    ),
    "added unknown key": (
        ["+optimizer.weigth_decay=1"],
        ["optimizer: weigth_decay: adamw has no hyperparameter 'weigth_decay'"],
    ),
    "unknown key": (["optimizer.weigth_decay=1"], ["Could not override 'optimizer.weigth_decay'"]),
    "wrong value": (["optimizer.lr=abc"], ["optimizer: lr: got 'abc'"]),
    "unknown option": (
        ["optimizer=adamv"],
        ["Could not find 'optimizer/adamv'. Did you mean 'adam'? Available: adabelief"],
    ),
    "stage that selects nothing": (
        ["unfreeze.stages.backbone.params=haed"],
        ["unfreeze: stages.backbone: ", "Did you mean 'head'"],
    ),
    "config group set to null": (["optimizer=null"], ["Got NoneType. To leave a config group out, type ~GROUP"]),
    "partial factory": (["optimizer._partial_=true"], ["Type optimizer._partial_=false"]),
    "invalid override": (["optimizer.lr=["], ["optimizer.lr=[: this is not a valid Hydra override: "]),
    "missing value": (["model.width=???"], ["model.width: it has no value (???). Type model.width=VALUE"]),
}


@pytest.mark.parametrize(("arguments", "messages"), every_row(COMMAND_LINE_MISTAKES, fast=4))
def test_a_mistake_on_the_command_line_is_refused(explain_error, arguments, messages) -> None:
    error = explain_error(APP, *arguments)
    assert all(message in error for message in messages), error


CONFIG_MISTAKES = {
    "unknown class": ("model: {_target_: mine.Nte}", "model._target_: cannot import mine.Nte: "),
    "unknown module": (
        "model: {_target_: yours.Net}",
        "model._target_: cannot import yours.Net: No module named 'yours'. Run this",
    ),
    "unknown argument": (
        "model: {_target_: mine.Net, widht: 3}",
        "model: TypeError: Net.__init__() got an unexpected keyword",
    ),
    "model that raises": ("model: {_target_: mine.Broken}", "model: OSError: no weights here"),
    "lazy layers": (
        "model: {_target_: mine.Lazy}",
        "--module: model infers the shapes of head.weight, head.bias from its first",
    ),
    "model that needs a trainer": (
        "model: {_target_: mine.Late, needs_trainer: true}",
        "--module: model.configure_model() fails without a trainer: ",
    ),
    "partial model that needs arguments": (
        "model: {_target_: mine.Printing, _partial_: true}",
        "calling it without more arguments fails: TypeError: Printing.__init__() missing 1",
    ),
    "interpolation": (
        "model: {_target_: mine.Net, width: '${size}'}",
        "model.width: it refers to ${size}, and there is no such key",
    ),
    "nested interpolation": (
        "{size: '${oc.env:SIZE}', model: {_target_: mine.Net, path: {a: ['${size}']}}}",
        "model.path.a.0: ",
    ),
    "environment variable": (
        "model: {_target_: mine.Net, width: '${oc.env:SIZE}'}",
        "Type SIZE=VALUE before the command",
    ),
    "resolver": (
        "model: {_target_: mine.Net, width: '${twice:3}'}",
        "model.width: the resolver twice is not registered here",
    ),
    "interpolated node": (
        "model: {_target_: mine.Net, optimizer: '${optimizer}'}",
        "model.optimizer: it refers to ${optimizer}",
    ),
    "interpolated model": ("model: '${nets.small}'", "nets.small"),
    "YAML syntax": ("model: [", "expected the node content"),
    "missing file of a config group": ("defaults: [model: big]", "In 'train': Could not find 'model/big'"),
    "no factory": (
        "model: {_target_: mine.Net}",
        "train has no node with _target_: lightning_optim.OptimizerFactory. Type +optimizer=adamw_groups",
    ),
}


@pytest.mark.parametrize(("config", "message"), every_row(CONFIG_MISTAKES, fast=6))
def test_a_mistake_in_a_config_is_refused(explain_error, monkeypatch, config, message) -> None:
    monkeypatch.delenv("SIZE", raising=False)
    assert message in explain_error(config)


def test_a_missing_config_is_refused_with_the_nearest_name(cli_error, tmp_path: Path) -> None:
    (tmp_path / "train.yaml").touch()
    command = ("explain", "--config-dir", str(tmp_path), "--module", "model", "--config-name")
    error = cli_error(*command, "trian")
    assert "--config-name: there is no trian.yaml in " in error and "Did you mean 'train'?" in error
    assert "there is no trian.yaml in " in cli_error(*command, "trian.yaml")
    error = cli_error("explain", "--config-dir", "nowhere", "--config-name", "x", "--module", "y")
    assert "--config-dir: there is no folder nowhere" in error
