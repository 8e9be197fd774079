"""Replay seeded bugs: each is made in a temporary copy of the package, and its test must fail there.

    python -m tests.reliability.seeded_bugs [--only NAME] [--jobs J] [--list]

The same tests must pass without the bug. Exit status 1 if a bug survives, or if tests fail without one.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from tests.support.changed_sources import Change, run_changes
from tests.support.seeded_bug_table import SEEDED_BUGS


def replay(changes: Sequence[Change], jobs: int, *, caught: str, survived: str) -> int:
    """Print what the tests say about each change; 1 if one is not noticed."""
    start = time.perf_counter()
    wrong: list[str] = []
    for verdict in run_changes(changes, jobs):
        change = verdict.change
        if verdict.is_changed:
            result = caught if verdict.is_red else survived
            print(f"{result:9} {change.area:10} {change.name}: {change.breaks}", flush=True)
            wrong += [] if verdict.is_red else [f"{change.name}: {' '.join(change.tests)}"]
        elif verdict.is_red:
            wrong.append(f"without a change: python -m pytest {' '.join(change.tests)}\n{verdict.output}")
    seconds = time.perf_counter() - start
    num_caught = len(changes) - sum(not text.startswith("without") for text in wrong)
    print(*wrong, f"{num_caught} of {len(changes)} {caught}, {seconds:.0f} s", sep="\n")
    return 1 if wrong else 0


def main(
    changes: Sequence[Change] = SEEDED_BUGS,
    *,
    description: str | None = __doc__,
    caught: str = "caught",
    survived: str = "SURVIVED",
) -> int:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="part of a name or area")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many run at the same time")
    parser.add_argument("--list", action="store_true", help="print the changes and make none")
    given = parser.parse_args()
    chosen = [change for change in changes if given.only in f"{change.area} {change.name}"]
    if not chosen:
        parser.error(f"--only {given.only}: there is none of this name")
    if given.list:
        for change in chosen:
            print(f"{change.area}: {change.name}: {change.file}: {change.breaks}")
        return 0
    return replay(chosen, given.jobs, caught=caught, survived=survived)


if __name__ == "__main__":
    sys.exit(main())
