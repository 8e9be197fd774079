"""`layers: auto` where users compose models: in a LightningModule, a Sequential, several towers, models of timm."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory
from tests.support.numbered_blocks import bert, block, blocks, by_module, depth_of, depths, holder, linear

GROUPS = {"depth": {"layers": "auto", "layer_decay": 0.5}}


def lr_by_parameter(module: nn.Module) -> dict[str, float]:
    groups = OptimizerFactory("sgd", lr=1.0, groups=GROUPS)(module).param_groups
    return {name: group["lr"] for group in groups for name in group["param_names"]}


def group_names(module: nn.Module) -> list[str]:
    return [group["name"] for group in OptimizerFactory("sgd", lr=1.0, groups=GROUPS)(module).param_groups]


# In a LightningModule.


def attributes(*, layers: nn.Module) -> dict[str, nn.Module]:
    return {"patches": nn.Conv2d(3, 2, 2), "layers": layers, "norm": nn.LayerNorm(2), "head": linear()}


@pytest.mark.parametrize("base", [nn.Module, LightningModule])
@pytest.mark.parametrize(
    ("layers", "num"),
    [
        (blocks(3), 3),
        (nn.Sequential(*blocks(2)), 2),
        (nn.TransformerEncoder(nn.TransformerEncoderLayer(2, 2, 4, batch_first=True), 2), 2),
    ],
    ids=["list", "sequential", "module with a list"],
)
def test_a_lightning_module_that_is_the_model_itself_has_a_stem(base, layers, num):
    model = base()
    for name, module in attributes(layers=layers).items():
        model.add_module(name, module)
    found = depths(model)
    assert depth_of(found, "patches") == num + 1
    assert depth_of(found, "norm") == depth_of(found, "head") == 0


def test_a_lightning_module_that_holds_the_model_adds_nothing_to_its_stem():
    module = LightningModule()
    module.loss, module.net = nn.Linear(2, 2), bert()
    found = depths(module)
    assert depth_of(found, "loss") == 0 and depth_of(found, "net.embeddings") == 4


# In a Sequential.


@pytest.mark.parametrize("head", [linear(), nn.Sequential(linear(), nn.ReLU(), linear())])
@pytest.mark.parametrize("path", ["", "net."])
def test_a_sequential_of_a_model_and_its_head_has_the_layers_of_the_model(path, head):
    model = nn.Sequential(bert(), head)
    found = depths(holder(net=model) if path else model)
    assert depth_of(found, f"{path}0.embeddings") == 4
    assert [depth_of(found, f"{path}0.encoder.layer.{i}") for i in range(3)] == [3, 2, 1]
    assert depth_of(found, f"{path}0.pooler") == depth_of(found, f"{path}1") == 0


def test_a_sequential_of_blocks_is_a_series_though_what_is_before_and_after_them_differs():
    found = by_module(depths(holder(net=nn.Sequential(linear(), block(), block(), linear()))), 2)
    assert found == {"net.0": 4, "net.1": 3, "net.2": 2, "net.3": 1}


def test_a_sequential_of_stages_is_a_series_though_their_numbers_of_blocks_differ():
    stages = nn.Sequential(*(holder(blocks=nn.Sequential(*blocks(n))) for n in (1, 4, 9)))
    found = depths(holder(stem=linear(), stages=stages, head=linear()))
    assert [depth_of(found, f"stages.{i}.blocks.0") for i in range(3)] == [14, 13, 9]
    found = depths(nn.Sequential(nn.Conv2d(3, 2, 2), nn.BatchNorm2d(2), *stages, linear()))
    assert [depth_of(found, str(i)) for i in range(6)] == [6, 5, 4, 3, 2, 1]


# Peft's and the compiler's wrappers.


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")
def test_wrappers_of_peft_and_the_compiler_change_nothing():
    wrapped = holder(base_model=holder(model=holder(net=torch.compile(bert()), lm_head=linear())))
    found = depths(wrapped)
    assert depth_of(found, "base_model.model.net.embeddings") == 4
    assert [depth_of(found, f"base_model.model.net.encoder.layer.{i}") for i in range(3)] == [3, 2, 1]
    assert depth_of(found, "base_model.model.lm_head") == 0


# What is defined before the layers and used after them.


@pytest.mark.parametrize("name", ["head", "classifier", "fc", "lm_head"])
def test_a_head_defined_before_the_layers_is_no_stem(name):
    found = depths(holder(**{name: linear()}, embed=linear(), layers=blocks(2)))
    assert found[f"{name}.weight"] == 0 and found["embed.weight"] == 3


def test_inside_a_model_only_an_output_layer_is_no_stem():
    found = depths(holder(net=holder(resnet_head=linear(), fc=linear(), lm_head=linear(), layers=blocks(2))))
    assert {name: depth for name, depth in found.items() if "layers" not in name} == {
        "net.resnet_head.weight": 3,
        "net.fc.weight": 3,
        "net.lm_head.weight": 0,
    }


# Several towers.


def test_a_tower_on_the_model_itself_beside_another_one_has_its_stem_and_legal_names():
    stages = {f"layer{i}": nn.Sequential(*blocks(2)) for i in (1, 2)}
    model = holder(conv1=linear(), **stages, auxiliary=holder(blocks=blocks(2)), fc=linear())
    found = depths(model)
    assert found["conv1.weight"] == 5 and found["fc.weight"] == 0
    names = group_names(model)
    assert names[:2] == ["depth.stem", "depth.0"] and "depth.auxiliary.0" in names


def test_towers_in_a_dict_with_any_keys_get_legal_and_different_names():
    towers = nn.ModuleDict({key: holder(stem=linear(), blocks=blocks(2)) for key in ("my image", "my/image", "txt")})
    expected = [f"depth.{tower}.{layer}" for tower in ("my_image", "my_image_", "txt") for layer in ("stem", 0, 1)]
    assert group_names(holder(towers=towers)) == expected


def test_downsampling_before_the_first_stage_is_the_stem_though_it_is_defined_after_the_stages():
    stages = nn.ModuleList([nn.Sequential(*blocks(n)) for n in (1, 2, 1)])
    down = nn.ModuleList([nn.Sequential(linear(), nn.LayerNorm(2)) for _ in range(3)])
    found = depths(holder(stages=stages, downsample_layers=down))
    assert [depth_of(found, f"downsample_layers.{i}") for i in range(3)] == [5, 3, 1]


# Models of timm.


class Timm(nn.Module):
    def __init__(self, num_blocks: int) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = linear(), blocks(num_blocks), linear()

    def group_matcher(self, coarse: bool = False):
        return {"stem": "^stem", "blocks": r"^blocks\.(\d+)"}


def test_two_models_of_timm_have_their_own_lrs_though_their_attributes_have_the_same_name():
    found = lr_by_parameter(holder(image=holder(net=Timm(2)), text=holder(net=Timm(4))))
    assert [found[f"image.net.blocks.{i}.mlp.weight"] for i in range(2)] == [1 / 4, 1 / 2]
    assert [found[f"text.net.blocks.{i}.mlp.weight"] for i in range(4)] == [1 / 16, 1 / 8, 1 / 4, 1 / 2]
    assert (found["image.net.stem.weight"], found["text.net.stem.weight"]) == (1 / 8, 1 / 32)


@pytest.mark.parametrize("vision", [Timm(2), holder(stem=linear(), blocks=blocks(2), head=linear())])
def test_what_connects_two_towers_is_no_stem(vision):
    found = depths(holder(vision=vision, connector=linear(), llm=holder(embed=nn.Embedding(5, 2), layers=blocks(3))))
    assert found["connector.weight"] == 0 and found["llm.embed.weight"] == 4 and found["vision.stem.weight"] == 3


# Nothing to find.


@pytest.mark.parametrize("num_blocks", [0, 1])
def test_fewer_than_two_blocks_are_refused_with_what_to_type(num_blocks):
    model = holder(embed=nn.Embedding(5, 2), layers=blocks(num_blocks), head=linear())
    with pytest.raises(ConfigError, match=r"two or more numbered modules .* groups\.depth\.layers: net\.stage\{i\}"):
        depths(model)
    if num_blocks:
        assert depth_of(depths(model, "layers.{i}"), "layers.0") == 1
