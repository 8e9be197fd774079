"""`show` of a schedule, or of a config file: what it does, and what it sets; without torch and Hydra."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape

from ..core.column_widths import Column
from ..core.config_values import to_yaml
from ..core.text_table import TextTable
from ..schedule.catalog import ScheduleInfo, schedule_info
from .presets import SCHEDULER, read_preset
from .show_optimizer import describe_hyperparameter

_ARGUMENT_COLUMNS = (
    Column("argument", "exact"),
    *(Column(name, "text") for name in ("default", "allowed", "description")),
)
_PYTHON_ONLY = "a config cannot hold its function: from Python only"


def describe_preset(kind: str, name: str) -> dict[str, Any]:
    """What `show --json` prints of a schedule or a preset; `config` is the content of its file, null without one.

    Args:
        kind: the config group.
        name: one of its names.
    """
    preset = read_preset(kind, name)
    if kind != SCHEDULER:
        assert preset is not None  # only optimizers and schedules may have no file
        texts = {"summary": preset.summary, "description": preset.description}
        return {"kind": kind, "name": name, **texts, "config": preset.config}
    info = schedule_info(name)
    return {
        "kind": kind,
        "name": name,
        "summary": info.summary,
        "class": info.path.replace(":", "."),
        "length": info.length_argument,
        "warmup": _describe_warmup(info),
        "hyperparameters": [describe_hyperparameter(key, spec) for key, spec in info.hyperparameters.items()],
        "config": None if preset is None else preset.config,
    }


def print_preset(console: Console, kind: str, name: str) -> None:
    """Print a schedule with its arguments, or a preset; then the config file.

    Args:
        console: to print to.
        kind: the config group.
        name: one of its names.
    """
    preset = read_preset(kind, name)
    if kind == SCHEDULER:
        _print_schedule(console, schedule_info(name))
    elif preset is not None:
        console.print(f"[bold]{name}[/bold]: {escape(preset.summary)}", soft_wrap=True)
    if preset is None:
        console.print(f"config: {_PYTHON_ONLY}", markup=False)
        return
    console.print(f"config: {kind}/{name}", markup=False)
    for line in preset.text.rstrip().splitlines():
        console.print(f"    {line}", markup=False, soft_wrap=True)


def _print_schedule(console: Console, info: ScheduleInfo) -> None:
    console.print(f"[bold]{info.name}[/bold]: {info.summary}")
    console.print(f"class: {info.path.replace(':', '.')}", markup=False)
    if info.length_argument is not None:
        console.print(f"length: {info.length_argument}, by default the length of the run", markup=False)
    console.print(f"warm-up: {_describe_warmup(info)}", markup=False)
    if not info.hyperparameters:
        return
    rows = tuple(
        (name, "required" if spec.required else to_yaml(spec.default), spec.describe(), spec.help)
        for name, spec in info.hyperparameters.items()
    )
    console.print(TextTable(columns=_ARGUMENT_COLUMNS, rows=rows), crop=False)


def _describe_warmup(info: ScheduleInfo) -> str:
    if info.needs_warmup:
        return "required"
    if info.takes_warmup_steps or info.composable:
        return "optional"
    return "none"
