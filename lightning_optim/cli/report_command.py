"""`report`: one page about runs, from TensorBoard's event files or Lightning's CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ..core.errors import ConfigError, format_names
from ..core.printable import to_printable
from ..report.charts import check_matplotlib
from ..report.curves import Run
from ..report.find_runs import find_runs
from ..report.page import Checked, build_page, check_run
from ..report.read_run import read_run
from ..report.sicknesses import RULES


def run_report(console: Console, paths: Sequence[Path], out: Path | None, *, as_json: bool) -> None:
    """Write the page, and print what is suspicious.

    Args:
        console: to print to.
        paths: of runs: folders, event files or CSV files.
        out: the page to write; None for none.
        as_json: print one JSON document instead of lines.

    Raises:
        ConfigError: a path has no curves of an optimizer, or the page cannot be drawn or written.
    """
    if out is not None:
        _check_writable(out)
        check_matplotlib()
    runs, left_out = read_runs(paths)
    checked = [check_run(run, RULES) for run in runs]
    if out is not None:
        page = build_page(checked, RULES)
        try:
            out.write_text(page, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--out: {out} cannot be written: {error.strerror or error}") from error
    if as_json:
        from .json_output import print_json

        print_json({"runs": list(map(_describe, checked)), "left_out": left_out, "page": out and str(out)})
        return
    for it in checked:
        for line in _lines(it):
            console.print(line, markup=False, soft_wrap=True)
    if left_out:
        names = format_names(left_out, 3)
        console.print(f"left out, without curves of an optimizer: {names}", markup=False, soft_wrap=True)
    if out is not None:
        size = out.stat().st_size / 1000
        console.print(f"wrote {to_printable(str(out))} ({size:,.0f} kB)", markup=False, soft_wrap=True)


def read_runs(paths: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """All runs below the paths that have curves of an optimizer, and the names of those that have none.

    Raises:
        ConfigError: a path has none, or a file cannot be read.
    """
    runs: list[Run] = []
    errors: dict[str, ConfigError] = {}
    read: set[Path] = set()
    found = find_runs(paths)
    for files in found:
        try:
            runs.append(read_run(files))
            read.add(files.given)
        except ConfigError as error:
            errors[files.name] = error
    # Beside a run that the monitor has watched, there may be others, such as those of a test.
    for files in found:
        if files.given not in read:
            raise errors[files.name]
    return runs, list(errors)


def _check_writable(out: Path) -> None:
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--out: got {to_printable(str(out))}. Type a name that ends in .html")
    if not out.parent.is_dir():
        folder = to_printable(str(out.parent))
        raise ConfigError(f"--out: there is no folder {folder}. Create it first: mkdir -p {folder}")


def _lines(it: Checked) -> list[str]:
    """What is suspicious in a run: a line for each rule, its groups named, then what could not be checked."""
    lines = []
    for rule in RULES:
        found = [one for one in it.findings if one.rule == rule.name]
        if found:
            names = format_names((one.group for one in found), 3)
            lines.append(f"{it.run.name}: {rule.title}: {names}: {found[0].text}, step {found[0].step:,}")
    if not lines:
        lines.append(f"{it.run.name}: nothing suspicious")
    lines += [
        f"{it.run.name}: not checked: {rule.title}: {it.unchecked[rule.name]}"
        for rule in RULES
        if rule.name in it.unchecked
    ]
    return lines + [f"{it.run.name}: {note}" for note in it.run.notes]


def _describe(it: Checked) -> dict[str, Any]:
    first, last = it.run.steps
    return {
        "run": it.run.name,
        "source": it.run.source,
        "first_step": first,
        "last_step": last,
        "notes": list(it.run.notes),
        "optimizers": [
            {
                "root": curves.root,
                "groups": list(curves.groups),
                "thaws": [{"step": thaw.step, "label": thaw.label} for thaw in curves.thaws],
            }
            for curves in it.run.optimizers
        ],
        "findings": [
            {
                "rule": one.rule, "optimizer": one.root, "group": one.group, "step": one.step, "value": one.value,
                "threshold": one.threshold, "text": one.text, "advice": one.advice,
            }
            for one in it.findings
        ],
        "unchecked": it.unchecked,
    }  # fmt: skip
