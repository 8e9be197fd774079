"""Loading checkpoints of optimizers that no factory built, with and without parameter names."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn

from lightning_optim import ConfigError, OptimizerFactory, optim
from tests.support.cases import every
from tests.support.equality import equal
from tests.support.loading_runs import (
    CONFIGS,
    SAVED,
    OtherModel,
    assert_names_are_right,
    assert_refused,
    build,
    build_factory,
    run,
    states_by_name,
    train_saved,
)
from tests.support.models import Deep
from tests.support.save_and_load import save_and_load


def adamw_by_hand(model, *, prefix=None, num_groups=1, **given):
    """torch's AdamW with one or two groups, with names that have a prefix, or without names."""
    items = [p if prefix is None else (f"{prefix}{name}", p) for name, p in model.named_parameters()]
    half = len(items) // 2
    groups = [items] if num_groups == 1 else [items[:half], items[half:]]
    return torch.optim.AdamW([{"params": group} for group in groups], **{"lr": 0.02, "weight_decay": 0.03, **given})


@pytest.mark.parametrize("implementation", ["torch", "own"])
@pytest.mark.parametrize("prefix", [None, ""], ids=["bare", "named"])
def test_the_same_groups_load_as_in_torch(implementation, prefix):
    model, resumed_model = Deep(), Deep()
    by_hand = adamw_by_hand(model, prefix=prefix, fused=False, foreach=False, betas=(0.8, 0.99))
    run(model, by_hand, 0, 4)
    resumed_model.load_state_dict(model.state_dict())
    optimizer = OptimizerFactory("adamw", lr=0.5, implementation=implementation, foreach=False)(resumed_model)
    optimizer.load_state_dict(save_and_load(by_hand.state_dict()))
    assert equal(states_by_name(resumed_model, optimizer), states_by_name(model, by_hand))
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.02, (0.8, 0.99), 0.03)
    assert group["name"] == "default" and group["param_names"] == list(dict(resumed_model.named_parameters()))
    assert equal(run(resumed_model, optimizer, 4, 7), run(model, by_hand, 4, 7))


COMPOSITE = "muon + adamw"
PREFIXES = ["", "_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."]


@pytest.mark.parametrize(
    "prefix", every(PREFIXES, fast=["unwrapped", "module._orig_mod."], id=lambda p: p or "unwrapped")
)
@pytest.mark.parametrize("num_groups", [1, 2])
@pytest.mark.parametrize("config", every(["torch adamw", "own adamw"], fast=["torch adamw"]))
def test_named_groups_load_by_name_into_any_rules_with_the_config_s_values(config, num_groups, prefix):
    model, resumed_model = Deep(), Deep()
    by_hand = adamw_by_hand(model, prefix=prefix, num_groups=num_groups)
    run(model, by_hand, 0, 4)
    optimizer = build(config, "split", resumed_model)
    configured = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    message = "does not record what was configured.*takes lr and the rest from the config"
    with pytest.warns(UserWarning, match=message):
        optimizer.load_state_dict(save_and_load(by_hand.state_dict()))
    assert equal(states_by_name(resumed_model, optimizer), states_by_name(model, by_hand))
    assert_names_are_right(resumed_model, optimizer)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == configured


@pytest.mark.parametrize("config", every(["torch adamw", "own adamw"], fast=["own adamw"]))
@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_a_factory_s_names_are_clean_when_its_model_is_wrapped(config, prefix):
    model, resumed_model = Deep(), Deep()
    optimizer = build_factory(config, SAVED)([(prefix + name, p) for name, p in model.named_parameters()])
    run(model, optimizer, 0, 4)
    resumed = build(config, "split", resumed_model)
    resumed.load_state_dict(save_and_load(optimizer.state_dict()))
    assert equal(states_by_name(resumed_model, resumed), states_by_name(model, optimizer))


class NamedLikeAWrapper(nn.Module):
    """A model whose only attribute has the name of a wrapper's."""

    def __init__(self) -> None:
        super().__init__()
        self.module = Deep()

    def loss(self, seed: int = 0) -> Tensor:
        return self.module.loss(seed)


@pytest.mark.parametrize("change", every(["same", "renamed"], fast=["renamed"]))
@pytest.mark.parametrize("config", every(["torch adamw", "own adamw"], fast=["torch adamw"]))
def test_an_attribute_named_like_a_wrapper_s_stays_in_the_names(config, change):
    top_level, _ = CONFIGS[config]
    stem = {"params": "module.backbone.0", "lr_scale": 0.5}
    model, resumed_model = NamedLikeAWrapper(), NamedLikeAWrapper()
    optimizer = OptimizerFactory(**top_level, groups={"stem": stem})(model)
    run(model, optimizer, 0, 4)
    (saved,) = [group for group in optimizer.param_groups if group["name"] == "stem"]
    assert set(saved["param_names"]) == {"module.backbone.0.weight", "module.backbone.0.bias"}
    rules = {"first" if change == "renamed" else "stem": stem}
    resumed = OptimizerFactory(**top_level, groups=rules)(resumed_model)
    resumed.load_state_dict(save_and_load(optimizer.state_dict()))
    assert equal(states_by_name(resumed_model, resumed), states_by_name(model, optimizer))


# Without names

REVERSED = {"last": {"params": "backbone.0", "lr_scale": 0.5}, "head": {"params": "head", "lr_scale": 2.0}}


@pytest.mark.parametrize("rules", [SAVED, REVERSED], ids=["rules", "groups in another order"])
@pytest.mark.parametrize("config", every(["torch adamw", "own adamw", COMPOSITE], fast=["torch adamw", COMPOSITE]))
def test_one_group_without_names_loads_in_the_module_s_order_and_is_logged(config, rules, caplog):
    model, resumed_model = Deep(), Deep()
    factory = build_factory(config, rules)
    saved = build_factory(config, {})(model)
    run(model, saved, 0, 4)
    expected = states_by_name(model, saved)
    state_dict = save_and_load(saved.state_dict())
    for group in state_dict["param_groups"]:
        for key in ("param_names", "configured"):
            del group[key]
    if config == COMPOSITE:  # no torch optimizer has several algorithms in one group
        assert_refused(resumed_model, factory(resumed_model), state_dict, "no parameter names", "param_names")
        return
    optimizer = factory(resumed_model)
    with caplog.at_level("WARNING"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer.load_state_dict(state_dict)
    assert [record.message for record in caplog.records if "order of the module" in record.message]
    assert equal(states_by_name(resumed_model, optimizer), expected)
    assert_names_are_right(resumed_model, optimizer)


def reordered(model):
    return [*model.head.parameters(), *model.backbone.parameters()]


UNNAMED = {
    "another order": lambda model: [{"params": reordered(model)}],
    "a parameter less": lambda model: [{"params": list(model.parameters())[:-1]}],
    "groups of another size": lambda model: [
        {"params": p} for p in (list(model.parameters())[:5], model.head.parameters())
    ],
    "two groups of which parameters have the same shape": lambda model: [
        {"params": model.backbone.parameters()},
        {"params": model.head.parameters()},
    ],
}


@pytest.mark.parametrize("case", UNNAMED)
@pytest.mark.parametrize("implementation", ["torch", "own"])
def test_without_names_what_may_be_another_order_is_refused_with_what_to_type(implementation, case):
    model, resumed_model = Deep(), Deep()
    by_hand = torch.optim.AdamW(UNNAMED[case](model))
    run(model, by_hand, 0, 4)
    rules = {"head": {"params": "head", "lr_scale": 2}}
    optimizer = OptimizerFactory("adamw", implementation=implementation, groups=rules)(resumed_model)
    assert_refused(resumed_model, optimizer, by_hand.state_dict(), "names", "group['param_names'] = names")


@pytest.mark.parametrize("case", ["another order", "two groups of which parameters have the same shape"])
def test_names_put_into_the_checkpoint_say_the_order(case):
    """The line that the error says to type."""
    model, resumed_model = Deep(), Deep()
    by_hand = torch.optim.AdamW(UNNAMED[case](model))
    run(model, by_hand, 0, 4)
    checkpoint = {"optimizer_states": [save_and_load(by_hand.state_dict())]}
    names = {id(p): name for name, p in model.named_parameters()}
    in_order = [[names[id(p)] for p in group["params"]] for group in by_hand.param_groups]
    for group, group_names in zip(checkpoint["optimizer_states"][0]["param_groups"], in_order, strict=True):
        group["param_names"] = group_names
    optimizer = OptimizerFactory("adamw", groups={"head": {"params": "head", "lr_scale": 2}})(resumed_model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer.load_state_dict(checkpoint["optimizer_states"][0])
    assert equal(states_by_name(resumed_model, optimizer), states_by_name(model, by_hand))


WRONG_NAMES = {
    "one missing": lambda names: names[:-1],
    "one twice": lambda names: [names[0], *names[:-1]],
    "one of another shape": lambda names: [names[1], names[0], *names[2:]],
}


@pytest.mark.parametrize("case", WRONG_NAMES)
def test_names_that_do_not_fit_are_refused(case):
    model, resumed_model = Deep(), Deep()
    by_hand = adamw_by_hand(model)
    run(model, by_hand, 0, 4)
    state_dict = by_hand.state_dict()
    state_dict["param_groups"][0]["param_names"] = WRONG_NAMES[case](list(dict(model.named_parameters())))
    assert_refused(
        resumed_model,
        OptimizerFactory("adamw")(resumed_model),
        state_dict,
        "name" if case != "one of another shape" else "shape",
    )


# Copies


@pytest.mark.parametrize(
    "name", every(["torch adamw", "own adamw", COMPOSITE, "torch adagrad"], fast=["torch adamw", "own adamw"])
)
def test_two_optimizers_never_share_a_state(name):
    model, optimizer = train_saved(name)
    other_model = Deep()
    other = build_factory(name, SAVED)(other_model)
    other.load_state_dict(optimizer.state_dict())
    before = states_by_name(model, optimizer)
    run(other_model, other, 0, 3)
    assert equal(states_by_name(model, optimizer), before)


def test_lbfgs_has_vectors_of_its_own_and_of_the_model_s_size():
    model, other_model = Deep(), Deep()
    optimizer, other = (OptimizerFactory("lbfgs", max_iter=3)(m) for m in (model, other_model))

    def closure(model, optimizer):
        def evaluate():
            optimizer.zero_grad()
            loss = model.loss()
            loss.backward()
            return loss

        return evaluate

    optimizer.step(closure(model, optimizer))
    other.load_state_dict(optimizer.state_dict())
    before = copy.deepcopy(next(iter(optimizer.state.values())))
    other.step(closure(other_model, other))
    assert equal(next(iter(optimizer.state.values())), before)
    state_dict = optimizer.state_dict()
    state_dict["state"][0]["d"] = torch.zeros(5)
    with pytest.raises(ConfigError, match=r"d has 5 elements, the parameters \d+"):
        other.load_state_dict(state_dict)


@pytest.mark.parametrize("implementation", ["torch", "own"])
@pytest.mark.parametrize("saved_layout", ["channels_last", "contiguous"])
def test_a_loaded_state_has_the_memory_layout_of_its_parameter(implementation, saved_layout):
    formats = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
    saved_model = nn.Conv2d(3, 4, 3).to(memory_format=formats.pop(saved_layout))
    model = nn.Conv2d(3, 4, 3).to(memory_format=next(iter(formats.values())))
    saved, optimizer = (OptimizerFactory("adamw", implementation=implementation)(m) for m in (saved_model, model))
    saved_model(torch.ones(1, 3, 5, 5)).sum().backward()
    saved.step()
    optimizer.load_state_dict(save_and_load(saved.state_dict()))
    for key in ("exp_avg", "exp_avg_sq"):
        buffer = optimizer.state[model.weight][key]
        assert buffer.stride() == model.weight.stride()
        assert torch.equal(buffer, saved.state[saved_model.weight][key])


BY_POSITION = {
    "torch": lambda model: OptimizerFactory("adamw")(list(model.parameters())),
    "own": lambda model: optim.AdamW(model.parameters()),
}


@pytest.mark.parametrize("case", BY_POSITION)
@pytest.mark.parametrize("change", [{"head": 3}, {"less": True}], ids=["another shape", "a parameter less"])
def test_optimizers_of_bare_tensors_refuse_another_model_too(case, change):
    model, other = Deep(), OtherModel(**change)
    optimizer = torch.optim.AdamW(other.parameters())
    run(other, optimizer, 0, 2)
    assert_refused(model, BY_POSITION[case](model), optimizer.state_dict(), "parameter")


def test_a_native_optimizer_built_by_hand_loads_a_factory_s_checkpoint_by_position():
    model, optimizer = train_saved("own lion", {})
    resumed_model = Deep()
    by_hand = optim.Lion(resumed_model.parameters())
    by_hand.load_state_dict(save_and_load(optimizer.state_dict()))
    assert equal(states_by_name(resumed_model, by_hand), states_by_name(model, optimizer))
