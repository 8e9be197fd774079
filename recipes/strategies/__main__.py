"""This library under each strategy of Lightning, next to torch by hand: `python -m recipes.strategies`.

The exit status is 1 where something is silently wrong, or fails although Lightning alone works.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..arguments import check_folder, check_names
from .cells import Cell, judge
from .launch import launch
from .report import build_table, count, find_reasons, to_markdown
from .rows import ROWS

_REFERENCE = "ddp"
"""The row whose hand-written runs are those of the rows whose processes Lightning starts."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the strategies and print the table; returns the exit status."""
    options = _options(arguments)
    cells = try_strategies(options.strategies)
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False)
    console.print(build_table(cells))
    console.print(", ".join(f"{number} {name}" for name, number in count(cells).items()))
    for keys, reason in find_reasons(cells).items():
        console.print(f"- {keys}: {reason}")
    if options.markdown:
        command = " ".join(["python -m recipes.strategies", *(sys.argv[1:] if arguments is None else arguments)])
        options.markdown.write_text(to_markdown(cells, command), encoding="utf-8")
    return int(not all(cell.is_good for cell in cells))


def try_strategies(names: Sequence[str]) -> list[Cell]:
    """The cells of these rows."""
    needed = dict.fromkeys([*names, *([_REFERENCE] if any(ROWS[name].launcher for name in names) else [])])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        launch(root, list(needed))
        return [
            cell
            for name in names
            for cell in judge(name, ROWS[name], root / name, root / (_REFERENCE if ROWS[name].launcher else name))
        ]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.strategies",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("strategies", nargs="*", metavar="STRATEGY", help="rows of the table; default: all")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table to this file")
    options = parser.parse_args(arguments)
    options.strategies = check_names(parser, "strategy", options.strategies, ROWS)
    check_folder(parser, "--markdown", options.markdown)
    return options


if __name__ == "__main__":
    sys.exit(main())
