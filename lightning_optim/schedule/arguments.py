"""Schedule arguments whose values depend on the length of the run or on the optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

from ..core.errors import ConfigError
from .catalog import FLOORS


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
                f"{arguments['total_steps']}. Type smaller values"
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


def resolve_floor(optimizer: Optimizer, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with one lowest lr: torch's own, or `final_scale`, a fraction of each group's peak.

    ReduceLROnPlateau gets `final_scale` as a `min_lr` by group. For other schedules it stays in the arguments, without
    torch's `eta_min`, and a curve of ours takes it.

    Args:
        optimizer: whose groups are driven.
        arguments: of the schedule; those without a lowest lr are returned as they are.

    Raises:
        ConfigError: the lowest lr is above the lr of a group, which would rise to it.
    """
    floor = next((key for key in FLOORS if key in arguments), None)
    if floor is None:
        return arguments
    given = {key: value for key, value in arguments.items() if key not in (floor, "final_scale")}
    # torch takes `initial_lr` as the peak where a schedule before this one in a sequence has changed lr.
    peaks = [(group.get("name", "?"), float(group.get("initial_lr", group["lr"]))) for group in optimizer.param_groups]
    scale = arguments["final_scale"]
    if scale is not None:
        return (
            {**given, "min_lr": [scale * peak for _, peak in peaks]}
            if floor == "min_lr"
            else {**given, "final_scale": scale}
        )
    for name, peak in peaks:
        if arguments[floor] > peak:
            lowest = min(peak for _, peak in peaks)
            raise ConfigError(
                f"{floor}: {arguments[floor]:g} is above the lr {peak:g} of group {name!r}, which is its peak. "
                f"Type final_scale: 0.01 and {floor}: 0, for a fraction of each group's own lr, or {floor}: "
                f"{lowest / 10:g}"
            )
    return {**given, floor: arguments[floor]}
