"""What things take, against what one would use instead: `python -m recipes.benchmark`.

Each arm compares cases that take turns in this one process; a table of medians and quartiles, and the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from lightning_optim.core.errors import choices

from .benchmarks.arm import Arm
from .benchmarks.measure import Timing, measure
from .benchmarks.monitor import MONITOR
from .benchmarks.rules import RULES
from .benchmarks.unfreeze import UNFREEZE

ARMS: dict[str, Arm] = {"rules": RULES, "unfreeze": UNFREEZE, "monitor": MONITOR}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A case as table and JSON show it."""

    case: str
    median_ms: float
    low_ms: float
    """The 25 % quantile."""
    high_ms: float
    """The 75 % quantile."""
    ratio: float
    """Its median to the reference's."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What an arm has shown."""

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
        # A line, and no bar that moves: its thread would take its turns too.
        print(f"{name}: a warm-up and {options.repeats} repeats ...", file=sys.stderr, flush=True)
        results[name] = run(ARMS[name], device, options.repeats)
        show(results[name], console)
    if options.json:
        text = json.dumps(as_json(results, options.repeats), indent=2, ensure_ascii=False)
        options.json.write_text(f"{text}\n", encoding="utf-8")


def run(arm: Arm, device: torch.device, repeats: int) -> Result:
    """Time an arm's cases."""
    if not arm.uses_device:
        device = torch.device("cpu")
    timings = measure(arm.make_cases(device), repeats, synchronize=_waits_for(device))
    return Result(
        title=arm.title,
        device=device_name(device),
        reference=arm.reference,
        rows=rows(timings, arm.reference),
        findings=arm.findings(timings),
    )


def rows(timings: Mapping[str, Timing], reference: str) -> tuple[Row, ...]:
    """The timings, with their ratios to one of them."""
    unit = timings[reference].median_ms
    return tuple(Row(case=name, **asdict(timing), ratio=timing.median_ms / unit) for name, timing in timings.items())


def show(result: Result, console: Console) -> None:
    """Print an arm's table, and below it what follows from it."""
    table = Table(title=f"{result.title}\n{result.device}", title_justify="left")
    table.add_column("case")
    for head in ("median, ms", "25 % to 75 %, ms", f"ratio to {result.reference}"):
        table.add_column(head, justify="right")
    for row in result.rows:
        spread = f"{_shown(row.low_ms)} to {_shown(row.high_ms)}"
        table.add_row(row.case, _shown(row.median_ms), spread, f"{row.ratio:.2f}")
    console.print(table)
    for what, value in result.findings.items():
        console.print(f"{what}: {value:.2f}")


def as_json(results: Mapping[str, Result], repeats: int) -> dict[str, Any]:
    """All that the tables show, unrounded, and what it was measured with; nothing that names the machine."""
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


def _waits_for(device: torch.device) -> Callable[[], object]:
    """What returns once the device has done its work; on the CPU that is at once."""
    return partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m recipes.benchmark", description=__doc__)
    parser.add_argument("arms", nargs="*", metavar="ARM", help=f"of {', '.join(ARMS)}; all where none is named")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=15, help="that are counted, two or more")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    options = parser.parse_args(arguments)
    options.arms = list(dict.fromkeys(options.arms or ARMS))
    for name in options.arms:
        if name not in ARMS:
            parser.error(f"there is no arm {name!r}.{choices(name, ARMS)}")
    if options.repeats < 2:
        parser.error(f"--repeats {options.repeats}: a spread needs two or more. Type for example --repeats 15")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device here. Type --device cpu")
    # Found now, not after minutes of measuring.
    if options.json and not options.json.parent.is_dir():
        parser.error(f"--json {options.json}: there is no folder {options.json.parent}. Make it first")
    return options


def _shown(milliseconds: float) -> str:
    """Three digits or more, whatever the magnitude."""
    decimals = 3 if milliseconds < 1 else 2 if milliseconds < 10 else 1
    return f"{milliseconds:,.{decimals}f}"


if __name__ == "__main__":
    main()
