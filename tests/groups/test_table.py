"""`Table`: rows, Markdown, JSON and text that agree with the optimizer."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from lightning_optim import OptimizerFactory
from lightning_optim.groups.table import Table
from tests.support.layered_models import ENCODER, depth_rule, tree
from tests.support.models import Net, Tiny

FACTORY = OptimizerFactory(
    "adamw",
    lr=0.02,
    groups={
        "cold": {"params": "embed", "frozen": True},
        "backbone": {"params": "backbone", "lr_scale": 0.1, "betas": [0.8, 0.9]},
        "no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0},
    },
)


def test_rows_agree_with_the_param_groups():
    model = Net()
    rows = FACTORY.explain(model).rows()
    *groups, frozen, total = rows
    for row, group in zip(groups, FACTORY(model).param_groups, strict=True):
        assert row == {
            "group": group["name"],
            "algorithm": "adamw",
            "execution": "torch, fused",
            "tensors": len(group["params"]),
            "parameters": sum(p.numel() for p in group["params"]),
            "lr": group["lr"],
            "betas": group["betas"],
            "weight_decay": group["weight_decay"],
            "rules": group["name"].replace(".", ", ").replace("default", ""),
        }
    assert frozen == {"group": "(frozen)", "tensors": 1, "parameters": 20, "rules": "cold"}
    numbers = [p.numel() for p in model.parameters()]
    assert total == {"group": "all", "tensors": len(numbers), "parameters": sum(numbers)}


def test_json_has_the_rows_and_the_parameter_names():
    model = Net()
    table = FACTORY.explain(model)
    rows = json.loads(table.json())
    names = [row.pop("params") for row in rows]
    assert rows == json.loads(json.dumps(table.rows()))
    assert names[: len(rows) - 2] == [group["param_names"] for group in FACTORY(model).param_groups]


def test_markdown_has_every_row():
    assert OptimizerFactory("sgd", lr=0.1, groups={"head": {"params": "head", "momentum": 0.9}}).explain(
        Tiny()
    ).markdown().splitlines() == [
        "| group | algorithm | tensors | parameters | lr | momentum | weight_decay | rules |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
        "| default | sgd | 2 | 40 | 0.1 | 0.0 | 0.0 |  |",
        "| head | sgd | 2 | 18 | 0.1 | 0.9 | 0.0 | head |",
        "| all |  | 4 | 58 |  |  |  |  |",
    ]


def test_markdown_agrees_with_the_rows():
    table = FACTORY.explain(Net())
    head, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.markdown().splitlines()]
    assert head == table.columns()
    for line, row in zip(lines, table.rows(), strict=True):
        cells = dict(zip(head, line, strict=True))
        assert cells["group"] == row["group"]
        assert cells["tensors"] == str(row["tensors"])
        assert cells["rules"] == row.get("rules", "")
        assert cells["lr"] == (f"{row['lr']:.6g}" if "lr" in row else "")
        assert cells["betas"] == (f"[{row['betas'][0]}, {row['betas'][1]}]" if "betas" in row else "")


def test_besides_lr_and_weight_decay_only_differing_hyperparameters_have_columns():
    assert OptimizerFactory("adamw").explain(Tiny()).columns() == [
        "group", "algorithm", "tensors", "parameters", "lr", "weight_decay", "rules",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["rprop", "lbfgs"])
def test_a_hyperparameter_that_the_algorithm_does_not_have_has_no_column(name):
    assert "weight_decay" not in OptimizerFactory(name).explain(Tiny()).columns()


def test_print_and_rich_have_every_cell_of_the_markdown():
    table = FACTORY.explain(Net())
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table)
    for text in (str(table), console.export_text()):
        for line in table.markdown().splitlines()[2:]:
            assert all(cell.strip() in text for cell in line.split("|"))


def test_a_plan_with_layers_has_a_column_for_them():
    table = OptimizerFactory("sgd", lr=1.0, groups=depth_rule()).explain(tree(*ENCODER))
    assert table.columns()[:3] == ["group", "layer", "algorithm"]
    assert [(row["group"], row.get("layer")) for row in json.loads(table.json())] == [
        ("depth.stem", "stem"),
        ("depth.0", "0"),
        ("depth.1", "1"),
        ("default", None),
        ("all", None),
    ]
    assert "| depth.1 | 1 | sgd |" in table.markdown() and "| default |  | sgd |" in table.markdown()
    assert "│ depth.1    │ 1     │" in str(table)


def test_layers_of_two_rules_are_listed_once_where_they_are_equal():
    model = tree("a.0.b.7.weight", "a.1.b.8.weight")
    groups = {"first": {"layers": "a.{i}"}, "second": {"layers": "*.b.{i}"}}
    rows = OptimizerFactory("sgd", groups=groups).explain(model).rows()
    assert [row.get("layer") for row in rows] == ["0, 7", "1, 8", None]
    groups["second"] = {"layers": "a.{i}.b"}
    rows = OptimizerFactory("sgd", groups=groups).explain(model).rows()
    assert [row.get("layer") for row in rows] == ["0", "1", None]


def test_a_plan_without_layers_has_no_column_for_them():
    assert "layer" not in FACTORY.explain(Net()).columns()


def test_a_plan_without_groups_prints():
    """Of an optimizer all of whose stages wait."""
    table = Table(groups=(), frozen=(), sizes={})
    assert "all" in str(table)
    assert table.markdown().count("\n") == 2
