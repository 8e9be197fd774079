"""`implementation`: whose class runs an optimizer, and how a run goes over from one to the other."""

import copy
import io

import pytest
import torch

from lightning_optim import ConfigError, OptimizerFactory, list_optimizers, optim, optimizer_info
from tests.support.messages import check_message
from tests.support.models import Tiny, model_for, same, train

TORCH_S = {
    "adadelta": "Adadelta",
    "adafactor": "Adafactor",
    "adagrad": "Adagrad",
    "adam": "Adam",
    "adamax": "Adamax",
    "adamw": "AdamW",
    "asgd": "ASGD",
    "lbfgs": "LBFGS",
    "muon": "Muon",
    "nadam": "NAdam",
    "radam": "RAdam",
    "rmsprop": "RMSprop",
    "rprop": "Rprop",
    "sgd": "SGD",
    "sparse_adam": "SparseAdam",
}
OURS = {
    "adabelief": "AdaBelief",
    "adabound": "AdaBound",
    "adaboundw": "AdaBoundW",
    "adadelta": "Adadelta",
    "adagrad": "Adagrad",
    "adai": "Adai",
    "adam": "Adam",
    "adam_mini": "AdamMini",
    "adamax": "Adamax",
    "adamod": "AdaMod",
    "adamp": "AdamP",
    "adamw": "AdamW",
    "adan": "Adan",
    "ademamix": "AdEMAMix",
    "adopt": "ADOPT",
    "amsbound": "AMSBound",
    "amsgrad": "AMSGrad",
    "diffgrad": "DiffGrad",
    "ef_sgd": "EFSGD",
    "extra_adam": "ExtraAdam",
    "extra_sgd": "ExtraSGD",
    "lamb": "LAMB",
    "laprop": "LaProp",
    "lars": "LARS",
    "lion": "Lion",
    "madgrad": "MADGRAD",
    "mars": "MARS",
    "nadam": "NAdam",
    "nadamw": "NAdamW",
    "novograd": "NovoGrad",
    "omd": "OMD",
    "optimistic_adam": "OptimisticAdam",
    "padam": "Padam",
    "prodigy": "Prodigy",
    "qhadam": "QHAdam",
    "radam": "RAdam",
    "rmsprop": "RMSprop",
    "signum": "Signum",
    "sophia_g": "SophiaG",
    "stable_adamw": "StableAdamW",
    "storm": "STORM",
    "yogi": "Yogi",
}
TORCH_AND_NATIVE = sorted(TORCH_S.keys() & OURS.keys())
BY_FLAG = [name for name in TORCH_AND_NATIVE if "decoupled_weight_decay" in optimizer_info(name).hyperparameters]

TOP = {"lr": 0.05, "weight_decay": 0.1}
HEAD = {"head": {"params": "head", "lr_scale": 0.5, "weight_decay": 0.3}}
# Every option that both classes have, of each optimizer that has any.
VARIANTS = [
    *((name, {}) for name in TORCH_AND_NATIVE),
    *((name, {"maximize": True}) for name in TORCH_AND_NATIVE),
    *((name, {"weight_decay_mode": mode}) for name in BY_FLAG for mode in ("l2", "decoupled")),
    *((name, {"decoupled_weight_decay": True}) for name in BY_FLAG),
    ("adadelta", {"rho": 0.5}),
    ("adagrad", {"initial_accumulator_value": 0.5, "lr_decay": 0.1}),
    ("adam", {"amsgrad": True, "betas": [0.9, 0.8]}),
    ("adamw", {"amsgrad": True, "betas": [0.9, 0.8]}),
    ("nadam", {"momentum_decay": 0.5}),
    ("radam", {"betas": [0.8, 0.8]}),
    ("rmsprop", {"momentum": 0.9}),
    ("rmsprop", {"centered": True}),
    ("rmsprop", {"momentum": 0.9, "centered": True}),
]
# What torch's class cannot do.
ONLY_OURS = [
    *(
        (name, {"weight_decay_mode": mode})
        for name in TORCH_AND_NATIVE
        for mode in ("l1", "absolute", "relative", "corrected")
    ),
    *((name, {"weight_decay_mode": "decoupled"}) for name in TORCH_AND_NATIVE if name not in ("adamw", *BY_FLAG)),
    ("adamw", {"weight_decay_mode": "l2"}),
    ("adamw", {"cautious_decay": True}),
    *((name, {"cautious_decay": True, "weight_decay_mode": "decoupled"}) for name in TORCH_AND_NATIVE),
    *((name, {"cautious_decay": True, "decoupled_weight_decay": True}) for name in BY_FLAG),
    ("adam", {"optimized_update": True}),
    ("adamw", {"optimized_update": True}),
    ("radam", {"optimized_update": False}),
    ("radam", {"degenerate_to_sgd": False}),
    ("radam", {"amsgrad": True}),
]


def ids(rows):
    return [" ".join([name, *(f"{key}={value}" for key, value in given.items())]) for name, given in rows]


def each(rows):
    return pytest.mark.parametrize(("name", "given"), rows, ids=ids(rows))


def factory_of(name, implementation, **given):
    """One whose class computes bit for bit what the other does: torch's loop, not its foreach."""
    return OptimizerFactory(name, implementation=implementation, foreach=False, **{**TOP, "groups": HEAD, **given})


def for_head(given):
    return {"groups": {"head": {"params": "head", **given}}}


def through_a_file(state_dict):
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


# Which class


@pytest.mark.parametrize("implementation", ["auto", "torch"])
@pytest.mark.parametrize("name", TORCH_S)
def test_torch_s_class_is_taken_at_the_defaults_and_where_asked(name, implementation):
    optimizer = OptimizerFactory(name, implementation=implementation)(model_for(name))
    assert type(optimizer) is getattr(torch.optim, TORCH_S[name])


@pytest.mark.parametrize(
    ("name", "implementation"), [(n, "own") for n in OURS] + [(n, "auto") for n in OURS if n not in TORCH_S]
)
def test_ours_is_taken_where_asked_and_where_torch_has_none(name, implementation):
    optimizer = OptimizerFactory(name, implementation=implementation)(model_for(name))
    assert type(optimizer) is getattr(optim, OURS[name])


def test_these_are_all():
    assert sorted(TORCH_S.keys() | OURS.keys()) == list_optimizers()


@each(ONLY_OURS)
def test_auto_takes_ours_for_what_torch_s_class_cannot_do(name, given):
    assert type(OptimizerFactory(name, **given)(Tiny())) is getattr(optim, OURS[name])
    (default, head) = OptimizerFactory(name, **for_head(given))(Tiny()).param_groups
    values = given | ({"weight_decay_mode": "decoupled"} if "decoupled_weight_decay" in given else {})
    values.pop("decoupled_weight_decay", None)
    usual = optimizer_info(name).defaults | {"weight_decay_mode": optimizer_info(name).decay}
    assert {key: head[key] for key in values} == values
    assert {key: default[key] for key in values} == {key: usual[key] for key in values}


@pytest.mark.parametrize("implementation", ["auto", "torch"])
@pytest.mark.parametrize("name", TORCH_AND_NATIVE)
def test_torch_s_class_is_taken_where_what_only_ours_takes_says_its_default(name, implementation):
    info = optimizer_info(name)
    given = {key: info.defaults[key] for key in info.own_only}
    rule = {key: value for key, value in given.items() if info.hyperparameters[key].per_group}
    optimizer = OptimizerFactory(name, implementation=implementation, **given, **for_head(rule))(Tiny())
    assert type(optimizer) is getattr(torch.optim, TORCH_S[name])


@pytest.mark.parametrize("name", [name for name in TORCH_AND_NATIVE if not optimizer_info(name).fused])
def test_fused_false_is_what_torch_s_class_without_such_a_kernel_does(name):
    assert type(OptimizerFactory(name, fused=False)(Tiny())) is getattr(torch.optim, TORCH_S[name])


@pytest.mark.parametrize("flag", ["capturable", "differentiable"])
def test_auto_takes_torch_s_class_for_what_ours_refuses(flag):
    optimizer = OptimizerFactory("adam", **{flag: True})(Tiny())
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.param_groups[0][flag]


# What it computes


@pytest.mark.parametrize("implementation", ["auto", "torch", "own"])
@pytest.mark.parametrize(
    ("top", "head", "decoupled"),
    [
        pytest.param({"weight_decay_mode": "decoupled"}, {}, (True, True), id="decoupled"),
        pytest.param({"weight_decay_mode": "l2"}, {}, (False, False), id="l2"),
        pytest.param({}, {"weight_decay_mode": "decoupled"}, (False, True), id="decoupled_in_a_rule"),
        pytest.param({"weight_decay_mode": "decoupled"}, {"weight_decay_mode": "l2"}, (True, False), id="l2_in_a_rule"),
        pytest.param({"decoupled_weight_decay": True}, {}, (True, True), id="the_flag"),
        pytest.param({}, {"decoupled_weight_decay": True}, (False, True), id="the_flag_in_a_rule"),
        pytest.param(
            {"decoupled_weight_decay": True}, {"decoupled_weight_decay": False}, (True, False), id="not_there"
        ),
    ],
)
@pytest.mark.parametrize("name", BY_FLAG)
def test_a_mode_is_torch_s_flag_by_its_name(name, top, head, decoupled, implementation):
    ours, theirs = model_for(name), model_for(name)
    optimizer = factory_of(name, implementation, **top, groups={"head": {**HEAD["head"], **head}})(ours)
    assert type(optimizer) is getattr(optim if implementation == "own" else torch.optim, OURS[name])
    flags = [{"decoupled_weight_decay": flag} for flag in decoupled]
    by_hand = getattr(torch.optim, TORCH_S[name])(
        [
            {"params": theirs.backbone.parameters(), **flags[0]},
            {"params": theirs.head.parameters(), "lr": 0.025, "weight_decay": 0.3, **flags[1]},
        ],
        foreach=False,
        **TOP,
    )
    assert same(train(ours, optimizer, 8), train(theirs, by_hand, 8))


@pytest.mark.parametrize("name", BY_FLAG)
def test_the_modes_differ(name):
    def weights(**given):
        model = model_for(name)
        return train(model, factory_of(name, "auto", **given)(model), 3)

    assert not same(weights(weight_decay_mode="decoupled"), weights(weight_decay_mode="l2"))


@each(VARIANTS)
def test_both_compute_the_same(name, given):
    torch_s, ours = model_for(name), model_for(name)
    from_torch, from_ours = (factory_of(name, whose, **given) for whose in ("torch", "own"))
    assert same(train(torch_s, from_torch(torch_s), 8), train(ours, from_ours(ours), 8))


# Wrong configs

ABSOLUTE = {"weight_decay_mode": "absolute"}
TORCH_REFUSES = "torch's does not. Type implementation: auto"
WRONG = [
    ("adam", {"implementation": "owm"}, ["implementation", "'owm'", "Did you mean 'own'?", "auto, torch, own"]),
    ("lion", {"implementation": "torhc"}, ["implementation", "'torhc'", "Did you mean 'torch'?", "auto, torch, own"]),
    ("adam", {"implementation": None}, ["implementation", "None", "auto, torch, own"]),
    ("adam", {"implementation": ["own"]}, ["implementation", "['own']", "auto, torch, own"]),
    *(
        (name, {"implementation": "own"}, ["implementation", f"no {name} of our own", "Type implementation: auto"])
        for name in TORCH_S
        if name not in OURS
    ),
    *(
        (name, {"implementation": "torch"}, ["implementation", f"torch has no {name}", "Type implementation: auto"])
        for name in OURS
        if name not in TORCH_S
    ),
    *(
        ("adam", {"implementation": "own", flag: True}, [flag, "ours does not", "Remove"])
        for flag in ("capturable", "differentiable")
    ),
    *(
        ("adam", {flag: True, **absolute}, [flag, "weight_decay_mode", "Remove one of them"])
        for flag in ("capturable", "differentiable")
        for absolute in (ABSOLUTE, for_head(ABSOLUTE))
    ),
    ("adam", {"fused": True, "implementation": "own"}, ["fused", "our adam has no fused kernel", "Type fused: null"]),
    ("adam", {"fused": True, **ABSOLUTE}, ["fused", "no fused kernel", "weight_decay_mode", "Type fused: null"]),
    ("adam", {"fused": True, **for_head(ABSOLUTE)}, ["fused", "weight_decay_mode", "Type fused: null"]),
    ("lion", {"fused": True}, ["fused", "our lion has no fused kernel", "Type fused: null"]),
    ("adamax", {"fused": True}, ["fused", "adamax has no fused kernel", "Type fused: null"]),
    ("adamax", {"fused": True, "implementation": "torch"}, ["fused", "no fused kernel", "Type fused: null"]),
    *(
        ("adam", {"cautious_decay": True, **mode, **whose}, ["adam", "cautious_decay: true", "not l2", "decoupled"])
        for mode in ({}, {"weight_decay_mode": "l2"})
        for whose in ({}, {"implementation": "torch"}, {"implementation": "own"})
    ),
    ("adamax", {"cautious_decay": True}, ["adamax", "cautious_decay: true", "not l2", "weight_decay_mode: decoupled"]),
    ("adam", {"cautious_decay": True, "weight_decay_mode": "l1"}, ["adam", "cautious_decay: true", "not l1"]),
    ("lamb", {"cautious_decay": True}, ["lamb", "cautious_decay: true", "not update", "weight_decay_mode: decoupled"]),
    *(
        (
            name,
            {"decoupled_weight_decay": True, "weight_decay_mode": mode, **whose},
            [name, "decoupled_weight_decay: true", f"weight_decay_mode: {mode}", "Remove one of them"],
        )
        for name in BY_FLAG
        for mode in ("l2", "absolute")
        for whose in ({}, {"implementation": "own"})
    ),
    ("adam", {"weight_decay_mode": "update"}, ["weight_decay_mode", "'update'", "l2, l1, decoupled, absolute"]),
    ("adam", {"weight_decay_mode": "abslute"}, ["weight_decay_mode", "'abslute'", "l2, l1, decoupled, absolute"]),
]


@pytest.mark.parametrize(("name", "given", "said"), WRONG, ids=[f"{name} {given}" for name, given, _ in WRONG])
def test_a_wrong_config_is_refused_when_the_factory_is_made(name, given, said):
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory(name, **given)
    check_message(caught, *said)


@each(ONLY_OURS)
def test_torch_s_class_refuses_what_only_ours_does(name, given):
    asked = min(given.keys() & optimizer_info(name).own_only)
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory(name, implementation="torch", **given)
    check_message(caught, asked, TORCH_REFUSES)


def test_the_rule_that_asks_for_what_torch_s_class_cannot_do_is_named():
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory("adam", implementation="torch", **for_head(ABSOLUTE))
    check_message(caught, "groups.head.weight_decay_mode", TORCH_REFUSES)


# From one to the other


def of_another_program(state_dict):
    """A checkpoint that does not say what was configured."""
    for group in state_dict["param_groups"]:
        del group["configured"]
    return state_dict


@pytest.mark.parametrize(("first", "then"), [("own", "torch"), ("torch", "own"), ("own", "auto")])
@each(VARIANTS)
def test_a_run_goes_over_as_though_nothing_had_happened(name, given, first, then):
    model, resumed = model_for(name), model_for(name)
    optimizer = factory_of(name, first, **given)(model)
    train(model, optimizer, 3)
    again = factory_of(name, then, **given)(resumed)
    resumed.load_state_dict(model.state_dict())
    again.load_state_dict(through_a_file(optimizer.state_dict()))
    assert type(again) is not type(optimizer)
    assert same(train(model, optimizer, 5), train(resumed, again, 5))


@pytest.mark.parametrize(("first", "then"), [("own", "torch"), ("torch", "own")])
@pytest.mark.parametrize("name", TORCH_AND_NATIVE)
def test_the_checkpoint_s_values_hold_and_the_run_s_way_to_execute(name, first, then):
    """As torch has it, where nobody says what was configured: in the words of the class that loads it."""
    optimizer = factory_of(name, first, lr=0.01)(model_for(name))
    again = OptimizerFactory(name, implementation=then, foreach=True, **{**TOP, "groups": HEAD})(model_for(name))
    before = [set(group) for group in again.param_groups]
    saved = of_another_program(optimizer.state_dict())
    kept = copy.deepcopy(saved["param_groups"])
    again.load_state_dict(saved)
    assert saved["param_groups"] == kept
    assert [set(group) for group in again.param_groups] == before
    assert [group["foreach"] for group in again.param_groups] == [True, True]
    assert [group["lr"] for group in again.param_groups] == [0.01, 0.005]
    assert [group["peak_lr"] for group in again.param_groups] == [0.01, 0.005]


@pytest.mark.parametrize(("first", "then"), [("own", "torch"), ("torch", "own")])
@pytest.mark.parametrize("name", BY_FLAG)
def test_the_checkpoint_s_decay_goes_on_whatever_the_run_s_config_says(name, first, then):
    model, resumed = model_for(name), model_for(name)
    optimizer = factory_of(name, first, decoupled_weight_decay=True)(model)
    train(model, optimizer, 3)
    again = factory_of(name, then)(resumed)
    resumed.load_state_dict(model.state_dict())
    again.load_state_dict(of_another_program(through_a_file(optimizer.state_dict())))
    assert same(train(model, optimizer, 3), train(resumed, again, 3))


@pytest.mark.parametrize("name", TORCH_AND_NATIVE)
def test_the_decay_of_torch_s_checkpoint_is_the_usual_one_in_ours(name):
    model = model_for(name)
    optimizer = factory_of(name, "torch")(model)
    train(model, optimizer, 3)
    again = factory_of(name, "own", **ABSOLUTE)(model_for(name))
    again.load_state_dict(of_another_program(optimizer.state_dict()))
    assert [group["weight_decay_mode"] for group in again.param_groups] == [optimizer_info(name).decay] * 2


@each(ONLY_OURS)
def test_torch_s_class_refuses_a_checkpoint_of_what_it_cannot_do(name, given):
    trained, model = Tiny(), Tiny()
    optimizer = OptimizerFactory(name, implementation="own", **for_head({"weight_decay": 0.1, **given}))(trained)
    train(trained, optimizer, 2)
    other = OptimizerFactory(name, implementation="torch", **for_head({"lr_scale": 0.5}))(model)
    before = copy.deepcopy(other.state_dict()["param_groups"])
    asked = min(given.keys() & optimizer_info(name).own_only)
    with pytest.raises(ConfigError) as caught:
        other.load_state_dict(of_another_program(optimizer.state_dict()))
    check_message(caught, asked, f"trained with {asked}: ", "Type implementation: own")
    assert other.state_dict()["param_groups"] == before
    assert not any(state["step"] for state in other.state.values())


def test_what_torch_s_class_refuses_to_load_ours_takes():
    trained, model = model_for("adam"), model_for("adam")
    optimizer = factory_of("adam", "own", **ABSOLUTE)(trained)
    train(trained, optimizer, 3)
    again = factory_of("adam", "own")(model)
    model.load_state_dict(trained.state_dict())
    again.load_state_dict(of_another_program(through_a_file(optimizer.state_dict())))
    assert same(train(trained, optimizer, 3), train(model, again, 3))


def test_the_plan_has_the_decay_in_force():
    rules = {
        "head": {"params": "head", "weight_decay_mode": "absolute"},
        "bias": {"params": "backbone.bias", "decoupled_weight_decay": True},
    }
    plan = OptimizerFactory("adam", weight_decay=0.1, groups=rules).plan(Tiny())
    modes = {group.name: group.hyperparameters["weight_decay_mode"] for group in plan.groups}
    assert modes == {"default": "l2", "head": "absolute", "bias": "decoupled"}


@pytest.mark.parametrize("then", ["own", "torch"])
@each(ONLY_OURS)
def test_what_the_config_no_longer_asks_for_ends_with_the_load(name, given, then):
    """Unlike torch's loading: an edited config is meant."""
    trained, model = Tiny(), Tiny()
    optimizer = OptimizerFactory(name, implementation="own", **for_head({"weight_decay": 0.1, **given}))(trained)
    train(trained, optimizer, 2)
    again = OptimizerFactory(name, implementation=then, **for_head({"lr_scale": 0.5}))(model)
    if name == "radam" and "amsgrad" in given:
        pytest.skip("its state has what the new config has no word for")
    fresh = [{key: value for key, value in group.items() if key != "params"} for group in again.param_groups]
    again.load_state_dict(through_a_file(optimizer.state_dict()))
    loaded = [{key: value for key, value in group.items() if key != "params"} for group in again.param_groups]
    assert loaded == fresh
