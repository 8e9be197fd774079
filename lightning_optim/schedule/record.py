"""What a checkpoint records of the schedule it was saved under, and how that differs from the config's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

from ..core.config_values import to_plain, to_yaml
from ..core.param_group_keys import SCHEDULE
from .also import resolve_also
from .catalog import schedule_info
from .config import ScheduleConfig
from .split_by_curve import resolve_by_override

Record = Mapping[str, Any]
"""The `interval`, under `curves` the resolved schedule of each `schedule` override, and `also` where it is set; str,
numbers, lists, dicts."""

_ABSENT = object()


def schedule_record(
    config: ScheduleConfig, optimizer: Optimizer, total_steps: int | None, steps_per_epoch: int | None = None
) -> Record:
    """The record of the schedule that a config gives the groups of an optimizer.

    Args:
        config: of the run's schedule.
        optimizer: whose groups may have overrides.
        total_steps: length of the run.
        steps_per_epoch: optimizer steps in an epoch.

    Raises:
        ConfigError: as `resolve_schedule`.
    """
    curves = [
        {SCHEDULE: None if override is None else dict(override), **schedule}
        for override, schedule in resolve_by_override(config, optimizer, total_steps, steps_per_epoch)
    ]
    total = config.total_steps if config.total_steps is not None else total_steps
    also = {"also": resolve_also(config.also, total)} if config.also else {}
    record: Record = _without_functions(to_plain({"interval": config.interval, "curves": curves, **also}))
    return record


def find_differences(saved: Record, own: Record) -> list[str]:
    """What differs between two records: `key: saved value -> own value`; empty where they are the same.

    Overrides that only one of them has are no difference: their groups have moved to another curve.
    """
    differences = _compare({"interval": saved["interval"]}, {"interval": own["interval"]})
    for curve in own["curves"]:
        for other in saved["curves"]:
            if other[SCHEDULE] == curve[SCHEDULE]:
                prefix = "" if curve[SCHEDULE] is None else f"under schedule: {to_yaml(curve[SCHEDULE])}, "
                differences += [prefix + line for line in _compare_curves(other, curve)]
    return differences + _compare_also(saved.get("also", {}), own.get("also", {}))


def changes_momentum(record: Record) -> bool:
    """Whether a curve of it may change momentum or betas."""
    if record.get("also", {}).keys() - {"weight_decay"}:
        return True
    return any(curve.get("cycle_momentum", False) is not False for curve in record["curves"])


def changes_weight_decay(record: Record) -> bool:
    """Whether a curve of it changes weight decay."""
    return "weight_decay" in record.get("also", {})


def follows_metrics(record: Record) -> bool:
    """Whether the lr of some groups depends on a metric, and so is not a function of the step."""
    return any(curve["name"] == "reduce_on_plateau" for curve in record["curves"])


def _compare_curves(saved: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    saved, own = ({key: value for key, value in curve.items() if key != SCHEDULE} for curve in (saved, own))
    if saved["name"] != own["name"]:
        return [f"{_format(saved)} -> {_format(own)}"]
    return _compare(saved, own)


def _compare_also(saved: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    lines = []
    for key in dict.fromkeys((*saved, *own)):
        before, now = (
            {argument: value for argument, value in also.get(key, {}).items() if value is not None}
            for also in (saved, own)
        )
        if before and now:
            lines += _compare(before, now, f"also.{key}.")
        elif before or now:
            lines.append(f"also.{key}: {' -> '.join(to_yaml(curve) if curve else 'none' for curve in (before, now))}")
    return lines


def _compare(saved: Mapping[str, Any], own: Mapping[str, Any], prefix: str = "") -> list[str]:
    lines = []
    for key in dict.fromkeys((*saved, *own)):
        before, now = saved.get(key, _ABSENT), own.get(key, _ABSENT)
        if before == now:
            continue
        if key == "schedulers" and isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
            for index, (block, other) in enumerate(zip(before, now, strict=True)):
                where = f"{prefix}schedulers[{index}]"
                if block.get("name") != other.get("name"):
                    lines.append(f"{where}: {_format(block)} -> {_format(other)}")
                else:
                    lines += _compare(block, other, f"{where}.")
        else:
            before, now = ("none" if value is _ABSENT else to_yaml(value) for value in (before, now))
            lines.append(f"{prefix}{key}: {before} -> {now}")
    return lines


def _format(schedule: Mapping[str, Any]) -> str:
    """A resolved schedule as YAML, without the arguments that have their default."""
    specs = schedule_info(schedule["name"]).hyperparameters
    defaults = {"warmup_steps": 0, **{key: spec.default for key, spec in specs.items()}}
    return to_yaml({key: value for key, value in schedule.items() if value != defaults.get(key, _ABSENT)})


def _without_functions(value: Any) -> Any:
    """A copy in which functions, which no checkpoint can hold, are replaced by their names."""
    if isinstance(value, Mapping):
        return {key: _without_functions(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_functions(item) for item in value]
    return getattr(value, "__qualname__", type(value).__qualname__) if callable(value) else value
