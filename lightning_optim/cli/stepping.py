"""How often an app steps its schedule, as far as its config and the code of its model say so."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig
from torch import nn

from ..core.errors import ConfigError
from ..schedule.factory import SchedulerFactory
from .nodes import get_value

_OVERRIDE = "lightning_optim.OptimizerOverride"
_INTERVALS = {"step": "once per optimizer step", "epoch": "once an epoch"}
# What Lightning does with a scheduler dict without an interval.
_LIGHTNINGS_DEFAULT = "epoch"


def check_stepping(
    config: DictConfig,
    module: nn.Module,
    targets: Mapping[str, str],
    key: str | None,
    scheduler: SchedulerFactory | None,
) -> str:
    """How often the schedule steps, in one line that says whether it is known or assumed.

    Args:
        config: the composed config.
        module: the model.
        targets: of the config's nodes, by key.
        key: of the schedule; None for a run without one.
        scheduler: the schedule.

    Raises:
        ConfigError: the app steps it at another interval than the schedule counts.
    """
    if key is None or scheduler is None:
        return "assumed: no schedule, as none is in the config beside the optimizer"
    interval = scheduler.interval
    found = _read_config(config, key) or _read_code(module, targets)
    if found is None:
        return (
            f"assumed: {key} steps {_INTERVALS[interval]} ({key}.interval: {interval}), as with "
            "lightning_optim.configure_optimizers"
        )
    where, actual = found
    if actual != interval:
        raise ConfigError(
            f"{key}.interval: it is {interval}, but {where} steps the schedule {_INTERVALS[actual]}. Type "
            f"{key}.interval={actual}, and give its lengths in {actual}s"
        )
    return f"{key} steps {_INTERVALS[interval]}, as {where} says"


def _read_config(config: DictConfig, key: str) -> tuple[str, str] | None:
    """The key that has the interval in Lightning's dict around a schedule, `{scheduler: ..., interval: epoch}`."""
    parent, _, name = key.rpartition(".")
    around = get_value(config, parent) if parent else None
    if name != "scheduler" or not isinstance(around, DictConfig) or "_target_" in around:
        return None
    interval = get_value(config, f"{parent}.interval")
    return (f"{parent}.interval", interval) if interval in _INTERVALS else None


def _read_code(module: nn.Module, targets: Mapping[str, str]) -> tuple[str, str] | None:
    """The interval that is written out in the module's `configure_optimizers`; nothing is run."""
    method = getattr(type(module), "configure_optimizers", None)
    if method is None or _OVERRIDE in targets.values():
        return None
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
    except (OSError, TypeError, SyntaxError):  # no source, as for what was typed into a shell
        return None
    if any(isinstance(node, ast.Subscript) and _text(node.slice) == "interval" for node in ast.walk(tree)):
        return None  # set later, perhaps under a condition
    found = set(_literal_intervals(tree))
    interval = found.pop() if len(found) == 1 else None
    return (f"{type(module).__name__}.configure_optimizers", interval) if interval in _INTERVALS else None


def _literal_intervals(tree: ast.AST) -> Iterator[str | None]:
    """The interval of each dict with a scheduler; None for one that is computed, or may be of something else."""
    dicts = {node: _entries(node) for node in ast.walk(tree) if isinstance(node, ast.Dict)}
    of_lightning = [entries["lr_scheduler"] for entries in dicts.values() if "lr_scheduler" in entries]
    for node, entries in dicts.items():
        if "scheduler" in entries:
            is_complete = None not in entries  # neither ** nor a key that is computed
            default = _LIGHTNINGS_DEFAULT if is_complete and node in of_lightning else None
            yield _text(entries["interval"]) if "interval" in entries else default


def _entries(node: ast.Dict) -> dict[str | None, ast.expr]:
    return {_text(key): value for key, value in zip(node.keys, node.values, strict=True)}


def _text(node: Any) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
