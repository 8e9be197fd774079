"""`python -m tests.reliability.scoreboard`: runs the cells, prints the table, and ends with 1 if one is wrong.

Without `--full`, the cells that the slow tests run; `--only F1,F6` some families; `--cells TEXT` those whose name
contains it; `--json FILE` writes a row for each cell; `--planted` plants a fault in each family, which must be noticed.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # forks of a process that sees a GPU cannot train

import argparse
import json
import sys
import time
from pathlib import Path

from tests.reliability.scoreboard.planted import PLANTS, is_noticed
from tests.reliability.scoreboard.registry import FAMILIES, all_cells
from tests.reliability.scoreboard.running import run_cells
from tests.reliability.scoreboard.table import find_wrong, headline, to_json, to_markdown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="all cells: minutes")
    parser.add_argument("--only", default="", help="families, such as F1,F6")
    parser.add_argument("--cells", default="", help="cells whose name contains this")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn: where chains are cut, orders of rules")
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--planted", action="store_true", help="plant a fault in each family")
    given = parser.parse_args()
    only = [family for family in given.only.split(",") if family]
    if unknown := set(only) - set(FAMILIES):
        parser.error(f"no such families: {sorted(unknown)}; there are {', '.join(FAMILIES)}")
    if given.planted:
        return _show_planted(only)
    start = time.perf_counter()
    cells = [cell for cell in all_cells(given.seed, "full" if given.full else "slow", only) if given.cells in cell.name]
    results = run_cells(cells)
    seconds = time.perf_counter() - start
    print(to_markdown(results))
    print(f"\n{headline(results)}, seed {given.seed}, {seconds:.0f} s")
    wrong = find_wrong(results)
    for cell, outcome in wrong:
        print(f"{cell.name}: {outcome.verdict.value}: {outcome.detail[:400]}")
    if given.json:
        given.json.write_text(json.dumps(to_json(results, given.seed, seconds), indent=1) + "\n", encoding="utf-8")
    return 1 if wrong else 0


def _show_planted(only: list[str]) -> int:
    missed = 0
    for plant in PLANTS:
        if not only or plant.family in only:
            noticed, detail = is_noticed(plant)
            missed += not noticed
            print(f"{plant.family}: {plant.fault}: {'noticed' if noticed else 'MISSED'}: {detail[:200]}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
