"""Our rules exempt and order the parameters of other libraries' models as their authors do; recipes/agreement.py."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from lightning_optim.groups.index import ParameterIndex
from lightning_optim.groups.parameters import read_parameters
from recipes.agreements.compare import Comparison, compare, find_no_decay, read_preset
from recipes.agreements.differences import find_reason
from recipes.agreements.library import Library
from tests.support.cases import every

EQUAL = (
    *("albert", "bart", "beit", "bert", "clip", "convnext", "deberta-v2", "deepseek_v3", "deit", "dinov2", "electra"),
    *("gemma2", "gpt2", "gpt_neox", "hubert", "levit", "llama", "llava", "lxmert", "mistral", "mixtral", "mpnet"),
    *("roberta", "rwkv", "segformer", "siglip", "swin", "swinv2", "t5", "vit", "vit_mae", "wav2vec2", "whisper", "xlm"),
    "xlnet",
)
# Their norm layers are called `norm_f`, `grn`, `normalization` or `0`, which the Trainer's patterns do not match.
MISSED_NORMS = ("convnextv2", "falcon_mamba", "mamba", "mobilevit", "resnet")
# The Trainer exempts the whole RobertaPreLayerNorm, whose module is called `roberta_prelayernorm`.
OTHERS = ("roberta-prelayernorm", "wavtokenizer")
NO_ORDER = {
    "albert": "finds no layers",
    "lxmert": "'lxmert.encoder.layer.{i}', 'lxmert.encoder.x_layers.{i}', 'lxmert.encoder.r_layers.{i}'",
    "wavtokenizer": "'backbone.pos_net.{i}', 'backbone.convnext.{i}'",
    "xlm": "'transformer.attentions.{i}', 'transformer.ffns.{i}'",
}
TIMM = (
    *("beit_base_patch16_224", "convnextv2_tiny", "efficientnet_b0", "eva02_tiny_patch14_224", "levit_128"),
    *("poolformer_s12", "resmlp_12_224", "resnet50", "swinv2_tiny_window8_256", "vit_small_patch16_224"),
)


@pytest.fixture(scope="module")
def transformers() -> Iterator[Library]:
    pytest.importorskip("transformers")
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # of importing transformers
        patch.setenv("HF_HUB_OFFLINE", "1")
        from recipes.agreements.transformers_models import TRANSFORMERS

        yield TRANSFORMERS


@pytest.fixture(scope="module")
def timm() -> Library:
    pytest.importorskip("torchvision")
    pytest.importorskip("timm")
    from recipes.agreements.timm_models import TIMM

    return TIMM


def reasons_of(comparison: Comparison, library: Library) -> set[str]:
    """`missed norm`, `other`, or `unexplained` where no reason applies."""
    reasons = [find_reason(difference, library.reasons) for difference in comparison.differences]
    return {"unexplained" if r is None else "missed norm" if r.is_missed_norm else "other" for r in reasons}


@pytest.mark.slow
@pytest.mark.parametrize("model_type", [*EQUAL, *MISSED_NORMS, *OTHERS])
def test_rules_agree_with_transformers(transformers: Library, model_type: str) -> None:
    comparison = compare(model_type, transformers.build(model_type), transformers)
    found = reasons_of(comparison, transformers)
    if model_type in OTHERS:
        assert found <= {"missed norm", "other"} and "other" in found
    else:
        assert found == ({"missed norm"} if model_type in MISSED_NORMS else set())
    assert comparison.muon_failures == ()
    if model_type in NO_ORDER:
        assert NO_ORDER[model_type] in comparison.refusal
    else:
        assert comparison.refusal == ""


@pytest.mark.slow
def test_llama_decays_projections_and_embeddings_and_muon_gets_projections(transformers: Library) -> None:
    model = transformers.build("llama")
    index = ParameterIndex(read_parameters(model))
    names = {name for name, _ in model.named_parameters()}
    projections = {name for name in names if name.endswith("_proj.weight")}
    no_decay = {name for name in names if "norm" in name}
    assert len(projections) == 7 * 32 and len(no_decay) == 2 * 32 + 1
    assert find_no_decay(index) == no_decay == transformers.no_decay(model)
    assert names - projections - no_decay == {"model.embed_tokens.weight", "lm_head.weight"}
    assert {index.names[o] for o in index.with_kinds(read_preset("muon_hidden")["kinds"])} == projections


@pytest.mark.parametrize("name", every(TIMM, fast=["levit_128", "resmlp_12_224", "vit_small_patch16_224"]))
def test_rules_agree_with_timm(timm: Library, name: str) -> None:
    comparison = compare(name, timm.build(name), timm)
    assert reasons_of(comparison, timm) == ({"missed norm"} if name == "resmlp_12_224" else set())
    assert comparison.lr_differences == (None if name == "poolformer_s12" else ())  # it has no `group_matcher`
    assert comparison.refusal == ""
