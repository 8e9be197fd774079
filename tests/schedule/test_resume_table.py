"""Every pair of a saved schedule and a config's schedule, under every `on_resume` and interval: exact or refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.support.schedule_resumes import INTERVALS, KINDS, expected_outcome, resume
from tests.support.schedules import SCHEDULE_CONFIGS


@pytest.mark.parametrize(
    ("names", "intervals"),
    [
        pytest.param(KINDS, ("step",), id="kinds by step", marks=pytest.mark.slow),
        pytest.param(("exponential", "warmup_cosine"), INTERVALS, id="intervals"),
        pytest.param(tuple(SCHEDULE_CONFIGS), ("step",), id="all by step", marks=pytest.mark.slow),
        # The interval only says where the run is; no schedule knows its own.
        pytest.param(KINDS, INTERVALS, id="kinds in all intervals", marks=pytest.mark.slow),
    ],
)
def test_every_pair_of_schedules_resumes_exactly_or_is_refused(names: Any, intervals: Any) -> None:
    ends = [(name, interval) for name in names for interval in intervals]
    cells = [(saved, own, how) for saved in ends for own in ends for how in ("continue", "extend", "restart")]
    outcomes: Counter[tuple[str, str]] = Counter()
    wrong = {}
    for cell in cells:
        try:
            outcome = resume(*cell)
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        outcomes[cell[2], outcome if outcome in ("exact", "refused") else "wrong"] += 1
        if outcome != expected_outcome(*cell):
            wrong[cell] = outcome
    print(dict(outcomes))
    assert wrong == {}
