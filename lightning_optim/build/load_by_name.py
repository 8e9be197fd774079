"""Loading a state dict by parameter name into an optimizer that a factory built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from ..catalog.registry import optimizer_info
from ..core.errors import ConfigError, format_names
from ..core.param_group_keys import ALGORITHM
from ..groups.match_by_name import check_same_groups, match_groups
from ..groups.merge_values import merge_values
from ..groups.state_checks import check_buffers, check_saved_algorithm
from ..schedule.optimizer_marks import is_scheduled_elsewhere, mark_moved_groups
from .implementation import check_torch_can_resume


def remap_before_load(
    uses_own_class: Mapping[str, bool], main: str, optimizer: Optimizer, state_dict: dict[str, Any]
) -> dict[str, Any]:
    """The state dict in this run's groups and with the keys of its classes: torch's hook before a load.

    Args:
        uses_own_class: by algorithm: whether this package's class runs it.
        main: the algorithm of groups that name none.
        optimizer: the one to load into.
        state_dict: the one to load.

    Raises:
        ConfigError: a parameter or its state does not fit; or a scheduler or class of this run cannot continue with it.
    """
    saved, states = state_dict["param_groups"], state_dict["state"]
    if optimizer_info(main).single_group:
        check_same_groups(optimizer.param_groups, saved)  # its state is one vector over all parameters
    _check_scheduler_can_follow(optimizer, saved)
    for group in saved:
        name = group.get(ALGORITHM, main)
        # Our checkpoints record what was configured: where that differs, the config wins. Others are used as they are.
        if "configured" not in group and not uses_own_class.get(name, True):
            check_torch_can_resume(optimizer_info(name), group)
    matches = match_groups(optimizer.param_groups, state_dict)
    groups = []
    for match in matches:
        group = {**merge_values(match.current, match.sources), "params": list(match.state_keys)}
        name = match.current.get(ALGORITHM, main)
        param_names: Sequence[str] = match.current.get("param_names") or ()
        info = optimizer_info(name)
        check_saved_algorithm(info, param_names, match.sources, states)
        if not uses_own_class[name] and info.is_built_in:
            check_buffers(info, group, param_names or [f"parameter {key}" for key in match.state_keys], states)
            group = {key: value for key, value in group.items() if key not in info.own_only}
        groups.append(group)
    mark_moved_groups(optimizer, [str(match.current.get("name")) for match in matches if match.moved])
    return {**state_dict, "param_groups": groups}


def _check_scheduler_can_follow(optimizer: Optimizer, saved: Iterable[Mapping[str, Any]]) -> None:
    """Check that a scheduler of somebody else's gets the groups it was saved with: torch's store lrs by position."""
    if not is_scheduled_elsewhere(optimizer):
        return
    now, before = (
        [(group.get("name"), group.get("peak_lr")) for group in groups] for groups in (optimizer.param_groups, saved)
    )
    if now != before and None not in {name for name, _ in (*now, *before)}:
        raise ConfigError(
            f"scheduler: the checkpoint's param groups are {_format_groups(before)}, this run's {_format_groups(now)}, "
            "and a scheduler that no SchedulerFactory built stores their lrs by position. Build it with "
            "lightning_optim.SchedulerFactory, or use the groups and lrs that it was saved with"
        )


def _format_groups(groups: Iterable[tuple[Any, Any]]) -> str:
    return format_names(f"{name} (lr {lr:g})" if isinstance(lr, float) else str(name) for name, lr in groups)
