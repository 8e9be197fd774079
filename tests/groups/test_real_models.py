"""Rules on models with the layout of BERT, ViT and ResNet make the groups that one would write by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Muon

from lightning_optim import ConfigError, OptimizerFactory
from tests.support.messages import check_message
from tests.support.models import names_of

# Products and powers of these are exact in floating point: lrs are compared with ==.
LR, WEIGHT_DECAY, MUON_LR, DECAY, SCALE = 2.0**-7, 0.25, 2.0**-5, 0.75, 0.125
DEPTH = 12


def holder(**children: nn.Module) -> nn.Module:
    """A module with children of these names."""
    module = nn.Module()
    for name, child in children.items():
        module.add_module(name, child)
    return module


# BERT as in Hugging Face transformers


class Vocabulary(nn.Embedding):
    """An embedding class with another name."""


def bert_layer() -> nn.Module:
    return holder(
        attention=holder(
            self=holder(query=nn.Linear(4, 4), key=nn.Linear(4, 4), value=nn.Linear(4, 4)),
            output=holder(dense=nn.Linear(4, 4), LayerNorm=nn.LayerNorm(4)),
        ),
        intermediate=holder(dense=nn.Linear(4, 8)),
        output=holder(dense=nn.Linear(8, 4), LayerNorm=nn.LayerNorm(4)),
    )


def bert() -> nn.Module:
    embeddings = holder(
        word_embeddings=Vocabulary(7, 4),
        position_embeddings=nn.Embedding(5, 4),
        token_type_embeddings=nn.Embedding(2, 4),
        LayerNorm=nn.LayerNorm(4),
    )
    encoder = holder(layer=nn.ModuleList([bert_layer() for _ in range(DEPTH)]))
    backbone = holder(embeddings=embeddings, encoder=encoder, pooler=holder(dense=nn.Linear(4, 4)))
    return holder(backbone=backbone, head=nn.Linear(4, 3))


# ViT as in timm


class PatchEmbed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, 4, 2)


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 4))
        self.patch_embed = PatchEmbed()
        self.blocks = nn.Sequential(
            *(
                holder(
                    norm1=nn.LayerNorm(4),
                    attn=holder(qkv=nn.Linear(4, 12), proj=nn.Linear(4, 4)),
                    norm2=nn.LayerNorm(4),
                    mlp=holder(fc1=nn.Linear(4, 8), fc2=nn.Linear(8, 4)),
                )
                for _ in range(DEPTH)
            )
        )
        self.norm = nn.LayerNorm(4)


def vit() -> nn.Module:
    return holder(backbone=VisionTransformer(), head=nn.Linear(4, 3))


# ResNet as in torchvision


def basic_block(width_in: int, width: int) -> nn.Module:
    block = holder(
        conv1=nn.Conv2d(width_in, width, 3, bias=False),
        bn1=nn.BatchNorm2d(width),
        conv2=nn.Conv2d(width, width, 3, bias=False),
        bn2=nn.BatchNorm2d(width),
    )
    if width_in != width:
        block.downsample = nn.Sequential(nn.Conv2d(width_in, width, 1, bias=False), nn.BatchNorm2d(width))
    return block


def resnet() -> nn.Module:
    backbone = holder(conv1=nn.Conv2d(3, 4, 7, bias=False), bn1=nn.BatchNorm2d(4))
    for number, (width_in, width) in enumerate([(4, 4), (4, 6), (6, 8), (8, 10)], start=1):
        blocks = [basic_block(width_in, width), basic_block(width, width)]
        backbone.add_module(f"layer{number}", nn.Sequential(*blocks))
    return holder(backbone=backbone, head=nn.Linear(10, 3))


MODELS = {"bert": bert, "vit": vit, "resnet": resnet}
LAYERS = {"bert": "backbone.encoder.layer.{i}", "vit": "backbone.blocks.{i}", "resnet": "backbone.layer{i}"}


# By hand, without the package


def owner_of(model: nn.Module, name: str) -> nn.Module:
    for part in name.split(".")[:-1]:
        model = getattr(model, part)
    return model


def has_no_decay(model: nn.Module, name: str) -> bool:
    return name.endswith("bias") or isinstance(owner_of(model, name), (nn.LayerNorm, nn.BatchNorm2d))


def is_hidden_matrix(model: nn.Module, name: str, parameter: Tensor) -> bool:
    """What Muon is for: weights of linear layers in the backbone, without embeddings and the patches' convolution."""
    return name.startswith("backbone.") and parameter.ndim == 2 and isinstance(owner_of(model, name), nn.Linear)


def powers_of(kind: str, name: str) -> int | None:
    """How many times the layer decay is applied; None where the parameter is neither in a layer nor before them."""
    parts = name.split(".")
    if kind == "bert":
        if parts[:2] == ["backbone", "embeddings"]:
            return DEPTH + 1
        return DEPTH - int(parts[3]) if parts[:3] == ["backbone", "encoder", "layer"] else None
    if kind == "vit":
        if parts[:2] in (["backbone", "cls_token"], ["backbone", "pos_embed"], ["backbone", "patch_embed"]):
            return DEPTH + 1
        return DEPTH - int(parts[2]) if parts[:2] == ["backbone", "blocks"] else None
    if parts[:2] in (["backbone", "conv1"], ["backbone", "bn1"]):
        return 4 + 1
    return 4 + 1 - int(parts[1].removeprefix("layer")) if parts[0] == "backbone" else None


def no_decay(kind: str, model: nn.Module, name: str, parameter: Tensor) -> tuple:
    bare = has_no_decay(model, name)
    return "adamw", LR, 0.0 if bare else WEIGHT_DECAY, bare


def two_lrs(kind: str, model: nn.Module, name: str, parameter: Tensor) -> tuple:
    in_head = name in ("head.weight", "head.bias")
    return "adamw", LR if in_head else LR * SCALE, WEIGHT_DECAY, in_head


def layer_decay(kind: str, model: nn.Module, name: str, parameter: Tensor) -> tuple:
    powers = powers_of(kind, name)
    return "adamw", LR * DECAY ** (powers or 0), WEIGHT_DECAY, powers


def muon(kind: str, model: nn.Module, name: str, parameter: Tensor) -> tuple:
    hidden = is_hidden_matrix(model, name, parameter)
    # Its decay is Muon's default, not the one at the top level.
    return ("muon", MUON_LR, 0.1, hidden) if hidden else ("adamw", LR, WEIGHT_DECAY, hidden)


def all_recipes(kind: str, model: nn.Module, name: str, parameter: Tensor) -> tuple:
    hidden, bare, powers = is_hidden_matrix(model, name, parameter), has_no_decay(model, name), powers_of(kind, name)
    lr = MUON_LR if hidden else LR
    if name.startswith("backbone."):
        lr *= SCALE
    lr *= DECAY ** (powers or 0)
    decay = 0.1 if hidden else 0.0 if bare else WEIGHT_DECAY
    return "muon" if hidden else "adamw", lr, decay, (hidden, bare, powers, name.startswith("backbone."))


# The same as rules

NO_DECAY = {"no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0}}
BACKBONE = {"backbone": {"params": "backbone", "lr_scale": SCALE}}
HIDDEN = {
    "bert": {"params": "backbone", "kinds": ["matrix"]},
    "vit": {"params": "backbone.blocks", "kinds": ["matrix"]},
    "resnet": {"params": "backbone", "classes": ["Conv2d"]},
}


def depth(kind: str) -> dict:
    return {"depth": {"layers": LAYERS[kind], "layer_decay": DECAY}}


def hidden(kind: str) -> dict:
    return {"hidden": {**HIDDEN[kind], "optimizer": "muon", "lr": MUON_LR}}


RECIPES: dict[str, tuple[Callable[[str], dict], Callable[..., tuple]]] = {
    "no decay for biases and norms": (lambda kind: NO_DECAY, no_decay),
    "backbone and head": (lambda kind: BACKBONE, two_lrs),
    "layer decay": (depth, layer_decay),
    "muon": (hidden, muon),
    "all": (lambda kind: {**NO_DECAY, **BACKBONE, **depth(kind), **hidden(kind)}, all_recipes),
    "all, in another order": (
        lambda kind: {
            "no_decay": {"params": "*", "kinds": ["norm", "bias"], "weight_decay": 0},
            **hidden(kind),
            **depth(kind),
            **BACKBONE,
        },
        all_recipes,
    ),
}
CASES = [
    pytest.param(kind, recipe, id=f"{kind}-{recipe}")
    for kind in MODELS
    for recipe in RECIPES
    if kind != "resnet" or RECIPES[recipe][1] not in (muon, all_recipes)
]


def settings_by_name(factory: OptimizerFactory, model: nn.Module) -> dict[str, tuple[str, float, float, str]]:
    """By parameter: its algorithm, lr, weight decay and group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, tuple[str, float, float, str]] = {}
    optimizer = factory(model)
    for group in optimizer.param_groups:
        algorithm = group.get("algorithm", factory.name)
        for parameter in group["params"]:
            assert names[id(parameter)] not in found, "in one group only"
            found[names[id(parameter)]] = (algorithm, group["lr"], group["weight_decay"], group["name"])
    return found


def partition(labels: dict) -> set[frozenset[str]]:
    """The sets of parameters that share a label."""
    return {frozenset(name for name in labels if labels[name] == label) for label in labels.values()}


@pytest.mark.parametrize(("kind", "recipe"), CASES)
def test_the_groups_are_those_written_by_hand(kind, recipe):
    rules, by_hand = RECIPES[recipe]
    model = MODELS[kind]()
    found = settings_by_name(OptimizerFactory("adamw", lr=LR, weight_decay=WEIGHT_DECAY, groups=rules(kind)), model)
    expected = {name: by_hand(kind, model, name, parameter) for name, parameter in model.named_parameters()}
    assert {name: values[:3] for name, values in found.items()} == {n: values[:3] for n, values in expected.items()}
    assert partition({n: values[3] for n, values in found.items()}) == partition(
        {n: values[3] for n, values in expected.items()}
    )


def test_the_models_have_every_case():
    seen = {
        (kind, powers_of(kind, name), has_no_decay(model, name), is_hidden_matrix(model, name, parameter))
        for kind, model in ((kind, make()) for kind, make in MODELS.items())
        for name, parameter in model.named_parameters()
    }
    for kind, n in (("bert", DEPTH), ("vit", DEPTH), ("resnet", 4)):
        assert {powers for k, powers, *_ in seen if k == kind} == {None, *range(1, n + 2)}
    assert {bare for _, _, bare, _ in seen} == {hidden for *_, hidden in seen} == {True, False}


@pytest.mark.parametrize("kind", ["bert", "vit"])
def test_muon_steps_what_its_rule_selects_and_adamw_the_rest(kind):
    model = MODELS[kind]()
    optimizer = OptimizerFactory("adamw", lr=LR, groups=hidden(kind))(model)
    children = {
        type(child): {id(p) for group in child.param_groups for p in group["params"]}
        for child in optimizer.children.values()
    }
    matrices = {id(p) for name, p in model.named_parameters() if is_hidden_matrix(model, name, p)}
    assert children == {
        Muon: matrices,
        torch.optim.AdamW: {id(p) for p in model.parameters()} - matrices,
    }


def test_our_muon_takes_convolutions_which_torchs_refuses_with_the_parameter_and_its_shape():
    model = resnet()
    groups = OptimizerFactory("adamw", lr=LR, groups=hidden("resnet"))(model).param_groups
    kernels = [name for name, p in model.named_parameters() if p.ndim == 4 and name.startswith("backbone")]
    (muon,) = (group for group in groups if group["algorithm"] == "muon")
    assert (muon["param_names"], muon["matrix"]) == (kernels, "flatten")
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory("adamw", implementation="torch", lr=LR, groups=hidden("resnet"))(model)
    check_message(
        caught, "groups.hidden.optimizer", "muon", "2-D", "backbone.conv1.weight", "[4, 3, 7, 7]", "groups.hidden"
    )


# Names that contain other names


class Lookalikes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name in ("head", "decode_head", "head2", "aux"):
            self.add_module(name, nn.Linear(2, 2))
        self.aux.head = nn.Linear(2, 2)
        self.layer = nn.ModuleList([nn.Linear(2, 2) for _ in range(12)])


@pytest.mark.parametrize(
    ("pattern", "caught"),
    [
        pytest.param("head", ["head"], id="head"),
        pytest.param("layer.1", ["layer.1"], id="layer.1"),
        pytest.param("head.weight", ["head.weight"], id="one_parameter"),
        pytest.param("re:head2?\\..*", ["head", "head2"], id="regex"),
        pytest.param("*head", ["head", "decode_head", "aux.head"], id="star"),
        pytest.param("layer.1?", ["layer.10", "layer.11"], id="question_mark"),
    ],
)
def test_a_rule_matches_the_modules_it_names_and_none_with_similar_names(pattern, caught):
    model = Lookalikes()
    found = settings_by_name(OptimizerFactory("sgd", lr=1.0, groups={"x": {"params": pattern, "lr": 0.5}}), model)
    expected = {name: 0.5 if name in caught or name.rpartition(".")[0] in caught else 1.0 for name in names_of(model)}
    assert {name: lr for name, (_, lr, _, _) in found.items()} == expected
    assert set(expected.values()) == {0.5, 1.0}


# timm's groups


def timm_vit(timm) -> nn.Module:
    return timm.models.vision_transformer.VisionTransformer(
        img_size=8, patch_size=4, embed_dim=8, depth=DEPTH, num_heads=2, num_classes=3
    )


def timm_resnet(timm) -> nn.Module:
    # One block a stage: timm counts blocks, `layer1.0`, `layer1.1`, ..., where a rule counts stages.
    block = timm.models.resnet.BasicBlock
    return timm.models.resnet.ResNet(block, layers=(1, 1, 1, 1), channels=(4, 4, 6, 8), stem_width=4, num_classes=3)


def timm_convnext(timm) -> nn.Module:
    return timm.models.convnext.ConvNeXt(depths=(1, 1, 1, 1), dims=(4, 4, 6, 8), num_classes=3)


TIMM = {
    "vit": (
        timm_vit,
        {
            "depth": {
                "layers": "blocks.{i}",
                "layer_decay": DECAY,
                "stem": ["cls_token", "pos_embed", "patch_embed"],
            },
            "norm": {"params": "norm", "lr_scale": DECAY},  # timm counts the last norm to the last block
        },
    ),
    "resnet": (
        timm_resnet,
        {"depth": {"layers": "layer{i}", "layer_decay": DECAY, "stem": ["conv1", "bn1"]}},
    ),
    "convnext": (
        timm_convnext,
        {"depth": {"layers": "stages.{i}", "layer_decay": DECAY, "stem": "stem"}},
    ),
}


@pytest.mark.parametrize(("make", "rules"), TIMM.values(), ids=TIMM)
def test_layer_decay_and_no_decay_make_the_groups_of_timm(make, rules):
    pytest.importorskip("timm.models", reason="timm or one of its dependencies is not installed")
    import timm
    from timm.optim import param_groups_layer_decay

    model = make(timm)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    theirs = {
        names[id(parameter)]: (LR * group["lr_scale"], group["weight_decay"])
        for group in param_groups_layer_decay(model, weight_decay=WEIGHT_DECAY, layer_decay=DECAY)
        for parameter in group["params"]
    }
    groups = {**rules, "no_decay": {"kinds": "vector", "weight_decay": 0}}  # a LayerScale's gamma too
    ours = settings_by_name(OptimizerFactory("adamw", lr=LR, weight_decay=WEIGHT_DECAY, groups=groups), model)
    assert {name: values[1:3] for name, values in ours.items()} == theirs
    assert len({lr for lr, _ in theirs.values()}) > 5
