"""The tables of docs/optimizers.md and docs/schedules.md, generated from the catalog.

python -m tests.support.catalog_tables
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from lightning_optim.catalog.built_in import BUILT_IN
from lightning_optim.cli.list_presets import list_entries

DOCS = Path(__file__).parents[2] / "docs"
PAPER = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


def optimizer_rows() -> Iterator[str]:
    """A row for each name of the config group `optimizer`; sizes are of float32 parameters."""
    yield "| name | what it is | paper | weight decay | state, bytes per parameter | classes |"
    yield "| --- | --- | --- | --- | ---: | --- |"
    for entry in list_entries("optimizer", "*"):
        info = BUILT_IN[entry["algorithm"]]
        classes = ["torch"] * (info.path != info.own) + ["own"] * bool(info.own)
        size = "" if entry["bytes_per_parameter"] is None else f"{entry['bytes_per_parameter']:g}"
        paper = PAPER.sub(r"[\1](https://arxiv.org/abs/\1)", entry["paper"])
        yield (
            f"| `{entry['name']}` | {_cell(entry['summary'])} | {_cell(paper)} | {entry['weight_decay']} | {size} "
            f"| {', '.join(classes)} |"
        )


def schedule_rows() -> Iterator[str]:
    """A row for each name of the config group `scheduler`."""
    yield "| name | curve | length from |"
    yield "| --- | --- | --- |"
    for entry in list_entries("scheduler", "*"):
        length = f"`{entry['length']}`" if entry["length"] else ""
        yield f"| `{entry['name']}` | {_cell(entry['summary'])} | {length} |"


TABLES: dict[str, Callable[[], Iterator[str]]] = {"optimizers.md": optimizer_rows, "schedules.md": schedule_rows}
"""By page. A page has one line before its table, `<!-- generated -->`, and an empty line after it."""


def with_table(page: str) -> str:
    """A page with its table as the catalog has it now."""
    text = (DOCS / page).read_text(encoding="utf-8")
    table = "\n".join(TABLES[page]())
    head, rest = re.split(r"(?<=<!-- generated -->\n)", text, maxsplit=1)
    return head + table + re.sub(r"\A(\|.*\n)*", "\n", rest)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


if __name__ == "__main__":
    for name in TABLES:
        updated = with_table(name)
        (DOCS / name).write_text(updated, encoding="utf-8")
