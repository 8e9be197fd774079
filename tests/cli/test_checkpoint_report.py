"""The measures of a checkpoint, against numbers worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_optim.cli import checkpoint_measure as measure
from lightning_optim.cli.checkpoint_reader import read
from lightning_optim.cli.checkpoint_report import NonFinite, Report, report
from tests.support.checkpoints import group, momentum, saved, state_dict


def reported(folder: Path, content: dict[str, Any]) -> Report:
    (optimizer,) = read(saved(folder, content))
    return report(optimizer)


def test_a_row_for_each_group_and_one_for_all(tmp_path: Path) -> None:
    found = reported(tmp_path, state_dict())
    default, head, everything = found.rows
    assert found.buffers == ("exp_avg", "exp_avg_sq")
    assert default.norms == {"exp_avg": 13.0, "exp_avg_sq": 1.0}, "5 and 12; four times a half"
    assert head.norms == {"exp_avg": 2.0}
    assert everything.norms == {"exp_avg": pytest.approx(math.sqrt(13**2 + 2**2), rel=1e-15), "exp_avg_sq": 1.0}

    assert [row.group for row in found.rows] == ["default", "head", "all"]
    assert [row.num_tensors for row in found.rows] == [2, 2, 4]
    assert [(row.num_parameters, row.num_unknown) for row in found.rows] == [(5, 0), (2, 1), (7, 1)]
    assert [row.step for row in found.rows] == [9.0, 1.0, 9.0]
    assert [(row.lr, row.weight_decay) for row in found.rows] == [(0.1, 0.01), (0.5, 0.0), (None, None)]
    steps, floats, halves = 4, 4, 2
    assert default.num_bytes == 2 * steps + 4 * floats + 4 * halves + 1 * floats
    assert everything.num_bytes == default.num_bytes + steps + 2 * floats
    assert found.nonfinite == ()


def test_norms_are_taken_in_float64(tmp_path: Path) -> None:
    state = {0: {"exp_avg": torch.full((3,), 1e-30)}, 1: {"exp_avg": torch.full((3,), 60000.0, dtype=torch.float16)}}
    content = {"state": state, "param_groups": [group("a", [0], ["a"]), group("b", [1], ["b"])]}
    small, large, _ = (row.norms["exp_avg"] for row in reported(tmp_path, content).rows)
    value = float(torch.tensor(1e-30))
    assert small == pytest.approx(value * math.sqrt(3), rel=1e-15), "in float32 its square is 0"
    assert large == pytest.approx(60000 * math.sqrt(3), rel=1e-15)


def test_a_large_tensor_is_measured_in_pieces(monkeypatch) -> None:
    monkeypatch.setattr(measure, "_PIECE", 4)
    tensor = torch.arange(11.0)
    assert measure.norm(tensor) == pytest.approx(math.sqrt(385), rel=1e-15)
    tensor[[0, 9]] = torch.tensor([math.nan, -math.inf])
    assert measure.num_nonfinite(tensor) == 2
    other = torch.arange(11.0)
    other[10] = 13.0
    assert measure.difference(torch.arange(11.0), other) == (3.0, 3.0)


def test_what_is_not_finite_is_named(tmp_path: Path) -> None:
    content = state_dict()
    content["state"][0]["exp_avg"][0] = torch.tensor([math.nan, math.inf])
    content["state"][1]["step"] = torch.tensor(math.nan)
    content["state"][3]["eta"] = math.inf
    content["state"][3]["history"] = [torch.zeros(2), torch.tensor([1.0, -math.inf])]
    found = reported(tmp_path, content)
    assert found.nonfinite == (
        NonFinite(parameter="net.weight", buffer="exp_avg", count=2, size=4),
        NonFinite(parameter="net.bias", buffer="step", count=1, size=1),
        NonFinite(parameter="head.bias", buffer="eta", count=1, size=1),
        NonFinite(parameter="head.bias", buffer="history.1", count=1, size=2),
    )
    assert not math.isfinite(found.rows[0].norms["exp_avg"])
    assert found.rows[1].num_bytes == 4 + 8 + 16, "lists count"


def test_scalars_are_no_buffers_but_a_scalar_parameters_state_is(tmp_path: Path) -> None:
    state = {
        0: {"step": torch.ones(2), "exp_avg": torch.tensor([3.0]), "mu_product": torch.tensor(0.5), "eta": 0.1},
        1: {"exp_avg": torch.tensor(4.0), "mask": torch.ones(2, dtype=torch.uint8)},
    }
    content = {"state": state, "param_groups": [group("default", [0, 1], ["vector", "scalar"])]}
    found = reported(tmp_path, content)
    assert found.buffers == ("exp_avg",)
    assert found.rows[0].norms == {"exp_avg": 5.0}
    assert found.rows[0].num_parameters == 2
    assert found.rows[0].step is None, "one that is no number is no step"


def test_sizes_that_rows_and_columns_tell_and_sizes_that_nothing_tells(tmp_path: Path) -> None:
    state = {
        0: {"row_var": torch.ones(6, 1), "col_var": torch.ones(1, 7)},
        1: {"a": torch.ones(3), "b": torch.ones(5)},
    }
    content = {"state": state, "param_groups": [group("default", [0, 1, 2], ["matrix", "odd", "fresh"])]}
    (row, _) = reported(tmp_path, content).rows
    assert (row.num_parameters, row.num_unknown) == (42, 2)


def test_every_optimizer_of_torchs_that_keeps_a_state(tmp_path: Path) -> None:
    made = {"adam": torch.optim.Adam, "adafactor": torch.optim.Adafactor, "lbfgs": torch.optim.LBFGS}
    for cls in made.values():
        weight = torch.nn.Parameter(torch.ones(4, 3))
        optimizer = cls([("weight", weight)])
        for _ in range(2):
            optimizer.step(lambda optimizer=optimizer, weight=weight: _loss(optimizer, weight))
        (row, everything) = reported(tmp_path, optimizer.state_dict()).rows
        assert row.num_parameters == 12
        assert all(value > 0 for value in row.norms.values()) and row.norms == everything.norms


def _loss(optimizer, weight):
    optimizer.zero_grad()
    loss = (weight.square().sum() - 1).square()
    loss.backward()
    return loss


def test_the_algorithm_where_a_group_has_one(tmp_path: Path) -> None:
    groups = [group("a", [0], ["a"], algorithm="muon"), group("b", [1], ["b"])]
    found = reported(tmp_path, {"state": {0: momentum(1.0)}, "param_groups": groups})
    assert [row.algorithm for row in found.rows] == ["muon", None, None]
