"""Selectors: what `params`, `classes`, `kinds` and combinations of them match in a model."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
import torch
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory
from lightning_optim.groups.index import ParameterIndex
from lightning_optim.groups.kinds import KINDS_BY_NAME, kinds_of
from lightning_optim.groups.parameters import read_parameters
from lightning_optim.groups.selectors import Selector
from tests.support.messages import check_message
from tests.support.models import Net, Tied, names_of

NAMES = [
    "backbone.layer.1.weight",
    "backbone.layer.10.weight",
    "backbone.layer.1.head.weight",
    "decode_head.weight",
    "head.fc.bias",
    "head.weight",
    "head2.weight",
    "logit_scale",
]


def matched(given, /, **selectors):
    selector = Selector.parse(selectors, "groups.x")
    index = ParameterIndex(read_parameters(given))
    return [index.parameters[position].name for position in sorted(selector.select_parameters(index))]


PATTERNS = {
    "head": ["head.fc.bias", "head.weight"],
    "head.*": ["head.fc.bias", "head.weight"],
    "head*": ["head.fc.bias", "head.weight", "head2.weight"],
    "*head": ["backbone.layer.1.head.weight", "decode_head.weight", "head.fc.bias", "head.weight"],
    "*.head": ["backbone.layer.1.head.weight"],
    "backbone.layer.1": ["backbone.layer.1.weight", "backbone.layer.1.head.weight"],
    "backbone.layer.1?": ["backbone.layer.10.weight"],
    "backbone.layer.[12]": ["backbone.layer.1.weight", "backbone.layer.1.head.weight"],
    "layer.1": [],
    "*.bias": ["head.fc.bias"],
    "logit_scale": ["logit_scale"],
    "logit.scale": [],
    "*": NAMES,
    r"re:head\d*\.weight": ["head.weight", "head2.weight"],
    "re:head": [],
    "re:(?i)HEAD.*": ["head.fc.bias", "head.weight", "head2.weight"],
    ("head2", "logit_scale"): ["head2.weight", "logit_scale"],
}


@pytest.mark.parametrize(("pattern", "expected"), PATTERNS.items(), ids=map(str, PATTERNS))
def test_a_pattern_matches_whole_names_and_everything_below_a_module(pattern, expected):
    pairs = [(name, torch.zeros(2)) for name in NAMES]
    assert matched(pairs, params=pattern) == [name for name in NAMES if name in expected]


class NormLinear(nn.Linear):
    pass


class RMSNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))


class Zoo(nn.Module):
    """One owner module of each kind, and some parameters of the model itself."""

    def __init__(self) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 3, 4))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.fc = nn.Linear(4, 4)
        self.own = NormLinear(4, 4, bias=False)
        self.conv = nn.Conv2d(1, 1, 3)
        self.bn1 = nn.BatchNorm2d(4)
        self.ln_2 = nn.LayerNorm(4)
        self.rms_norm = RMSNorm()
        self.token = nn.Embedding(5, 4)
        self.bag = nn.EmbeddingBag(5, 4)
        self.lstm = nn.LSTM(4, 4)
        self.attn = nn.MultiheadAttention(4, 1)
        # Their names suggest another kind.
        self.norm_proj = nn.Linear(4, 4)
        self.patch_embed = nn.Conv2d(1, 1, 3, bias=False)


CLASSES = {
    "Linear": ["fc.*", "own.*", "attn.out_proj.*", "norm_proj.*"],
    "NormLinear": ["own.*"],
    "torch.nn.BatchNorm2d": ["bn1.*"],
    "torch.nn.modules.batchnorm.BatchNorm2d": ["bn1.*"],
    "torchvision.nn.BatchNorm2d": [],
    "nn.BatchNorm2d": [],
    "RMSNorm": ["rms_norm.*"],
    f"{__name__}.RMSNorm": ["rms_norm.*"],
    "torch.nn.RMSNorm": [],
    ("LSTM", "EmbeddingBag"): ["lstm.*", "bag.*"],
    "Zoo": ["pos_embed", "cls_token", "logit_scale"],
    "MultiheadAttention": ["attn.in_proj_*"],
}


@pytest.mark.parametrize(("classes", "expected"), CLASSES.items(), ids=map(str, CLASSES))
def test_classes_match_the_owner_s_class_and_its_bases(classes, expected):
    names = [name for name in names_of(Zoo()) if any(fnmatchcase(name, pattern) for pattern in expected)]
    assert matched(Zoo(), classes=classes) == names


KINDS = {
    "pos_embed": {"embedding"},
    "cls_token": {"embedding"},
    "logit_scale": {"vector"},
    "fc.weight": {"matrix"},
    "fc.bias": {"bias", "vector"},
    "own.weight": {"matrix"},
    "conv.weight": {"matrix"},
    "conv.bias": {"bias", "vector"},
    "bn1.weight": {"norm", "vector"},
    "bn1.bias": {"norm", "bias", "vector"},
    "ln_2.weight": {"norm", "vector"},
    "ln_2.bias": {"norm", "bias", "vector"},
    "rms_norm.scale": {"norm", "vector"},
    "token.weight": {"embedding"},
    "bag.weight": {"embedding"},
    "lstm.weight_ih_l0": {"matrix"},
    "lstm.weight_hh_l0": {"matrix"},
    "lstm.bias_ih_l0": {"bias", "vector"},
    "lstm.bias_hh_l0": {"bias", "vector"},
    "attn.in_proj_weight": {"matrix"},
    "attn.in_proj_bias": {"bias", "vector"},
    "attn.out_proj.weight": {"matrix"},
    "attn.out_proj.bias": {"bias", "vector"},
    "norm_proj.weight": {"matrix"},
    "norm_proj.bias": {"bias", "vector"},
    "patch_embed.weight": {"matrix"},
}


def test_kinds_come_from_the_owner_s_class_then_from_name_and_shape():
    found = {p.name: kinds_of(p.name, p.tensor.shape, p.occurrences[0].owner) for p in read_parameters(Zoo())}
    assert found == KINDS


def test_names_alone_tell_biases_and_vectors():
    pairs = list(Zoo().named_parameters())
    for kind in KINDS_BY_NAME:
        assert matched(pairs, kinds=kind) == [name for name, kinds in KINDS.items() if kind in kinds]


@pytest.mark.parametrize("name", ["NormalizingFlow", "AbnormalHead", "EnormousLayer"])
def test_a_class_whose_name_contains_norm_inside_a_word_is_no_norm(name):
    owner = type(name, (nn.Module,), {})()
    owner.weight = nn.Parameter(torch.zeros(2, 2))
    assert matched(owner, kinds="norm") == []
    assert matched(owner, kinds="matrix") == ["weight"]


@pytest.mark.parametrize(
    "name", ["LayerNorm2d", "LlamaRMSNorm", "FrozenBatchNorm", "norm", "GroupNormAct", "Normalization"]
)
def test_a_class_named_like_a_norm_is_a_norm(name):
    owner = type(name, (nn.Module,), {})()
    owner.weight = nn.Parameter(torch.zeros(2))
    assert matched(owner, kinds="norm") == ["weight"]


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        pytest.param(
            {"params": "backbone.layer.0", "kinds": "bias"}, ["proj.bias", "norm.bias"], id="params_and_kinds"
        ),
        pytest.param({"params": "backbone.layer.0", "classes": "Linear"}, ["proj.weight", "proj.bias"], id="classes"),
        pytest.param(
            {"params": ["head", "backbone.layer.0"], "classes": ["LayerNorm", "Conv2d"], "kinds": ["bias", "matrix"]},
            ["norm.bias"],
            id="lists_are_ors",
        ),
        pytest.param({"params": "head", "kinds": "norm"}, [], id="none_matches_all"),
    ],
)
def test_all_selectors_must_match(selectors, expected):
    assert matched(Net(), **selectors) == [f"backbone.layer.0.{name}" for name in expected]


@pytest.mark.parametrize(
    "selectors",
    [
        {"params": "embed"},
        {"params": "head.weight"},
        {"classes": "Embedding"},
        {"classes": "Linear", "params": "head.*t"},
    ],
    ids=str,
)
def test_a_tied_parameter_is_matched_under_each_of_its_names(selectors):
    assert matched(Tied(), **selectors) == ["embed.weight"]


def test_all_selectors_must_match_the_same_name_of_a_tied_parameter():
    assert matched(Tied(), params="embed", classes="Linear") == []


WRONG = [
    ({}, ["groups.x", "params, classes, kinds", "params: backbone"]),
    ({"params": None}, ["groups.x", "params, classes, kinds"]),
    ({"params": []}, ["groups.x.params", "[]", "a list of strings", "params: [a, b]"]),
    ({"params": ""}, ["groups.x.params", "''", "a list of strings"]),
    ({"params": {"a": 1}}, ["groups.x.params", "{'a': 1}", "a list of strings"]),
    ({"classes": 3}, ["groups.x.classes", "3", "a list of strings"]),
    ({"kinds": ["bias", 1]}, ["groups.x.kinds", "['bias', 1]", "a list of strings"]),
    (
        {"kinds": "biases"},
        ["groups.x.kinds", "'biases'", "Did you mean 'bias'?", "embedding, output, matrix"],
    ),
    ({"params": "re:(head"}, ["groups.x.params", "'re:(head'", "not a valid regular expression"]),
    ({"params": "re:" + "a" * 300}, ["groups.x.params", "303 characters", "at most 200"]),
]


@pytest.mark.parametrize(("selectors", "parts"), WRONG, ids=[str(selectors)[:40] for selectors, _ in WRONG])
def test_an_invalid_selector_is_refused_by_its_key(selectors, parts):
    with pytest.raises(ConfigError) as caught:
        Selector.parse(selectors, "groups.x")
    check_message(caught, *parts)


TOGETHER = "no parameter matches all of them"
MISSES = [
    ({"params": "backbon"}, ["params 'backbon'", "11 names", "Did you mean 'backbone'"]),
    ({"params": "backbone.layr.*"}, ["params 'backbone.layr.*'", "Did you mean 'backbone.layer'"]),
    ({"params": "transformer"}, ["params 'transformer'", "embed, backbone, head"]),
    ({"classes": "Layernorm"}, ["classes Layernorm", "Did you mean 'LayerNorm'?", "Embedding, LayerNorm, Linear"]),
    ({"kinds": "norm", "params": "embed", "classes": "Embeddings"}, ["classes Embeddings", "'Embedding'"]),
    ({"params": "head", "kinds": "norm"}, [TOGETHER]),
    ({"params": "head", "classes": "LayerNorm"}, [TOGETHER]),
]


@pytest.mark.parametrize(("selectors", "parts"), MISSES, ids=[str(selectors) for selectors, _ in MISSES])
def test_a_rule_that_matches_nothing_is_refused_with_the_nearest_names(selectors, parts):
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory("sgd", groups={"x": {**selectors, "lr": 0.1}})(Net())
    check_message(caught, "groups.x", *parts, "type groups.x.allow_empty: true")


class InLightning(nn.Module):
    """A model in an attribute `net`, as in most LightningModules."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Module()
        self.net.encoder = nn.Module()
        self.net.encoder.layer = nn.ModuleList(nn.Linear(2, 2) for _ in range(20))
        self.net.encoder.norm = nn.LayerNorm(2)
        self.net.head = nn.Linear(2, 2)


LEVELS = {
    "one top-level name": ("transformer", ["Names start with net.encoder, net.head."]),
    "top-level module": ("net.transformer", ["net has: encoder, head."]),
    "deeper module": ("net.encoder.layers.0", ["net.encoder has: layer, norm."]),
    "many children": ("net.encoder.layer.20", ["net.encoder.layer has: 0, 1, 2, 3,", ", 11 and 8 more."]),
    "before a wildcard": ("net.encoder.blocks.*.bias", ["net.encoder has: layer, norm."]),
    "in a parameter": ("net.head.weight.x", ["net.head has: weight, bias."]),
    "wildcard": ("*.blocks", ["Names start with net.encoder, net.head."]),
    "regex": (r"re:net\.encoder\.blocks.*", ["Names start with net.encoder, net.head."]),
    "several": (["blocks", "net.blocks", "net.x"], ["Names start with net.encoder, net.head. net has: encoder, head."]),
    "too many": (
        ["x", "net.x", "net.head.x", "net.encoder.x"],
        ["Names start with net.encoder, net.head. net has: encoder, head. net.head has: weight, bias. To let"],
    ),
}


@pytest.mark.parametrize(("pattern", "parts"), LEVELS.values(), ids=LEVELS)
def test_a_pattern_that_matches_nothing_is_refused_with_the_names_at_its_level(pattern, parts):
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory("sgd", groups={"x": {"params": pattern, "lr": 0.1}})(InLightning())
    check_message(caught, "groups.x", *parts)
    assert "\n" not in str(caught.value)


def test_a_model_of_one_parameter_has_its_name():
    model = nn.Module()
    model.scale = nn.Parameter(torch.ones(1))
    with pytest.raises(ConfigError, match=r"Names start with scale\."):
        OptimizerFactory("sgd", groups={"x": {"params": "head", "lr": 0.1}})(model)


def test_a_kind_that_the_model_does_not_have_is_refused_with_those_it_has():
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory("sgd", groups={"x": {"kinds": "embedding", "lr": 0.1}})(nn.Linear(2, 2))
    check_message(caught, "groups.x", "kinds embedding", "bias, matrix, vector")
    assert TOGETHER not in str(caught.value)


def test_classes_are_refused_where_only_names_are_known():
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory("sgd", groups={"x": {"classes": "Linear", "lr": 0.1}})(list(Net().named_parameters()))
    check_message(caught, "groups.x.classes", "optimizer(params=self.trainer.model.parameters())")
