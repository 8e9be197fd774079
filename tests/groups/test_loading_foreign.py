"""Loading checkpoints of optimizers that no factory built, with and without parameter names."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_optim import ConfigError, OptimizerFactory, optim
from tests.support.cases import every
from tests.support.equality import equal
from tests.support.loading_runs import (
    CONFIGS,
    SAVED,
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


def test_without_names_another_number_of_groups_is_refused():
    model = Deep()
    by_hand = adamw_by_hand(model)
    run(model, by_hand, 0, 4)
    with pytest.raises(ConfigError, match=r"1 param groups .* 3 \(stem, norm, default\)"):
        build_factory("torch adamw", SAVED)(Deep()).load_state_dict(by_hand.state_dict())


def test_without_names_groups_of_another_size_are_refused():
    model, resumed_model = Deep(), Deep()
    by_hand = adamw_by_hand(model, num_groups=2)
    run(model, by_hand, 0, 4)
    optimizer = build_factory("torch adamw", {"head": {"params": "head", "lr_scale": 2}})(resumed_model)
    parts = ("param group", "which has no parameter names")
    assert_refused(resumed_model, optimizer, by_hand.state_dict(), *parts)


def test_a_native_optimizer_built_by_hand_loads_a_factory_s_checkpoint_by_position():
    model, optimizer = train_saved("own lion", {})
    resumed_model = Deep()
    by_hand = optim.Lion(resumed_model.parameters())
    by_hand.load_state_dict(save_and_load(optimizer.state_dict()))
    assert equal(states_by_name(resumed_model, by_hand), states_by_name(model, optimizer))
