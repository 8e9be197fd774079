"""Build the torch scheduler of one schedule, over all groups of an optimizer or a view of some."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from itertools import pairwise
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, SequentialLR

from .arguments import resolve_cycle_arguments, resolve_floor
from .catalog import schedule_info
from .config import prefix_block_errors
from .curves import Warmup


def build_scheduler(schedule: Mapping[str, Any], optimizer: Optimizer) -> LRScheduler:
    """The torch scheduler of a schedule.

    Args:
        schedule: from `resolve_schedule`.
        optimizer: the optimizer or `GroupView` to drive.

    Raises:
        ConfigError: the schedule does not fit the groups' lrs.
    """
    segments = _build_segments(schedule, optimizer)
    if len(segments) == 1:
        return segments[0][1]
    milestones = [start for start, _ in segments[1:]]
    return SequentialLR(optimizer, [scheduler for _, scheduler in segments], milestones=milestones)


def _build_segments(schedule: Mapping[str, Any], optimizer: Optimizer) -> list[tuple[int, LRScheduler]]:
    """`(first step, scheduler)` of each segment, flattened because a SequentialLR cannot contain another."""
    warmup_steps = schedule["warmup_steps"]
    segments = _build_segments_after_warmup(schedule, optimizer)
    if not warmup_steps or schedule_info(schedule["name"]).takes_warmup_steps:
        return segments
    warmup = LambdaLR(optimizer, Warmup(warmup_steps))
    return [(0, warmup), *((warmup_steps + start, scheduler) for start, scheduler in segments)]


def _build_segments_after_warmup(schedule: Mapping[str, Any], optimizer: Optimizer) -> list[tuple[int, LRScheduler]]:
    if schedule["name"] != "sequential":
        return [(0, _build_segment(schedule, optimizer))]
    segments = []
    bounds = pairwise([0, *schedule["milestones"], None])
    for index, (block, (start, end)) in enumerate(zip(schedule["schedulers"], bounds, strict=True)):
        with prefix_block_errors(index):
            inner = _build_segments(block, optimizer)
        segments += [(start + at, scheduler) for at, scheduler in inner if end is None or start + at < end]
    return segments


def _build_segment(schedule: Mapping[str, Any], optimizer: Optimizer) -> LRScheduler:
    name = schedule["name"]
    info = schedule_info(name)
    arguments = {key: value for key, value in schedule.items() if key not in ("name", "warmup_steps", "monitor")}
    if info.takes_blocks:
        chained: LRScheduler = _load(info.path)(_build_blocks(arguments["schedulers"], optimizer), optimizer)
        return chained
    if info.takes_warmup_steps:
        return LambdaLR(optimizer, _load(info.path)(warmup_steps=schedule["warmup_steps"], **arguments))
    arguments = resolve_floor(optimizer, arguments)
    if "final_scale" in arguments and info.scaled_path is not None:
        return LambdaLR(optimizer, _load(info.scaled_path)(**arguments))
    if "cycle_momentum" in arguments:
        arguments |= resolve_cycle_arguments(optimizer, arguments)
    scheduler: LRScheduler = _load(info.path)(optimizer, **arguments)
    return scheduler


def _build_blocks(blocks: list[dict[str, Any]], optimizer: Optimizer) -> list[LRScheduler]:
    schedulers = []
    for index, block in enumerate(blocks):
        with prefix_block_errors(index):
            schedulers.append(build_scheduler(block, optimizer))
    return schedulers


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
