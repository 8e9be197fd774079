"""The presets of `conf/unfreeze`: when their stages thaw, on which models, and what the command line can change."""

from __future__ import annotations

import copy
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn

from lightning_optim import StagedUnfreeze
from tests.support.staged_plans import DeepNet, thaw_steps
from tests.support.training import Loader, StepTrace, fit

CONF = Path(__file__).parents[2] / "conf"


def preset(name: str, *overrides: str) -> StagedUnfreeze:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose(overrides=[f"+unfreeze={name}", *overrides]).unfreeze)


@pytest.mark.parametrize(
    ("name", "epochs_each"), [("gradual", 1), ("gradual_plateau", 3)], ids=["gradual", "gradual_plateau"]
)
def test_a_preset_thaws_the_layers_then_the_rest(tmp_path, name, epochs_each) -> None:
    class FlatNet(DeepNet):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val/loss", 1.0)

    module, trace = FlatNet(), StepTrace()
    before = copy.deepcopy(module.state_dict())
    fit(module, tmp_path, preset(name), trace, epochs=4 * epochs_each + 1, loader=Loader(2))
    stages = ("top.2", "top.1", "top.0", "rest")
    expected = {stage: 2 * epochs_each * number for number, stage in enumerate(stages, start=1)}
    assert thaw_steps(trace) == {"head": 0, **expected}
    assert trace.steps[-1] == {"head": 0.01, **dict.fromkeys(stages, 0.001)}
    assert [name for name, p in module.named_parameters() if torch.equal(p, before[name])] == []


@pytest.mark.parametrize("name", ["layers", "blocks", "h"])
def test_a_preset_finds_layers_under_their_usual_names(name) -> None:
    model = nn.Module()
    model.backbone, model.head = nn.Module(), nn.Linear(2, 2)
    model.backbone.encoder = nn.Module()
    model.backbone.embed = nn.Linear(2, 2)
    setattr(model.backbone.encoder, name, nn.ModuleList(nn.Linear(2, 2) for _ in range(2)))
    rows = preset("gradual").explain(model).rows()
    assert [row["group"] for row in rows[:-1]] == ["head", "top.1", "top.0", "rest"]


PLATEAUS = ("top.at", "top.each", "rest.at")
OVERRIDES: dict[str, tuple[str, list[str], list[str]]] = {
    "other epochs": (
        "gradual",
        ["unfreeze.stages.top.each.epochs=2", "unfreeze.stages.rest.at.after.epochs=5"],
        ["from the start", "epoch 1", "2 epochs after x", "5 epochs after the stage above"],
    ),
    "by steps": (
        "gradual",
        ["unfreeze.stages.top.each.epochs=null", "+unfreeze.stages.top.each.steps=500"],
        ["from the start", "epoch 1", "500 steps after x", "1 epoch after the stage above"],
    ),
    "no head": (
        "gradual",
        ["unfreeze.stages.top.at=null", "unfreeze.stages.head=null"],
        ["from the start", "1 epoch after x", "1 epoch after the stage above"],
    ),
    "another metric": (
        "gradual_plateau",
        [f"unfreeze.stages.{key}.plateau.monitor=val/acc" for key in PLATEAUS]
        + [f"+unfreeze.stages.{key}.plateau.mode=max" for key in PLATEAUS],
        ["from the start", *["plateau of val/acc, patience 2"] * 3],
    ),
    "an epoch instead": (
        "gradual_plateau",
        ["unfreeze.stages.rest.at.plateau=null", "+unfreeze.stages.rest.at.epoch=9"],
        ["from the start", *["plateau of val/loss, patience 2"] * 2, "epoch 9"],
    ),
}
"""The preset, the overrides, and the triggers of its stages and layers."""


@pytest.mark.parametrize(("name", "overrides", "triggers"), OVERRIDES.values(), ids=OVERRIDES)
def test_a_preset_can_be_changed_on_the_command_line(name, overrides, triggers) -> None:
    found = []
    for stage in preset(name, *overrides).stages:
        found += [str(stage.trigger)] + ([] if stage.each is None else [str(stage.each("x"))])
    assert found == triggers


@pytest.mark.parametrize("name", ["gradual", "gradual_plateau"])
def test_the_overrides_in_a_preset_s_comments_are_valid(name) -> None:
    lines = [line for line in (CONF / f"unfreeze/{name}.yaml").read_text().splitlines() if "unfreeze.stages." in line]
    overrides = [word.rstrip(";,.") for line in lines for word in shlex.split(line) if "unfreeze.stages." in word]
    assert overrides
    for override in overrides:
        assert isinstance(preset(name, override), StagedUnfreeze)
