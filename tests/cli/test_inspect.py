"""`inspect`: what it prints of one checkpoint and of two."""

from __future__ import annotations

import math
import re
from pathlib import Path

import torch

from tests.support.checkpoints import group, saved, state_dict


def cells(out: str, row: str) -> list[str]:
    """The cells of the first row with this name."""
    (line, *_) = [line for line in out.splitlines() if re.match(rf"[│┃] {row} +[│┃]", line)]
    return [cell.strip() for cell in re.split("[│┃]", line)[1:-1]]


def test_one_checkpoint(printed, tmp_path: Path) -> None:
    out = printed("inspect", str(saved(tmp_path, {"optimizer_states": [state_dict()]})))
    assert out.startswith("optimizer_states[0]")
    columns = ["group", "tensors", "parameters", "lr", "weight_decay", "step", "exp_avg", "exp_avg_sq", "state MiB"]
    assert cells(out, "group") == columns
    assert cells(out, "default") == ["default", "2", "5", "0.1", "0.01", "9", "13", "1", "3.43e-05"]
    assert cells(out, "head") == ["head", "2", "≥ 2", "0.5", "0", "1", "2", "", "1.14e-05"]
    assert cells(out, "all") == ["all", "4", "≥ 7", "", "", "9", "13.1529", "1", "4.58e-05"]
    assert out.rstrip().endswith("no non-finite values")


def test_the_algorithm_has_a_column_where_there_is_one(printed, tmp_path: Path) -> None:
    content = {"state": {}, "param_groups": [group("default", [0], ["w"], algorithm="muon", lr=0.1)]}
    out = printed("inspect", str(saved(tmp_path, content)))
    assert cells(out, "group")[:2] == ["group", "algorithm"]
    assert cells(out, "default") == ["default", "muon", "1", "", "0.1", "", "", "0"]


def test_values_that_are_not_finite(printed, tmp_path: Path) -> None:
    content = state_dict()
    content["state"][0]["exp_avg"][0] = math.nan
    out = printed("inspect", str(saved(tmp_path, content)))
    assert out.rstrip().endswith("net.weight: exp_avg 2 of 4 not finite")
    assert "no non-finite values" not in out
    assert cells(out, "default")[6] == "nan"


def test_of_very_many_the_first_are_printed(printed, tmp_path: Path) -> None:
    state = {index: {"exp_avg": torch.tensor([math.inf])} for index in range(60)}
    content = {"state": state, "param_groups": [group("default", list(range(60)), None)]}
    out = printed("inspect", str(saved(tmp_path, content)))
    assert out.count("not finite") == 50 and out.rstrip().endswith("and 10 more")


def test_names_are_printed_as_they_are(printed, tmp_path: Path) -> None:
    """Rich takes `[red]` for a colour."""
    content = {"state": {0: {"[bold]": torch.ones(1)}}, "param_groups": [group("[red]", [0], ["w"])]}
    out = printed("inspect", str(saved(tmp_path, content)))
    assert cells(out, r"\[red\]")[0] == "[red]" and "[bold]" in cells(out, "group")


def test_nothing_is_cut_where_there_are_many_buffers(printed, tmp_path: Path) -> None:
    buffers = [f"buffer_with_a_long_name_{number}" for number in range(9)]
    content = {"state": {0: {name: torch.ones(4) for name in buffers}}, "param_groups": [group("default", [0], ["w"])]}
    out = printed("inspect", str(saved(tmp_path, content)))
    assert cells(out, "group")[6:-1] == buffers
    assert cells(out, "default")[6:-1] == ["2"] * 9


def test_two_that_are_the_same(printed, tmp_path: Path) -> None:
    first, second = (saved(tmp_path, state_dict(), name) for name in ("first", "second"))
    assert printed("inspect", str(first), str(second)) == "optimizer: the same: 7 state tensors, bitwise\n"


def test_two_that_differ(printed, tmp_path: Path) -> None:
    other = state_dict()
    other["state"][1] = {"step": torch.tensor(11.0), "exp_avg": torch.tensor([12.5])}
    other["state"][3]["exp_avg"] = torch.zeros(3)
    other["param_groups"][0]["lr"] = 0.05
    other["param_groups"][1]["name"] = "top"
    other["param_groups"][1]["param_names"] = ["head.weight", "head.bias"]
    first, second = saved(tmp_path, state_dict(), "first"), saved(tmp_path, [other, other], "second")
    out = printed("inspect", str(first), str(second))
    assert out.startswith("optimizer and [0]")
    assert cells(out, "group") == ["group", "equal", "differing", "step", "relative", "largest", "in"]
    relative = f"{0.5 / math.sqrt(5**2 + 12**2 + 1):.6g}"
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


def test_parameters_in_one_alone_and_files_without_names(printed, tmp_path: Path) -> None:
    other = state_dict()
    other["param_groups"][1]["param_names"] = ["head.weight", "head.scale"]
    first, second = saved(tmp_path, state_dict(), "first"), saved(tmp_path, other, "second")
    out = printed("inspect", str(first), str(second))
    assert f"parameters only in {first}: head.bias\nparameters only in {second}: head.scale\n" in out
    for each in other["param_groups"]:
        del each["param_names"]
    other["state"][1]["exp_avg"] += 1
    assert "matched by place" in printed("inspect", str(first), str(saved(tmp_path, other, "third")))


def test_refusals(refused, tmp_path: Path) -> None:
    good = saved(tmp_path, state_dict(), "good")
    assert "there is no such file" in refused("inspect", str(tmp_path / "nowhere"))
    assert "there is no such file" in refused("inspect", str(good), str(tmp_path / "nowhere"))
    assert "Its keys are: epoch" in refused("inspect", str(saved(tmp_path, {"epoch": 1})))


def test_it_loads_neither_lightning_nor_hydra(run_python, tmp_path: Path) -> None:
    code = "import sys; from lightning_optim.cli import main; main(sys.argv[1:]); print(sorted(sys.modules))"
    loaded = run_python(code, "inspect", str(saved(tmp_path, state_dict()))).splitlines()[-1]
    assert "'lightning_optim.cli.checkpoint_report'" in loaded
    assert not any(f"'{name}'" in loaded for name in ("lightning", "hydra", "omegaconf"))
