"""Times of this library's parts next to the usual alternatives: `python -m recipes.benchmark`.

The cases of an arm run alternately in this process. Prints a table of medians and quartiles; `--json` writes the same.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from .arguments import check_folder, check_names
from .benchmarks.arm import Arm
from .benchmarks.imports import IMPORTS
from .benchmarks.matrix import MATRIX
from .benchmarks.measure import Timing, measure
from .benchmarks.monitor import MONITOR
from .benchmarks.rules import RULES
from .benchmarks.step import STEP
from .benchmarks.unfreeze import UNFREEZE

ARMS: dict[str, Arm] = {
    "rules": RULES,
    "unfreeze": UNFREEZE,
    "monitor": MONITOR,
    "imports": IMPORTS,
    "matrix": MATRIX,
    **{f"step-{name}": arm for name, arm in STEP.items()},
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A case, as the table and the JSON show it."""

    case: str
    median_ms: float
    low_ms: float
    """The 25 % quantile."""
    high_ms: float
    """The 75 % quantile."""
    ratio: float
    """Its median divided by the reference's."""
    columns: Mapping[str, float] = field(default_factory=dict)
    """What the arm adds, by the header."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The measurements of one arm."""

    title: str
    device: str
    reference: str
    rows: tuple[Row, ...]
    findings: Mapping[str, float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the arms and print their tables."""
    options = _options(arguments)
    device = torch.device(options.device)
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    results = {}
    for name in options.arms:
        # A line instead of a progress bar: the bar's thread would compete with what is timed.
        print(f"{name}: a warm-up and {options.repeats} repeats ...", file=sys.stderr, flush=True)
        results[name] = run(ARMS[name], device, options.repeats)
        print_result(results[name], console)
    if options.json:
        text = json.dumps(to_json(results, options.repeats), indent=2, ensure_ascii=False)
        options.json.write_text(f"{text}\n", encoding="utf-8")


def run(arm: Arm, device: torch.device, repeats: int) -> Result:
    """Time an arm's cases."""
    if not arm.uses_device:
        device = torch.device("cpu")
    measured = arm.measurements(device)
    timings = measure(arm.make_cases(device), repeats, synchronize=_get_synchronize(device))
    return Result(
        title=arm.title,
        device=device_name(device),
        reference=arm.reference,
        rows=build_rows(timings, arm.reference, arm.columns(timings)),
        findings={**arm.findings(timings), **measured},
    )


def build_rows(
    timings: Mapping[str, Timing], reference: str, columns: Mapping[str, Mapping[str, float]] | None = None
) -> tuple[Row, ...]:
    """A row per timing, with its ratio to the reference's and the arm's own columns."""
    reference_ms = timings[reference].median_ms
    return tuple(
        Row(
            case=name,
            **asdict(timing),
            ratio=timing.median_ms / reference_ms,
            columns={header: column[name] for header, column in (columns or {}).items()},
        )
        for name, timing in timings.items()
    )


def print_result(result: Result, console: Console) -> None:
    """Print an arm's table and its findings."""
    table = Table(title=f"{result.title}\n{result.device}", title_justify="left")
    table.add_column("case", no_wrap=True)
    for header in ("median, ms", "25 % to 75 %, ms", f"ratio to {result.reference}", *result.rows[0].columns):
        table.add_column(header, justify="right")
    for row in result.rows:
        spread = f"{_format_ms(row.low_ms)} to {_format_ms(row.high_ms)}"
        ratios = (f"{value:.2f}" for value in (row.ratio, *row.columns.values()))
        table.add_row(row.case, _format_ms(row.median_ms), spread, *ratios)
    console.print(table)
    for finding, value in result.findings.items():
        console.print(f"{finding}: {value:.2f}")


def to_json(results: Mapping[str, Result], repeats: int) -> dict[str, Any]:
    """The unrounded numbers of the tables and the software versions; nothing that identifies the machine."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "arms": {name: asdict(result) for name, result in results.items()},
    }


def device_name(device: torch.device) -> str:
    """The model of a GPU or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _get_synchronize(device: torch.device) -> Callable[[], object]:
    """A function that waits until the device is idle; on the CPU it returns at once."""
    return partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m recipes.benchmark", description=__doc__)
    families = _families()
    known = {**ARMS, **families}
    parser.add_argument("arms", nargs="*", metavar="ARM", help=f"one of {', '.join(known)}; default: all")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=15, help="timed repeats after the warm-up, at least two")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to this file")
    options = parser.parse_args(arguments)
    given = check_names(parser, "arm", options.arms, known)
    options.arms = list(dict.fromkeys(arm for name in given for arm in families.get(name, [name])))
    if options.repeats < 2:
        parser.error(f"--repeats {options.repeats}: a spread needs two or more. Type for example --repeats 15")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device here. Type --device cpu")
    check_folder(parser, "--json", options.json)
    return options


def _families() -> dict[str, list[str]]:
    """Arms that one name selects: `step` all of `step-...`."""
    families: dict[str, list[str]] = {}
    for arm in ARMS:
        family, dash, _ = arm.partition("-")
        if dash:
            families.setdefault(family, []).append(arm)
    return families


def _format_ms(milliseconds: float) -> str:
    """At least three significant digits, whatever the magnitude."""
    decimals = 3 if milliseconds < 1 else 2 if milliseconds < 10 else 1
    return f"{milliseconds:,.{decimals}f}"


if __name__ == "__main__":
    main()
