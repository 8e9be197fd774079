"""`Plan`: which parameters form which group, under which name and in which order."""

import copy
import warnings
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory, list_optimizers
from lightning_optim.groups.plan import Plan
from tests.support.cases import every
from tests.support.models import Net, Tied, Tiny, model_for, names_of

GROUPS = {
    "backbone": {"params": "backbone", "lr_scale": 0.5},
    "no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0.0},
    "fast": {"params": "head", "lr_scale": 2.0},
}
NAMES = ["default", "backbone", "backbone.no_decay", "fast", "fast.no_decay"]


def plan(groups=None, model=None, **top):
    return OptimizerFactory("adamw", groups=groups, **top).plan(model or Net())


def test_each_combination_of_rules_is_a_group_named_by_the_rules():
    found = plan(GROUPS)
    assert [group.name for group in found.groups] == NAMES
    assert [group.made_by for group in found.groups] == [tuple(n.split(".")) if n != "default" else () for n in NAMES]
    assert {group.algorithm for group in found.groups} == {"adamw"}
    assert found.groups[0].params == ("embed.weight",)
    assert found.groups[1].params == ("backbone.layer.0.proj.weight", "backbone.layer.1.proj.weight")
    assert found.groups[4].params == ("head.bias",)


def test_every_parameter_is_in_one_group_in_the_model_s_order():
    params_by_group = [group.params for group in plan(GROUPS).groups]
    names = names_of(Net())
    assert sorted(name for params in params_by_group for name in params) == sorted(names)
    assert all(list(params) == sorted(params, key=names.index) for params in params_by_group)


def test_groups_are_in_the_order_of_their_first_parameter():
    groups = {
        "z": {"params": "embed", "lr": 0.1},
        "m": {"params": "head", "lr": 0.2},
        "a": {"params": "*norm", "lr": 0.3},
    }
    assert [group.name for group in plan(groups).groups] == ["z", "default", "a", "m"]


def test_rules_with_the_same_effects_make_separate_groups():
    groups = {"a": {"params": "embed", "lr": 0.1}, "b": {"params": "head", "lr": 0.1}}
    assert [group.name for group in plan(groups).groups] == ["a", "default", "b"]


PLAN_IN_JSON = f"""
from torch import nn
from lightning_optim import OptimizerFactory
def block():
    return nn.ModuleDict({{'proj': nn.Linear(2, 2), 'norm': nn.LayerNorm(2), 'cold': nn.Bilinear(2, 2, 2)}})
model = nn.ModuleDict({{'embed': nn.Embedding(2, 2), 'backbone': block(), 'head': block()}})
groups = {GROUPS} | {{'cold': {{'params': '*.cold', 'frozen': True}}}}
print(OptimizerFactory('adamw', groups=groups).explain(model).json())
"""


@pytest.mark.slow
def test_the_plan_is_the_same_under_another_hash_seed(run_python, capsys):
    exec(PLAN_IN_JSON, {})  # under this process's own seed
    expected = capsys.readouterr().out
    assert '"group": "backbone.no_decay"' in expected
    assert run_python(PLAN_IN_JSON, PYTHONHASHSEED="1") == expected


def test_frozen_parameters_are_in_no_group_and_require_no_gradient():
    model = Net()
    optimizer = OptimizerFactory("sgd", groups={"cold": {"params": ["embed", "backbone"], "frozen": True}})(model)
    assert [group["param_names"] for group in optimizer.param_groups] == [["head.weight", "head.bias"]]
    assert [n for n, p in model.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]
    assert plan({"cold": {"params": "embed", "frozen": True}}).frozen == ("embed.weight",)


def test_planning_does_not_change_the_model():
    model = Net()
    found = plan({"cold": {"params": "embed", "frozen": True}}, model)
    assert found.frozen == ("embed.weight",)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_parameters_without_gradient_are_in_the_optimizer_too():
    model = Net()
    model.embed.weight.requires_grad_(False)
    (group,) = OptimizerFactory("sgd")(model).param_groups
    assert group["param_names"] == names_of(model)
    assert not model.embed.weight.requires_grad


def test_freezing_every_parameter_is_refused():
    with pytest.raises(ConfigError, match=r"^groups: frozen: true .* all 11 parameters"):
        plan({"cold": {"params": "*", "frozen": True}})


def test_a_rule_may_match_nothing_with_allow_empty():
    assert [group.name for group in plan({"x": {"params": "adapter", "lr": 0.1, "allow_empty": True}}).groups] == [
        "default"
    ]


def test_a_rule_that_matches_only_parameters_without_gradient_warns():
    model = Net()
    model.backbone.requires_grad_(False)
    with pytest.warns(UserWarning, match=r"^groups\.backbone: all 8 parameters .* requires_grad=False") as caught:
        plan({"backbone": {"params": "backbone", "lr": 0.1}}, model)
    assert len(caught) == 1
    assert "backbone.layer.0.proj.weight" in str(caught[0].message)


@pytest.mark.parametrize(
    "rule",
    [{"params": "*", "lr": 0.1}, {"params": "backbone", "frozen": True}],
    ids=["some_require_grad", "frozen"],
)
def test_other_rules_do_not_warn(rule):
    model = Net()
    model.backbone.requires_grad_(False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan({"x": rule}, model)
    assert not caught


def test_a_tied_parameter_gets_the_rules_of_all_its_names_and_is_listed_under_the_first():
    groups = {"embed": {"params": "embed", "lr": 0.1}, "head": {"params": "head", "weight_decay": 0.3}}
    found = plan(groups, Tied())
    assert [(group.name, group.params) for group in found.groups] == [
        ("embed.head", ("embed.weight",)),
        ("head", ("head.bias",)),
    ]
    assert (found.groups[0].hyperparameters["lr"], found.groups[0].hyperparameters["weight_decay"]) == (0.1, 0.3)


def test_bare_tensors_are_named_by_position():
    found = plan(model=list(Tiny().parameters()))
    assert not found.has_names
    assert found.groups[0].params == ("param0", "param1", "param2", "param3")


@pytest.mark.parametrize("name", every(list_optimizers(), fast=["adamw", "lion", "lbfgs", "sparse_adam"]))
def test_the_plan_read_from_an_optimizer_is_the_one_it_was_built_from(name):
    model = model_for(name)
    factory = OptimizerFactory(name, groups=None if name == "lbfgs" else {"head": {"params": "head", "lr_scale": 0.5}})
    built = factory.plan(model)
    read = Plan.from_optimizer(factory(model), model)
    for ours, theirs in zip(read.groups, built.groups, strict=True):
        assert (ours.name, ours.params, ours.algorithm) == (theirs.name, theirs.params, theirs.algorithm)
        assert ours.hyperparameters["lr"] == theirs.hyperparameters["lr"]
    assert all(read.tensors[name] is tensor for name, tensor in built.tensors.items())


def test_the_plan_of_an_optimizer_has_the_peak_lr_and_not_the_current_one():
    model = Tiny()
    optimizer = OptimizerFactory("sgd", lr=0.4)(model)
    optimizer.param_groups[0]["lr"] = 0.1
    assert Plan.from_optimizer(optimizer, model).groups[0].hyperparameters["lr"] == 0.4


def test_hand_made_optimizers_have_a_plan_too():
    model, foreign = Tiny(), nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD(
        [
            {"params": model.backbone.parameters()},
            {"params": [model.head.weight, foreign]},
            {"params": [model.head.bias], "name": "head/bias"},
        ],
        lr=0.1,
    )
    groups = Plan.from_optimizer(optimizer, torch.nn.DataParallel(model)).groups
    assert [(group.name, group.params) for group in groups] == [
        ("default", ("backbone.weight", "backbone.bias")),
        ("group1", ("head.weight", "param_groups.1.1")),
        ("head.bias", ("head.bias",)),
    ]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["a", "a", "a"], ["a", "a-2", "a-3"]),
        (["a", "a-2", "a"], ["a", "a-2", "a-3"]),
        (["a", "a", "a-2"], ["a", "a-3", "a-2"]),
        (["group1", None], ["group1", "group1-2"]),
        (["all", "all"], ["all-2", "all-3"]),  # `all` is over all groups
    ],
    ids=str,
)
def test_repeated_names_of_a_hand_made_optimizer_get_a_number(given, names):
    model = nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in given])
    groups = [{"params": [p], **({"name": n} if n else {})} for p, n in zip(model, given, strict=True)]
    assert [group.name for group in Plan.from_optimizer(torch.optim.SGD(groups, lr=0.1), model).groups] == names


def test_a_module_without_an_optimizer_is_one_group():
    (group,) = Plan.from_module(Net()).groups
    assert (group.name, list(group.params)) == ("default", names_of(Net()))


@dataclass
class Stage:
    name: str
    params: frozenset
    lr_scale: float = 1.0
    warmup_steps: int = 0


def stages():
    names = names_of(Net())
    return [
        Stage("fast", frozenset(n for n in names if n.startswith("head"))),
        Stage("top", frozenset(n for n in names if n.startswith("backbone.layer.1")), 0.3, 20),
    ]


def test_a_split_plan_has_a_group_for_each_stage_and_group_in_the_order_of_the_stages():
    split = plan(GROUPS).split(stages())
    assert [(group.name, group.parent, group.stage) for group in split.groups] == [
        ("fast", "fast", "fast"),
        ("fast.no_decay", "fast.no_decay", "fast"),
        ("top.backbone", "backbone", "top"),
        ("top.backbone.no_decay", "backbone.no_decay", "top"),
    ]
    assert split.groups[2].params == ("backbone.layer.1.proj.weight",)
    assert [(group.lr_scale, group.warmup_steps) for group in split.groups] == [
        (1.0, 0),
        (1.0, 0),
        (0.3, 20),
        (0.3, 20),
    ]


def test_a_rule_named_like_its_stage_is_repeated_where_two_groups_would_have_the_same_name():
    groups = {"top": {"params": "backbone.layer.1.proj", "lr": 0.1}}
    split = plan(groups).split([Stage("top", frozenset(n for n in names_of(Net()) if "layer.1" in n))])
    assert [(group.name, group.made_by) for group in split.groups] == [("top", ()), ("top.top", ("top",))]


@pytest.mark.parametrize("name", ["sgd", "lion"])
def test_the_plan_of_an_optimizer_knows_the_rules_of_its_groups(name):
    """Not from the names of groups: they have layers in them, and labels."""
    groups = {"depth": {"layers": "backbone.layer.{i}", "layer_decay": 0.5, "name": "d"}}
    model = Net()
    optimizer = OptimizerFactory(name, groups=groups)(model)
    for built in (optimizer, copy.deepcopy(optimizer)):
        found = {group.name: group.made_by for group in Plan.from_optimizer(built).groups}
        assert found["d.0"] == ("depth",) and found["default"] == ()


def test_no_rule_made_the_groups_of_a_hand_made_optimizer():
    optimizer = torch.optim.SGD([{"params": Tiny().parameters(), "name": "no_decay"}], lr=0.1)
    assert Plan.from_optimizer(optimizer).groups[0].made_by == ()
