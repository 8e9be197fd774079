"""The scoreboard as a table and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import lightning
import torch

from tests.reliability.scoreboard.outcome import Cell, Outcome, Verdict
from tests.reliability.scoreboard.registry import FAMILIES

Results = list[tuple[Cell, Outcome]]
COLUMNS = (Verdict.EXACT, Verdict.REFUSED, Verdict.SILENT_WRONG, Verdict.CRASHED, Verdict.NOT_RUN)


def count(results: Iterable[tuple[Cell, Outcome]]) -> dict[str, Counter[Verdict]]:
    """By family: how many cells have ended how."""
    counts: dict[str, Counter[Verdict]] = {family: Counter() for family in FAMILIES}
    for cell, outcome in results:
        counts[cell.family][outcome.verdict] += 1
    return {family: own for family, own in counts.items() if own}


def to_markdown(results: Results) -> str:
    """A row for each family, and the sum."""
    counts = count(results)
    head = ["", "fault", "mechanisms × strategies", "cells", *(verdict.value for verdict in COLUMNS)]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    for family, own in counts.items():
        subjects = {(cell.mechanism, cell.strategy) for cell, _ in results if cell.family == family}
        row = [family, FAMILIES[family].fault, len(subjects), own.total(), *(own[verdict] for verdict in COLUMNS)]
        lines.append("| " + " | ".join(map(str, row)) + " |")
    total = sum(counts.values(), Counter())
    row = ["", "all", "", total.total(), *(total[verdict] for verdict in COLUMNS)]
    return "\n".join([*lines, "| " + " | ".join(map(str, row)) + " |"])


def find_wrong(results: Results) -> Results:
    """The cells that have not ended as they must."""
    return [(cell, it) for cell, it in results if it.verdict not in cell.allowed and it.verdict is not Verdict.NOT_RUN]


def headline(results: Results) -> str:
    """One line: silent-wrong first."""
    total: Counter[Verdict] = sum(count(results).values(), Counter())
    run = max(total.total() - total[Verdict.NOT_RUN], 1)
    return (
        f"silent-wrong = {total[Verdict.SILENT_WRONG]}, exact {100 * total[Verdict.EXACT] / run:.1f} %, "
        f"refused {100 * total[Verdict.REFUSED] / run:.1f} %, crashed {total[Verdict.CRASHED]}, of {run} cells"
    )


def to_json(results: Results, seed: int, seconds: float) -> Mapping[str, Any]:
    """Everything, a row for each cell."""
    return {
        "seed": seed,
        "seconds": round(seconds),
        "versions": {"torch": torch.__version__, "lightning": lightning.__version__},
        "headline": headline(results),
        "families": {
            family: {"fault": FAMILIES[family].fault, "rule": FAMILIES[family].rule}
            | {verdict.value: own[verdict] for verdict in COLUMNS}
            for family, own in count(results).items()
        },
        "cells": [
            {
                "family": cell.family, "fault": cell.fault, "mechanism": cell.mechanism, "strategy": cell.strategy,
                "tier": cell.tier, "outcome": outcome.verdict.value, "detail": outcome.detail[:500],
                "as it must": outcome.verdict in cell.allowed,
            }
            for cell, outcome in results
        ],
    }  # fmt: skip
