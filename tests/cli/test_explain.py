"""`explain`: the plans of a recipe and of users' apps, and a plain message for whatever is wrong in a config."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_optim.groups.plan import Plan
from tests.support.user_environments import HERE

RECIPES = ("--config-dir", str(HERE.parents[1] / "recipes" / "conf"), "--config-name", "finetune", "--module")
CODE = """
from lightning.pytorch import LightningModule
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4, path=None, optimizer=None, scheduler=None):
        super().__init__()
        self.head = nn.Linear(int(width), 2)

class Written(Net):
    def __init__(self, folder):
        print("writes to", folder)
        super().__init__()

class Late(LightningModule):
    def __init__(self, made=False, trained=False):
        super().__init__()
        self.trained = trained
        if made:
            self.stem = nn.Linear(1, 1)

    def configure_model(self):
        if self.trained:
            self.trainer.world_size
        self.head = nn.Linear(3, 2)

class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.LazyLinear(2)

class Broken(nn.Module):
    def __init__(self):
        raise OSError("no weights\\n  here")
"""
ADAMW = "{_target_: lightning_optim.OptimizerFactory, name: adamw}"


@pytest.fixture
def explain(printed, write_app, monkeypatch, tmp_path: Path) -> Callable[..., str]:
    """Runs it in a user's app of these configs, whose code is the module `mine`."""
    return _in_app(printed, write_app, monkeypatch, tmp_path)


@pytest.fixture
def refusal(refused, write_app, monkeypatch, tmp_path: Path) -> Callable[..., str]:
    """The same, where it refuses."""
    return _in_app(refused, write_app, monkeypatch, tmp_path)


def _in_app(run, write_app, monkeypatch, folder: Path) -> Callable[..., str]:
    def explain(config: str, *arguments: str, module: str = "model", **files: str) -> str:
        (folder / "mine.py").write_text(CODE, encoding="utf-8")
        monkeypatch.chdir(folder)
        write_app({"train.yaml": config, **{f"{name.replace('__', '/')}.yaml": text for name, text in files.items()}})
        return run("explain", "--config-dir", "conf", "--config-name", "train", "--module", module, *arguments)

    return explain


def keys(out: str) -> list[str]:
    """The nodes that a table was printed for."""
    lines = out.splitlines()
    titles = [place for place, line in enumerate(lines) if line.strip() in ("Param groups", "Unfreeze plan")]
    return [lines[place - 1].strip() for place in titles]


def test_the_recipe(printed) -> None:
    out = printed("explain", *RECIPES, "model", "optimizer.lr=3e-4")
    assert keys(out) == ["optimizer: adamw", "unfreeze", "pretrain.optimizer: adamw"]
    assert "0.0003" in out and "backbone.no_decay" in out and "epoch 1" in out


# Users' apps.


@pytest.mark.parametrize("name", ["config", "config.yaml"])
@pytest.mark.parametrize("folder", ["conf", "./conf", "../plain/conf"])
def test_an_app_with_groups_of_its_own(printed, copy_app, monkeypatch, name, folder) -> None:
    monkeypatch.chdir(copy_app("plain"))
    out = printed("explain", "--config-dir", folder, "--config-name", name, "--module", "model")
    assert keys(out) == ["optimizer: adamw"], "the model refers to it: it is shown once"
    assert "│ no_decay │ adamw     │       4 │" in out


@pytest.mark.parametrize(
    ("config", "overrides", "key"),
    [
        ("train", ["model=adopted"], "model.optimizer"),
        ("train", ["+optimizer@model.optimizer=adamw_groups"], "model.optimizer"),
        ("train_top", [], "optimizer"),
    ],
    ids=["in the model config", "from the command line", "at the top level"],
)
def test_the_template(printed, copy_app, monkeypatch, config, overrides, key) -> None:
    """A LightningModule that is given net, optimizer and scheduler: rules see the names of its parameters."""
    monkeypatch.chdir(copy_app("template"))
    rule = f"+{key}.groups.top={{params: net.head, lr_scale: 10}}"
    command = ("explain", "--config-dir", "configs", "--config-name", config, "--module", "model")
    out = printed(*command, *overrides, rule)
    assert keys(out) == [f"{key}: adamw"]
    assert "│ no_decay.top │ adamw     │       1 │          2 │  0.01 │" in out


def test_the_template_before_it_is_adopted_is_told_how_to(refused, copy_app, monkeypatch) -> None:
    monkeypatch.chdir(copy_app("template"))
    said = refused("explain", "--config-dir", "configs", "--config-name", "train", "--module", "model")
    assert "model.optimizer is torch.optim.Adam. Type +optimizer@model.optimizer=adamw_groups" in said


def test_a_primary_config_made_of_groups(explain) -> None:
    out = explain(
        "defaults: [_self_, model: big, optimizer: sgd]",
        "model.width=3",
        "+optimizer.groups.h={params: head, lr_scale: 2}",
        model__big="{_target_: mine.Net, width: 64, optimizer: '${optimizer}'}",
    )
    assert keys(out) == ["optimizer: sgd"]
    assert "│ h     │ sgd       │       2 │          8 │ 0.002 │" in out


def test_hydras_own_values_resolve_as_in_a_run(explain, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RUNS", "somewhere")
    out = explain(
        f"""
        hydra: {{run: {{dir: '${{oc.env:RUNS}}/${{task}}'}}}}
        task: train
        paths: {{out: '${{hydra:runtime.output_dir}}', cwd: '${{hydra:runtime.cwd}}', name: '${{hydra:job.name}}'}}
        model: {{_target_: mine.Written, folder: '${{paths.out}} ${{paths.cwd}}'}}
        optimizer: {ADAMW}
        """
    )
    assert out.startswith(f"writes to {tmp_path}/somewhere/train {tmp_path}\n")
    assert not (tmp_path / "somewhere").exists()


def test_a_run_folder_that_needs_an_unset_variable_stops_nobody_who_does_not_ask(explain, monkeypatch) -> None:
    monkeypatch.delenv("RUNS", raising=False)
    out = explain(f"{{hydra: {{run: {{dir: '${{oc.env:RUNS}}'}}}}, model: {{_target_: mine.Net}}, optimizer: {ADAMW}}}")
    assert keys(out) == ["optimizer: adamw"]


def test_a_partial_model_is_called(explain) -> None:
    assert "10" in explain(f"{{model: {{_target_: mine.Net, _partial_: true}}, optimizer: {ADAMW}}}")


def test_layers_that_are_made_late(explain) -> None:
    assert "│ default │ adamw     │       2 │          8 │" in explain(
        f"{{model: {{_target_: mine.Late}}, optimizer: {ADAMW}}}"
    )


def test_layers_that_only_a_trainer_can_make_are_said_to_be_missing(explain) -> None:
    out = explain(f"{{model: {{_target_: mine.Late, made: true, trained: true}}, optimizer: {ADAMW}}}")
    assert out.startswith("note: model.configure_model() fails without a trainer: RuntimeError: ")
    assert "│ default │ adamw     │       2 │          2 │" in out


def test_each_node_is_shown_once_under_the_key_it_is_written_at(explain) -> None:
    out = explain(
        f"""
        first: '${{model}}'
        also: {{optimizer: '${{spare.0}}', again: ['${{model.optimizer}}', '${{also.again}}']}}
        made: '${{oc.create:{{_target_: lightning_optim.OptimizerFactory, name: lion}}}}'
        broken: '${{nowhere}}'
        model: {{_target_: mine.Net, optimizer: {ADAMW}}}
        spare: [{{_target_: lightning_optim.OptimizerFactory, name: sgd}}]
        """
    )
    assert keys(out) == ["model.optimizer: adamw", "spare.0: sgd", "made: lion"]


def test_why(printed, refused) -> None:
    out = printed("explain", *RECIPES, "model", "--why", "backbone.0.weight")
    assert keys(out) == []
    assert out.index("optimizer: adamw") < out.index("backbone.0.weight") < out.index("pretrain.optimizer: adamw")
    assert "backbone.0.weight" in refused("explain", *RECIPES, "model", "--why", "backbone.0.wieght")


def test_why_asks_the_plan(printed, monkeypatch) -> None:
    monkeypatch.setattr(Plan, "why", lambda self, name: f"{name} is one of {len(self.tensors)}")
    out = printed("explain", *RECIPES, "model", "--why", "head.1.bias")
    assert [line.strip() for line in out.splitlines()] == [
        "optimizer: adamw",
        "head.1.bias is one of 11",
        "pretrain.optimizer: adamw",
        "head.1.bias is one of 11",
    ]


def test_the_factorys_errors_are_headed_by_its_key(refused) -> None:
    said = refused("explain", *RECIPES, "model", "+pretrain.optimizer.groups={h: {params: heda, lr_scale: 2}}")
    assert said.startswith("pretrain.optimizer: groups.h")


# What is wrong, and what to type.

NET = "model: {_target_: mine.Net}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["modle"], "--module: modle is no node with a _target_. Such nodes are: "),
        (["modle"], "Did you mean 'model'?"),
        (["seed"], "--module: seed is no node with a _target_. Such nodes are: "),
        (["monitor"], "--module: monitor makes a OptimizerMonitor, not a torch.nn.Module"),
        (["model", "+optimizer.weigth_decay=1"], "optimizer: weigth_decay: adamw has no hyperparameter 'weigth_decay'"),
        (["model", "optimizer.weigth_decay=1"], "Could not override 'optimizer.weigth_decay'"),
        (["model", "optimizer.lr=abc"], "optimizer: lr: got 'abc'"),
        (["model", "optimizer=adamv"], "Could not find 'optimizer/adamv'. Did you mean 'adam'? There are: adabelief"),
        (["model", "unfreeze.stages.backbone.params=bakcbone"], "unfreeze: stages.backbone: "),
        (["model", "unfreeze.stages.backbone.params=bakcbone"], "Did you mean 'backbone'"),
        (["model", "optimizer=null"], "Got NoneType. To leave a config group out, type ~GROUP"),
        (["model", "optimizer._partial_=true"], "Type optimizer._partial_=false"),
        (["model", "optimizer.lr=["], "optimizer.lr=[: this is no override of Hydra's: "),
        (["model", "model.width=???"], "model.width: it has no value (???). Type model.width=VALUE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_on_the_command_line(refused, arguments, message) -> None:
    assert message in refused("explain", *RECIPES, *arguments)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("model: {_target_: mine.Nte}", "model._target_: cannot import mine.Nte: "),
        ("model: {_target_: yours.Net}", "model._target_: cannot import yours.Net: No module named 'yours'. Run this"),
        ("model: {_target_: mine.Net, widht: 3}", "model: TypeError: Net.__init__() got an unexpected keyword"),
        ("model: {_target_: mine.Broken}", "model: OSError: no weights here"),
        ("model: {_target_: mine.Lazy}", "--module: model learns the shapes of head.weight, head.bias from its first"),
        ("model: {_target_: mine.Late, trained: true}", "--module: model.configure_model() fails without a trainer: "),
        (
            "model: {_target_: mine.Written, _partial_: true}",
            "calling it as it is fails: TypeError: Written.__init__() missing 1",
        ),
        (
            "model: {_target_: mine.Net, width: '${size}'}",
            "model.width: it refers to ${size}, and there is no such key",
        ),
        ("{size: '${oc.env:SIZE}', model: {_target_: mine.Net, path: {a: ['${size}']}}}", "model.path.a.0: "),
        ("model: {_target_: mine.Net, width: '${oc.env:SIZE}'}", "Type SIZE=VALUE before the command"),
        ("model: {_target_: mine.Net, width: '${twice:3}'}", "model.width: there is no resolver twice here"),
        ("model: {_target_: mine.Net, optimizer: '${optimizer}'}", "model.optimizer: it refers to ${optimizer}"),
        ("model: '${nets.small}'", "nets.small"),
        ("model: [", "expected the node content"),
        ("defaults: [model: big]", "In 'train': Could not find 'model/big'"),
        (NET, "train holds no node with _target_: lightning_optim.OptimizerFactory. Type +optimizer=adamw_groups"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_mistakes_in_a_config(refusal, monkeypatch, config, message) -> None:
    monkeypatch.delenv("SIZE", raising=False)
    assert message in refusal(config)


def test_tables_load_neither_lightning_nor_matplotlib(run_python, tmp_path: Path) -> None:
    model = "{_target_: torch.nn.Linear, in_features: 3, out_features: 2}"
    (tmp_path / "train.yaml").write_text(f"{{model: {model}, optimizer: {ADAMW}}}", encoding="utf-8")
    code = (
        "import sys; from lightning_optim.cli import main; main(sys.argv[1:]); "
        "print([name for name in ('lightning', 'matplotlib') if name in sys.modules])"
    )
    there = ("--config-dir", str(tmp_path), "--config-name", "train", "--module", "model")
    out = run_python(code, "explain", *there)
    assert "Param groups" in out and out.splitlines()[-1] == "[]"


def test_a_config_that_is_not_there(refused, tmp_path: Path) -> None:
    (tmp_path / "train.yaml").touch()
    there = ("--config-dir", str(tmp_path), "--module", "model", "--config-name")
    assert "--config-name: there is no trian.yaml in " in (said := refused("explain", *there, "trian"))
    assert "Did you mean 'train'?" in said
    assert "there is no trian.yaml in " in refused("explain", *there, "trian.yaml")
    nowhere = refused("explain", "--config-dir", "nowhere", "--config-name", "x", "--module", "y")
    assert "--config-dir: there is no folder nowhere" in nowhere
