"""The measures of a checkpoint are the numbers worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_optim.cli import checkpoint_measure
from lightning_optim.cli.checkpoint_reader import read_checkpoint
from lightning_optim.cli.checkpoint_report import NonFinite, Report, build_report
from tests.support.checkpoints import momentum_state, param_group, save, state_dict


def report_of(folder: Path, content: dict[str, Any]) -> Report:
    (optimizer,) = read_checkpoint(save(folder, content))
    return build_report(optimizer)


def test_there_is_a_row_for_each_group_and_one_for_all(tmp_path: Path) -> None:
    report = report_of(tmp_path, state_dict())
    default, head, total = report.rows
    assert report.buffers == ("exp_avg", "exp_avg_sq")
    assert default.norms == {"exp_avg": 13.0, "exp_avg_sq": 1.0}, "5 and 12; four times a half"
    assert head.norms == {"exp_avg": 2.0}
    assert total.norms == {"exp_avg": pytest.approx(math.sqrt(13**2 + 2**2), rel=1e-15), "exp_avg_sq": 1.0}

    assert [row.group for row in report.rows] == ["default", "head", "all"]
    assert [row.num_tensors for row in report.rows] == [2, 2, 4]
    assert [(row.num_parameters, row.num_unknown) for row in report.rows] == [(5, 0), (2, 1), (7, 1)]
    assert [row.step for row in report.rows] == [9.0, 1.0, 9.0]
    assert [(row.lr, row.weight_decay) for row in report.rows] == [(0.1, 0.01), (0.5, 0.0), (None, None)]
    step_bytes, float32_bytes, bfloat16_bytes = 4, 4, 2
    assert default.num_bytes == 2 * step_bytes + 4 * float32_bytes + 4 * bfloat16_bytes + 1 * float32_bytes
    assert total.num_bytes == default.num_bytes + step_bytes + 2 * float32_bytes
    assert report.nonfinite == ()


def test_norms_are_computed_in_float64(tmp_path: Path) -> None:
    state = {0: {"exp_avg": torch.full((3,), 1e-30)}, 1: {"exp_avg": torch.full((3,), 60000.0, dtype=torch.float16)}}
    content = {"state": state, "param_groups": [param_group("a", [0], ["a"]), param_group("b", [1], ["b"])]}
    small, large, _ = (row.norms["exp_avg"] for row in report_of(tmp_path, content).rows)
    value = float(torch.tensor(1e-30))
    assert small == pytest.approx(value * math.sqrt(3), rel=1e-15), "in float32 its square is 0"
    assert large == pytest.approx(60000 * math.sqrt(3), rel=1e-15)


def test_a_large_tensor_is_measured_in_chunks(monkeypatch) -> None:
    monkeypatch.setattr(checkpoint_measure, "_CHUNK_NUMEL", 4)
    tensor = torch.arange(11.0)
    assert checkpoint_measure.norm(tensor) == pytest.approx(math.sqrt(385), rel=1e-15)
    tensor[[0, 9]] = torch.tensor([math.nan, -math.inf])
    assert checkpoint_measure.num_nonfinite(tensor) == 2
    other = torch.arange(11.0)
    other[10] = 13.0
    assert checkpoint_measure.difference(torch.arange(11.0), other) == (3.0, 3.0)


def test_nonfinite_values_are_named(tmp_path: Path) -> None:
    content = state_dict()
    content["state"][0]["exp_avg"][0] = torch.tensor([math.nan, math.inf])
    content["state"][1]["step"] = torch.tensor(math.nan)
    content["state"][3]["eta"] = math.inf
    content["state"][3]["history"] = [torch.zeros(2), torch.tensor([1.0, -math.inf])]
    report = report_of(tmp_path, content)
    assert report.nonfinite == (
        NonFinite(parameter="net.weight", buffer="exp_avg", count=2, size=4),
        NonFinite(parameter="net.bias", buffer="step", count=1, size=1),
        NonFinite(parameter="head.bias", buffer="eta", count=1, size=1),
        NonFinite(parameter="head.bias", buffer="history.1", count=1, size=2),
    )
    assert not math.isfinite(report.rows[0].norms["exp_avg"])
    assert report.rows[1].num_bytes == 4 + 8 + 16, "lists count"


def test_scalars_are_not_buffers_but_the_state_of_a_scalar_parameter_counts(tmp_path: Path) -> None:
    state = {
        0: {"exp_avg": torch.tensor([3.0]), "mu_product": torch.tensor(0.5), "eta": 0.1},
        1: {"exp_avg": torch.tensor(4.0), "mask": torch.ones(2, dtype=torch.uint8)},
    }
    content = {"state": state, "param_groups": [param_group("default", [0, 1], ["vector", "scalar"])]}
    report = report_of(tmp_path, content)
    assert report.buffers == ("exp_avg",)
    assert report.rows[0].norms == {"exp_avg": 5.0}
    assert report.rows[0].num_parameters == 2
    assert report.rows[0].step is None


def test_sizes_come_from_rows_and_columns_and_are_unknown_without_a_common_shape(tmp_path: Path) -> None:
    state = {
        0: {"row_var": torch.ones(6, 1), "col_var": torch.ones(1, 7)},
        1: {"a": torch.ones(3), "b": torch.ones(5)},
    }
    content = {"state": state, "param_groups": [param_group("default", [0, 1, 2], ["matrix", "odd", "fresh"])]}
    (row, _) = report_of(tmp_path, content).rows
    assert (row.num_parameters, row.num_unknown) == (42, 2)


@pytest.mark.parametrize("cls", [torch.optim.Adam, torch.optim.Adafactor, torch.optim.LBFGS])
def test_the_state_of_torchs_optimizers_is_measured(tmp_path: Path, cls) -> None:
    weight = torch.nn.Parameter(torch.ones(4, 3))
    optimizer = cls([("weight", weight)])

    def closure():
        optimizer.zero_grad()
        loss = (weight.square().sum() - 1).square()
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(closure)
    (row, total) = report_of(tmp_path, optimizer.state_dict()).rows
    assert row.num_parameters == 12
    assert all(value > 0 for value in row.norms.values()) and row.norms == total.norms


def test_a_row_has_the_algorithm_of_its_group(tmp_path: Path) -> None:
    groups = [param_group("a", [0], ["a"], algorithm="muon"), param_group("b", [1], ["b"])]
    report = report_of(tmp_path, {"state": {0: momentum_state(1.0)}, "param_groups": groups})
    assert [row.algorithm for row in report.rows] == ["muon", None, None]
