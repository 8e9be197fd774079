"""Two optimizers are compared by parameter name across other groups, and every kind of difference is reported."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_optim.cli.checkpoint_compare import (
    MISSING,
    Comparison,
    HyperparameterChange,
    Mismatch,
    MovedParameters,
    compare,
    pair_optimizers,
)
from lightning_optim.cli.checkpoint_reader import read_checkpoint
from tests.support.checkpoints import momentum_state, param_group, save, state_dict


def compare_files(folder: Path, first: dict[str, Any], second: dict[str, Any]) -> Comparison:
    (first_optimizer,) = read_checkpoint(save(folder, first, "first"))
    (second_optimizer,) = read_checkpoint(save(folder, second, "second"))
    return compare(first_optimizer, second_optimizer)


@pytest.fixture
def other() -> dict[str, Any]:
    return copy.deepcopy(state_dict())


def test_equal_checkpoints_are_identical(tmp_path: Path, other) -> None:
    found = compare_files(tmp_path, state_dict(), other)
    assert found.is_identical
    assert found.num_equal == 7
    assert all(group.largest is None and group.step is None for group in found.groups)


def test_differences_are_those_worked_out_by_hand(tmp_path: Path, other) -> None:
    other["state"][0]["exp_avg"] = torch.tensor([[3.0, 6.0], [0.0, 12.0]])
    other["state"][1]["step"] += 2
    found = compare_files(tmp_path, state_dict(), other)
    default, head = found.groups
    assert not found.is_identical
    assert (default.num_equal, default.num_differing) == (3, 2)
    assert (default.largest, default.where) == (8.0, "net.weight: exp_avg")
    assert default.relative == pytest.approx(10 / math.sqrt(5**2 + 12**2 + 1), rel=1e-15)
    assert default.step == (9.0, 11.0)
    assert (head.num_equal, head.num_differing, head.largest, head.step) == (2, 0, None, None)


def test_the_largest_difference_is_over_all_parameters_and_nan_is_the_largest(tmp_path: Path, other) -> None:
    other["state"][0]["exp_avg"][0, 0] += 5
    other["state"][1]["exp_avg"][0] -= 1
    assert compare_files(tmp_path, state_dict(), other).groups[0].where == "net.weight: exp_avg"
    other["state"][1]["exp_avg"][0] = math.nan
    group = compare_files(tmp_path, state_dict(), other).groups[0]
    assert group.where == "net.bias: exp_avg" and math.isnan(group.largest) and math.isnan(group.relative)


def test_nan_equals_nan_with_the_same_bits_and_minus_zero_differs_from_zero(tmp_path: Path, other) -> None:
    first = state_dict()
    for content in (first, other):
        content["state"][3]["exp_avg"][1] = math.nan
    assert compare_files(tmp_path, first, other).is_identical
    other["state"][3]["exp_avg"][0] = -0.0
    group = compare_files(tmp_path, first, other).groups[1]
    assert (group.num_differing, group.largest) == (1, 0.0)


def test_the_same_bits_in_another_dtype_differ(tmp_path: Path, other) -> None:
    first = state_dict()
    first["state"][1]["exp_avg"] = torch.zeros(2, dtype=torch.float16)
    other["state"][1]["exp_avg"] = torch.zeros(2, dtype=torch.bfloat16)
    group = compare_files(tmp_path, first, other).groups[0]
    assert (group.num_differing, group.largest) == (1, 0.0)


def test_renamed_and_split_groups_are_matched_by_parameter_name(tmp_path: Path, other) -> None:
    """The same states in another order, one of them changed."""
    regrouped = {
        "state": {0: other["state"][3], 2: other["state"][1], 3: other["state"][0]},
        "param_groups": [
            param_group("tail", [0], ["head.bias"], lr=0.5),
            param_group("head", [1], ["head.weight"], lr=0.5),
            param_group("rest", [2, 3], ["net.bias", "net.weight"], lr=0.1),
        ],
    }
    regrouped["state"][2]["exp_avg"] += 1
    found = compare_files(tmp_path, state_dict(), regrouped)
    default, head = found.groups
    assert (default.num_equal, default.num_differing, default.where) == (4, 1, "net.bias: exp_avg")
    assert (head.num_equal, head.num_differing) == (2, 0)
    assert found.groups_only == (("default",), ("tail", "rest"))
    assert found.params_only == ((), ())
    assert found.moved == (
        MovedParameters(first="default", second="rest", num_tensors=2),
        MovedParameters(first="head", second="tail", num_tensors=1),
    )


def test_hyperparameters_are_compared_by_group(tmp_path: Path, other) -> None:
    other["param_groups"][0] |= {"lr": 0.05, "betas": [0.9, 0.99], "nesterov": True}
    del other["param_groups"][1]["weight_decay"]
    assert compare_files(tmp_path, state_dict(), other).hyperparameters == (
        HyperparameterChange(group="default", key="lr", first=0.1, second=0.05),
        HyperparameterChange(group="default", key="betas", first=(0.9, 0.999), second=[0.9, 0.99]),
        HyperparameterChange(group="default", key="nesterov", first=MISSING, second=True),
        HyperparameterChange(group="head", key="weight_decay", first=0, second=MISSING),
    )


def test_hyperparameters_that_are_dicts_are_compared_by_key(tmp_path: Path, other) -> None:
    first = state_dict()
    first["param_groups"][0]["options"] = {"lr": 0.1, "eps": 1e-8}
    other["param_groups"][0]["options"] = {"lr": 0.2, "eps": 1e-8}
    other["param_groups"][1]["options"] = {"lr": 0.5, "eps": 1e-8}
    assert compare_files(tmp_path, first, other).hyperparameters == (
        HyperparameterChange(group="default", key="options.lr", first=0.1, second=0.2),
        HyperparameterChange(group="head", key="options", first=MISSING, second={"lr": 0.5, "eps": 1e-8}),
    )


def test_equal_hyperparameters_of_other_types_are_identical(tmp_path: Path, other) -> None:
    other["param_groups"][0]["betas"] = [0.9, 0.999]
    other["param_groups"][1]["lr"] = 0.5
    assert compare_files(tmp_path, state_dict(), other).is_identical


def test_hyperparameters_of_a_renamed_group_are_compared(tmp_path: Path, other) -> None:
    other["param_groups"][1] |= {"name": "top", "weight_decay": 1}
    found = compare_files(tmp_path, state_dict(), other)
    assert found.hyperparameters == (HyperparameterChange(group="head", key="weight_decay", first=0, second=1),)


def test_parameters_that_only_one_file_has_are_listed(tmp_path: Path, other) -> None:
    other["param_groups"][1]["param_names"] = ["head.weight", "head.scale"]
    found = compare_files(tmp_path, state_dict(), other)
    assert found.params_only == (("head.bias",), ("head.scale",))
    assert (found.groups[1].num_equal, found.groups[1].num_differing) == (0, 0)


def test_other_shapes_dtypes_and_missing_buffers_are_mismatches(tmp_path: Path, other) -> None:
    other["state"][0]["exp_avg"] = torch.zeros(3, 2)
    other["state"][0]["exp_avg_sq"] = torch.full((2, 2), 0.75)
    other["state"][1]["max_exp_avg_sq"] = torch.ones(1)
    other["state"][3]["step"] = 1
    del other["state"][1]["exp_avg"]
    found = compare_files(tmp_path, state_dict(), other)
    weight, bias = ("net.weight",), ("net.bias",)
    assert found.mismatches == (
        Mismatch(buffer="exp_avg", first="float32 [2, 2]", second="float32 [3, 2]", params=weight),
        Mismatch(buffer="exp_avg_sq", first="bfloat16 [2, 2]", second="float32 [2, 2]", params=weight),
        Mismatch(buffer="exp_avg", first="float32 [1]", second="missing", params=bias),
        Mismatch(buffer="max_exp_avg_sq", first="missing", second="float32 [1]", params=bias),
        Mismatch(buffer="step", first="float32 []", second="a number", params=("head.bias",)),
    )
    default, head = found.groups
    assert (default.num_equal, default.num_differing) == (2, 4)
    assert (default.largest, default.where) == (0.25, "net.weight: exp_avg_sq"), "values of one shape are subtracted"
    assert (head.num_equal, head.num_differing, head.largest) == (1, 1, None)


def test_a_state_that_only_one_file_has_differs(tmp_path: Path, other) -> None:
    other["state"][2] = momentum_state(1.0, step=3.0)
    group = compare_files(tmp_path, state_dict(), other).groups[1]
    assert (group.num_equal, group.num_differing, group.step) == (2, 2, (1.0, 3.0))


def test_parameters_are_matched_by_position_where_one_file_has_no_names(tmp_path: Path, other) -> None:
    for group in other["param_groups"]:
        del group["param_names"], group["name"]
    other["state"][1]["exp_avg"] += 1
    found = compare_files(tmp_path, state_dict(), other)
    assert not found.by_name and found.params_only == ((), ())
    assert found.groups[0].where == "param 1: exp_avg"
    assert found.moved == (MovedParameters(first="head", second="group1", num_tensors=2),)


def test_optimizers_are_paired_by_key_or_else_by_position(tmp_path: Path) -> None:
    def pair_keys(first: Any, second: Any) -> list[tuple[str | None, str | None]]:
        files = (read_checkpoint(save(tmp_path, content, name)) for name, content in (("1", first), ("2", second)))
        return [(old and old.key, new and new.key) for old, new in pair_optimizers(*files)]

    saved = state_dict()
    assert pair_keys({"g": saved, "d": saved}, {"d": saved, "g": saved}) == [("g", "g"), ("d", "d")]
    assert pair_keys(saved, {"optimizer_states": [saved]}) == [("optimizer", "optimizer_states[0]")]
    assert pair_keys([saved, saved], [saved]) == [("[0]", "[0]"), ("[1]", None)]
    assert pair_keys([saved], {"a": saved, "b": saved}) == [("[0]", "a"), (None, "b")]
