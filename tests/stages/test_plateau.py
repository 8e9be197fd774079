"""Plateau: is reached when Lightning's EarlyStopping would stop, and resumes from its state."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping

from lightning_optim.stages.plateau import Plateau

OPTIONS = [
    pytest.param({}, id="defaults"),
    *(
        pytest.param({"mode": mode, "patience": patience, "min_delta": delta}, id=f"{mode}, {patience}, {delta}")
        for mode in ("min", "max")
        for patience in (1, 2, 5)
        for delta in (0.0, 0.25)
    ),
]
NUM_SERIES = 60


def eighths(seed: int, *others: float, length: int = 24) -> list[float]:
    """A random series of eighths, for which sums with `min_delta` are exact, mixed with other values."""
    rng = random.Random(seed)
    return [rng.choice([rng.randint(-6, 6) / 8, *others]) for _ in range(length)]


def observe_all(plateau: Plateau, series: Sequence[float | None]) -> list[tuple[bool, int]]:
    """After each value whether the plateau is reached, and the number of values without improvement."""
    found = []
    for value in series:
        plateau.observe(value)
        found.append((plateau.reached, plateau.wait_count))
    return found


def observe_with_early_stopping(series: Sequence[float], **options: float) -> list[tuple[bool, int]]:
    """The same for EarlyStopping, up to the value at which it stops."""
    stopping = EarlyStopping("loss", check_finite=False, **options)
    found: list[tuple[bool, int]] = []
    while not (found and found[-1][0]) and len(found) < len(series):
        stop, _ = stopping._evaluate_stopping_criteria(torch.tensor(series[len(found)], dtype=torch.float64))
        found.append((stop, stopping.wait_count))
    return found


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("others", [(), (math.nan,)], ids=["numbers", "nan"])
def test_plateau_is_reached_when_early_stopping_would_stop(options, others) -> None:
    num_values = set()
    for seed in range(NUM_SERIES):
        series = eighths(seed, *others)
        expected = observe_with_early_stopping(series, **options)
        assert observe_all(Plateau(monitor="loss", **options), series)[: len(expected)] == expected, series
        num_values.add(len(expected))
    assert len(num_values) > 1, "the series differ"


@pytest.mark.parametrize("mode", ["min", "max"])
def test_infinite_values_are_handled_as_in_early_stopping(mode) -> None:
    for seed in range(NUM_SERIES):
        series = eighths(seed, math.inf, -math.inf)
        expected = observe_with_early_stopping(series, mode=mode)
        assert observe_all(Plateau(monitor="loss", mode=mode), series)[: len(expected)] == expected, series


def test_plateau_stays_reached() -> None:
    plateau = Plateau(monitor="loss", patience=2)
    assert observe_all(plateau, [1.0, 1.0, 2.0]) == [(False, 0), (False, 1), (True, 2)]
    assert observe_all(plateau, [0.5, math.nan, 3.0, 0.1]) == [(True, 2)] * 4
    assert plateau.best == 1.0


def test_improvement_must_be_larger_than_min_delta() -> None:
    falling = Plateau(monitor="loss", patience=9, min_delta=0.25)
    assert observe_all(falling, [1.0, 0.75, 0.625, 0.375, 0.25]) == [(False, n) for n in (0, 1, 0, 1, 0)]
    rising = Plateau(monitor="acc", patience=9, min_delta=0.25, mode="max")
    assert observe_all(rising, [1.0, 1.25, 1.375, 0.0]) == [(False, n) for n in (0, 1, 0, 1)]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_nan_is_never_an_improvement(mode) -> None:
    plateau = Plateau(monitor="loss", patience=3, mode=mode)
    assert observe_all(plateau, [math.nan, math.nan, 1.0, math.nan]) == [(False, n) for n in (1, 2, 0, 1)]


def test_none_counts_as_no_value_and_is_no_longer_pending() -> None:
    plateau = Plateau(monitor="loss", patience=1, pending=True)
    assert observe_all(plateau, [None, 1.0, None]) == [(False, 0)] * 3
    assert not plateau.pending


# Saving and loading


@pytest.mark.parametrize("mode", ["min", "max"])
def test_plateau_resumes_from_every_value_of_a_series(mode) -> None:
    def build() -> Plateau:
        return Plateau(monitor="loss", patience=4, mode=mode, min_delta=0.125)

    for seed in range(8):
        series = eighths(seed, math.nan)
        plateau, expected = build(), observe_all(build(), series)
        for index, value in enumerate(series):
            resumed = build()
            resumed.load_state_dict(json.loads(json.dumps(plateau.state_dict())))
            assert observe_all(resumed, series[index:]) == expected[index:], index
            plateau.observe(value)


@pytest.mark.parametrize("pending", [True, False])
def test_pending_is_saved(pending) -> None:
    resumed = Plateau(monitor="loss", pending=not pending)
    resumed.load_state_dict(Plateau(monitor="loss", pending=pending).state_dict())
    assert resumed.pending is pending


@pytest.mark.parametrize("edited", [{"monitor": "val/acc"}, {"mode": "max"}], ids=["monitor", "mode"])
def test_state_of_another_metric_or_mode_is_ignored(edited) -> None:
    before = Plateau(monitor="loss", patience=2, pending=True)
    observe_all(before, [1.0, 1.0, 1.0])
    options = {"monitor": "loss", "patience": 2, **edited}
    resumed = Plateau(**options)
    resumed.load_state_dict(before.state_dict())
    assert resumed == Plateau(**options)


def test_edited_patience_holds_after_a_resume() -> None:
    before = Plateau(monitor="loss", patience=5)
    observe_all(before, [1.0, 1.0, 1.0])
    longer, shorter = Plateau(monitor="loss", patience=4), Plateau(monitor="loss", patience=2)
    for resumed in (longer, shorter):
        resumed.load_state_dict(before.state_dict())
    assert (longer.reached, shorter.reached) == (False, True)
    assert observe_all(longer, [1.0, 1.0]) == [(False, 3), (True, 4)]


def test_edited_min_delta_holds_after_a_resume() -> None:
    before = Plateau(monitor="loss", patience=5)
    observe_all(before, [1.0, 1.0])
    resumed = Plateau(monitor="loss", patience=5, min_delta=0.5)
    resumed.load_state_dict(before.state_dict())
    assert observe_all(resumed, [0.75, 0.25]) == [(False, 2), (False, 0)]


def test_str_names_metric_and_patience() -> None:
    assert str(Plateau(monitor="val/loss", patience=2)) == "plateau of val/loss, patience 2"
