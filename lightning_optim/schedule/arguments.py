"""Schedule arguments whose values depend on the length of the run or on the optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

from ..core.errors import ConfigError


def resolve_curve_arguments(name: str, arguments: dict[str, Any], warmup_steps: int) -> dict[str, Any]:
    """The arguments of one of our curves, with the defaults that depend on the run's length or on the warm-up.

    Args:
        name: of the schedule.
        arguments: from the config, with `total_steps` set where the curve has it.
        warmup_steps: steps before the peak.

    Raises:
        ConfigError: warm-up and decay together are longer than the run.
    """
    if name == "warmup_stable_decay":
        decay_steps = arguments["decay_steps"] or max(1, arguments["total_steps"] // 10)
        if warmup_steps + decay_steps > arguments["total_steps"]:
            raise ConfigError(
                f"decay_steps: {warmup_steps} steps of warm-up and {decay_steps} of decay are more than the run's "
                f"{arguments['total_steps']}. Type fewer"
            )
        return {**arguments, "decay_steps": decay_steps}
    if name == "inverse_sqrt":
        return {"timescale": arguments["timescale"] or warmup_steps or 10_000}
    return arguments


def resolve_cycle_arguments(optimizer: Optimizer, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`max_lr` and `cycle_momentum` for `one_cycle` and `cyclic`: each group's own lr is its maximum.

    torch's scalar `max_lr` would silently give all groups one lr.

    Args:
        optimizer: whose groups are driven; its momentum is cycled if it has one.
        arguments: from the config.

    Raises:
        ConfigError: a group's lr is below `base_lr`, or there is no momentum to cycle.
    """
    peaks = [float(group["lr"]) for group in optimizer.param_groups]
    for group, peak in zip(optimizer.param_groups, peaks, strict=True):
        if peak < arguments.get("base_lr", 0.0):
            raise ConfigError(
                f"base_lr: {arguments['base_lr']:g} is above the lr {peak:g} of group {group.get('name', '?')!r}. "
                f"Type base_lr: {min(peaks) / 10:g}"
            )
    has_momentum = "momentum" in optimizer.defaults or "betas" in optimizer.defaults
    cycle = arguments["cycle_momentum"]
    if cycle and not has_momentum:
        raise ConfigError(
            f"cycle_momentum: {type(optimizer).__name__} has neither momentum nor betas. Type cycle_momentum: false"
        )
    return {"max_lr": peaks, "cycle_momentum": has_momentum if cycle is None else cycle}
