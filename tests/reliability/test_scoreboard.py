"""The scoreboard: no cell is silently wrong or crashes, and each family notices a fault that is planted."""

from __future__ import annotations

import json

import pytest
import torch

from tests.reliability.scoreboard.outcome import Verdict, compare
from tests.reliability.scoreboard.planted import PLANTS, Plant, is_noticed
from tests.reliability.scoreboard.registry import FAMILIES, all_cells
from tests.reliability.scoreboard.running import run_cells
from tests.reliability.scoreboard.table import find_wrong, headline, to_json, to_markdown
from tests.support.cases import every

SEED = 0


def check(tier, only) -> None:
    results = run_cells(all_cells(SEED, tier, [only] if only else []))
    assert results
    assert [(cell.name, outcome) for cell, outcome in find_wrong(results)] == []


def test_fast_cells_end_as_they_must() -> None:
    check("fast", None)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_cells_end_as_they_must(family) -> None:
    check("slow", family)


@pytest.mark.parametrize("plant", every(PLANTS, fast=["F8", "F11", "F14"], id=lambda plant: plant.family))
def test_a_planted_fault_is_noticed(plant: Plant) -> None:
    is_seen, detail = is_noticed(plant)
    assert is_seen, detail


def test_every_family_has_cells_and_a_planted_fault() -> None:
    cells = list(all_cells(SEED))
    assert {cell.family for cell in cells} == set(FAMILIES) == {plant.family for plant in PLANTS}
    assert {cell.family for cell in all_cells(SEED, "slow")} == set(FAMILIES)
    assert len({cell.name for cell in cells}) == len(cells)


def test_a_difference_of_one_bit_is_found() -> None:
    value = torch.tensor([1.0, float("nan")])
    other = value.clone()
    other.view(torch.int32)[0] += 1
    assert compare({"a": [value, 1.0]}, {"a": [value.clone(), 1.0]}).verdict is Verdict.EXACT
    for wrong in ({"a": [other, 1.0]}, {"a": [value.double(), 1.0]}, {"a": [value, 1.5]}, {"a": [value]}, {"b": 1}, {}):
        assert compare({"a": [value, 1.0]}, wrong).verdict is Verdict.SILENT_WRONG


def test_the_table_and_the_json_have_every_cell() -> None:
    results = run_cells(all_cells(SEED, "fast", ["F14"]))
    content = json.loads(json.dumps(to_json(results, SEED, 1.0)))
    assert len(content["cells"]) == len(results) and content["seed"] == SEED
    assert headline(results).startswith("silent-wrong = 0") and content["headline"] == headline(results)
    assert f"| F14 | {FAMILIES['F14'].fault} |" in to_markdown(results)
