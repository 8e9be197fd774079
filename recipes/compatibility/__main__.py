"""This library beside each callback of Lightning, next to torch by hand: `python -m recipes.compatibility`.

The exit status is 1 where something is silently wrong, or fails although Lightning alone works.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from ..arguments import check_folder, check_names
from .cells import fill_cells
from .report import build_table, count, find_reasons, to_markdown
from .rows import ROWS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every cell and print the table; returns the exit status."""
    options = _options(arguments)
    rows = [row for row in ROWS if row.callback in options.callbacks]
    progress = Console(stderr=True)
    cells = [cell for row in track(rows, "callbacks", console=progress, transient=True) for cell in fill_cells(row)]
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False)
    console.print(build_table(cells))
    console.print(count(cells))
    for result, reason, found_in in find_reasons(cells):
        console.print(f"- {result}: {reason}: {found_in}")
    if options.markdown:
        command = " ".join(["python -m recipes.compatibility", *(sys.argv[1:] if arguments is None else arguments)])
        options.markdown.write_text(to_markdown(cells, command), encoding="utf-8")
    return int(any(cell.is_failure for cell in cells))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.compatibility",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("callbacks", nargs="*", metavar="CALLBACK", help="names of callbacks; default: all")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table to this file")
    options = parser.parse_args(arguments)
    options.callbacks = check_names(parser, "callback", options.callbacks, dict.fromkeys(row.callback for row in ROWS))
    check_folder(parser, "--markdown", options.markdown)
    return options


if __name__ == "__main__":
    sys.exit(main())
