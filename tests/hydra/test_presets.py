"""An error of a rule or stage that a preset ships says so, and what to type."""

from __future__ import annotations

import shlex

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory, StagedUnfreeze
from lightning_optim.groups.presets import PRESETS
from lightning_optim.groups.selectors import SELECTORS, Selector
from tests.support.apps import CHECKOUT
from tests.support.cases import every

CONF = CHECKOUT / "conf"


class Net(nn.Module):
    """A LightningModule as most are: the model is in `net`, and has layers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Module()
        self.net.body = nn.Module()
        self.net.body.embed = nn.Linear(2, 2)
        self.net.body.layer = nn.ModuleList(nn.Sequential(nn.Linear(2, 2)) for _ in range(2))
        self.net.top = nn.Linear(2, 2)


def read_presets() -> dict[str, list[tuple[str, dict[str, tuple[str, ...]]]]]:
    """By config key: the presets that have such a rule or stage, each with its selectors."""
    entries = []
    for path in sorted((CONF / "optimizer" / "groups").glob("*.yaml")):
        rules = OmegaConf.to_container(OmegaConf.load(path))
        entries += [(f"groups.{name}", path.stem, rule) for name, rule in rules.items()]
    for path in sorted((CONF / "unfreeze").glob("*.yaml")):
        stages = OmegaConf.to_container(OmegaConf.load(path)).get("stages", {})
        entries += [(f"stages.{name}", path.stem, stage) for name, stage in stages.items()]
    found: dict[str, list[tuple[str, dict[str, tuple[str, ...]]]]] = {}
    for key, preset, entry in entries:
        selector = Selector.parse(entry, key)
        selectors = {name: values for name in SELECTORS if (values := getattr(selector, name))}
        found.setdefault(key, []).append((preset, selectors))
    return found


def test_the_table_in_the_package_agrees_with_the_files():
    found = read_presets()
    assert PRESETS.keys() == found.keys()
    for key, entries in found.items():
        assert sorted(PRESETS[key].names) == sorted(name for name, _ in entries), key
        assert all(PRESETS[key].selectors == selectors for _, selectors in entries), key


# By error: the app's defaults, what `groups` or `stages` key is refused, and what replaces the placeholders.
BACKBONE, HEAD, PATH = ("NAME", "net.body"), ("NAME", "net.top"), ("PATH", "net.body.layer")
CASES = {
    "muon_hidden": (["optimizer: muon_adamw"], "groups.hidden", BACKBONE),
    "soap_hidden": (["optimizer: soap_adamw"], "groups.hidden", BACKBONE),
    "backbone_head": (["optimizer: adamw", "optimizer/groups: [backbone_head]"], "groups.backbone", BACKBONE),
    "backbone_head, head": (["optimizer: adamw", "optimizer/groups: [backbone_head]"], "groups.head", HEAD),
    "head_then_backbone": (["unfreeze: head_then_backbone"], "stages.backbone", BACKBONE),
    "head_then_backbone, head": (["unfreeze: head_then_backbone"], "stages.head", HEAD),
    "gradual": (["unfreeze: gradual"], "stages.top", BACKBONE),
}


def use(config, model):
    if "unfreeze" in config:
        instantiate(config.unfreeze).explain(model)
    else:
        instantiate(config.optimizer)(model)


@pytest.mark.parametrize("case", every(CASES, fast=["muon_hidden", "backbone_head, head", "gradual"]))
def test_the_error_of_a_preset_says_what_to_type_and_that_works(case, write_app):
    defaults, key, names = CASES[case]
    app = write_app({"config.yaml": f"defaults: [{', '.join(f'{{{item}}}' for item in defaults)}]"})
    others = {
        "groups.backbone": ["optimizer.groups.head=null"],
        "groups.head": ["optimizer.groups.backbone=null"],
        "stages.backbone": ["unfreeze.stages.head.params=net.top"],
        "stages.head": ["unfreeze.stages.backbone.params=net.body"],
        "stages.top": ["unfreeze.stages.head.params=net.top"],
    }.get(key, [])
    with pytest.raises(ConfigError) as caught:
        use(app.compose(*others), Net())
    message = str(caught.value)
    assert message.startswith(f"{key}: params ") and "If it comes from the preset " in message
    typed = message.partition("If it comes from the preset ")[2].partition(", type ")[2]
    typed = typed.partition(" with the name of your")[0].replace(*names)
    use(app.compose(*others, *(word for word in shlex.split(typed) if word != "and")), Net())


def test_where_a_model_has_no_layers_the_preset_says_how_to_name_them(write_app):
    app = write_app({"config.yaml": "defaults: [optimizer: adamw_llrd]"})
    model = nn.Module()
    model.net = nn.Module()
    for number in (1, 2):
        setattr(model.net, f"part{number}", nn.Linear(2, 2))
    with pytest.raises(ConfigError) as caught:
        use(app.compose(), model)
    message = str(caught.value)
    hint = "If it comes from the preset layer_decay, type 'optimizer.groups.depth.layers=\"PATH.{i}\"' with the path"
    assert message.startswith("groups.depth.layers: auto finds no layers") and hint in message
    (typed,) = shlex.split(message.partition(", type ")[2].partition(" with the path")[0].replace("PATH.", "net.part"))
    use(app.compose(typed), model)


def test_a_preset_that_a_model_has_no_use_for_can_be_left_out(write_app):
    app = write_app({"config.yaml": "defaults: [optimizer: adamw_groups]"})
    model = nn.Linear(2, 2, bias=False)
    with pytest.raises(ConfigError) as caught:
        use(app.compose(), model)
    typed = "optimizer.groups.no_decay=null"
    assert f"If it comes from the preset no_decay, type {typed} to leave it out." in str(caught.value)
    use(app.compose(typed), model)


@pytest.mark.parametrize(
    "rule", [{"params": "body"}, {"params": "backbone", "kinds": "matrix"}, {"classes": "Conv2d"}], ids=str
)
def test_a_rule_with_other_selectors_has_no_such_hint(rule):
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory("adamw", groups={"backbone": {**rule, "lr_scale": 0.1}})(Net())
    assert "preset" not in str(caught.value)


def test_a_stage_below_one_that_takes_all_has_no_such_hint():
    stages = {"first": {"params": "net"}, "backbone": {"params": "net.body", "at": {"epoch": 1}}}
    with pytest.raises(ConfigError, match="belong to a stage above it") as caught:
        StagedUnfreeze(stages).explain(Net())
    assert "preset" not in str(caught.value)
