"""Two checkpoints side by side: matched by name through other groups, and every kind of difference said."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_optim.cli.checkpoint_compare import Comparison, Mismatch, Move, Setting, compare, pair
from lightning_optim.cli.checkpoint_reader import read
from tests.support.checkpoints import group, momentum, saved, state_dict


def compared(folder: Path, first: dict[str, Any], second: dict[str, Any]) -> Comparison:
    (one,), (two,) = read(saved(folder, first, "first")), read(saved(folder, second, "second"))
    return compare(one, two)


@pytest.fixture
def other() -> dict[str, Any]:
    return copy.deepcopy(state_dict())


def test_the_same(tmp_path: Path, other) -> None:
    found = compared(tmp_path, state_dict(), other)
    assert found.same
    assert found.num_equal == 7
    assert all(row.largest is None and row.step is None for row in found.rows)


def test_differences_by_hand(tmp_path: Path, other) -> None:
    other["state"][0]["exp_avg"] = torch.tensor([[3.0, 6.0], [0.0, 12.0]])
    other["state"][1]["step"] += 2
    found = compared(tmp_path, state_dict(), other)
    default, head = found.rows
    assert not found.same
    assert (default.num_equal, default.num_differing) == (3, 2)
    assert (default.largest, default.where) == (8.0, "net.weight: exp_avg")
    whole = math.sqrt(5**2 + 12**2 + 1)
    assert default.relative == pytest.approx(10 / whole, rel=1e-15)
    assert default.step == (9.0, 11.0)
    assert (head.num_equal, head.num_differing, head.largest, head.step) == (2, 0, None, None)


def test_the_largest_is_the_largest_of_all_and_nan_beats_it(tmp_path: Path, other) -> None:
    other["state"][0]["exp_avg"][0, 0] += 5
    other["state"][1]["exp_avg"][0] -= 1
    assert compared(tmp_path, state_dict(), other).rows[0].where == "net.weight: exp_avg"
    other["state"][1]["exp_avg"][0] = math.nan
    row = compared(tmp_path, state_dict(), other).rows[0]
    assert row.where == "net.bias: exp_avg" and math.isnan(row.largest) and math.isnan(row.relative)


def test_nan_with_the_same_bits_is_the_same_and_minus_zero_is_not(tmp_path: Path, other) -> None:
    first = state_dict()
    for content in (first, other):
        content["state"][3]["exp_avg"][1] = math.nan
    assert compared(tmp_path, first, other).same
    other["state"][3]["exp_avg"][0] = -0.0
    row = compared(tmp_path, first, other).rows[1]
    assert (row.num_differing, row.largest) == (1, 0.0)


def test_the_same_bits_in_another_dtype_are_not_the_same(tmp_path: Path, other) -> None:
    first = state_dict()
    first["state"][1]["exp_avg"] = torch.zeros(2, dtype=torch.float16)
    other["state"][1]["exp_avg"] = torch.zeros(2, dtype=torch.bfloat16)
    row = compared(tmp_path, first, other).rows[0]
    assert (row.num_differing, row.largest) == (1, 0.0)


def test_groups_that_were_renamed_and_split_are_matched_by_name(tmp_path: Path, other) -> None:
    """The same states, in another order, and one of them changed."""
    regrouped = {
        "state": {0: other["state"][3], 2: other["state"][1], 3: other["state"][0]},
        "param_groups": [
            group("tail", [0], ["head.bias"], lr=0.5),
            group("head", [1], ["head.weight"], lr=0.5),
            group("rest", [2, 3], ["net.bias", "net.weight"], lr=0.1),
        ],
    }
    regrouped["state"][2]["exp_avg"] += 1
    found = compared(tmp_path, state_dict(), regrouped)
    default, head = found.rows
    assert (default.num_equal, default.num_differing, default.where) == (4, 1, "net.bias: exp_avg")
    assert (head.num_equal, head.num_differing) == (2, 0)
    assert found.groups_only == (("default",), ("tail", "rest"))
    assert found.params_only == ((), ())
    assert found.moves == (
        Move(first="default", second="rest", num_tensors=2),
        Move(first="head", second="tail", num_tensors=1),
    )


def test_hyperparameters_by_group(tmp_path: Path, other) -> None:
    other["param_groups"][0] |= {"lr": 0.05, "betas": [0.9, 0.99], "nesterov": True}
    del other["param_groups"][1]["weight_decay"]
    assert compared(tmp_path, state_dict(), other).settings == (
        Setting(group="default", key="lr", first="0.1", second="0.05"),
        Setting(group="default", key="betas", first="[0.9, 0.999]", second="[0.9, 0.99]"),
        Setting(group="default", key="nesterov", first="nothing", second="True"),
        Setting(group="head", key="weight_decay", first="0", second="nothing"),
    )


def test_hyperparameters_in_a_dict_are_compared_one_by_one(tmp_path: Path, other) -> None:
    first = state_dict()
    first["param_groups"][0]["options"] = {"lr": 0.1, "eps": 1e-8}
    other["param_groups"][0]["options"] = {"lr": 0.2, "eps": 1e-8}
    other["param_groups"][1]["options"] = {"lr": 0.5, "eps": 1e-8}
    assert compared(tmp_path, first, other).settings == (
        Setting(group="default", key="options.lr", first="0.1", second="0.2"),
        Setting(group="head", key="options", first="nothing", second="{lr, eps}"),
    )


def test_hyperparameters_that_say_the_same_in_other_types(tmp_path: Path, other) -> None:
    other["param_groups"][0]["betas"] = [0.9, 0.999]
    other["param_groups"][1]["lr"] = 0.5
    assert compared(tmp_path, state_dict(), other).same


def test_hyperparameters_of_a_group_that_was_only_renamed(tmp_path: Path, other) -> None:
    other["param_groups"][1] |= {"name": "top", "weight_decay": 1}
    found = compared(tmp_path, state_dict(), other)
    assert found.settings == (Setting(group="head", key="weight_decay", first="0", second="1"),)


def test_parameters_in_one_alone(tmp_path: Path, other) -> None:
    other["param_groups"][1]["param_names"] = ["head.weight", "head.scale"]
    found = compared(tmp_path, state_dict(), other)
    assert found.params_only == (("head.bias",), ("head.scale",))
    assert (found.rows[1].num_equal, found.rows[1].num_differing) == (0, 0)


def test_other_shapes_dtypes_and_buffers_are_said(tmp_path: Path, other) -> None:
    other["state"][0]["exp_avg"] = torch.zeros(3, 2)
    other["state"][0]["exp_avg_sq"] = torch.full((2, 2), 0.75)
    other["state"][1]["max_exp_avg_sq"] = torch.ones(1)
    other["state"][3]["step"] = 1
    del other["state"][1]["exp_avg"]
    found = compared(tmp_path, state_dict(), other)
    weight, bias = ("net.weight",), ("net.bias",)
    assert found.mismatches == (
        Mismatch(buffer="exp_avg", first="float32 [2, 2]", second="float32 [3, 2]", params=weight),
        Mismatch(buffer="exp_avg_sq", first="bfloat16 [2, 2]", second="float32 [2, 2]", params=weight),
        Mismatch(buffer="exp_avg", first="float32 [1]", second="nothing", params=bias),
        Mismatch(buffer="max_exp_avg_sq", first="nothing", second="float32 [1]", params=bias),
        Mismatch(buffer="step", first="float32 []", second="a number", params=("head.bias",)),
    )
    default, head = found.rows
    assert (default.num_equal, default.num_differing) == (2, 4)
    assert (default.largest, default.where) == (0.25, "net.weight: exp_avg_sq"), "what has one shape is subtracted"
    assert (head.num_equal, head.num_differing, head.largest) == (1, 1, None)


def test_a_state_that_is_in_one_alone(tmp_path: Path, other) -> None:
    other["state"][2] = momentum(1.0, step=3.0)
    row = compared(tmp_path, state_dict(), other).rows[1]
    assert (row.num_equal, row.num_differing, row.step) == (2, 2, (1.0, 3.0))


def test_by_place_where_one_file_has_no_names(tmp_path: Path, other) -> None:
    for each in other["param_groups"]:
        del each["param_names"], each["name"]
    other["state"][1]["exp_avg"] += 1
    found = compared(tmp_path, state_dict(), other)
    assert not found.by_name and found.params_only == ((), ())
    assert found.rows[0].where == "param 1: exp_avg"
    assert found.moves == (Move(first="head", second="group1", num_tensors=2),)


def test_optimizers_are_paired_by_key_or_in_their_order(tmp_path: Path) -> None:
    def keys(first: Any, second: Any) -> list[tuple[str | None, str | None]]:
        files = read(saved(tmp_path, first, "first")), read(saved(tmp_path, second, "second"))
        return [(one and one.key, two and two.key) for one, two in pair(*files)]

    one = state_dict()
    assert keys({"g": one, "d": one}, {"d": one, "g": one}) == [("g", "g"), ("d", "d")]
    assert keys(one, {"optimizer_states": [one]}) == [("optimizer", "optimizer_states[0]")]
    assert keys([one, one], [one]) == [("[0]", "[0]"), ("[1]", None)]
    assert keys([one], {"a": one, "b": one}) == [("[0]", "a"), (None, "b")]
