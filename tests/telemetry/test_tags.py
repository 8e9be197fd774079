"""The tags of several optimizers, and TensorBoard's layout of them."""

from __future__ import annotations

import re

import torch
from torch import nn

from lightning_optim import OptimizerFactory
from lightning_optim.groups.plan import Plan
from lightning_optim.telemetry.hparams import collect_hyperparameters
from lightning_optim.telemetry.tags import is_setting, parameter_tag, scalar_layout, split_tag, tag, tag_roots


def test_a_single_optimizer_has_the_plain_root_and_several_are_told_apart() -> None:
    params = [nn.Parameter(torch.ones(1))]
    sgd, adam, other_adam = torch.optim.SGD(params), torch.optim.Adam(params), torch.optim.Adam(params)
    assert tag_roots([sgd]) == ["optim"]
    assert tag_roots([sgd, adam]) == ["optim_sgd", "optim_adam"]
    assert tag_roots([adam, sgd, other_adam]) == ["optim_adam-1", "optim_sgd", "optim_adam-2"]


def test_a_chart_has_the_tags_of_one_signal_for_every_group() -> None:
    layout = scalar_layout({"optim": {"lr": None, "norm/grad": None}, "optim_sgd": {}}, overlay=False)
    assert list(layout) == ["optim"] and list(layout["optim"]) == ["lr", "norm/grad"]
    kind, (pattern,) = layout["optim"]["norm/grad"]
    assert kind == "Multiline"
    assert re.search(pattern, tag("optim", "norm/grad", "head.no_decay"))
    assert not re.search(pattern, tag("optim", "norm/grad_unclipped", "head"))
    assert not re.search(pattern, tag("optim_sgd", "norm/grad", "head"))


def test_charts_stand_in_reading_order_and_eps_beside_rms() -> None:
    signals = [
        *("beta2", "eps", "norm/exp_avg", "norm/exp_avg_sq", "rms/exp_avg_sq", "nonfinite", "state_mib", "step"),
        *("weight_decay", "momentum", "beta1", "norm/grad_unclipped", "norm/grad", "norm/param", "norm/update", "lr"),
        *("cos/grad_momentum", "ratio/update_param", "unknown"),
    ]
    layout = scalar_layout({"optim": signals}, overlay=True)["optim"]
    assert list(layout) == [
        *("lr", "ratio/update_param", "norm/grad", "norm/grad_unclipped", "rms/exp_avg_sq, eps", "norm/update"),
        *("cos/grad_momentum", "norm/param", "norm/exp_avg", "norm/exp_avg_sq", "weight_decay", "momentum"),
        *("beta2", "beta1", "eps", "step", "state_mib", "nonfinite", "unknown"),
    ]
    assert layout["rms/exp_avg_sq, eps"] == ["Multiline", ["^optim/rms/exp_avg_sq(/[^/]+)?$", "^optim/eps(/[^/]+)?$"]]
    assert list(scalar_layout({"optim": ["rms/sum"]}, overlay=False)["optim"]) == ["rms/sum"]


def test_settings_are_the_hyperparameters_except_lr() -> None:
    assert all(map(is_setting, ("weight_decay", "momentum", "beta1", "beta3", "eps")))
    assert not any(map(is_setting, ("lr", "step", "norm/momentum", "norm/eps", "state_mib", "cos/grad_momentum")))


def test_tags_of_parameters_are_in_a_section_of_their_own() -> None:
    assert parameter_tag("optim", "norm/grad", "head.weight") == "optim_param/norm/grad/head.weight"
    assert parameter_tag("optim_sgd", "norm/grad", "optim.weight") == "optim_param_sgd/norm/grad/optim.weight"


def test_hyperparameters_are_the_configured_ones_of_each_group() -> None:
    rules = {"head": {"params": "1", "lr_scale": 0.5, "optimizer": "sgd", "lr": 0.2, "momentum": 0.9}}
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = OptimizerFactory("adamw", lr=0.1, groups=rules)(model)
    assert collect_hyperparameters("optim", Plan.from_optimizer(optimizer, model)) == {
        "optim/default/algorithm": "adamw",
        "optim/default/lr": 0.1,
        "optim/default/weight_decay": 0.01,
        "optim/default/eps": 1e-8,
        "optim/default/beta1": 0.9,
        "optim/default/beta2": 0.999,
        "optim/head/algorithm": "sgd",
        "optim/head/lr": 0.1,
        "optim/head/weight_decay": 0.0,
        "optim/head/momentum": 0.9,
    }


def test_hyperparameters_are_of_types_that_loggers_can_store() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.Adafactor(model.parameters(), lr=torch.tensor(0.5))
    found = collect_hyperparameters("optim", Plan.from_optimizer(optimizer, model))
    assert (found["optim/default/lr"], found["optim/default/eps"]) == (0.5, "[None, 0.001]")


def test_a_tag_is_split_into_what_it_was_made_of() -> None:
    for root in ("optim", "optim_adamw", "optim_sgd-2"):
        for signal in ("lr", "norm/grad", "rms/exp_avg_sq", "ratio/update_param", "cos/grad_momentum", "state_mib"):
            assert split_tag(tag(root, signal, "head.no_decay")) == (root, signal, "head.no_decay")
            assert split_tag(f"{root}/{signal}") == (root, signal, ""), "of a run that is one group's"
    assert split_tag(parameter_tag("optim", "norm/grad", "w")) is None
    assert split_tag("train/loss") is None and split_tag("optim") is None
