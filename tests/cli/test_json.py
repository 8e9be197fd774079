"""`explain` and `inspect` print one JSON document, in which numbers are numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from lightning_optim.cli import main
from lightning_optim.cli.json_output import to_json
from tests.support.apps import EXPLAIN_RECIPE
from tests.support.checkpoints import save, state_dict

RECIPE = (*EXPLAIN_RECIPE, "model", "--json")
ADAMW = "{_target_: lightning_optim.OptimizerFactory, name: adamw}"


def refuse(token: str) -> None:
    raise AssertionError(f"{token} is not JSON")


def parse(text: str) -> dict:
    """A document; Python's parser alone would also take NaN and Infinity."""
    return json.loads(text, parse_constant=refuse)


def test_what_json_does_not_have_is_text() -> None:
    values = [math.nan, math.inf, -math.inf, 1, 0.5, True, None, "é", (1,), torch.tensor(2.0), torch.relu_]
    *plain, function = parse(to_json({"values": values}))["values"]
    assert plain == ["NaN", "Infinity", "-Infinity", 1, 0.5, True, None, "é", [1], 2.0]
    assert isinstance(function, str)
    assert [float(text) for text in plain[1:3]] == [math.inf, -math.inf]


def test_explain_gives_the_groups_of_each_optimizer_and_of_its_stages(cli_output) -> None:
    document = parse(cli_output(*RECIPE, "unfreeze.stages.backbone.lr_scale=0.25"))
    assert list(document) == ["notes", "optimizers", "steps", "plot"]
    assert document["notes"] == [] and document["steps"] is None and document["plot"] is None
    first, second = document["optimizers"]
    assert [it["key"] for it in (first, second)] == ["optimizer", "pretrain.optimizer"]
    assert second["unfreeze"] == []
    (unfreeze,) = first["unfreeze"]
    groups = {group["group"]: group for group in unfreeze["groups"]}
    assert list(groups) == ["head", "head.no_decay", "backbone", "backbone.no_decay"]
    backbone = groups["backbone.no_decay"]
    assert (backbone["thaws"], backbone["lr"], backbone["lr_scale"]) == ("epoch 1", 0.0025, 0.25)
    assert backbone["hyperparameters"]["weight_decay"] == 0.0 and backbone["rules"] == ["no_decay"]
    assert len(backbone["params"]) == backbone["tensors"] == 6
    keys = {tuple(group) for plan in (first, unfreeze, second) for group in plan["groups"]}
    assert len(keys) == 1, "the same keys in every plan"


def test_explain_names_what_is_frozen(cli_output) -> None:
    rule = "+optimizer.groups.stem={params: backbone.0.*, frozen: true}"
    (first, _) = parse(cli_output(*RECIPE, rule))["optimizers"]
    assert first["frozen"] == ["backbone.0.weight"] and first["frozen_by_the_model"] == []


def test_why_gives_each_value_with_what_set_it(cli_output) -> None:
    document = parse(cli_output(*RECIPE, "--why", "backbone.1.bias"))
    first, second = document["optimizers"]
    assert "groups" not in first and "parameter" not in first, "with stages, they show everything"
    fields = {it["field"]: (it["value"], it["set_by"]) for it in first["unfreeze"][0]["parameter"]["fields"]}
    assert fields["lr"] == (0.001, "lr × stages.backbone.lr_scale")
    assert fields["weight_decay"] == (0.0, "groups.no_decay.weight_decay")
    assert fields["betas"][0] == [0.9, 0.999] and fields["stage"][0] == "backbone"
    assert second["parameter"]["name"] == "backbone.1.bias"


@pytest.mark.slow
def test_the_path_of_the_plot_is_in_the_document(cli_output, tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    document = parse(cli_output(*RECIPE, "--steps-per-epoch", "2", "--plot", str(path)))
    assert path.exists() and document["plot"]["path"] == str(path)
    assert document["plot"]["stepping"] == document["steps"]["stepping"]


def test_what_the_model_prints_is_not_in_the_document(capsys, explain_arguments) -> None:
    config = f"{{model: {{_target_: mine.Printing, folder: here}}, optimizer: {ADAMW}}}"
    assert main(explain_arguments(config, "--json")) == 0
    out, error = capsys.readouterr()
    assert parse(out)["optimizers"][0]["name"] == "adamw"
    assert error == "writes to here\n"


def test_a_note_is_in_the_document(cli_output, explain_arguments) -> None:
    config = f"{{model: {{_target_: mine.Late, has_stem: true, needs_trainer: true}}, optimizer: {ADAMW}}}"
    (note,) = parse(cli_output(*explain_arguments(config, "--json")))["notes"]
    assert note.startswith("model.configure_model() fails without a trainer")


@pytest.mark.parametrize("arguments", [("show", "nothing"), ("inspect", "nowhere"), (*RECIPE, "optimizer.lr=x")])
def test_an_error_prints_no_document(capsys, arguments) -> None:
    assert main([*arguments, "--json"]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("lightning-optim: ")


def test_inspect_gives_measures_and_all_nonfinite_values(cli_output, tmp_path: Path) -> None:
    content = state_dict()
    content["state"][0]["exp_avg"][0] = math.nan
    path = save(tmp_path, content)
    document = parse(cli_output("inspect", str(path), "--json"))
    assert document["path"] == str(path)
    (optimizer,) = document["optimizers"]
    default, head = optimizer["groups"]
    assert (default["lr"], default["tensors"], default["step"]) == (0.1, 2, 9)
    assert default["norms"]["exp_avg"] == "NaN" and head["norms"] == {"exp_avg": 2.0}
    assert (head["parameters"], head["unknown_sizes"], head["algorithm"]) == (2, 1, None)
    assert optimizer["all"]["tensors"] == 4 and "lr" not in optimizer["all"]
    assert optimizer["nonfinite"] == [{"parameter": "net.weight", "buffer": "exp_avg", "count": 2, "size": 4}]


def test_inspect_gives_the_difference_of_two_checkpoints(cli_output, tmp_path: Path) -> None:
    other = state_dict()
    other["param_groups"][0] |= {"lr": 0.05, "betas": (0.9, 0.99)}
    other["state"][0]["exp_avg"] += 1
    paths = [str(save(tmp_path, content, name)) for content, name in ((state_dict(), "a"), ([other, other], "b"))]
    document = parse(cli_output("inspect", *paths, "--json"))
    assert document["paths"] == paths
    pair, lone = document["optimizers"]
    assert (pair["keys"], lone) == (["optimizer", "[0]"], {"keys": [None, "[1]"], "comparison": None})
    comparison = pair["comparison"]
    assert comparison["identical"] is False and comparison["by_name"] is True
    assert comparison["hyperparameters"] == [
        {"group": "default", "key": "lr", "first": 0.1, "second": 0.05},
        {"group": "default", "key": "betas", "first": [0.9, 0.999], "second": [0.9, 0.99]},
    ]
    assert (comparison["groups"][0]["num_differing"], comparison["groups"][0]["largest"]) == (1, 1.0)
