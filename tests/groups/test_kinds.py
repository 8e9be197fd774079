"""Kinds in modules written in many ways: by role and shape, and by what a model itself exempts from weight decay."""

from __future__ import annotations

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory
from lightning_optim.groups.index import ParameterIndex
from lightning_optim.groups.kinds import KINDS, KINDS_BY_NAME
from lightning_optim.groups.parameters import read_parameters

NO_DECAY = ["bias", "norm", "no_weight_decay"]


def kinds_in(module: nn.Module) -> dict[str, set[str]]:
    """By parameter: its kinds, under any of its names."""
    index = ParameterIndex(read_parameters(module))
    found: dict[str, set[str]] = {parameter.name: set() for parameter in index.parameters}
    for kind, occurrences in index.by_kind.items():
        for occurrence in occurrences:
            found[index.parameters[index.parameter_of[occurrence]].name].add(kind)
    return found


def module_of(_name: str, /, **shapes: tuple[int, ...]) -> nn.Module:
    """A module of a class with this name, with parameters of these shapes."""
    module = type(_name, (nn.Module,), {})()
    for name, shape in shapes.items():
        module.register_parameter(name, nn.Parameter(torch.zeros(shape)))
    return module


# Norms.

NORMS = {
    "RMSNorm of another library": module_of("LlamaRMSNorm", weight=(8,)),
    "GRN with a gain alone": module_of("GRN", gamma=(1, 1, 1, 8)),
    "GRN of timm and transformers": module_of("GlobalResponseNorm", weight=(8,), bias=(1, 1, 1, 8)),
    "an own LN": module_of("LN", gamma=(8,), beta=(8,)),
    "an own LN with usual names": module_of("ChannelLN", weight=(8, 1, 1), bias=(8, 1, 1)),
    "LayerNorm over an image": nn.LayerNorm([2, 3, 3]),
    "FilterResponseNorm": module_of("FilterResponseNorm2d", weight=(1, 8, 1, 1), bias=(1, 8, 1, 1), tau=(1, 8, 1, 1)),
    "called norm": nn.ModuleDict({"norm": module_of("Affine", alpha=(1, 1, 8), beta=(1, 1, 8))}),
    "a gain per head, called norm": nn.ModuleDict({"q_norm": module_of("ScaledClip", scale=(4, 8))}),
}


@pytest.mark.parametrize("module", NORMS.values(), ids=NORMS)
def test_a_norm_is_known_by_its_class_its_parameters_or_its_name(module):
    assert all("norm" in kinds for kinds in kinds_in(module).values())


NOT_NORMS = {
    "NormedLinear of LDAM": (module_of("NormedLinear", weight=(4, 8)), {"matrix"}),
    "CosNorm_Classifier of OLTR": (module_of("CosNorm_Classifier", weight=(4, 8)), {"matrix"}),
    "NormalizedLinear with a bias": (module_of("NormLinear", weight=(4, 8), bias=(4,)), {"matrix", "vector", "bias"}),
    "weight-normalized convolution": (module_of("WeightNormConv", v=(8, 4, 3, 3), g=(8,)), {"matrix", "vector"}),
    "LayerScale": (module_of("LayerScale", gamma=(8,)), {"vector"}),
    "Linear called norm": (nn.ModuleDict({"norm": nn.Linear(3, 3, bias=False)}), {"matrix"}),
    "Linear to one output": (nn.Linear(3, 1, bias=False), {"matrix"}),
    "an own linear layer to one output": (module_of("Dense", weight=(1, 8), bias=(1,)), {"matrix", "vector", "bias"}),
    "prototypes called norm": (nn.ModuleDict({"norm": module_of("Prototypes", weight=(5, 8))}), {"matrix"}),
}


@pytest.mark.parametrize(("module", "expected"), NOT_NORMS.values(), ids=NOT_NORMS)
def test_a_matrix_or_a_gain_alone_is_no_norm(module, expected):
    assert set().union(*kinds_in(module).values()) == expected


@pytest.mark.parametrize("normalize", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_the_magnitude_of_weight_norm_is_a_vector(normalize):
    kinds = kinds_in(normalize(nn.Linear(4, 8)))
    (magnitude,) = (name for name in kinds if name.endswith(("original0", "weight_g")))
    assert kinds.pop(magnitude) == {"vector"}
    assert sorted(map(sorted, kinds.values())) == [["bias", "vector"], ["matrix"]]


# Embeddings and output layers.


class LanguageModel(nn.Module):
    """As GPT-2 in transformers: the output layer is tied to the embeddings or has a weight of its own."""

    def __init__(self, *, is_tied: bool, head: str = "lm_head") -> None:
        super().__init__()
        self.block = nn.Linear(8, 8)
        self.add_module(head, nn.Linear(8, 50, bias=False))  # before the embeddings: the first name of a tied weight
        self.wte = nn.Embedding(50, 8)
        self.head = head
        if is_tied:
            getattr(self, head).weight = self.wte.weight


class WithMethod(LanguageModel):
    def get_output_embeddings(self):
        return getattr(self, self.head)


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("build", [LanguageModel, lambda **options: WithMethod(head="embed_out", **options)])
def test_muon_gets_neither_embeddings_nor_the_output_layer(build, is_tied):
    model = nn.ModuleDict({"backbone": build(is_tied=is_tied)})
    rule = {"params": "backbone", "kinds": ["matrix"], "optimizer": "muon", "lr": 0.02}
    groups = OptimizerFactory("adamw", groups={"hidden": rule})(model).param_groups
    by_algorithm = {g["algorithm"]: g["param_names"] for g in groups if g["algorithm"] == "muon"}
    assert by_algorithm == {"muon": ["backbone.block.weight"]}


@pytest.mark.parametrize("first", [module_of("Words", rows=(50, 8)), nn.Conv2d(3, 8, 4, bias=False)])
def test_what_embeds_the_input_is_an_embedding(first):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.block = first, nn.Linear(8, 8, bias=False)

        def get_input_embeddings(self):
            return self.first

    (name, kinds), block = kinds_in(nn.ModuleDict({"net": Model()})).items()
    assert name.startswith("net.first.") and kinds == {"embedding"}
    assert block == ("net.block.weight", {"matrix"})


def test_an_embedding_tied_to_a_layer_of_any_name_is_no_matrix():
    model = LanguageModel(is_tied=True, head="decoder")  # neither the name nor a method tells what it is
    assert kinds_in(model)["decoder.weight"] == {"embedding"}
    assert kinds_in(LanguageModel(is_tied=False, head="decoder"))["decoder.weight"] == {"matrix"}


@pytest.mark.parametrize("name", ["pos_embed", "pos_emb", "mask_emb", "emb", "emb1", "cls_token", "emb_pos"])
def test_an_embedding_may_be_a_plain_parameter(name):
    assert kinds_in(module_of("GPT", **{name: (1, 5, 8)})) == {name: {"embedding"}}


@pytest.mark.parametrize("name", ["member", "ember_weight", "remb"])
def test_other_names_with_emb_in_them_are_no_embeddings(name):
    assert kinds_in(module_of("GPT", **{name: (5, 8)})) == {name: {"matrix"}}


# Parameters of two or more dimensions that are no weights: Muon would normalize their updates.

NO_MATRICES = {
    "biases of experts": (
        module_of("Experts", down_proj=(4, 8, 8), down_proj_bias=(4, 8)),
        {"down_proj_bias": {"bias"}},
    ),
    "biases of XLNet's heads": (module_of("RelAttn", q=(8, 2, 4), r_w_bias=(2, 4)), {"r_w_bias": {"bias"}}),
    "LayerScale over an image": (module_of("Block", layer_scale=(8, 1, 1)), {"layer_scale": set()}),
    "RWKV's mixing": (module_of("Attention", time_mix_key=(1, 1, 8)), {"time_mix_key": set()}),
    "a table of position biases": (
        module_of("Attention", relative_position_bias_table=(9, 2)),
        {"relative_position_bias_table": {"no_weight_decay"}},
    ),
    "rel_pos of SAM": (module_of("Attention", rel_pos_h=(9, 4)), {"rel_pos_h": {"embedding"}}),
    "an encoding of positions": (module_of("Encoder", position_enc=(9, 4)), {"position_enc": {"embedding"}}),
}


@pytest.mark.parametrize(("module", "expected"), NO_MATRICES.values(), ids=NO_MATRICES)
def test_biases_gains_and_tables_are_no_matrices(module, expected):
    kinds = kinds_in(module)
    others = {name: found for name, found in kinds.items() if name not in expected}
    assert {name: kinds[name] for name in expected} == expected
    assert all(found == {"matrix"} for found in others.values())


def test_a_gain_of_a_convolution_is_no_matrix_but_its_kernel_is():
    layer = nn.Conv2d(1, 4, 1, bias=False)  # as NFNet's ScaledStdConv2d
    layer.gain = nn.Parameter(torch.ones(4, 1, 1, 1))
    assert kinds_in(layer) == {"weight": {"matrix"}, "gain": set()}


def test_what_a_model_exempts_is_no_matrix_unless_it_is_a_layer_s_weight():
    table, layer = nn.Module(), nn.Linear(4, 4, bias=False)
    table.A_log = nn.Parameter(torch.zeros(4, 2))
    for parameter in (table.A_log, layer.weight):
        parameter._no_weight_decay = True
    assert kinds_in(table) == {"A_log": {"no_weight_decay"}}
    assert kinds_in(layer) == {"weight": {"no_weight_decay", "matrix"}}


def test_the_bias_of_keys_in_attention_is_no_matrix():
    kinds = kinds_in(nn.MultiheadAttention(4, 2, add_bias_kv=True))
    assert kinds["bias_k"] == kinds["bias_v"] == {"bias", "vector"}
    assert kinds["in_proj_weight"] == {"matrix"}


def peft_wrapper(**layers: nn.Module) -> nn.Module:
    """As peft wraps a layer: `base_layer` and its adapters, or `original_module` and a copy of it."""
    module = nn.Module()
    for name, layer in layers.items():
        is_wrapped_layer = name in ("base_layer", "original_module")
        module.add_module(name, layer if is_wrapped_layer else nn.ModuleDict({"default": layer}))
    return module


@pytest.mark.parametrize("head", ["lm_head", "embed_out"])
@pytest.mark.parametrize(
    "layers", [("base_layer", "lora_A", "lora_B"), ("original_module", "modules_to_save")], ids=["lora", "copy"]
)
def test_an_output_layer_wrapped_by_peft_is_an_output_layer(head, layers):
    model = WithMethod(is_tied=False, head=head)
    setattr(model, head, peft_wrapper(**{name: nn.Linear(8, 50, bias=False) for name in layers}))
    kinds = kinds_in(nn.ModuleDict({"base_model": model}))
    wrapped = {name: found for name, found in kinds.items() if f".{head}." in name}
    assert len(wrapped) == len(layers) and all(found == {"output"} for found in wrapped.values())
    assert kinds["base_model.block.weight"] == {"matrix"}


def test_an_output_layer_is_a_kind_of_its_own():
    kinds = kinds_in(LanguageModel(is_tied=False))
    assert kinds["lm_head.weight"] == {"output"}
    assert kinds["wte.weight"] == {"embedding"}
    assert kinds_in(LanguageModel(is_tied=True))["lm_head.weight"] == {"embedding", "output"}


def test_a_model_whose_output_layer_is_not_known_has_none():
    class Raises(nn.Linear):
        def get_output_embeddings(self):
            raise NotImplementedError

    assert kinds_in(Raises(2, 2, bias=False)) == {"weight": {"matrix"}}


# What a model exempts from weight decay.


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
        self.rel_tokens = nn.Parameter(torch.zeros(3, 2))
        self.gamma = nn.Parameter(torch.ones(4))
        self.proj = nn.Linear(4, 4)


class Timm(nn.Module):
    """A model that names what it exempts, as timm's do: names, globs and keywords."""

    def __init__(self) -> None:
        super().__init__()
        self.pos_embed, self.scale = nn.Parameter(torch.zeros(1, 5, 4)), nn.Parameter(torch.zeros(2, 2))
        self.blocks = nn.ModuleList([Attention() for _ in range(2)])

    def no_weight_decay(self):
        return {"pos_embed", "blocks.*.rel_tokens"}

    def no_weight_decay_keywords(self):
        return {"cal"}


def exempt(module: nn.Module) -> set[str]:
    return {name for name, kinds in kinds_in(module).items() if "no_weight_decay" in kinds}


EXEMPT = {
    *("pos_embed", "scale", "blocks.0.rel_tokens", "blocks.1.rel_tokens", "blocks.0.gamma", "blocks.1.gamma"),
    *("blocks.0.relative_position_bias_table", "blocks.1.relative_position_bias_table"),
    *("blocks.0.proj.bias", "blocks.1.proj.bias"),
}


@pytest.mark.parametrize("path", ["", "net", "net.model"])
def test_a_model_s_own_exemptions_hold_wherever_it_is(path):
    module = Timm()
    for name in reversed(path.split(".") if path else []):
        module = nn.ModuleDict({name: module, "other": Attention()})
    expected = {f"{path}.{name}".lstrip(".") for name in EXEMPT}
    others = {name for name in kinds_in(module) if ".other." in f".{name}" and "bias_table" in name}
    assert exempt(module) == expected | others


def test_the_outermost_module_with_the_method_decides_for_all_below_it():
    class Inner(nn.Linear):
        def no_weight_decay(self):
            return {"weight"}

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Inner(2, 2)

        def no_weight_decay(self):
            return set()

    assert exempt(Outer()) == {"inner.bias"}
    assert exempt(nn.ModuleDict({"a": Inner(2, 2), "b": nn.Linear(2, 2)})) == {"a.weight", "a.bias"}


def test_parameters_can_be_marked_one_by_one():
    module = nn.Linear(2, 2)
    module.weight._no_weight_decay = True
    assert exempt(module) == {"weight"}


POSITION_BIASES = {
    "Swin": module_of("A", relative_position_bias_table=(9, 2)),
    "LeViT": module_of("A", attention_biases=(2, 9)),
    "T5": nn.ModuleDict({"relative_attention_bias": nn.Embedding(9, 2)}),
    "Swin V2": nn.ModuleDict({"continuous_position_bias_mlp": nn.Sequential(nn.Linear(2, 8, bias=False))}),
    "Swin V2 of timm": nn.ModuleDict({"cpb_mlp": nn.Sequential(nn.Linear(2, 8, bias=False))}),
    "LayoutLMv3": nn.ModuleDict({"rel_pos_x_bias": nn.Linear(4, 2, bias=False)}),
    "Transformer-XL": module_of("A", pos_bias_u=(2, 4), pos_bias_v=(2, 4)),
    "BEiT": nn.ModuleDict({"relative_position_bias": module_of("B", relative_position_bias_table=(9, 2))}),
}


@pytest.mark.parametrize("module", POSITION_BIASES.values(), ids=POSITION_BIASES)
def test_relative_position_biases_are_exempt(module):
    assert exempt(nn.ModuleDict({"block": module})) == {f"block.{name}" for name in kinds_in(module)}


@pytest.mark.parametrize("name", ["bias_conv", "unbiased", "latent_bias_factor", "debias_mlp", "attention_biaser"])
def test_other_names_with_bias_in_them_are_not_exempt(name):
    assert exempt(nn.ModuleDict({name: nn.Linear(2, 2, bias=False)})) == set()


# However the parameters arrive.

LEAVES = st.sampled_from(
    [
        lambda: nn.Linear(2, 3),
        lambda: nn.Conv1d(2, 2, 3, bias=False),
        lambda: nn.LayerNorm(2),
        lambda: nn.BatchNorm1d(2),
        lambda: nn.Embedding(4, 2),
        lambda: module_of("LlamaRMSNorm", weight=(4,)),
        lambda: module_of("Own", scale=(4,), weight=(2, 2), pos_embed=(1, 4)),
        lambda: module_of("A", relative_position_bias_table=(9, 2)),
        Timm,
    ]
)
NAMES = st.sampled_from(["fc", "norm", "lm_head", "wte", "embed", "bias", "blocks", "module_"])
TREES = st.recursive(
    LEAVES.map(lambda build: build()),
    lambda below: st.dictionaries(NAMES, below, min_size=1, max_size=3).map(nn.ModuleDict),
    max_leaves=6,
)
WAYS = {
    "parameters()": lambda m: m.parameters(),
    "named_parameters()": lambda m: m.named_parameters(),
    "a filtering generator": lambda m: ((n, p) for n, p in m.named_parameters() if p.requires_grad),
    "named_parameters(prefix)": lambda m: m.named_parameters(prefix="net"),
    "wrapped": nn.DataParallel,
    "the result of read_parameters": read_parameters,
}


@pytest.mark.slow
@hypothesis.given(TREES, st.sampled_from(KINDS))
@hypothesis.settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_kinds_do_not_depend_on_how_the_parameters_arrive(module, kind):
    factory = OptimizerFactory("sgd", lr=1.0, groups={"x": {"kinds": kind, "lr": 0.5, "allow_empty": True}})

    def selected(params):
        groups = factory(params).param_groups
        return {id(p) for group in groups if group["name"] == "x" for p in group["params"]}

    expected = selected(module)
    for way, arrive in WAYS.items():
        assert selected(arrive(module)) == expected, way
    pairs = list(module.named_parameters())
    if kind in KINDS_BY_NAME:
        assert selected(pairs) == expected
    else:
        with pytest.raises(ConfigError, match="pairs does not tell which modules"):
            factory(pairs)


@pytest.mark.filterwarnings("ignore:groups.x. all 1 parameters it matches have requires_grad=False")
@pytest.mark.parametrize("kind", KINDS)
def test_pairs_are_refused_for_kinds_that_need_the_modules(kind):
    factory = OptimizerFactory("sgd", groups={"x": {"kinds": kind, "lr": 0.5, "allow_empty": True}})
    layer = nn.Linear(2, 2)
    layer.weight.requires_grad_(False)
    pairs = list(layer.named_parameters())
    if kind in KINDS_BY_NAME:
        assert len(factory(pairs).param_groups) == 2
    else:
        with pytest.raises(ConfigError, match=rf"^groups\.x\.kinds: {kind}: a list of \(name, parameter\) pairs"):
            factory(pairs)


def test_the_rule_of_adamw_groups_exempts_what_authors_do():
    factory = OptimizerFactory("adamw", weight_decay=0.1, groups={"no_decay": {"kinds": NO_DECAY, "weight_decay": 0}})
    decayed = [g["param_names"] for g in factory(Timm()).param_groups if g["weight_decay"]]
    assert decayed == [["blocks.0.proj.weight", "blocks.1.proj.weight"]]
