"""Build the torch scheduler of one schedule, over all groups of an optimizer or a view of some."""

from __future__ import annotations

from importlib import import_module
from itertools import pairwise

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, SequentialLR

from ..core.errors import ConfigError
from .arguments import resolve_curve_arguments, resolve_cycle_arguments
from .config import ScheduleConfig, prefix_block_errors
from .curves import Warmup


def build_scheduler(config: ScheduleConfig, optimizer: Optimizer, total_steps: int | None) -> LRScheduler:
    """The torch scheduler of a config.

    Args:
        config: of the schedule.
        optimizer: the optimizer or `GroupView` to drive.
        total_steps: length of the run, used if the config has none.

    Raises:
        ConfigError: the schedule needs the length of the run and nothing gives it, or does not fit it or the lrs.
    """
    segments = _build_segments(config, optimizer, total_steps)
    if len(segments) == 1:
        return segments[0][1]
    milestones = [start for start, _ in segments[1:]]
    return SequentialLR(optimizer, [scheduler for _, scheduler in segments], milestones=milestones)


def _build_segments(
    config: ScheduleConfig, optimizer: Optimizer, total_steps: int | None
) -> list[tuple[int, LRScheduler]]:
    """`(first step, scheduler)` of each segment, flattened because a SequentialLR cannot contain another."""
    total = _resolve_total_steps(config, total_steps)
    if not config.warmup_steps or config.info.takes_warmup_steps:
        return _build_segments_after_warmup(config, optimizer, total, config.warmup_steps)
    remaining = total and total - config.warmup_steps
    segments = _build_segments_after_warmup(config, optimizer, remaining, 0)
    warmup = LambdaLR(optimizer, Warmup(config.warmup_steps))
    return [(0, warmup), *((config.warmup_steps + start, scheduler) for start, scheduler in segments)]


def _build_segments_after_warmup(
    config: ScheduleConfig, optimizer: Optimizer, total: int | None, warmup_steps: int
) -> list[tuple[int, LRScheduler]]:
    """The segments of the schedule itself; `warmup_steps` is for a class that has its own warm-up."""
    if config.name != "sequential":
        return [(0, _build_segment(config, optimizer, total, warmup_steps))]
    milestones = config.arguments()["milestones"]
    if total is not None and milestones[-1] >= total:
        raise ConfigError(f"milestones: the last, {milestones[-1]}, is not before the end of the run, {total} steps")
    segments = []
    for index, (block, (start, end)) in enumerate(zip(config.blocks(), pairwise([0, *milestones, total]), strict=True)):
        with prefix_block_errors(index):
            inner = _build_segments(block, optimizer, None if end is None else end - start)
        segments += [(start + at, scheduler) for at, scheduler in inner if end is None or start + at < end]
    return segments


def _build_segment(config: ScheduleConfig, optimizer: Optimizer, total: int | None, warmup_steps: int) -> LRScheduler:
    info, arguments = config.info, config.arguments()
    module, _, class_name = info.path.partition(":")
    cls = getattr(import_module(module), class_name)
    if info.takes_blocks:
        chained: LRScheduler = cls([build_scheduler(block, optimizer, total) for block in config.blocks()], optimizer)
        return chained
    if info.takes_function:
        scheduler: LRScheduler = cls(optimizer, config.hyperparameters["lr_lambda"])
        return scheduler
    if info.length_argument is not None and arguments.get(info.length_argument) is None:
        arguments[info.length_argument] = total
    if info.takes_warmup_steps:
        arguments = resolve_curve_arguments(config.name, arguments, warmup_steps)
        return LambdaLR(optimizer, cls(warmup_steps=warmup_steps, **arguments))
    if config.name == "one_cycle" and arguments["pct_start"] * arguments["total_steps"] == 1:
        # torch would divide by zero.
        raise ConfigError("pct_start: an increase over one step has no length. Type pct_start: 0, or a larger one")
    if "cycle_momentum" in arguments:
        arguments |= resolve_cycle_arguments(optimizer, arguments)
    arguments.pop("monitor", None)
    scheduler = cls(optimizer, **arguments)
    return scheduler


def _resolve_total_steps(config: ScheduleConfig, total_steps: int | None) -> int | None:
    total = config.total_steps if config.total_steps is not None else total_steps
    if config.needs_total_steps and total is None:
        raise ConfigError(
            f"scheduler.total_steps: {config.name} needs the length of the run. Type for example "
            "scheduler.total_steps: 1000, or build it with lightning_optim.configure_optimizers, which asks "
            "the trainer"
        )
    if total is not None and config.warmup_steps >= total:
        raise ConfigError(f"warmup_steps: {config.warmup_steps} is not less than the run's {total} steps. Type fewer")
    return total
