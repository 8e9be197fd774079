"""OptimizerFactory: the optimizer is torch's or ours, with the groups, names and flags that the config says."""

import copy
import inspect
import io
import math
import pickle
from functools import partial

import hydra.errors
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

import lightning_optim
from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory, list_optimizers, optimizer_info
from tests.support.messages import check_message
from tests.support.models import Tiny, model_for, names_of, same, train

TORCH = [name for name in list_optimizers() if not optimizer_info(name).is_ours]
OWN = [name for name in list_optimizers() if optimizer_info(name).own]
CLASSES = [*((name, "torch") for name in TORCH), *((name, "own") for name in OWN)]
FUSED = [name for name in TORCH if optimizer_info(name).fused]
HEAD = {"head": {"params": "head", "lr_scale": 0.5}}


def groups_for(name):
    return None if optimizer_info(name).single_group else HEAD


def by_hand(name, model, lr, **given):
    cls = optimizer_info(name).load()
    if name == "lbfgs":
        return cls(model.parameters(), lr=lr, **given)
    head = {"params": model.head.parameters(), "lr": lr * 0.5}
    return cls([{"params": model.backbone.parameters()}, head], lr=lr, **given)


def flag_settings(name):
    """How the config sets the flags of a class, and what the class by hand is to get for it."""
    flags = {"foreach", "fused"} & set(optimizer_info(name).signature(own=False))
    auto = {"fused": True} if "fused" in flags else {}
    return [({}, auto)] + [({flag: on}, {flag: on}) for flag in sorted(flags) for on in (False, True)]


SETTINGS = [(name, *setting) for name in TORCH for setting in flag_settings(name)]


@pytest.mark.parametrize(
    ("name", "given", "flags"), [pytest.param(*s, id="-".join([s[0], *map(str, s[1].items())])) for s in SETTINGS]
)
def test_the_optimizer_computes_what_torch_s_own_built_by_hand_does(name, given, flags):
    ours, theirs = model_for(name), model_for(name)
    optimizer = OptimizerFactory(name, lr=0.05, groups=groups_for(name), **given)(ours)
    assert type(optimizer) is optimizer_info(name).load()
    assert same(train(ours, optimizer, 5), train(theirs, by_hand(name, theirs, 0.05, **flags), 5))


@pytest.mark.parametrize(("name", "implementation"), CLASSES)
def test_param_groups_carry_the_plan(name, implementation):
    model = model_for(name)
    factory = OptimizerFactory(name, lr=0.05, groups=groups_for(name), implementation=implementation)
    groups = factory(model).param_groups
    names = names_of(model)
    if name == "lbfgs":
        expected = [("default", names, 0.05)]
    else:
        expected = [
            ("default", [n for n in names if "backbone" in n], 0.05),
            ("head", [n for n in names if "head" in n], 0.025),
        ]
    assert [(g["name"], g["param_names"], g["lr"]) for g in groups] == expected
    assert all(group["peak_lr"] == group["lr"] for group in groups)
    parameters = dict(model.named_parameters())
    assert all(parameters[n] is p for g in groups for n, p in zip(g["param_names"], g["params"], strict=True))


@pytest.mark.parametrize("name", TORCH)
def test_a_group_has_the_keys_of_torch_s_own(name):
    model = model_for(name)
    ours = OptimizerFactory(name)(model.named_parameters()).param_groups[0]
    theirs = optimizer_info(name).load()(model.named_parameters()).param_groups[0]
    assert set(ours) - set(theirs) == {"name", "peak_lr", "configured"}
    differing = {key for key in theirs if key not in ("params", "fused") and ours[key] != theirs[key]}
    assert differing == set()


@pytest.mark.parametrize("name", OWN)
def test_a_group_of_ours_has_the_keys_of_the_class_built_by_hand(name):
    model = model_for(name)
    ours = OptimizerFactory(name, implementation="own")(model.named_parameters()).param_groups[0]
    theirs = optimizer_info(name).load(own=True)(model.named_parameters()).param_groups[0]
    assert {**theirs, "name": "default", "configured": ours["configured"]} == ours


@pytest.mark.parametrize(
    ("given", "fused"),
    [
        pytest.param({}, True, id="auto"),
        pytest.param({"fused": True}, True, id="asked"),
        pytest.param({"fused": False}, False, id="refused"),
        pytest.param({"foreach": True}, None, id="foreach"),
        pytest.param({"foreach": False}, None, id="loop"),
        pytest.param({"differentiable": True}, None, id="differentiable"),
    ],
)
@pytest.mark.parametrize("name", FUSED)
def test_fused_where_the_class_has_it_and_nothing_else_is_asked(name, given, fused):
    optimizer = OptimizerFactory(name, groups=HEAD, **given)(Tiny())
    assert [group["fused"] for group in optimizer.param_groups] == [fused, fused]
    assert not getattr(optimizer, "_step_supports_amp_scaling", False)


def test_what_no_fused_kernel_takes_is_not_fused():
    optimizer = OptimizerFactory("adamw")([nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2) * 1j)])
    assert not optimizer.param_groups[0]["fused"]


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # torch's own Adagrad
@pytest.mark.parametrize("name", ["sgd", "adagrad"])
def test_sparse_gradients_are_taken_where_torch_s_class_takes_them(name):
    ours, theirs = model_for("sparse_adam"), model_for("sparse_adam")
    optimizer = OptimizerFactory(name, lr=0.05, groups=HEAD)(ours)
    assert same(train(ours, optimizer, 3), train(theirs, by_hand(name, theirs, 0.05), 3))


def test_a_frozen_parameter_does_not_keep_the_rest_from_being_fused():
    model = nn.ParameterDict({"a": nn.Parameter(torch.zeros(2)), "phase": nn.Parameter(torch.zeros(2) * 1j)})
    optimizer = OptimizerFactory("adam", groups={"cold": {"params": "phase", "frozen": True}})(model)
    assert optimizer.param_groups[0]["fused"]


# The factory as a value


FACTORIES = {
    "adamw": OptimizerFactory("adamw", lr=1e-4, betas=(0.8, 0.9), groups={"x": {"params": ["head"], "frozen": False}}),
    "lbfgs": OptimizerFactory("lbfgs", line_search_fn="strong_wolfe"),
    "own": OptimizerFactory("adam", implementation="own", weight_decay_mode="absolute"),
    "numpy": OptimizerFactory("sgd", lr=np.float64(0.1), groups={"x": {"params": "head", "lr": np.float64(0.2)}}),
    "warmup_cosine": SchedulerFactory("warmup_cosine", warmup_steps=3, final_scale=0.1),
    "sequential": SchedulerFactory(
        "sequential", schedulers=[{"name": "linear"}, {"name": "step", "step_size": 3}], milestones=(5,)
    ),
    "one_cycle_numpy": SchedulerFactory("one_cycle", total_steps=9, pct_start=np.float64(0.5)),
}


def through_torch_save(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "torch.save": through_torch_save,
}


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_factories_are_copied_whole(copied, factory):
    found = copied(factory)
    assert found is not factory
    assert type(found) is type(factory)
    assert vars(found) == vars(factory)
    assert found == factory
    assert hash(found) == hash(factory)


def test_factories_differ_where_their_configs_do():
    assert OptimizerFactory("adam") != OptimizerFactory("adamw")
    assert OptimizerFactory("adam", lr=0.1) != OptimizerFactory("adam", lr=0.2)
    own = OptimizerFactory("adam", implementation="own")
    assert OptimizerFactory("adam") != own
    assert repr(own) == "OptimizerFactory('adam', implementation='own')"
    assert OptimizerFactory("adam") != SchedulerFactory("noam", warmup_steps=3)
    assert SchedulerFactory("noam", warmup_steps=3) != SchedulerFactory("noam", warmup_steps=4)


def test_factories_load_in_a_process_that_only_imports_the_package(run_python, tmp_path):
    file = tmp_path / "factories.pt"
    torch.save([FACTORIES["adamw"], FACTORIES["sequential"]], file)
    code = "import sys, torch, lightning_optim\nprint(torch.load(sys.argv[1], weights_only=True))"
    assert run_python(code, str(file)).strip() == repr([FACTORIES["adamw"], FACTORIES["sequential"]])


def types_in(value):
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {type(value)}.union(*map(types_in, inside))


def test_omegaconf_becomes_plain():
    config = OmegaConf.create(
        {
            "slow": 0.125,
            "optimizer": {
                "betas": [0.8, 0.9],
                "groups": {"head": {"params": ["head", "${part}"], "lr": "${slow}", "betas": "${optimizer.betas}"}},
            },
            "part": "neck",
        }
    )
    factory = OptimizerFactory("adam", betas=config.optimizer.betas, groups=config.optimizer.groups)
    assert types_in(vars(factory)) <= {dict, list, str, float}
    assert factory.groups == {"head": {"params": ["head", "neck"], "lr": 0.125, "betas": [0.8, 0.9]}}
    inner = OptimizerFactory("adam", groups={"head": config.optimizer.groups.head})
    assert inner.groups == factory.groups
    scheduler = SchedulerFactory("chained", schedulers=OmegaConf.create([{"name": "linear", "total_iters": 3}]))
    assert types_in(vars(scheduler)) <= {dict, list, str, int, type(None)}


def test_calling_changes_neither_the_factory_nor_what_it_was_made_of():
    groups = {"head": {"params": ["head"], "betas": [0.5, 0.6]}, "cold": {"kinds": ["bias"], "frozen": True}}
    given, factory = copy.deepcopy(groups), OptimizerFactory("adam", groups=groups)
    before = copy.deepcopy(vars(factory))
    first, second = factory(Tiny()), factory(Tiny())
    factory.explain(Tiny())
    assert vars(factory) == before
    assert groups == given
    first.param_groups[0]["lr"] = 7.0
    assert second.param_groups[0]["lr"] == 1e-3
    groups["head"]["params"].append("neck")
    assert vars(factory) == before


# Saving and loading


def trained(factory, num_steps=3):
    model = model_for("adamw")
    optimizer = factory(model)
    train(model, optimizer, num_steps)
    return model, optimizer


@pytest.mark.parametrize(("name", "implementation"), CLASSES)
def test_a_run_goes_on_from_a_state_dict_as_though_never_interrupted(name, implementation):
    factory = OptimizerFactory(name, lr=0.05, groups=groups_for(name), implementation=implementation)
    model = model_for(name)
    optimizer = factory(model)
    train(model, optimizer, 3)
    resumed = model_for(name)
    resumed.load_state_dict(model.state_dict())
    state = through_torch_save(optimizer.state_dict())
    again = factory(resumed)
    again.load_state_dict(state)
    assert same(train(model, optimizer, 3), train(resumed, again, 3))


def test_foreach_and_fused_stay_those_of_the_new_run():
    _, optimizer = trained(OptimizerFactory("adamw", groups=HEAD))
    state = optimizer.state_dict()
    before = copy.deepcopy(state["param_groups"])
    again = OptimizerFactory("adamw", groups=HEAD, foreach=True)(Tiny())
    again.load_state_dict(state)
    assert [(group["foreach"], group["fused"]) for group in again.param_groups] == [(True, None)] * 2
    assert [(group["foreach"], group["fused"]) for group in before] == [(None, True)] * 2
    assert state["param_groups"] == before
    back = OptimizerFactory("adamw", groups=HEAD)(Tiny())
    back.load_state_dict(again.state_dict())
    assert [(group["foreach"], group["fused"]) for group in back.param_groups] == [(None, True)] * 2


def test_a_checkpoint_of_torch_s_own_class_crosses_over_and_back():
    factory = OptimizerFactory("adamw", lr=0.05, groups=HEAD, fused=False, foreach=False)
    ours, theirs = model_for("adamw"), model_for("adamw")
    optimizer, plain = factory(ours), by_hand("adamw", theirs, 0.05, fused=False, foreach=False)
    train(ours, optimizer, 2), train(theirs, plain, 2)
    ours_state, theirs_state = copy.deepcopy((optimizer.state_dict(), plain.state_dict()))
    optimizer.load_state_dict(theirs_state)
    plain.load_state_dict(ours_state)
    assert [(g["name"], g["peak_lr"]) for g in optimizer.param_groups] == [("default", 0.05), ("head", 0.025)]
    assert [g["param_names"] for g in optimizer.param_groups] == [names_of(ours)[:2], names_of(ours)[2:]]
    assert same(train(ours, optimizer, 3), train(theirs, plain, 3))


# The package


def test_importing_the_package_loads_no_torch(run_python):
    code = (
        "import sys, lightning_optim\n"
        "lightning_optim.ConfigError, lightning_optim.list_optimizers(), lightning_optim.optimizer_info('adamw')\n"
        "heavy = {'torch', 'lightning', 'pytorch_lightning', 'hydra', 'omegaconf', 'numpy'} & set(sys.modules)\n"
        "print(sorted(heavy), 'OptimizerFactory' in dir(lightning_optim))"
    )
    assert run_python(code).split("\n")[0] == "[] True"


@pytest.mark.parametrize("name", lightning_optim.__all__)
def test_every_public_name_is_there(name):
    assert inspect.getdoc(getattr(lightning_optim, name))
    assert name in dir(lightning_optim)


def test_no_other_name_is_there():
    assert sorted(lightning_optim.__all__) == lightning_optim.__all__
    with pytest.raises(AttributeError, match="no attribute 'OptimiserFactory'"):
        _ = lightning_optim.OptimiserFactory


# Wrong configs


NESTEROV = ["nesterov: true", "momentum > 0", "dampening: 0"]
BETAS = ["a list of 2", "number >= 0 and < 1", "betas: [0.9, 0.999]"]
WRONG = [
    ("adamv", {}, ["name", "'adamv'", "Did you mean 'adam'?", "adamw", "lightning-optim list"]),
    ("AdamW", {}, ["name", "'AdamW'", "Did you mean 'adamw'?"]),
    ("adamw", {"wieght_decay": 0}, ["wieght_decay", "adamw", "Did you mean 'weight_decay'?", "lr, betas, eps"]),
    ("adamw", {"group": {}}, ["group", "adamw", "Did you mean 'groups'?"]),
    (
        "adamw",
        {"momentum": 0.9},
        ["momentum", "adamw", "momentum belongs to ", "madgrad", "left over from a config below?"],
    ),
    (
        "adamw",
        {"groups": {"head": {"params": "head", "wieght_decay": 0}}},
        ["groups.head.wieght_decay", "adamw", "Did you mean 'weight_decay'?"],
    ),
    ("adam", {"betas": [0.9]}, ["betas", "[0.9]", *BETAS]),
    ("adam", {"betas": [0.9, 0.99, 0.999]}, ["betas", "[0.9, 0.99, 0.999]", *BETAS]),
    ("adam", {"betas": 0.9}, ["betas", "0.9", *BETAS]),
    ("adam", {"betas": [0.9, 1]}, ["betas", "[0.9, 1]", *BETAS]),
    ("adam", {"groups": {"head": {"params": "head", "betas": [0.9]}}}, ["groups.head.betas", "[0.9]", *BETAS]),
    ("adam", {"amsgrad": "yes"}, ["amsgrad", "'yes'", "true or false"]),
    ("muon", {"adjust_lr_fn": "orignal"}, ["adjust_lr_fn", "'orignal'", "original, match_rms_adamw"]),
    ("lbfgs", {"max_iter": 2.5}, ["max_iter", "2.5", "whole number >= 1", "max_iter: 20"]),
    ("sgd", {"nesterov": True}, ["sgd", *NESTEROV]),
    ("sgd", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, ["sgd", *NESTEROV]),
    ("adamw", {"fused": True, "foreach": True}, ["adamw", "fused: true", "foreach: true"]),
    ("adamw", {"fused": True, "differentiable": True}, ["adamw", "fused: true", "differentiable: true"]),
    ("adamw", {"params": None}, ["params", "_partial_: true is left over", "Type _partial_: false"]),
]


@pytest.mark.parametrize(("name", "given", "said"), WRONG, ids=[f"{name} {given}" for name, given, _ in WRONG])
def test_a_wrong_config_is_refused_when_the_factory_is_made(name, given, said):
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory(name, **given)
    check_message(caught, *said)


@pytest.mark.parametrize("lr", ["abc", "1e-3", -1, math.nan, math.inf, True, None, [1], {"a": 1}], ids=repr)
@pytest.mark.parametrize("key", ["lr", "groups.head.lr"])
def test_a_wrong_lr_is_refused_by_its_key(key, lr):
    given = {"lr": lr} if key == "lr" else {"groups": {"head": {"params": "head", "lr": lr}}}
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory("adamw", **given)
    check_message(caught, key, repr(lr), "a finite number >= 0", "lr: 0.001")


WRONG_WITH_MODEL = [
    (
        "adamw",
        {"head": {"params": "haed", "lr": 0.1}},
        ["groups.head", "'haed'", "'head'", "groups.head.allow_empty: true"],
    ),
    ("lbfgs", HEAD, ["groups", "lbfgs", "one param group", "default, head", "groups: null"]),
    ("muon", None, ["name", "muon", "2-D", "backbone.bias", "[8]", "name: adamw"]),
    ("sgd", {"head": {"params": "head", "nesterov": True}}, ["groups.head", *NESTEROV, "head.weight, head.bias"]),
]


@pytest.mark.parametrize(("name", "groups", "said"), WRONG_WITH_MODEL, ids=[name for name, *_ in WRONG_WITH_MODEL])
def test_what_needs_the_model_is_refused_when_the_factory_is_called(name, groups, said):
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory(name, groups=groups)(Tiny())
    check_message(caught, *said)


def test_a_refused_build_freezes_nothing():
    model = Tiny()
    with pytest.raises(ConfigError, match="2-D"):
        OptimizerFactory("muon", groups={"cold": {"params": "head", "frozen": True}})(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_muon_takes_a_model_whose_other_parameters_are_frozen():
    optimizer = OptimizerFactory("muon", groups={"cold": {"kinds": "bias", "frozen": True}})(Tiny())
    assert optimizer.param_groups[0]["param_names"] == ["backbone.weight", "head.weight"]


def test_hydra_shows_the_plain_message():
    config = {"_target_": "lightning_optim.OptimizerFactory", "name": "adamw", "lr": "abc"}
    with pytest.raises(hydra.errors.InstantiationException) as caught:
        instantiate(config)
    assert isinstance(caught.value.__cause__, ConfigError)
    assert str(caught.value.__cause__) in str(caught.value)
    assert "ConfigError(" not in str(caught.value)


def test_a_left_over_partial_is_named_when_the_user_s_code_passes_params():
    partial = instantiate({"_target_": "lightning_optim.OptimizerFactory", "_partial_": True, "name": "adamw"})
    with pytest.raises(ConfigError, match=r"^params: .* Type _partial_: false$"):
        partial(params=Tiny().parameters())


@pytest.mark.parametrize(
    "factory", [partial(OptimizerFactory, name="adamw"), partial(SchedulerFactory, name="constant")]
)
def test_a_leftover_partial_called_with_the_parameters_is_refused(factory):
    with pytest.raises(ConfigError, match="a _partial_: true is left over in the config. Type _partial_: false"):
        factory([torch.zeros(2)])
