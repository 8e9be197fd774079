"""Which groups are which layer, their values over the steps of a run, and the picture of these."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_optim import OptimizerFactory, StagedUnfreeze
from lightning_optim.groups.plan import Plan
from lightning_optim.telemetry import depth_history
from lightning_optim.telemetry.depth_history import GRADIENT, LR, RATIO, DepthHistory
from lightning_optim.telemetry.depth_picture import draw_depth
from lightning_optim.telemetry.depth_rows import DepthRows, find_depth_rows

ROWS = DepthRows(labels=("0", "1"), row_of={"depth.0": 0, "depth.0.no_decay": 0, "depth.1": 1})
GREY, RED = (212, 212, 212), (232, 48, 42)


class Blocks(nn.Module):
    """Embeddings, four numbered blocks and a head, the head declared first."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.embed = nn.Embedding(5, 4)
        blocks = [nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)) for _ in range(4)]
        self.layer = nn.ModuleList(blocks)


def plan_of(module: nn.Module, **groups: dict) -> Plan:
    return Plan.from_optimizer(OptimizerFactory("adamw", groups=groups)(module), module)


def test_groups_of_a_layer_are_one_row_and_rows_go_from_input_to_output() -> None:
    module = Blocks()
    rules = {"depth": {"layers": "layer.{i}", "layer_decay": 0.5}, "no_decay": {"kinds": ["bias"], "weight_decay": 0}}
    plan = plan_of(module, **rules, emb={"params": "embed", "lr_scale": 0.5})
    rows = find_depth_rows(plan, module)
    assert rows is not None
    assert rows.labels == ("stem", "0", "1", "2", "3", "head")
    assert rows.row_of["depth.2"] == rows.row_of["depth.2.no_decay"] == 3
    assert rows.row_of["emb"] == 0
    assert rows.row_of["default"] == rows.row_of["no_decay"] == 5


def test_layers_that_have_not_thawed_have_rows_too() -> None:
    module = Blocks()
    stages = {
        "head": {"params": "head"},
        "blocks": {"layers": "layer.{i}", "at": {"epoch": 1}, "each": {"epochs": 1}},
        "rest": {"params": "embed", "at": {"epoch": 9}},
    }
    optimizer = OptimizerFactory("adamw")(module)
    rows = find_depth_rows(StagedUnfreeze(stages).plan_of(optimizer, module), module)
    assert rows is not None
    assert rows.labels == ("stem", "0", "1", "2", "3", "head")
    assert rows.row_of == {"head": 5, "blocks.3": 4, "blocks.2": 3, "blocks.1": 2, "blocks.0": 1, "rest": 0}


def test_where_groups_are_several_of_the_models_layers_their_names_tell() -> None:
    """Two stages of four blocks each: as layers, `auto` takes the eight blocks, and the rule the two stages."""
    module = nn.ModuleDict({"stages": nn.ModuleList([Blocks(), Blocks()]), "head": nn.Linear(4, 2)})
    no_decay = {"kinds": ["bias"], "weight_decay": 0}
    plan = plan_of(module, depth={"layers": "stages.{i}", "layer_decay": 0.5}, no_decay=no_decay)
    rows = find_depth_rows(plan, module)
    assert rows is not None
    assert rows.labels == ("depth.0", "depth.1")
    assert rows.row_of["depth.1"] == rows.row_of["depth.1.no_decay"] == 1 and "default" not in rows.row_of


def test_a_group_without_parameters_is_in_no_row() -> None:
    module = nn.ParameterList(torch.ones(1) for _ in range(6))
    parameters = list(module.parameters())
    groups = [{"params": parameters[i : i + i % 2], "name": f"b.{i}"} for i in range(1, 6)]
    rows = find_depth_rows(Plan.from_optimizer(torch.optim.SGD(groups, lr=0.1)), module)
    assert rows is not None and rows.labels == ("b.1", "b.3", "b.5")


def test_towers_follow_each_other() -> None:
    module = nn.ModuleDict({"text": Blocks(), "image": Blocks()})
    rows = find_depth_rows(plan_of(module, depth={"layers": "auto", "layer_decay": 0.5}), module)
    assert rows is not None
    assert rows.labels == (
        *("text.stem", *(f"text.{i}" for i in range(4))), *("image.stem", *(f"image.{i}" for i in range(4))),
        *(["head"] if "head" in rows.labels else []),
    )  # fmt: skip


@pytest.mark.parametrize("groups", [{}, {"no_decay": {"kinds": ["bias"], "weight_decay": 0}}], ids=["one", "by kind"])
def test_groups_that_are_in_all_layers_make_no_picture(groups) -> None:
    module = Blocks()
    assert find_depth_rows(plan_of(module, **groups), module) is None


def test_norms_of_a_layer_are_combined_and_its_lr_is_the_largest() -> None:
    history = DepthHistory(ROWS)
    values = {"norm/grad": (3.0, 4.0), "norm/update": (0.3, 0.4), "norm/param": (6.0, 8.0), "lr": (0.1, 0.2)}
    history.add(
        {
            (signal, group): value
            for signal, pair in values.items()
            for group, value in zip(ROWS.row_of, pair, strict=False)
        },
        7,
    )
    assert [history.read(signal)[0, 0] for signal in (GRADIENT, RATIO, LR)] == pytest.approx([5.0, 0.05, 0.2])
    assert np.isnan([history.read(signal)[1, 0] for signal in (GRADIENT, RATIO, LR)]).all()  # frozen
    assert history.steps == [7]


def test_a_value_that_is_not_finite_is_no_gap() -> None:
    history = DepthHistory(ROWS)
    history.add({("norm/grad", "depth.0"): math.nan, ("norm/grad", "depth.1"): math.inf}, 0)
    assert np.isinf(history.read(GRADIENT)).all()
    assert not history.has(RATIO) and not history.has(LR)


def test_memory_is_bounded_and_the_largest_values_stay(monkeypatch) -> None:
    monkeypatch.setattr(depth_history, "MAX_COLUMNS", 8)
    history = DepthHistory(ROWS)
    for step in range(1000):
        history.add({("norm/grad", "depth.0"): 9.0 if step == 333 else 1.0}, 10 * step)
        assert len(history.steps) <= 8
    per_column = history.steps[1] // 10
    assert history.steps == [10 * per_column * column for column in range(len(history.steps))]
    assert history.last_step == 9990
    row = history.read(GRADIENT)[0]
    assert [column for column, value in enumerate(row) if value == 9.0] == [333 // per_column]


def pixels(picture: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((picture == color).all(axis=2).sum())


@pytest.fixture
def history() -> DepthHistory:
    """Two layers of which the first is frozen for half of the steps."""
    history = DepthHistory(ROWS)
    for step in range(20):
        groups = ["depth.1"] if step < 10 else ["depth.0", "depth.1"]
        history.add({(signal, g): 10.0**-step for signal in (GRADIENT, LR) for g in groups}, step)
    return history


def test_a_frozen_layer_is_grey_and_a_broken_one_red(history) -> None:
    picture = draw_depth(history)
    height, width, channels = picture.shape
    assert channels == 3 and picture.dtype == np.uint8 and 700 < width < 1400
    # A quarter of each of two panels.
    frozen = pixels(picture, GREY)
    assert 0.08 < frozen / (height * width) < 0.25
    assert pixels(picture, RED) < 60  # in the words below
    history.add({(GRADIENT, "depth.0"): math.nan, (LR, "depth.0"): 1.0}, 20)
    assert pixels(draw_depth(history), RED) > 300
    # The input is at the top: in the upper half of each panel the gap is, of the first one down to 0.22.
    ys, _ = np.where((picture == GREY).all(axis=2))
    assert (ys < 0.22 * height).mean() > 0.4


@pytest.mark.slow
def test_the_ratio_has_a_panel_where_it_is_known(history) -> None:
    two = draw_depth(history)
    history.add({("norm/update", "depth.0"): 1.0, ("norm/param", "depth.0"): 2.0}, 20)
    assert draw_depth(history).shape[0] > 1.3 * two.shape[0]


@pytest.mark.parametrize("value", [0.0, math.nan, 1.0], ids=["zero", "not finite", "constant"])
def test_any_values_can_be_drawn(value) -> None:
    history = DepthHistory(ROWS)
    history.add({(signal, group): value for signal in (GRADIENT, LR) for group in ROWS.row_of}, 3)
    assert draw_depth(history).std() > 0


@pytest.mark.slow
def test_a_users_style_changes_nothing(history) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "savefig.dpi": 10, "text.usetex": True}):
        styled = draw_depth(history)
        assert matplotlib.rcParams["font.size"] == 30
    assert np.array_equal(styled, draw_depth(history))
