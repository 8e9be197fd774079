"""Loading a state dict by the parameters' names, into an optimizer that a factory built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch.optim import Optimizer

from ..catalog.registry import optimizer_info
from ..core.errors import ConfigError, format_names
from ..core.param_group_keys import ALGORITHM
from ..groups.loading import check_algorithm, check_saved, check_states, match
from ..groups.merging import merged
from ..schedule.by_group import is_scheduled_elsewhere, mark_moved_groups
from .implementation import check_torch_can_resume


def remap_before_load(
    own: Mapping[str, bool], main: str, optimizer: Optimizer, state_dict: dict[str, Any]
) -> dict[str, Any]:
    """For torch's hook before a load: the state dict in this run's groups, by name, and in its classes' words.

    Args:
        own: by algorithm: whether its class is ours.
        main: the algorithm where the groups name none.
        optimizer: what is loaded into.
        state_dict: its source.
    """
    current, saved = optimizer.param_groups, state_dict["param_groups"]
    if optimizer_info(main).single_group:
        check_saved(current, saved)  # its state is one vector over all parameters
    _check_scheduler_follows(optimizer, saved)
    # Only what another program saved: ours says what was configured, and what differs comes from the config.
    for theirs in saved:
        name = theirs.get(ALGORITHM, main)
        if "configured" not in theirs and not own.get(name, True):
            check_torch_can_resume(optimizer_info(name), theirs)
    found = match(current, state_dict)
    groups = []
    for each in found:
        group = {**merged(each.now, each.sources), "params": list(each.places)}
        name = each.now.get(ALGORITHM, main)
        info = optimizer_info(name)
        check_algorithm(info, each, state_dict["state"])
        if not own[name] and info.is_built_in:
            places = [f"parameter {place}" for place in each.places]
            check_states(info, group, each.now.get("param_names") or places, state_dict["state"])
            group = {key: value for key, value in group.items() if key not in info.own_only}
        groups.append(group)
    mark_moved_groups(optimizer, [str(each.now.get("name")) for each in found if each.moved])
    return {**state_dict, "param_groups": groups}


def _check_scheduler_follows(optimizer: Optimizer, saved: Iterable[Mapping[str, Any]]) -> None:
    """Whether the scheduler finds its groups again: torch's keep their lists by place."""
    if not is_scheduled_elsewhere(optimizer):
        return
    now, before = (
        [(group.get("name"), group.get("peak_lr")) for group in groups] for groups in (optimizer.param_groups, saved)
    )
    if now != before and None not in {name for name, _ in (*now, *before)}:
        raise ConfigError(
            f"scheduler: the checkpoint's param groups are {_format_groups(before)}, this run's {_format_groups(now)}, "
            "and a scheduler that no SchedulerFactory has built keeps their lrs by place. Build it with "
            "lightning_optim.SchedulerFactory, or give the groups and lrs that it was saved under"
        )


def _format_groups(groups: Iterable[tuple[Any, Any]]) -> str:
    return format_names(f"{name} (lr {lr:g})" if isinstance(lr, float) else str(name) for name, lr in groups)
