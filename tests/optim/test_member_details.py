"""Behavior of single members."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from lightning_optim import ConfigError, OptimizerFactory, optim
from tests.support.oracles import (
    BETAS,
    DECAY,
    torch_trajectory,
)
from tests.support.save_and_load import save_and_load


@pytest.mark.parametrize("options", BETAS, ids=str)
def test_adam_mini_with_a_block_per_element_is_torchs_adamw(options):
    """The rows of a vector are its elements."""

    def paths(make, **more):
        path = torch_trajectory(partial(make, **options, weight_decay=DECAY, **more), False, lambda lr, t: {"lr": lr})
        return [[arrays[1]] for arrays in path]

    for ours, theirs in zip(paths(optim.AdamMini, num_blocks=None), paths(torch.optim.AdamW), strict=True):
        assert np.abs(ours[0] - theirs[0]).max() < 1e-13


def test_adam_minis_blocks_are_equal_slices_of_the_rows():
    weight = torch.nn.Parameter(torch.zeros(4, 2, dtype=torch.double))
    optimizer = optim.AdamMini([weight], lr=1.0, num_blocks=2, betas=(0.0, 0.9), eps=0.0)
    weight.grad = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.5, 0.5]], dtype=torch.double)
    optimizer.step()
    rms = torch.tensor([2.5, 0.25], dtype=torch.double).sqrt().repeat_interleave(2).unsqueeze(1)
    torch.testing.assert_close(weight.data, -weight.grad / rms, rtol=1e-15, atol=0)


def test_a_parameter_that_joins_prodigy_late_gets_the_current_d():
    """As a float64 number, through a checkpoint too."""
    early, late = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    optimizer = optim.Prodigy([early], d0=1e-3)
    for _ in range(30):
        early.grad = early.detach().clone()
        optimizer.step()
    d = optimizer.state[early]["d"]
    assert d > 2e-3 and type(d) is float
    other = optim.Prodigy([early], d0=1e-3)
    other.load_state_dict(save_and_load(optimizer.state_dict()))
    other.add_param_group({"params": [late]})
    for param in (early, late):
        param.grad = torch.ones(2)
    other.step()
    assert other.state[late]["d"] == other.state[early]["d"] >= d
    assert (1 - late).min() > d  # Adam's first step without bias correction is √10 of it


def test_cautious_decay_of_adamp_is_scaled_by_wd_ratio():
    """Where the step does not oppose it; with this delta all rows are projected."""
    weight = torch.nn.Parameter(torch.ones(2, 2, dtype=torch.double))
    given = {"weight_decay": 0.5, "weight_decay_mode": "absolute", "cautious_decay": True, "wd_ratio": 0.25}
    optimizer = optim.AdamP([weight], lr=1e-9, delta=10.0, **given)
    weight.grad = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.double)
    optimizer.step()
    shrunk = torch.where(weight.grad > 0, 1 - 0.5 * 0.25, 1.0)
    torch.testing.assert_close(weight.data, shrunk.double(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["extra_sgd", "extra_adam", "storm"])
def test_a_rule_of_two_gradients_is_refused_next_to_another_algorithm(name):
    rule = {"hidden": {"params": "*", "optimizer": name}}
    with pytest.raises(ConfigError, match="evaluates the model several times a step"):
        OptimizerFactory("adamw", groups=rule)
    with pytest.raises(ConfigError, match="evaluates the model several times a step"):
        OptimizerFactory(name, groups={"hidden": {"params": "*", "optimizer": "adamw"}})
