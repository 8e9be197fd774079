"""The figure of a simulated run: the text and lines in it, and where it is written."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from lightning_optim import ConfigError
from lightning_optim.cli import draw as draw_module
from lightning_optim.cli.draw import check_drawable, draw
from lightning_optim.cli.run_length import RunLength
from lightning_optim.cli.simulate import Curve, Simulation
from tests.support.cases import every

NUM_STEPS = 12


def curve(group: str, lr: Any = 0.1, start: int = 0, stage: str | None = None) -> Curve:
    """A group that is frozen before step `start`; `lr` is one number or a sequence for the steps from there."""
    values = np.full(NUM_STEPS, np.nan)
    values[start:] = lr
    return Curve(group=group, stage=stage, lr=values)


def simulation(*curves: Curve, has_epochs: bool = True, **fields: Any) -> Simulation:
    length = RunLength(max_steps=NUM_STEPS, steps_per_epoch=4 if has_epochs else None)
    return Simulation(curves=curves, length=length, **{"thaws": {}, "unpredictable": {}, **fields})


def draw_svg(simulation: Simulation, folder: Path, *titles: str) -> str:
    path = folder / "plot.svg"
    draw(simulation, path, titles)
    return path.read_text(encoding="utf-8")


def texts(svg: str) -> list[str]:
    return re.findall(r"<text [^>]*>([^<]*)</text>", svg)


def lines(svg: str) -> list[str]:
    """The paths of the groups' lines: those as thick as the legend's, which have three points each."""
    paths = re.findall(r'<path d="([^"]+)"[^>]*style="[^"]*stroke-width: 1.6', svg)
    return [path for path in paths if path.count("\n") > 3]


STAGED = simulation(
    curve("head", np.linspace(1, 0.1, NUM_STEPS), stage="head"),
    curve("back.no_decay", 0.05, 4, stage="back"),
    curve("_rest", 0.07, 12, stage="rest"),
    curve("late", 0.07, 12, stage="late"),
    thaws={"back": 4},
    unpredictable={"rest": "plateau of val/loss, patience 2"},
    plateau_metric="val/loss",
)


def test_titles_legend_axes_and_notes_are_written(tmp_path) -> None:
    svg = draw_svg(STAGED, tmp_path, "optimizer: adamw", "$x_1$")
    written = texts(svg)
    labels = ["head", "back.no_decay", "_rest (unpredictable)", "late (not in this run)"]
    assert [text for text in written if text in labels] == labels
    assert written.count("back") == 1, "where it thaws"
    for text in (
        "Learning rate by param group",
        "optimizer: adamw",
        "$x_1$",
        "12 optimizer steps: 3 epochs of 4",
        "unpredictable: rest (plateau of val/loss, patience 2)",
        "reduce_on_plateau: drawn as if val/loss always improved",
        "optimizer steps",
        "epochs",
        "lr",
    ):
        assert text in written
    assert len(lines(svg)) == 2, "one for each group that has an lr"


def test_there_is_no_axis_of_epochs_where_their_length_is_unknown(tmp_path) -> None:
    written = texts(draw_svg(simulation(curve("default"), has_epochs=False), tmp_path))
    assert "optimizer steps" in written and "epochs" not in written


@pytest.mark.parametrize(
    ("curves", "num_dashed"),
    [
        ((curve("a"), curve("b"), curve("c", 0.2)), 1),
        ((curve("a"), curve("b", 0.1, 4), curve("c", 0.1, 8)), 2),
        ((curve("a"), curve("b", 0.3), curve("c", 0.2)), 0),
    ],
    ids=["two equal", "three equal in the end", "none equal"],
)
def test_lines_on_one_another_are_dashed(tmp_path, curves, num_dashed) -> None:
    svg = draw_svg(simulation(*curves), tmp_path)
    dashed = re.findall(r"stroke-dasharray: [^;]*; stroke-dashoffset: 0; stroke: [^;]*; stroke-width: 1.6", svg)
    assert len(dashed) == num_dashed


def test_a_line_is_dashed_only_where_it_lies_on_another(tmp_path) -> None:
    """A stage that warms up reaches the curve of another."""
    warmed_up = curve("b", [0.02, 0.05, 0.1, 0.1, 0.1, 0.1], 6)
    svg = draw_svg(simulation(curve("a"), warmed_up), tmp_path)
    first, solid, dashed = lines(svg)
    assert [path.count("\n") for path in (first, solid, dashed)] == [25, 6, 9]


@pytest.mark.parametrize(("low", "is_log"), [(0.01, False), (0.0009, True)])
def test_peaks_far_apart_are_on_a_log_scale(tmp_path, low, is_log) -> None:
    """The peaks decide, not the smallest lr: a schedule that ends near 0 is drawn on a linear scale."""
    falling = [0.1, *np.linspace(0.1, 1e-9, NUM_STEPS - 1)]
    written = texts(draw_svg(simulation(curve("high", falling), curve("low", low)), tmp_path))
    assert ("0.001" in written) is is_log
    assert ("0.02" in written) is not is_log


@pytest.mark.parametrize("others", [(), (curve("low", 1e-9), curve("high", 1.0))], ids=["alone", "on a log scale"])
def test_an_lr_of_0_is_said_in_the_legend(tmp_path, others) -> None:
    assert "a (lr 0)" in texts(draw_svg(simulation(curve("a", 0.0), *others), tmp_path))


def test_thaws_close_to_each_other_share_a_label(tmp_path) -> None:
    thaws = {f"top.{layer}": 500 + 5 * index for index, layer in enumerate(range(9, -1, -1))}
    long_run = Simulation(
        curves=(Curve(group="a", stage=None, lr=np.ones(100_000)),),
        length=RunLength(max_steps=100_000),
        thaws={**thaws, "far": 90_000},
        unpredictable={},
    )
    written = texts(draw_svg(long_run, tmp_path))
    assert "top.9, top.8, top.7 and 7 more" in written and "far" in written


@pytest.mark.parametrize(
    ("thaws", "num_rotated"),
    [({"a_stage": 3, "another": 9}, 0), ({"a_stage_with_a_name_that_is_rather_long": 3, "another": 4}, 2)],
    ids=["apart", "overlapping"],
)
def test_labels_that_would_overlap_are_rotated(tmp_path, thaws, num_rotated) -> None:
    svg = draw_svg(simulation(curve("a"), thaws=thaws), tmp_path)
    assert len(re.findall(r"rotate\(-45", svg)) == num_rotated


def test_a_long_legend_has_columns(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(draw_module, "_MAX_LEGEND_ROWS", 2)
    svg = draw_svg(simulation(*(curve(f"group{index}", 0.1 + index) for index in range(5))), tmp_path)
    columns = re.findall(r'<text [^>]* x="([\d.]+)"[^>]*>group\d</text>', svg)
    assert len(columns) == 5 and len(set(columns)) == 3


@pytest.mark.slow
def test_the_figure_of_very_many_groups_is_wider_than_high(tmp_path) -> None:
    names = [f"layer.{index}" for index in range(90)]
    draw(simulation(*(curve(name, 0.1 + index) for index, name in enumerate(names))), tmp_path / "a.png", [])
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > image.height


@pytest.mark.slow
@pytest.mark.parametrize("suffix", every([".png", ".svg", ".pdf", ".PNG"], fast=[".svg", ".PNG"]))
def test_the_same_run_gives_the_same_file_in_the_format_of_its_suffix(tmp_path, suffix) -> None:
    settings = dict(matplotlib.rcParams)
    files = [tmp_path / f"{name}{suffix}" for name in ("one", "two")]
    for file in files:
        draw(STAGED, file, ["title"])
    first, second = (file.read_bytes() for file in files)
    assert first == second
    assert first.startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix.lower()])
    assert dict(matplotlib.rcParams) == settings, "the user's settings are unchanged"
    assert not pyplot.get_fignums(), "no figure is kept in memory"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plot.jpg", r"--plot: got .*plot.jpg. Type a name that ends in .png, .svg, .pdf"),
        ("plot", r"--plot: got .*plot. Type a name that ends in .png, .svg, .pdf"),
        ("away/plot.png", r"--plot: there is no folder .*away. Create it first: mkdir -p .*away"),
    ],
    ids=["unknown suffix", "no suffix", "missing folder"],
)
def test_a_path_that_cannot_be_drawn_to_is_refused(tmp_path, name, message) -> None:
    with pytest.raises(ConfigError, match=message):
        check_drawable(tmp_path / name)


def test_a_path_that_cannot_be_written_is_refused(tmp_path) -> None:
    (tmp_path / "plot.png").mkdir()
    with pytest.raises(ConfigError, match=r"--plot: .*plot.png cannot be written: Is a directory"):
        draw(STAGED, tmp_path / "plot.png", [])


def test_without_matplotlib_the_error_says_what_to_type(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r'--plot: .*pip install "lightning-optim\[plot\]"'):
        check_drawable(tmp_path / "plot.png")
