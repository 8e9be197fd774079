"""A schedule with all that it depends on filled in: the length of the run, of the warm-up, and every default."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from ..core.errors import ConfigError
from .also import needs_length
from .arguments import resolve_curve_arguments
from .config import ScheduleConfig, prefix_block_errors
from .warmup import resolve_warmup


def resolve_schedule(
    config: ScheduleConfig, total_steps: int | None, steps_per_epoch: int | None = None
) -> dict[str, Any]:
    """`name`, `warmup_steps` and every argument of a schedule; blocks, resolved too, are under `schedulers`.

    Two configs that resolve to the same values give the same curves over the same groups.

    Args:
        config: of the schedule.
        total_steps: length of the run, used if the config has none.
        steps_per_epoch: optimizer steps in an epoch.

    Raises:
        ConfigError: a length is needed and nothing gives it, or the parts of the schedule do not fit into the run.
    """
    info = config.info
    total = _resolve_total_steps(config, total_steps)
    warmup_steps = resolve_warmup(config.warmup, config.interval, total, steps_per_epoch)
    if total is not None and warmup_steps >= total:
        key = next((key for key, value in config.warmup.items() if value), "warmup_steps")
        meaning = "" if key == "warmup_steps" else f" (warmup_steps: {warmup_steps})"
        raise ConfigError(
            f"{key}: {config.warmup[key]}{meaning} is not less than the run's {total} steps. Type a smaller value"
        )
    remaining = total if info.takes_warmup_steps or total is None else total - warmup_steps
    arguments = config.arguments()
    if info.takes_function:
        arguments["lr_lambda"] = config.hyperparameters["lr_lambda"]
    if info.length_argument is not None and arguments.get(info.length_argument) is None:
        arguments[info.length_argument] = remaining
    if info.takes_warmup_steps:
        arguments = resolve_curve_arguments(config.name, arguments, warmup_steps)
    if info.takes_blocks:
        arguments["schedulers"] = _resolve_blocks(config, arguments, remaining)
    if config.name == "one_cycle" and arguments["pct_start"] * arguments["total_steps"] == 1:
        # torch would divide by zero.
        raise ConfigError("pct_start: the lr would rise within one step. Type pct_start: 0, or a larger value")
    return {"name": config.name, "warmup_steps": warmup_steps, **arguments}


def _resolve_total_steps(config: ScheduleConfig, total_steps: int | None) -> int | None:
    total = config.total_steps if config.total_steps is not None else total_steps
    if config.needs_total_steps and total is None:
        what = "warmup_fraction" if config.warmup_fraction else "also" if needs_length(config.also) else config.name
        raise ConfigError(
            f"scheduler.total_steps: {what} needs the length of the run. Type for example "
            "scheduler.total_steps: 1000, or build it with lightning_optim.configure_optimizers, which asks "
            "the trainer"
        )
    return total


def _resolve_blocks(config: ScheduleConfig, arguments: dict[str, Any], total: int | None) -> list[dict[str, Any]]:
    blocks = config.blocks()
    if config.name != "sequential":
        lengths = [total for _ in blocks]
    else:
        milestones = arguments["milestones"]
        if total is not None and milestones[-1] >= total:
            raise ConfigError(
                f"milestones: the last, {milestones[-1]}, is not before the end of the run, {total} steps. "
                "Type smaller ones"
            )
        lengths = [None if end is None else end - start for start, end in pairwise([0, *milestones, total])]
    resolved = []
    for index, (block, length) in enumerate(zip(blocks, lengths, strict=True)):
        with prefix_block_errors(index):
            resolved.append(resolve_schedule(block, length))
    return resolved
