"""The figure: what is written in it, and that it is written."""

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
from lightning_optim.cli.draw import check_drawable, draw
from lightning_optim.cli.length import Length
from lightning_optim.cli.simulate import Curve, Simulation

STEPS = 12


def curve(group: str, lr: Any = 0.1, start: int = 0, stage: str | None = None) -> Curve:
    """A group whose lr is a number or a sequence of them from a step on."""
    values = np.full(STEPS, np.nan)
    values[start:] = lr
    return Curve(group=group, stage=stage, lr=values)


def of(*curves: Curve, epochs: bool = True, **known: Any) -> Simulation:
    length = Length(max_steps=STEPS, steps_per_epoch=4 if epochs else None)
    return Simulation(curves=curves, length=length, **{"thaws": {}, "unpredictable": {}, **known})


def written(simulation: Simulation, folder: Path, *titles: str) -> str:
    path = folder / "plot.svg"
    draw(simulation, path, titles)
    return path.read_text(encoding="utf-8")


def texts(svg: str) -> list[str]:
    return re.findall(r"<text [^>]*>([^<]*)</text>", svg)


def lines(svg: str) -> list[str]:
    """The paths of the groups' lines: those as thick as the legend's, which have three points each."""
    paths = re.findall(r'<path d="([^"]+)"[^>]*style="[^"]*stroke-width: 1.6', svg)
    return [path for path in paths if path.count("\n") > 3]


STAGED = of(
    curve("head", np.linspace(1, 0.1, STEPS), stage="head"),
    curve("back.no_decay", 0.05, 4, stage="back"),
    curve("_rest", 0.07, 12, stage="rest"),
    curve("late", 0.07, 12, stage="late"),
    thaws={"back": 4},
    unpredictable={"rest": "plateau of val/loss, patience 2"},
    plateau_of="val/loss",
)


def test_what_is_written_in_it(tmp_path) -> None:
    said = texts(written(STAGED, tmp_path, "optimizer: adamw", "$x_1$"))
    labels = ["head", "back.no_decay", "_rest (not foreseen)", "late (not in this run)"]
    assert [text for text in said if text in labels] == labels
    assert said.count("back") == 1, "where it thaws"
    for text in (
        "Learning rate by param group",
        "optimizer: adamw",
        "$x_1$",
        "12 optimizer steps: 3 epochs of 4",
        "not foreseen: rest (plateau of val/loss, patience 2)",
        "reduce_on_plateau is drawn as though val/loss never stopped getting better",
        "optimizer steps",
        "epochs",
        "lr",
    ):
        assert text in said


def test_without_epochs_there_is_no_axis_of_them(tmp_path) -> None:
    said = texts(written(of(curve("default"), epochs=False), tmp_path))
    assert "optimizer steps" in said and "epochs" not in said


def test_a_line_for_each_group_that_has_an_lr(tmp_path) -> None:
    assert len(lines(written(STAGED, tmp_path))) == 2


def test_those_on_one_another_are_both_seen(tmp_path) -> None:
    def dashed(svg: str) -> int:
        return len(re.findall(r"stroke-dasharray: [^;]*; stroke-dashoffset: 0; stroke: [^;]*; stroke-width: 1.6", svg))

    assert dashed(written(of(curve("a"), curve("b"), curve("c", 0.2)), tmp_path)) == 1
    assert dashed(written(of(curve("a"), curve("b", 0.1, 4), curve("c", 0.1, 8)), tmp_path)) == 2
    assert dashed(written(of(curve("a"), curve("b", 0.3), curve("c", 0.2)), tmp_path)) == 0


def test_only_where_they_are_on_one_another(tmp_path) -> None:
    """A stage that warms up comes to the curve of another."""
    climbing = curve("b", [0.02, 0.05, 0.1, 0.1, 0.1, 0.1], 6)
    svg = written(of(curve("a"), climbing), tmp_path)
    first, free, covered = lines(svg)
    assert [path.count("\n") for path in (first, free, covered)] == [25, 6, 9]


@pytest.mark.parametrize(("low", "log"), [(0.01, False), (0.0009, True)])
def test_peaks_far_apart_are_on_a_log_scale(tmp_path, low, log) -> None:
    """Not lrs far apart: a schedule that ends near 0 is seen on a linear one."""
    falling = [0.1, *np.linspace(0.1, 1e-9, STEPS - 1)]
    said = texts(written(of(curve("high", falling), curve("low", low)), tmp_path))
    assert ("0.001" in said) is log
    assert ("0.02" in said) is not log


@pytest.mark.parametrize("others", [(), (curve("low", 1e-9), curve("high", 1.0))], ids=["alone", "on a log scale"])
def test_an_lr_of_0(tmp_path, others) -> None:
    assert "a (lr 0)" in texts(written(of(curve("a", 0.0), *others), tmp_path))


def test_thaws_near_each_other_share_a_label(tmp_path) -> None:
    thaws = {f"top.{layer}": 500 + 5 * place for place, layer in enumerate(range(9, -1, -1))}
    length = Length(max_steps=100_000)
    lr = np.ones(100_000)
    found = Simulation(
        curves=(Curve(group="a", stage=None, lr=lr),), length=length, thaws={**thaws, "far": 90_000}, unpredictable={}
    )
    said = texts(written(found, tmp_path))
    assert "top.9, top.8, top.7 and 7 more" in said and "far" in said


def test_labels_that_would_overlap_are_turned(tmp_path) -> None:
    def turned(thaws: dict[str, int]) -> int:
        svg = written(of(curve("a"), thaws=thaws), tmp_path)
        return len(re.findall(r"rotate\(-45", svg))

    assert turned({"a_stage": 3, "another": 9}) == 0
    assert turned({"a_stage_with_a_name_that_is_rather_long": 3, "another": 4}) == 2


def test_very_many_groups_stand_in_columns(tmp_path) -> None:
    names = [f"layer.{place}" for place in range(90)]
    draw(of(*(curve(name, 0.1 + place) for place, name in enumerate(names))), tmp_path / "a.png", [])
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > image.height, "they are not all below one another"


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".PNG"])
def test_the_same_is_written_the_same(tmp_path, suffix) -> None:
    files = [tmp_path / f"{name}{suffix}" for name in ("one", "two")]
    for file in files:
        draw(STAGED, file, ["title"])
    one, two = (file.read_bytes() for file in files)
    assert one == two
    assert one.startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix.lower()])


def test_the_users_settings_stay_as_they_are(tmp_path) -> None:
    before = dict(matplotlib.rcParams)
    draw(STAGED, tmp_path / "a.png", [])
    assert dict(matplotlib.rcParams) == before
    assert not pyplot.get_fignums(), "none of ours is kept in memory"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plot.jpg", r"--plot: got .*plot.jpg. Type a name that ends in .png, .svg, .pdf"),
        ("plot", r"--plot: got .*plot. Type a name that ends in .png, .svg, .pdf"),
        ("away/plot.png", r"--plot: there is no folder .*away. Make it first: mkdir -p .*away"),
    ],
)
def test_a_file_that_cannot_be(tmp_path, name, message) -> None:
    with pytest.raises(ConfigError, match=message):
        check_drawable(tmp_path / name)


def test_a_file_that_cannot_be_written(tmp_path) -> None:
    (tmp_path / "plot.png").mkdir()
    with pytest.raises(ConfigError, match=r"--plot: .*plot.png cannot be written: Is a directory"):
        draw(STAGED, tmp_path / "plot.png", [])


def test_without_matplotlib_it_says_what_to_type(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r'--plot: .*pip install "lightning-optim\[plot\]"'):
        check_drawable(tmp_path / "plot.png")
