"""`inspect` prints what one checkpoint holds, and how two differ."""

from __future__ import annotations

import math
import re
from pathlib import Path

import torch

from tests.support.checkpoints import param_group, save, state_dict


def cells(out: str, row: str) -> list[str]:
    """The cells of the first row with this name."""
    (line, *_) = [line for line in out.splitlines() if re.match(rf"[│┃] {row} +[│┃]", line)]
    return [cell.strip() for cell in re.split("[│┃]", line)[1:-1]]


def test_a_checkpoint_is_a_table_of_groups(cli_output, tmp_path: Path) -> None:
    out = cli_output("inspect", str(save(tmp_path, {"optimizer_states": [state_dict()]})))
    assert out.startswith("optimizer_states[0]")
    columns = ["group", "tensors", "parameters", "lr", "weight_decay", "step", "exp_avg", "exp_avg_sq", "state MiB"]
    assert cells(out, "group") == columns
    assert cells(out, "default") == ["default", "2", "5", "0.1", "0.01", "9", "13", "1", "3.433e-05"]
    assert cells(out, "head") == ["head", "2", "≥ 2", "0.5", "0", "1", "2", "", "1.144e-05"]
    assert cells(out, "all") == ["all", "4", "≥ 7", "", "", "9", "13.15", "1", "4.578e-05"]
    assert out.rstrip().endswith("no non-finite values")


def test_there_is_a_column_of_algorithms_where_a_group_has_one(cli_output, tmp_path: Path) -> None:
    content = {"state": {}, "param_groups": [param_group("default", [0], ["w"], algorithm="muon", lr=0.1)]}
    out = cli_output("inspect", str(save(tmp_path, content)))
    assert cells(out, "group")[:2] == ["group", "algorithm"]
    assert cells(out, "default") == ["default", "muon", "1", "", "0.1", "", "", "0"]


def test_nonfinite_values_are_listed(cli_output, tmp_path: Path) -> None:
    content = state_dict()
    content["state"][0]["exp_avg"][0] = math.nan
    out = cli_output("inspect", str(save(tmp_path, content)))
    assert out.rstrip().endswith("net.weight: exp_avg 2 of 4 not finite")
    assert "no non-finite values" not in out
    assert cells(out, "default")[6] == "nan"


def test_only_the_first_of_many_nonfinite_values_are_listed(cli_output, tmp_path: Path) -> None:
    state = {index: {"exp_avg": torch.tensor([math.inf])} for index in range(60)}
    content = {"state": state, "param_groups": [param_group("default", list(range(60)), None)]}
    out = cli_output("inspect", str(save(tmp_path, content)))
    assert out.count("not finite") == 50 and out.rstrip().endswith("and 10 more")


def test_names_are_printed_literally(cli_output, tmp_path: Path) -> None:
    """rich would read `[red]` as a color."""
    content = {"state": {0: {"[bold]": torch.ones(1)}}, "param_groups": [param_group("[red]", [0], ["w"])]}
    out = cli_output("inspect", str(save(tmp_path, content)))
    assert cells(out, r"\[red\]")[0] == "[red]" and "[bold]" in cells(out, "group")


def test_a_table_with_many_buffers_is_not_cut(cli_output, tmp_path: Path) -> None:
    buffers = [f"buffer_with_a_long_name_{number}" for number in range(9)]
    state = {0: {name: torch.ones(4) for name in buffers}}
    content = {"state": state, "param_groups": [param_group("default", [0], ["w"])]}
    out = cli_output("inspect", str(save(tmp_path, content)))
    assert cells(out, "group")[6:-1] == buffers
    assert cells(out, "default")[6:-1] == ["2"] * 9


def test_identical_checkpoints_are_one_line(cli_output, tmp_path: Path) -> None:
    first, second = (save(tmp_path, state_dict(), name) for name in ("first", "second"))
    assert cli_output("inspect", str(first), str(second)) == "optimizer: identical: 7 state tensors, bitwise\n"


def test_the_difference_of_two_checkpoints_is_a_table_and_a_list(cli_output, tmp_path: Path) -> None:
    other = state_dict()
    other["state"][1] = {"step": torch.tensor(11.0), "exp_avg": torch.tensor([12.5])}
    other["state"][3]["exp_avg"] = torch.zeros(3)
    other["param_groups"][0]["lr"] = 0.05
    other["param_groups"][1]["name"] = "top"
    other["param_groups"][1]["param_names"] = ["head.weight", "head.bias"]
    first, second = save(tmp_path, state_dict(), "first"), save(tmp_path, [other, other], "second")
    out = cli_output("inspect", str(first), str(second))
    assert out.startswith("optimizer and [0]")
    assert cells(out, "group") == ["group", "equal", "differing", "step", "relative", "largest", "in"]
    relative = f"{0.5 / math.sqrt(5**2 + 12**2 + 1):.4g}"
    assert cells(out, "default") == ["default", "3", "2", "9 → 11", relative, "0.5", "net.bias: exp_avg"]
    assert cells(out, "head") == ["head", "1", "1", "", "", "", ""]
    lines = [line for line in out.splitlines() if not line.startswith(("┏", "┃", "┡", "│", "└"))]
    assert lines[1:] == [
        f"groups only in {first}: head",
        f"groups only in {second}: top",
        "head → top: 2 parameters",
        "default: lr: 0.1 → 0.05",
        "exp_avg: float32 [2] → float32 [3] in head.bias",
        f"[1]: only in {second}",
    ]


def test_parameters_of_one_file_are_listed_and_missing_names_are_said(cli_output, tmp_path: Path) -> None:
    other = state_dict()
    other["param_groups"][1]["param_names"] = ["head.weight", "head.scale"]
    first, second = save(tmp_path, state_dict(), "first"), save(tmp_path, other, "second")
    out = cli_output("inspect", str(first), str(second))
    assert f"parameters only in {first}: head.bias\nparameters only in {second}: head.scale\n" in out
    for group in other["param_groups"]:
        del group["param_names"]
    other["state"][1]["exp_avg"] += 1
    assert "matched by position" in cli_output("inspect", str(first), str(save(tmp_path, other, "third")))


def test_a_file_that_cannot_be_read_is_refused(cli_error, tmp_path: Path) -> None:
    good = save(tmp_path, state_dict(), "good")
    assert "there is no such file" in cli_error("inspect", str(tmp_path / "nowhere"))
    assert "there is no such file" in cli_error("inspect", str(good), str(tmp_path / "nowhere"))
    assert "Its keys are: epoch" in cli_error("inspect", str(save(tmp_path, {"epoch": 1})))
