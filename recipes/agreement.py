"""Our rules next to what the authors of transformers and timm do: `python -m recipes.agreement`.

The command builds each configuration of transformers, with a language-model head where it has one, and each model of
timm, with random weights on the meta device. For each model it compares or checks:

- the parameters that the preset `no_decay` exempts from weight decay, compared with those that transformers' Trainer or
  timm exempts;
- the lr scale of every parameter under `layers: auto` and layer decay, compared with timm's;
- whether the rule of the preset `muon_hidden`, applied to the whole model, selects an embedding or the output layer of
  a language model: what `get_input_embeddings()` and `get_output_embeddings()` return, and every `nn.Embedding`. A
  convolution or linear layer that projects pixels or audio to the input embeddings is a matrix, and counted
  separately;
- whether `layers: auto` finds layers.

The exit status is 1 if a difference has no known reason, an lr scale differs, or an embedding or output layer is
selected.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from .agreements import torchvision_stub
from .agreements.compare import compare
from .agreements.library import Library
from .agreements.report import Listing, Outcome, Report, build_report, format_error
from .arguments import check_folder, check_names

_STUB_NOTE = "torchvision is not installed: a stand-in takes its place, which is enough to build the models of timm."


def _prepare() -> None:
    """What must happen before the first import of a library."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # no model needs the network
    torchvision_stub.install()


def _load_transformers() -> Library:
    _prepare()
    from .agreements.transformers_models import TRANSFORMERS

    return TRANSFORMERS


def _load_timm() -> Library:
    _prepare()
    from .agreements.timm_models import TIMM

    return TIMM


LIBRARIES: Mapping[str, Callable[[], Library]] = {"transformers": _load_transformers, "timm": _load_timm}


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the libraries and print the reports; returns the exit status."""
    options = _options(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False)
    reports = []
    for name in options.libraries:
        reports.append(run(LIBRARIES[name](), options.every))
        print_report(reports[-1], console)
    if options.markdown:
        command = " ".join(["python -m recipes.agreement", *(sys.argv[1:] if arguments is None else arguments)])
        notes = [_STUB_NOTE] if torchvision_stub.is_in_use() else []
        options.markdown.write_text(to_markdown(reports, command, notes), encoding="utf-8")
    return int(any(report.num_failures for report in reports))


def run(library: Library, every: int = 1) -> Report:
    """Compare every N-th model of a library, one at a time."""
    outcome = Outcome()
    progress = Console(stderr=True)
    for name in track(library.models[::every], library.name, console=progress, disable=not progress.is_terminal):
        try:
            model = library.build(name)
        except Exception as error:
            outcome.not_built[name] = format_error(error)
            continue
        try:
            outcome.comparisons.append(compare(name, model, library))
        except Exception as error:
            outcome.crashed[name] = format_error(error)
    return build_report(library, outcome)


def print_report(report: Report, console: Console) -> None:
    """Print the counts as a table, then the lists."""
    table = Table(title=report.title, title_justify="left")
    table.add_column()
    table.add_column("models", justify="right")
    for text, number in report.counts:
        table.add_row(text, str(number))
    console.print(table)
    for listing in report.listings:
        console.print(_to_table(listing))


def to_markdown(reports: Sequence[Report], command: str, notes: Sequence[str] = ()) -> str:
    """The reports as a page of documentation.

    Args:
        reports: one of each library.
        command: which wrote them.
        notes: about how the models were built.
    """
    versions = ", ".join([*(report.title for report in reports), f"torch {torch.__version__}"])
    lines = [
        "# Agreement with the authors of models",
        "",
        f"Versions: {versions}.",
        *notes,
        "",
        "```bash",
        command,
        "```",
        "",
        str(__doc__).partition("\n\n")[2].strip(),
    ]
    for report in reports:
        lines += ["", f"## {report.title}", "", *_to_rows(("", "models"), [(t, str(n)) for t, n in report.counts])]
        for listing in report.listings:
            lines += ["", f"### {listing.title}", "", *_to_rows(listing.header, listing.rows)]
    return "\n".join(lines) + "\n"


def _to_table(listing: Listing) -> Table:
    table = Table(title=listing.title, title_justify="left", show_lines=True)
    for header in listing.header:
        table.add_column(header, overflow="fold")
    for row in listing.rows:
        table.add_row(*row)
    return table


def _to_rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (header, ["---"] * len(header), *rows)]
    return [f"| {' | '.join(row)} |" for row in escaped]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.agreement",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("libraries", nargs="*", metavar="LIBRARY", help=f"{' or '.join(LIBRARIES)}; default: both")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="compare every N-th model only")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the reports to this file")
    options = parser.parse_args(arguments)
    options.libraries = check_names(parser, "library", options.libraries, LIBRARIES)
    if options.every < 1:
        parser.error(f"--every {options.every}: it must be an integer >= 1. Type for example --every 10")
    check_folder(parser, "--markdown", options.markdown)
    return options


if __name__ == "__main__":
    sys.exit(main())
