"""`layers: auto` and patterns with two numbers: the layers, stems and towers of models as others lay them out."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory
from lightning_optim.groups.selectors import Selector
from lightning_optim.stages.stages import claim, parse_stages
from tests.support.numbered_blocks import bert, block, blocks, by_module, depth_of, depths, holder, linear

# One tower.


BERT = {"embeddings": 4, "encoder.layer.0": 3, "encoder.layer.1": 2, "encoder.layer.2": 1, "pooler": 0}


class Lit(LightningModule):
    """A head defined before the backbone, and a parameter of the module itself."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(()))
        self.head, self.net = linear(), bert()


@pytest.mark.parametrize(
    ("module", "prefix", "others"),
    [
        (bert(), "", set()),
        (holder(net=bert(), head=linear()), "net.", {"head.weight"}),
        (holder(classifier=linear(), net=holder(model=bert())), "net.model.", {"classifier.weight"}),
        (Lit(), "net.", {"head.weight", "temperature"}),
    ],
    ids=["alone", "with a head", "with a head before it", "in a LightningModule"],
)
def test_a_stem_and_numbered_layers(module, prefix, others):
    found = depths(module)
    assert {name for name in found if not name.startswith(prefix)} == others
    assert all(found[name] == 0 for name in others)
    assert {path: depth_of(found, prefix + path) for path in BERT} == BERT


def test_a_final_norm_that_is_defined_before_the_layers_is_no_stem():
    found = depths(holder(embed=nn.Embedding(5, 2), norm=nn.LayerNorm(2), layers=blocks(2), head=linear()))
    assert found["norm.weight"] == 0 and found["embed.weight"] == 3
    found = depths(holder(embed=nn.Embedding(5, 2), pre_norm=nn.LayerNorm(2), layers=blocks(2)))
    assert found["pre_norm.weight"] == 3


def test_the_parts_of_a_block_are_no_layers():
    def t5_block():
        return holder(layer=nn.ModuleList([holder(SelfAttention=block()), holder(DenseReluDense=linear())]))

    found = depths(holder(shared=nn.Embedding(5, 2), block=nn.ModuleList([t5_block() for _ in range(3)])))
    assert by_module(found, 2) == {"shared.weight": 4, "block.0": 3, "block.1": 2, "block.2": 1}


@pytest.mark.parametrize("name", ["experts", "branches", "heads"])
def test_modules_side_by_side_are_no_layers(name):
    def mixture():
        return holder(gate=linear(), **{name: blocks(4)})

    found = depths(holder(layers=nn.ModuleList([mixture() for _ in range(2)])))
    assert by_module(found, 2) == {"layers.0": 2, "layers.1": 1}


def test_single_layers_are_layers_in_a_list_and_only_where_there_are_no_blocks():
    single = nn.ModuleList([linear() for _ in range(3)])
    found = depths(holder(embed=linear(), layers=single, head=linear()))
    assert found == {"embed.weight": 4, **{f"layers.{i}.weight": 3 - i for i in range(3)}, "head.weight": 0}
    found = depths(holder(net=holder(blocks=blocks(2), lateral=single)))
    assert {depth for name, depth in found.items() if "lateral" in name} == {0}
    perceptrons = nn.ModuleList([nn.Sequential(linear(), nn.Tanh(), linear()) for _ in range(2)])
    assert by_module(depths(holder(layers=perceptrons)), 2) == {"layers.0": 2, "layers.1": 1}


# Stages of blocks.


def stage(number: int, first: bool, last: bool) -> nn.Module:
    beside = {"downsample": linear()} if first else {}
    after = {"reduction": linear()} if last else {}
    return holder(**beside, blocks=blocks(number), **after)


def test_the_blocks_of_stages_are_counted_through():
    stages = nn.ModuleList([stage(1, False, True), stage(2, True, False), stage(1, True, True)])
    found = by_module(depths(holder(stem=linear(), stages=stages, head=linear())), 4)
    assert {name: value for name, value in found.items() if ".blocks." in name} == {
        "stages.0.blocks.0": 4,
        "stages.1.blocks.0": 3,
        "stages.1.blocks.1": 2,
        "stages.2.blocks.0": 1,
    }
    assert found["stem.weight"] == 5 and found["head.weight"] == 0
    assert found["stages.0.reduction.weight"] == 4, "with the block before it"
    assert found["stages.1.downsample.weight"] == 3 and found["stages.2.downsample.weight"] == 1, "with the one after"
    assert found["stages.2.reduction.weight"] == 1


def test_stages_that_are_lists_themselves():
    numbers = (2, 3, 1)  # as many blocks in a stage as there are stages
    residual = {f"layer{i}": nn.Sequential(*blocks(n)) for i, n in enumerate(numbers, start=1)}
    found = by_module(depths(holder(conv1=linear(), bn1=nn.BatchNorm1d(2), **residual, fc=linear())), 2)
    paths = [f"layer{i}.{j}" for i, n in enumerate(numbers, start=1) for j in range(n)]
    assert {name: value for name, value in found.items() if name.startswith("layer")} == dict(
        zip(paths, range(6, 0, -1), strict=True)
    )
    assert found["conv1.weight"] == found["bn1.weight"] == 7 and found["fc.weight"] == 0


@pytest.mark.parametrize("num_down", [3, 2], ids=["the first is the stem", "between stages"])
def test_downsampling_in_a_list_of_its_own_belongs_to_the_stage_after_it(num_down):
    """As in the ConvNeXt of its authors, whose own groups took it for the stem (facebookresearch/ConvNeXt#97)."""
    down = nn.ModuleList([nn.Sequential(linear(), nn.LayerNorm(2)) for _ in range(num_down)])
    stages = nn.ModuleList([nn.Sequential(*blocks(n)) for n in (1, 2, 1)])
    norms = {f"norm{i}": nn.LayerNorm(2) for i in range(3)}
    found = depths(holder(downsample_layers=down, stages=stages, **norms))
    assert [depth_of(found, f"downsample_layers.{i}") for i in range(num_down)] == [5, 3, 1][-num_down:]
    assert [depth_of(found, f"norm{i}") for i in range(3)] == [4, 2, 1], "with the last block of its stage"


# Towers.


def test_each_tower_has_its_own_depth_and_stem():
    text = holder(embeddings=nn.Embedding(5, 2), encoder=holder(layers=blocks(3)), final_layer_norm=nn.LayerNorm(2))
    image = holder(patch_embed=linear(), encoder=holder(layers=blocks(2)), post_layernorm=nn.LayerNorm(2))
    clip = holder(text_model=text, vision_model=image, visual_projection=linear())
    clip.logit_scale = nn.Parameter(torch.ones(()))
    found = by_module(depths(clip), 4)
    assert found["text_model.embeddings.weight"] == 4 and found["vision_model.patch_embed.weight"] == 3
    assert [found[f"text_model.encoder.layers.{i}"] for i in range(3)] == [3, 2, 1]
    assert [found[f"vision_model.encoder.layers.{i}"] for i in range(2)] == [2, 1]
    rest = ["logit_scale", "visual_projection.weight", "text_model.final_layer_norm.weight"]
    assert [found[name] for name in rest] == [0, 0, 0]
    groups = {"depth": {"layers": "auto", "layer_decay": 0.5}}
    names = [group["name"] for group in OptimizerFactory("sgd", lr=1.0, groups=groups)(clip).param_groups]
    assert {"depth.text_model.stem", "depth.text_model.2", "depth.vision_model.0", "default"} <= set(names)


def test_shared_embeddings_are_the_stem_of_encoder_and_decoder():
    shared = nn.Embedding(5, 2)
    model = holder(
        shared=shared,
        encoder=holder(embed_tokens=shared, block=blocks(2), final_layer_norm=nn.LayerNorm(2)),
        decoder=holder(embed_tokens=shared, block=blocks(2)),
    )
    groups = {"depth": {"layers": "auto", "layer_decay": 0.5}}
    optimizer = OptimizerFactory("sgd", lr=1.0, groups=groups)(model)
    (stem,) = (group for group in optimizer.param_groups if "shared.weight" in group["param_names"])
    assert (stem["name"], stem["lr"]) == ("depth.encoder.stem", 0.125)


def test_convolutions_before_a_transformer_are_its_stem():
    conv = nn.ModuleList([holder(conv=linear()) for _ in range(3)])
    model = holder(feature_extractor=holder(conv_layers=conv), projection=linear(), encoder=holder(layers=blocks(12)))
    found = depths(model)
    assert {value for name, value in found.items() if not name.startswith("encoder")} == {13}


def test_the_way_down_and_up_of_a_unet_is_refused():
    with pytest.raises(ConfigError, match=r"'unet.down_blocks.\{i\}', 'unet.up_blocks.\{i\}', and their order"):
        depths(holder(unet=holder(down_blocks=blocks(3), mid_block=block(), up_blocks=blocks(3))))


def test_several_series_in_one_module_are_refused_with_the_candidates():
    with pytest.raises(ConfigError) as caught:
        depths(holder(net=holder(self_layers=blocks(3), cross_layers=blocks(2))))
    message = str(caught.value)
    assert message.startswith("groups.depth.layers: auto finds several series of layers in one module")
    assert "'net.self_layers.{i}', 'net.cross_layers.{i}'" in message
    assert "Name those that count, for example groups.depth.layers: 'net.self_layers.{i}'" in message


@pytest.mark.parametrize("module", [nn.Sequential(linear(), nn.ReLU(), linear()), holder(fc1=linear(), fc2=linear())])
def test_a_model_without_layers_is_refused(module):
    with pytest.raises(ConfigError, match=r"^groups\.depth\.layers: auto finds no layers"):
        depths(module)


def test_pairs_are_refused_since_they_do_not_tell_the_modules():
    factory = OptimizerFactory("sgd", groups={"depth": {"layers": "auto", "layer_decay": 0.5}})
    with pytest.raises(ConfigError, match=r"^groups\.depth\.layers: auto: a list of"):
        factory(list(bert().named_parameters()))


def test_a_generator_of_some_parameters_has_the_layers_of_the_whole_model():
    model = bert()
    for parameter in model.encoder.layer[0].parameters():
        parameter.requires_grad = False
    factory = OptimizerFactory("sgd", lr=1.0, groups={"depth": {"layers": "auto", "layer_decay": 0.5}})
    groups = factory((n, p) for n, p in model.named_parameters() if p.requires_grad).param_groups
    assert {g["name"]: g["lr"] for g in groups} == {
        "depth.stem": 1 / 16,
        "depth.1": 1 / 4,
        "depth.2": 1 / 2,
        "default": 1,
    }


# timm's order.


class Timm(nn.Module):
    """A model with timm's method, whose blocks are not in the order of their names."""

    def __init__(self, matcher) -> None:
        super().__init__()
        self.patch_embed, self.cls_token = linear(), nn.Parameter(torch.zeros(1, 1, 2))
        self.late, self.early, self.norm, self.head = blocks(2), blocks(1), nn.LayerNorm(2), linear()
        self.matcher = matcher

    def group_matcher(self, coarse: bool = False):
        return self.matcher


MATCHER = {
    "stem": r"^cls_token|patch_embed",
    "blocks": [(r"^early\.(\d+)", None), (r"^late\.(\d+)", (7,)), (r"^norm", (99999,))],
}
TIMM = {"patch_embed": 4, "cls_token": 4, "early.0": 3, "late.0": 2, "late.1": 1, "norm": 1, "head": 0}


def with_keys(name: str) -> tuple[int, ...] | float:
    first = {"patch_embed": 0, "cls_token": 0, "early": 1, "late": 2, "norm": 9, "head": float("inf")}
    parts = name.split(".")
    return (2, int(parts[1])) if parts[0] == "late" else (2, 99999) if parts[0] == "norm" else first[parts[0]]


@pytest.mark.parametrize("path", ["", "net."])
@pytest.mark.parametrize("matcher", [MATCHER, with_keys], ids=["regexes", "a function"])
def test_a_group_matcher_decides(matcher, path):
    if matcher is MATCHER:
        matcher = {**MATCHER, "blocks": [(r"^early\.(\d+)", None), (r"^late\.(\d+)", None), (r"^norm", (99999,))]}
        matcher = {"stem": MATCHER["stem"], "early": r"^early\.(\d+)", "late": matcher["blocks"][1:]}
    module = Timm(matcher)
    found = depths(holder(net=module) if path else module)
    assert {name: found[next(key for key in found if key.startswith(f"{path}{name}"))] for name in TIMM} == TIMM


def test_without_a_head_behind_it_the_last_layer_of_timm_has_the_whole_lr():
    module = Timm({"stem": "^cls_token|patch_embed", "blocks": r"^(?:late|early)\.(\d+)", "rest": r"^norm|^head"})
    assert depths(module)["head.weight"] == 0
    del module.head, module.norm
    assert by_module(depths(module), 2)["late.1"] == 0
    assert by_module(depths(holder(net=module, head=linear())), 3)["net.late.1"] == 1


# Patterns with two numbers.


def test_two_numbers_are_counted_through():
    stages = nn.ModuleList([stage(n, False, False) for n in (2, 1)])
    module = holder(net=holder(stem=linear(), stages=stages))
    found = by_module(depths(module, "net.stages.{i}.blocks.{j}"), 5)
    assert found == {
        "net.stem.weight": 4,
        **{f"net.stages.{i}.blocks.{j}": d for i, j, d in [(0, 0, 3), (0, 1, 2), (1, 0, 1)]},
    }
    groups = {"depth": {"layers": "net.stages.{i}.blocks.{j}", "layer_decay": 0.5}}
    names = [group["name"] for group in OptimizerFactory("sgd", lr=1.0, groups=groups)(module).param_groups]
    assert names == ["depth.stem", "depth.0", "depth.1", "depth.2"]


@pytest.mark.parametrize("pattern", ["{j}", "a.{j}.{i}", "a.{i}.{i}", "a.{i}.b.{j}.c.{j}", "[{i}].{j}", "re:a.{i}.{j}"])
def test_other_numbers_are_refused(pattern):
    with pytest.raises(ConfigError, match=r"^groups\.depth\.layers: .* is not a glob with one \{i\}"):
        Selector.parse({"layers": pattern}, "groups.depth")


# Stages of a thaw.


def test_each_layer_thaws_from_the_last():
    given = {
        "head": {"params": "head"},
        "top": {"params": "net", "layers": "auto", "at": {"epoch": 1}, "each": {"epochs": 1}},
        "rest": {"params": "net", "at": {"epoch": 9}},
    }
    stages = claim(parse_stages(given), holder(net=bert(), head=linear()))
    assert [stage.name for stage in stages] == ["head", "top.2", "top.1", "top.0", "rest"]
    assert sorted(name.split(".")[1] for name in stages[-1].params) == ["embeddings"] * 3 + ["pooler"]


def test_layers_of_two_towers_at_the_same_depth_thaw_together():
    model = holder(encoder=holder(layers=blocks(2)), decoder=holder(layers=blocks(3)))
    given = {"top": {"layers": "auto", "each": {"epochs": 1}}}
    stages = claim(parse_stages(given), model)
    assert [stage.name for stage in stages] == ["top.encoder.1.decoder.2", "top.encoder.0.decoder.1", "top.decoder.0"]
