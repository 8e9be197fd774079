"""Promises of the README and the documentation that no other test holds: see docs/promises.md."""

from __future__ import annotations

import functools
import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch import strategies
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_optim import ConfigError, OptimizerFactory, OptimizerMonitor, SchedulerFactory, configure_optimizers
from lightning_optim.catalog.built_in import BUILT_IN
from tests.support.apps import App, copy_app, search_path_plugin, write_app  # noqa: F401
from tests.support.documentation import README, find_blocks, split_commands
from tests.support.optimizer_runs import MEMBERS, differences, native_class, new_grads, shapes_of, trajectory
from tests.support.processes import ROOT
from tests.support.short_runs import IGNORED_WARNINGS, build_loader, build_trainer, lr_by_group
from tests.support.training import BATCHES, Net, StepTrace, fit

PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def find_block(language: str, page: str, text: str) -> str:
    """The one block of a page in a language that has this text."""
    (block,) = find_blocks(language, page, text)
    return block.text


def test_versions_are_those_that_pip_requires() -> None:
    python, newest = re.search(r"^Python (3\.\d+) to (3\.\d+);", README, re.MULTILINE).groups()
    assert f'requires-python = ">={python}"' in PYPROJECT
    assert f'python: ["{python}", "{newest}"]' in (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    for name in ("torch", "lightning"):
        (version,) = re.findall(rf"\b{name} ≥ (\d[\d.]*\d)", README)
        assert f'"{name}>={version}"' in PYPROJECT
    (installed,) = re.findall(r"`torch==([\d.]+)` from torch's CPU index", README)
    assert f"\ntorch=={installed}\n" in (ROOT / "constraints.txt").read_text(encoding="utf-8")


# An app from lightning-hydra-template


@pytest.fixture
def template(copy_app: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> App:  # noqa: F811
    """The app after the line of the README, with the groups and keys of the template that the commands use."""
    root = copy_app("template")
    text = "defaults: [_self_, model: adopted, logger: csv]\ncallbacks: {}\ntrainer: {max_epochs: 2}\n"
    (root / "configs" / "train.yaml").write_text(text, encoding="utf-8")
    (root / "configs" / "logger").mkdir()
    for name in ("csv", "tensorboard"):
        (root / "configs" / "logger" / f"{name}.yaml").write_text(f"name: {name}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(root))
    return App(root, "configs", "train")


SCHEDULES = {
    "replaced": (", {/scheduler@scheduler: cosine_annealing}", "{T_max: '${trainer.max_epochs}'}", 0.0),
    "null": ("", "null", 1e-3),
}


@pytest.mark.parametrize(("default", "scheduler", "last_lr"), SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.filterwarnings(*(mark.args[0] for mark in IGNORED_WARNINGS))
def test_the_template_s_scheduler_is_replaced_too_or_null(template, tmp_path, default, scheduler, last_lr) -> None:
    text = (template.root / "configs/model/adopted.yaml").read_text(encoding="utf-8")
    text = re.sub(
        r"defaults:\n( .+\n)+", f"defaults: [{{/optimizer@optimizer: adamw_groups}}{default}, _self_]\n", text
    )
    path = template.root / "configs/model/mine.yaml"
    path.write_text(f"{text}scheduler: {scheduler}\n", encoding="utf-8")
    model = instantiate(template.compose("model=mine").model)
    saved = ModelCheckpoint(tmp_path)
    trainer = build_trainer(tmp_path, saved, max_epochs=2)
    trainer.fit(model, build_loader(), build_loader())
    assert lr_by_group(trainer.optimizers[0]) == pytest.approx({"default": last_lr, "no_decay": last_lr})
    assert trainer.test(model, build_loader(), ckpt_path=saved.best_model_path, verbose=False)


def test_a_checkpoint_with_a_partial_of_hydra_does_not_load_and_one_with_factories_does(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    factories = {"optimizer": OptimizerFactory("sgd"), "scheduler": SchedulerFactory("constant")}
    torch.save({"hyper_parameters": factories}, path)
    assert torch.load(path, weights_only=True)["hyper_parameters"] == factories
    torch.save({"hyper_parameters": {"optimizer": functools.partial(torch.optim.SGD, lr=0.1)}}, path)
    with pytest.raises(pickle.UnpicklingError, match=r"functools\.partial"):
        torch.load(path, weights_only=True)


# A key with the name of one of our groups; the command line


@pytest.mark.parametrize(
    ("config", "override", "is_ours"),
    [
        ("monitor: val_acc", "monitor=default", False),
        ("monitor: val_acc", "monitor=val_loss", False),
        ("a: 1", "+monitor=default", True),
        ("monitor: val_acc", "+monitor=default", True),
        ("a: 1", "+monitor=val_loss", False),
        ("monitor: val_acc", "++monitor=default", False),
        ("a: 1", "++monitor=default", False),
    ],
)
def test_an_override_sets_the_key_or_adds_our_config(config, override, is_ours, write_app) -> None:  # noqa: F811
    node = write_app({"config.yaml": config}).compose(override).monitor
    if is_ours:
        assert node._target_ == "lightning_optim.OptimizerMonitor"
    else:
        assert node == override.partition("=")[2]


class TakesFactory(Net):
    def __init__(self, optimizer: OptimizerFactory) -> None:
        super().__init__(lambda module: configure_optimizers(module, optimizer))
        self.optimizer = optimizer


def test_lightning_cli_takes_one_key_of_a_rule_or_a_whole_rule() -> None:
    (block,) = (block for block in find_blocks("bash", "docs/lightning_cli.md"))
    one_key, whole = (words[-1] for words in split_commands(block) if words[-1].startswith("--model"))
    given = ["--model.optimizer=lightning_optim.OptimizerFactory", "--model.optimizer.init_args.name=adamw"]
    given.append("--model.optimizer.init_args.groups={head: {params: head, lr_scale: 10, weight_decay: 0}}")
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(TakesFactory, "model")
    for option, head in (
        (one_key, {"params": "head", "lr_scale": 5, "weight_decay": 0}),
        (whole, {"params": "head", "lr_scale": 5}),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # jsonargparse, of a method that Lightning calls too
            factory = parser.instantiate_classes(parser.parse_args([*given, option])).model.optimizer
        assert factory.groups == {"head": head}, option


# Rules


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(2, 4)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(self.block() for _ in range(3))})

    @staticmethod
    def block() -> nn.Module:
        return nn.ModuleDict({"dense": nn.Linear(4, 4), "norm": nn.LayerNorm(4)})


def test_the_rules_of_the_example_compose_as_documented(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(find_block("yaml", "docs/rules.md", "layers: auto"), encoding="utf-8")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        factory = instantiate(compose("config").optimizer)
    net = nn.ModuleDict({"backbone": Backbone(), "head": nn.Linear(4, 2)})
    groups = {name: group for group in factory(net).param_groups for name in group["param_names"]}
    stem = {"backbone.stem.weight", "backbone.stem.bias"}
    assert groups.keys() == dict(net.named_parameters()).keys() - stem
    assert not any(p.requires_grad for p in net["backbone"].stem.parameters())
    defaults = BUILT_IN["muon"].defaults
    for i in range(3):
        layer = 0.75 ** (3 - i)
        block = f"backbone.encoder.layer.{i}"
        norm, bias, weight = (groups[f"{block}.{name}"] for name in ("norm.weight", "dense.bias", "dense.weight"))
        assert (norm["lr"], norm["weight_decay"]) == (pytest.approx(3e-4 * 0.1 * 0.5 * layer), 0)
        assert (bias["lr"], bias["weight_decay"]) == (pytest.approx(3e-4 * 0.1 * layer), 0)
        assert (weight["algorithm"], weight["lr"]) == ("muon", pytest.approx(0.02 * 0.1 * layer))
        assert all(weight[key] == defaults[key] for key in ("momentum", "weight_decay", "ns_steps"))
    assert groups["head.weight"]["lr"] == 3e-4 and groups["head.weight"]["schedule"] == {"name": "constant"}


# Optimizers


@pytest.mark.slow
def test_maximize_ascends_in_every_optimizer() -> None:
    for position, name in enumerate(MEMBERS):
        foreach = position % 2 == 0  # each rule once, either execution with half of them
        script = new_grads(shapes=shapes_of(name), num_steps=10)
        negated = [[None if grad is None else -grad for grad in grads] for grads in script]
        descent = trajectory(native_class(name), lr=0.01, foreach=foreach, script=script)
        ascent = trajectory(native_class(name), lr=0.01, foreach=foreach, script=negated, maximize=True)
        assert differences(ascent, descent) == [], (name, foreach)


# What it does not do


@pytest.mark.parametrize("name", ["FSDPStrategy", "DeepSpeedStrategy"])
def test_the_monitor_refuses_strategies_whose_optimizers_have_pieces_of_parameters(name: str) -> None:
    cls = getattr(strategies, name)
    trainer = SimpleNamespace(strategy=cls.__new__(cls), loggers=[object()])
    with pytest.raises(ConfigError, match=rf"^monitor: trainer\.strategy: under {name} .*flattened pieces"):
        OptimizerMonitor().setup(trainer, nn.Linear(1, 1), "fit")


class Counting(Net):
    """Logs a metric that never improves."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("metric", float(self.global_step))
        return super().training_step(batch, batch_idx)


def by_factory(module: Net) -> Any:
    given = {"interval": "epoch", "monitor": "metric", "patience": 0, "factor": 0.5}
    return configure_optimizers(module, OptimizerFactory("sgd", lr=1.0), SchedulerFactory("reduce_on_plateau", **given))


def by_hand(module: Net) -> Any:
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    scheduler = ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "metric"}}


@pytest.mark.slow
@pytest.mark.parametrize("configure", [by_factory, by_hand])
def test_without_stages_reduce_on_plateau_by_epoch_resumes_late_as_in_lightning(tmp_path: Path, configure) -> None:
    def lrs(**arguments: Any) -> list[float]:
        trace = StepTrace(lambda trainer, _: trainer.optimizers[0].param_groups[0]["lr"])
        fit(Counting(configure), tmp_path, trace, epochs=5, **arguments)
        return trace.steps

    assert lrs(save=True).index(0.5) == 2 * BATCHES
    late = {done: done + lrs(ckpt_path=tmp_path / f"step={done}.ckpt").index(0.5) for done in (5, 7, 8)}
    assert late == {5: 3 * BATCHES, 7: 3 * BATCHES, 8: 4 * BATCHES}
