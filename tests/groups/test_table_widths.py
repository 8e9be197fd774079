"""Random plans at every width: each number that is printed stands for a value of the plan, and none is missing."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from lightning_optim import OptimizerFactory
from lightning_optim.core.output_width import AS_NEEDED
from lightning_optim.groups.group import Group
from lightning_optim.groups.table import Table
from tests.support.models import Net
from tests.support.printed_numbers import is_near, numbers

WIDTHS = (60, 80, 120, 200, AS_NEEDED)
NAMES = st.text("abcdefgh_.", min_size=1, max_size=70).filter(lambda name: name.strip("_."))
FLOATS = st.floats(0, 1e12, allow_subnormal=False) | st.sampled_from([3.2768e-05, 0.1 * 0.3, 1 / 3, 1e-08, 0.0])
HYPERPARAMETERS = st.fixed_dictionaries(
    {"lr": FLOATS, "weight_decay": FLOATS},
    optional={"betas": st.tuples(FLOATS, FLOATS), "eps": FLOATS, "history_size": st.integers(0, 10**9)},
)


@st.composite
def tables(draw) -> Table:
    """Of groups with random names, sizes and values, some of them the same in all groups; with or without stages."""
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    shared = draw(HYPERPARAMETERS)
    has_stages = draw(st.booleans())
    groups = tuple(
        Group(
            name=name,
            params=(name,),
            algorithm=draw(st.sampled_from(["adamw", "muon"])),
            hyperparameters=draw(st.just(shared) | HYPERPARAMETERS),
            made_by=tuple(draw(st.lists(NAMES, max_size=3))),
            stage="stage" if has_stages else None,
            lr_scale=draw(st.sampled_from([1.0, 0.1, 1 / 3])) if has_stages else 1.0,
            schedule=draw(st.none() | st.just({"warmup_steps": 500})),
        )
        for name in names
    )
    return Table(
        groups=groups,
        frozen=("frozen",) if draw(st.booleans()) else (),
        frozen_by=("cold",),
        sizes={name: draw(st.integers(1, 10**11)) for name in (*names, "frozen")},
        thaw_times=(("stage", "epoch 7"),) if has_stages else (),
    )


def values(table: Table) -> list[float]:
    """Every number in the rows, sorted; those that all of several groups share, once."""
    rows, found = table.rows(), list[float]()
    num_groups = len(table.groups)
    for column in table.columns():
        cells = [row[column] for row in rows if column in row]
        may_be_said_below = column not in ("group", "tensors", "parameters", "thaws", "layer", "rules")
        if may_be_said_below and num_groups > 1 and len(cells) == num_groups and all(c == cells[0] for c in cells):
            cells = cells[:1]
        for cell in cells:
            if isinstance(cell, str):
                found += numbers(cell)
            else:
                found += cell if isinstance(cell, (list, tuple)) else [cell]
    return sorted(found)


def check(text: str, expected: list[float]) -> None:
    printed = numbers(text)
    assert len(printed) == len(expected), text
    for found, value in zip(printed, expected, strict=True):
        assert is_near(found, value), text


@pytest.mark.slow
@settings(max_examples=50)
@given(tables(), st.sampled_from(WIDTHS))
def test_no_number_is_cut_at_any_usual_width(table, width):
    check(table.text(width), values(table))


@pytest.mark.slow
@settings(max_examples=50)
@given(tables(), st.integers(15, 250))
def test_no_number_is_cut_in_a_console_of_the_users(table, width):
    text = io.StringIO()
    Console(file=text, width=width, color_system=None).print(table)
    check(text.getvalue(), values(table))


@pytest.mark.slow
@settings(max_examples=50)
@given(tables(), st.integers(1, 250))
def test_no_number_is_cut_at_any_width(table, width):
    check(table.text(width), values(table))


@settings(max_examples=50)
@given(tables(), st.sampled_from([60, 80, 120, 200]))
def test_names_are_shortened_in_the_middle_and_still_differ(table, width):
    """Long names fold the table; in a table, each row has its name or its two ends."""
    text = table.text(width)
    if "│" not in text:
        return
    for group in table.groups:
        shown = [line.strip("│ ").split(" ")[0] for line in text.splitlines()]
        ends = [name.split("…") for name in shown if name]
        assert any(group.name.startswith(end[0]) and group.name.endswith(end[-1]) for end in ends)


SMALL_LR = OptimizerFactory(
    "adamw",
    lr=3.2768e-05,
    groups={
        "backbone_without_its_norms_and_biases": {"params": "backbone", "lr_scale": 0.1},
        "no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0},
        "cold": {"params": "embed", "frozen": True},
        "icy": {"params": "embed", "frozen": True},
    },
)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_small_lr_is_whole_at_every_width(width):
    text = SMALL_LR.explain(Net()).text(width)
    assert "3.277e-05" in text and "3.277e-06" in text


def test_print_obeys_columns_and_a_pipe_has_no_width(monkeypatch):
    table = SMALL_LR.explain(Net())
    as_needed = str(table)
    assert "backbone_without_its_norms_and_biases.no_decay" in as_needed and "…" not in as_needed
    monkeypatch.setenv("COLUMNS", "80")
    assert str(table) == table.text(80) != as_needed


def test_columns_that_are_the_same_for_all_groups_are_said_below():
    lines = SMALL_LR.explain(Net()).text(200).splitlines()
    assert [cell.strip() for cell in lines[2].strip("┃").split("┃")] == [
        "group", "tensors", "parameters", "lr", "weight_decay", "rules",
    ]  # fmt: skip
    assert lines[-2:] == ["the same for all groups: algorithm adamw", "stepped by: torch, fused"]


def test_the_only_group_keeps_its_columns():
    text = OptimizerFactory("sgd", lr=0.1).explain(Net()).text(200)
    assert "┃ algorithm ┃" in text and "the same for" not in text


def test_values_that_are_printed_alike_and_differ_keep_their_column():
    groups = {"head": {"params": "head", "lr": 0.0200001}}
    text = OptimizerFactory("sgd", lr=0.02, groups=groups).explain(Net()).text(200)
    assert "┃   lr ┃" in text and "lr 0.02" not in text


def test_the_rules_column_says_rules_in_every_row():
    rows = {row["group"]: row.get("rules") for row in SMALL_LR.explain(Net()).rows()}
    assert rows == {
        "backbone_without_its_norms_and_biases": "backbone_without_its_norms_and_biases",
        "backbone_without_its_norms_and_biases.no_decay": "backbone_without_its_norms_and_biases, no_decay",
        "no_decay": "no_decay",
        "default": "",
        "(frozen)": "cold, icy",
        "all": None,
    }
