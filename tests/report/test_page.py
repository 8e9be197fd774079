"""The page is one file that needs nothing else, obeys nothing that stands in the files, and shows every group."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from lightning_optim.report.charts import Chart, draw_svg
from lightning_optim.report.colors import assign_looks
from lightning_optim.report.curves import Curve, OptimizerCurves, Run, Thaw
from lightning_optim.report.page import build_page, check_run
from lightning_optim.report.pictures import charts_of
from lightning_optim.report.sicknesses import RULES
from lightning_optim.report.thin import thin
from tests.support.cases import every
from tests.support.report_runs import curve, optimizer_curves

EVIL = "<script>alert(1)</script>&\"'"
LAYERS = ["head", "head.no_decay", *(f"layers.{index}{end}" for index in range(8) for end in ("", ".no_decay"))][:17]


def build(*optimizers: OptimizerCurves, num_runs: int = 1, **fields: object) -> str:
    runs = [
        Run(name=f"runs/v{index}", source="1 event file", optimizers=optimizers, **fields)  # type: ignore[arg-type]
        for index in range(num_runs)
    ]
    return build_page([check_run(run, RULES) for run in runs], RULES)


def simple(names: list[str] = ["head"], **fields: object) -> OptimizerCurves:  # noqa: B006
    rng = np.random.default_rng(0)
    signals = ("lr", "ratio/update_param", "norm/grad", "norm/param", "rms/exp_avg_sq")
    values = {signal: {name: rng.uniform(1e-3, 1e-2, 30).tolist() for name in names} for signal in signals}
    known = {name: {"eps": 1e-8} for name in names}
    return optimizer_curves(values, **{"hyperparameters": known, **fields})


class Elements(HTMLParser):
    """Collects the elements of a page; checks that those that open close."""

    VOID = ("meta", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag == "p" and self.open[-1] != "p":
            return
        assert self.open.pop() == tag


def test_the_page_loads_nothing() -> None:
    page = build(simple(), num_runs=2, losses={"loss": curve([3.0, 2.0])})
    elements = Elements(page).found
    assert not {tag for tag, _ in elements} & {"script", "link", "img", "iframe", "object", "embed", "base"}
    for _, attributes in elements:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "action", "data"):
                assert value is not None and value.startswith("#"), (name, value)
    assert not re.search(r"@import|url\((?!#)|@font-face", page)


def test_whatever_stands_in_the_files_is_escaped() -> None:
    table = (("group", EVIL), (EVIL, EVIL))
    thaws = (Thaw(3, EVIL),)
    values = {"norm/grad": {EVIL: [0.0] * 20}, f"norm/{EVIL}": {EVIL: [1.0] * 20}, "lr": {EVIL: [1.0] * 20}}
    curves = optimizer_curves(values, table=table, thaws=thaws)
    page = build(curves, curves, losses={EVIL: curve([1.0])}, notes=(EVIL,), num_runs=2)
    assert "<script" not in page and "alert(1)" in page
    Elements(page)


def test_every_group_is_in_the_legend_and_has_a_line_in_every_chart() -> None:
    page = build(simple(LAYERS))
    legend = re.search(r"<ul class=legend>(.*?)</ul>", page)[1]
    assert re.findall(r"</svg>([^<]+)</li>", legend) == LAYERS
    figures = re.findall(r"<figure.*?</figure>", page, re.DOTALL)
    assert len(figures) == 5
    for figure in figures:
        assert set(re.findall(r'class="line g(\d+)"', figure)) == {str(index) for index in range(17)}
    assert len(page) < 500_000


@pytest.mark.slow
def test_ids_are_unique_and_what_is_referred_to_exists() -> None:
    page = build(simple(["a", "b"], thaws=(Thaw(3, "b"),)), num_runs=2, losses={"loss": curve([3.0, 2.0])})
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {*re.findall(r'href="#([^"]+)"', page), *re.findall(r"url\(#([^)]+)\)", page)} <= set(ids)


@pytest.mark.slow
def test_colors_are_those_of_the_stylesheet_in_light_and_dark() -> None:
    page = build(simple(["a", "b"]))
    assert "prefers-color-scheme: dark" in page
    svg = re.search(r"<figure.*?</figure>", page, re.DOTALL)[0]
    assert not re.search(r"#f[01]0", svg)
    assert {"var(--g0)", "var(--g1)", "var(--ink)", "var(--pale)"} <= set(re.findall(r"var\(--\w+\)", svg))
    assert "eps 1e-08" in page and "var(--alarm)" in page


def test_findings_come_with_rule_step_and_advice() -> None:
    sick = optimizer_curves({"norm/grad": {"head": [1.0] * 5 + [0.0] * 12}})
    page = build(sick)
    box = re.search(r"<div class=finding>(.*?)</div></div>|<div class=finding>.*?<b>Do:</b>[^<]*", page, re.DOTALL)[0]
    for text in ("No gradient arrives", "norm/grad is exactly 0 in the last 10", "<td>head</td><td>5</td>", "detach()"):
        assert text in box
    assert "could not be checked: there is no optim/ratio/update_param" in page
    assert "Nothing suspicious: 5 of 5 rules checked." in build(simple())


@pytest.mark.slow
def test_runs_stand_side_by_side_under_short_names() -> None:
    page = build(simple(), num_runs=2)
    first = page[: page.index("<section")]
    assert '<a href="#run1">v1</a>' in first and "<h1>2 runs</h1>" in first
    assert "Side by side" not in build(simple())


def test_a_loss_of_nan_and_a_single_point_are_drawn() -> None:
    curves = optimizer_curves({"lr": {"head": [0.0]}, "norm/grad": {"head": [np.nan, np.inf, 1.0]}})
    page = build(curves, losses={"loss": curve([np.nan, 1.0])})
    assert page.count("<figure") == 3


SIGNALS = (
    *("lr", "ratio/update_param", "norm/grad", "norm/param", "rms/exp_avg_sq", "rms/variance", "nonfinite"),
    *("weight_decay", "beta2", "step", "state_mib", "cos/grad_momentum"),
)
EXTREMES = (0.0, 1.0, -1.0, 1e300, 1e-310, math.nan, math.inf, -math.inf)


@pytest.mark.parametrize("value", every(EXTREMES, fast=["nan"]))
def test_any_value_is_drawn_without_a_warning(value) -> None:
    values = {signal: {"head": [value] * 12, "all": [value] * 12} for signal in SIGNALS}
    assert "</html>" in build(optimizer_curves(values, hyperparameters={"head": {"eps": 1e-8, "beta2": 0.999}}))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_random_curves_are_drawn_without_a_warning(seed) -> None:
    rng = np.random.default_rng(seed)
    settings = ({}, {"eps": 1e-8, "beta2": 0.999}, {"eps": "[1, 2]"}, {"eps": 0.0, "beta2": "x"}, {"eps": math.nan})
    signals: dict[str, dict[str, Curve]] = {"lr": {"g0": curve([1.0])}}
    for signal in SIGNALS:
        for group in ("g0", "g1", "all"):
            size = int(rng.choice([0, 1, 2, 12, 50]))
            steps = np.sort(rng.choice(1000, size, replace=False))
            values = np.where(rng.random(size) < 0.5, rng.random(size), rng.choice(EXTREMES, size))
            signals.setdefault(signal, {})[group] = Curve(steps, values)
    known = {group: settings[rng.integers(len(settings))] for group in ("g0", "g1")}
    curves = OptimizerCurves(root="optim", groups=("g0", "g1"), signals=signals, hyperparameters=known)
    assert "</html>" in build(curves, losses={"loss": curve(rng.choice(EXTREMES, 5))}, num_runs=2)


def test_settings_hold_until_they_change_and_to_the_end() -> None:
    values = {"lr": {"a": curve([1.0] * 101)}, "beta1": {"a": curve([0.9, 0.8], [0, 50])}}
    page = build(OptimizerCurves(root="optim", groups=("a",), signals=values))
    line = re.findall(r'<g class="line g0">\s*<path d="([^"]+)"', page)[1]
    points = [tuple(map(float, it)) for it in re.findall(r"[ML] ([\d.]+) ([\d.]+)", line)]
    (left, top), (middle, _), (_, bottom), (right, _) = points
    assert [point[1] for point in points] == [top, top, bottom, bottom] and middle - left == pytest.approx(
        right - middle, abs=0.3
    )


def test_constants_have_no_chart() -> None:
    values = {
        "lr": {"a": [1.0, 1.0]},
        "beta1": {"a": [0.9, 0.9]},
        "weight_decay": {"a": [0.1, 0.1]},
        "nonfinite": {"a": [0, 0]},
    }
    assert re.findall(r"<figcaption><b>([^<]*)", build(optimizer_curves(values))) == ["lr"]
    values["weight_decay"] = {"a": [0.1, 0.2]}
    assert re.findall(r"<figcaption><b>([^<]*)", build(optimizer_curves(values))) == ["lr", "weight_decay"]


@pytest.mark.slow
def test_the_same_runs_give_the_same_page() -> None:
    assert build(simple(["a", "b"])) == build(simple(["a", "b"]))


# Drawing


def test_spikes_survive_thinning() -> None:
    values = np.ones(200_000)
    values[123_456], values[7], values[150_000] = 1e6, -5.0, np.nan
    thinned = thin(Curve(np.arange(200_000), values))
    assert len(thinned.steps) <= 1200 and {1e6, -5.0} <= set(thinned.values) and np.isnan(thinned.values).sum() == 1
    assert (thinned.steps[0], thinned.steps[-1]) == (0, 199_999) and (np.diff(thinned.steps) > 0).all()
    short = curve([1.0, 2.0])
    assert thin(short) is short


def test_thaws_that_are_close_share_a_label() -> None:
    chart = Chart(title="lr", curves={"a": curve([1.0, 2.0])})
    svg = draw_svg(
        chart, assign_looks(["a"]), [Thaw(10, "x"), Thaw(11, "y"), Thaw(90, "z")], first=0, last=100, salt=""
    )
    assert ">x +1</text>" in svg and ">z</text>" in svg and ">y" not in svg


def test_layers_have_one_scale_and_their_parts_one_color() -> None:
    looks = assign_looks(LAYERS)
    assert looks["layers.3"].light == looks["layers.3.no_decay"].light
    assert (looks["layers.3"].dashes, bool(looks["layers.3.no_decay"].dashes)) == ("", True)
    assert len({(look.light, look.dashes) for look in looks.values()}) == len(LAYERS)
    few = assign_looks(["a", "b"])
    assert few["a"].light != few["b"].light and few["a"].dark != few["a"].light
    assert assign_looks(["a"]).keys() == {"a"} and assign_looks([]) == {}


@pytest.mark.parametrize("num_groups", [7, 40, 200])
def test_any_number_of_groups_has_colors(num_groups) -> None:
    looks = assign_looks(f"block.{index}" for index in range(num_groups))
    assert all(re.fullmatch("#[0-9a-f]{6}", color) for look in looks.values() for color in (look.light, look.dark))


def test_charts_stand_in_reading_order_without_settings_that_never_change() -> None:
    names = ("step", "norm/exp_avg", "eps", "weight_decay", "norm/param", "rms/exp_avg_sq", "norm/grad", "lr")
    values = {name: {"head": [1e-8] * 20} for name in names}
    charts = [chart for chart, _ in charts_of(optimizer_curves(values))]
    assert [chart.title for chart in charts] == ["lr", "norm/grad", "rms/exp_avg_sq", "norm/param", "norm/exp_avg"]
    assert charts[2].lines == [(1e-8, "eps 1e-08")], "the curve of eps stands there"
    values["eps"] = {"head": [1e-8] * 10 + [1e-6] * 10}
    charts = [chart for chart, _ in charts_of(optimizer_curves(values))]
    assert charts[2].lines == [(1e-8, "eps 1e-08"), (1e-6, "eps 1e-06")]
    assert charts[-1].title == "eps" and charts[-1].is_held
    values["eps"] = {"head": [0.0] * 20}
    charts = [chart for chart, _ in charts_of(optimizer_curves(values))]
    assert charts[2].lines == [], "a log scale has no 0"
