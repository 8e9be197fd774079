"""Parametrized tensors are matched by their effective name, owner and kind; lazy ones are refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from lightning_optim import ConfigError, OptimizerFactory
from tests.support.messages import check_message

PARAMETRIZATIONS = {
    "weight_norm": (parametrizations.weight_norm, ["original0", "original1"]),
    "spectral_norm": (parametrizations.spectral_norm, ["original"]),
    "orthogonal": (parametrizations.orthogonal, ["original"]),
}


@pytest.fixture(params=PARAMETRIZATIONS)
def parametrized(request):
    """A model whose `fc` is parametrized, and the names of the tensors that its weight is made of."""
    parametrize, leaves = PARAMETRIZATIONS[request.param]
    torch.manual_seed(0)
    model = nn.ModuleDict({"fc": nn.Linear(3, 3), "norm": nn.LayerNorm(3), "other": nn.Linear(3, 3)})
    parametrize(model["fc"])
    return model, [f"fc.parametrizations.weight.{leaf}" for leaf in leaves]


def matched(given, **selector):
    """The names of the parameters that a rule with these selectors matches."""
    plan = OptimizerFactory("adamw", groups={"x": {**selector, "lr": 2.0}}).plan(given)
    return [name for group in plan.groups if group.made_by for name in group.params]


@pytest.mark.parametrize(
    ("selector", "is_weight_matched", "others"),
    [
        pytest.param({"params": "fc.weight"}, True, [], id="its_usual_name"),
        pytest.param({"params": "*.weight"}, True, ["norm.weight", "other.weight"], id="a_glob_over_it"),
        pytest.param({"params": "re:fc\\.weight"}, True, [], id="regex"),
        pytest.param({"params": "fc.parametrizations.weight.original*"}, True, [], id="its_full_name"),
        pytest.param({"params": "fc"}, True, ["fc.bias"], id="the_module"),
        pytest.param({"params": "fc.bias"}, False, ["fc.bias"], id="the_bias"),
        pytest.param({"classes": ["Linear"]}, True, ["fc.bias", "other.weight", "other.bias"], id="the_owner_s_class"),
        pytest.param({"classes": "torch.nn.Linear", "params": "fc.weight"}, True, [], id="its_dotted_class"),
        pytest.param({"kinds": "matrix"}, True, ["other.weight"], id="matrix"),
        pytest.param({"kinds": "norm"}, False, ["norm.weight", "norm.bias"], id="norm"),
        pytest.param({"kinds": "bias"}, False, ["fc.bias", "norm.bias", "other.bias"], id="bias"),
    ],
)
def test_a_parametrized_tensor_matches_by_its_effective_name_owner_and_kind(
    parametrized, selector, is_weight_matched, others
):
    model, originals = parametrized
    if selector.get("kinds") == "matrix" and len(originals) > 1:
        magnitude, *originals = originals
        assert matched(model, kinds="vector", params=magnitude) == [magnitude], "weight normalization's"
    assert sorted(matched(model, **selector)) == sorted([*(originals if is_weight_matched else []), *others])


def test_a_parametrized_tensor_in_pairs_matches_by_its_effective_name(parametrized):
    model, originals = parametrized
    assert matched(list(model.named_parameters()), params="fc.weight") == originals


def test_a_parametrization_is_never_an_owner(parametrized):
    model, _ = parametrized
    with pytest.raises(ConfigError, match=r"^groups\.x: classes ParametrizationList own no parameter"):
        matched(model, classes="ParametrizationList")


def test_parametrized_embeddings_and_norms_keep_their_kind():
    model = nn.ModuleDict({"embed": nn.Embedding(4, 4), "norm": nn.BatchNorm1d(4)})
    torch.nn.utils.parametrize.register_parametrization(model["embed"], "weight", nn.Identity())
    torch.nn.utils.parametrize.register_parametrization(model["norm"], "bias", nn.Identity())
    assert matched(model, kinds="embedding") == ["embed.parametrizations.weight.original"]
    assert matched(model, kinds="norm", classes="BatchNorm1d") == [
        "norm.weight",
        "norm.parametrizations.bias.original",
    ]
    assert matched(model, kinds="bias") == ["norm.parametrizations.bias.original"]


# Lazy modules


def lazy():
    return nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(2, bias=False))


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(lambda model: model, id="module"),
        pytest.param(lambda model: model.parameters(), id="parameters"),
        pytest.param(lambda model: list(model.named_parameters()), id="pairs"),
    ],
)
@pytest.mark.parametrize("groups", [None, {"no_decay": {"kinds": "bias", "weight_decay": 0}}], ids=["plain", "rules"])
def test_a_lazy_module_is_refused_until_it_has_run_a_batch(given, groups):
    factory, model = OptimizerFactory("adamw", groups=groups), lazy()
    with pytest.raises(ConfigError) as caught:
        factory(given(model))
    check_message(caught, "params", "3 parameters", "lazy", "0.weight, 0.bias, 2.weight", "one batch through the model")
    model(torch.zeros(1, 3))
    names = [name for group in factory(given(model)).param_groups for name in group["param_names"]]
    assert sorted(names) == ["0.bias", "0.weight", "2.weight"]
