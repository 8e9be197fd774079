"""Seeded bugs and removed guards: their list fits the sources, and some of them are replayed."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support.changed_sources import Change, run_changes
from tests.support.guard_table import GUARDS
from tests.support.seeded_bug_table import SEEDED_BUGS

REPLAYED = (
    "warm-up off by one",
    "thaw one step late",
    "plateau's wait lost on resume",
    "a kernel has the hash of its name",
)


def test_what_each_change_replaces_is_in_its_file_once() -> None:
    assert {change.name: change.count for change in (*SEEDED_BUGS, *GUARDS) if change.count != 1} == {}


def test_there_are_thirty_bugs_in_six_areas() -> None:
    assert len({bug.name for bug in SEEDED_BUGS}) == len(SEEDED_BUGS) >= 30
    counts = Counter(bug.area for bug in SEEDED_BUGS)
    assert min(counts[area] for area in ("factory", "rules", "family", "schedules", "stages", "monitor")) >= 3, counts


@pytest.mark.slow
def test_a_few_are_noticed() -> None:
    chosen: list[Change] = [change for change in (*SEEDED_BUGS, *GUARDS) if change.name in REPLAYED]
    assert len(chosen) == len(REPLAYED)
    verdicts = list(run_changes(chosen, jobs=2))
    assert [(v.change.name, v.output) for v in verdicts if v.is_red != v.is_changed] == []
