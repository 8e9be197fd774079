"""Plateau decides as Lightning's EarlyStopping does, and goes on from its state as if never stopped."""

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
SERIES = 60


def eighths(seed: int, *others: float, length: int = 24) -> list[float]:
    """A random series of eighths, so that sums with `min_delta` are exact whichever side it stands on; and others."""
    chance = random.Random(seed)
    return [chance.choice([chance.randint(-6, 6) / 8, *others]) for _ in range(length)]


def after_each(plateau: Plateau, series: Sequence[float | None]) -> list[tuple[bool, int]]:
    """Whether it was reached, and how many were no better."""
    seen = []
    for value in series:
        plateau.observe(value)
        seen.append((plateau.reached, plateau.num_bad))
    return seen


def as_early_stopping(series: Sequence[float], **options: float) -> list[tuple[bool, int]]:
    """The same of EarlyStopping, up to where it stops."""
    stopping = EarlyStopping("loss", check_finite=False, **options)
    seen: list[tuple[bool, int]] = []
    while not (seen and seen[-1][0]) and len(seen) < len(series):
        stop, _ = stopping._evaluate_stopping_criteria(torch.tensor(series[len(seen)], dtype=torch.float64))
        seen.append((stop, stopping.wait_count))
    return seen


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("others", [(), (math.nan,)], ids=["numbers", "nan"])
def test_it_is_reached_when_early_stopping_would_stop(options, others) -> None:
    moments = set()
    for seed in range(SERIES):
        series = eighths(seed, *others)
        expected = as_early_stopping(series, **options)
        assert after_each(Plateau(monitor="loss", **options), series)[: len(expected)] == expected, series
        moments.add(len(expected))
    assert len(moments) > 1, "the series differ"


@pytest.mark.parametrize("mode", ["min", "max"])
def test_infinite_values_are_taken_as_early_stopping_takes_them(mode) -> None:
    for seed in range(SERIES):
        series = eighths(seed, math.inf, -math.inf)
        expected = as_early_stopping(series, mode=mode)
        assert after_each(Plateau(monitor="loss", mode=mode), series)[: len(expected)] == expected, series


def test_once_reached_it_stays_so() -> None:
    plateau = Plateau(monitor="loss", patience=2)
    assert after_each(plateau, [1.0, 1.0, 2.0]) == [(False, 0), (False, 1), (True, 2)]
    assert after_each(plateau, [0.5, math.nan, 3.0, 0.1]) == [(True, 2)] * 4
    assert plateau.best == 1.0


def test_better_means_by_more_than_min_delta() -> None:
    falling = Plateau(monitor="loss", patience=9, min_delta=0.25)
    assert after_each(falling, [1.0, 0.75, 0.625, 0.375, 0.25]) == [(False, n) for n in (0, 1, 0, 1, 0)]
    rising = Plateau(monitor="acc", patience=9, min_delta=0.25, mode="max")
    assert after_each(rising, [1.0, 1.25, 1.375, 0.0]) == [(False, n) for n in (0, 1, 0, 1)]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_nan_is_never_better_not_even_as_the_first(mode) -> None:
    plateau = Plateau(monitor="loss", patience=3, mode=mode)
    assert after_each(plateau, [math.nan, math.nan, 1.0, math.nan]) == [(False, n) for n in (1, 2, 0, 1)]


def test_nothing_is_no_value_and_has_been_looked_at() -> None:
    plateau = Plateau(monitor="loss", patience=1, due=True)
    assert after_each(plateau, [None, 1.0, None]) == [(False, 0)] * 3
    assert not plateau.due


# Saved


@pytest.mark.parametrize("mode", ["min", "max"])
def test_it_goes_on_from_every_moment_of_a_series(mode) -> None:
    def new() -> Plateau:
        return Plateau(monitor="loss", patience=4, mode=mode, min_delta=0.125)

    for seed in range(8):
        series = eighths(seed, math.nan)
        whole, seen = new(), after_each(new(), series)
        for moment, value in enumerate(series):
            again = new()
            again.load_state_dict(json.loads(json.dumps(whole.state_dict())))
            assert after_each(again, series[moment:]) == seen[moment:], moment
            whole.observe(value)


@pytest.mark.parametrize("due", [True, False])
def test_whether_there_is_a_value_to_look_at_is_saved(due) -> None:
    again = Plateau(monitor="loss", due=not due)
    again.load_state_dict(Plateau(monitor="loss", due=due).state_dict())
    assert again.due is due


@pytest.mark.parametrize("edited", [{"monitor": "val/acc"}, {"mode": "max"}], ids=["monitor", "mode"])
def test_it_begins_anew_where_it_watches_something_else(edited) -> None:
    before = Plateau(monitor="loss", patience=2, due=True)
    after_each(before, [1.0, 1.0, 1.0])
    now = {"monitor": "loss", "patience": 2, **edited}
    again = Plateau(**now)
    again.load_state_dict(before.state_dict())
    assert again == Plateau(**now)


def test_an_edited_patience_holds_from_the_load_on() -> None:
    before = Plateau(monitor="loss", patience=5)
    after_each(before, [1.0, 1.0, 1.0])
    longer, shorter = Plateau(monitor="loss", patience=4), Plateau(monitor="loss", patience=2)
    for again in (longer, shorter):
        again.load_state_dict(before.state_dict())
    assert (longer.reached, shorter.reached) == (False, True)
    assert after_each(longer, [1.0, 1.0]) == [(False, 3), (True, 4)]


def test_an_edited_min_delta_holds_from_the_load_on() -> None:
    before = Plateau(monitor="loss", patience=5)
    after_each(before, [1.0, 1.0])
    again = Plateau(monitor="loss", patience=5, min_delta=0.5)
    again.load_state_dict(before.state_dict())
    assert after_each(again, [0.75, 0.25]) == [(False, 2), (False, 0)]


def test_it_says_what_it_watches() -> None:
    assert str(Plateau(monitor="val/loss", patience=2)) == "plateau of val/loss, patience 2"
