"""Loading a state dict by parameter name into an optimizer that a factory built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from ..catalog.registry import algorithms_with, find_optimizer, optimizer_info
from ..core.errors import ConfigError, format_names, prefix_errors
from ..core.later_release import refuse_unknown
from ..core.param_group_keys import ALGORITHM, SCHEDULE
from ..core.printable import to_printable
from ..groups.match_by_name import check_same_groups, match_groups
from ..groups.match_unnamed import name_saved_groups
from ..groups.merge_values import merge_values
from ..groups.state_checks import check_buffers, check_flat_state, check_saved_algorithm
from ..groups.state_copies import copy_state
from ..optim.state_keys import MODIFIER_KEYS
from ..schedule.optimizer_loads import log_removed_schedule, was_schedule_removed, without_schedule
from ..schedule.optimizer_marks import is_scheduled_elsewhere, mark_moved_groups
from .blueprint import Blueprint
from .implementation import check_torch_can_resume
from .saved_state import check_state_dict
from .saved_values import check_saved_values


def remap_before_load(blueprint: Blueprint, optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """The state dict in this run's groups and with the keys of its classes: torch's hook before a load.

    The states are copies, in the memory layout of their parameters: torch's load may take a tensor as it is.

    Args:
        blueprint: of the optimizer.
        optimizer: the one to load into.
        state_dict: the one to load.

    Raises:
        ConfigError: a parameter or its state does not fit; or a scheduler or class of this run cannot continue with it.
    """
    with _printable_errors():
        return _remap(blueprint, optimizer, state_dict)


@contextmanager
def _printable_errors() -> Iterator[None]:
    """Names in the file may hold line ends and control characters."""
    try:
        yield
    except ConfigError as error:
        if (message := to_printable(str(error))) == str(error):
            raise
        raise ConfigError(message) from None


def _remap(blueprint: Blueprint, optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    with prefix_errors("the checkpoint's optimizer"):
        own = chain.from_iterable(group["params"] for group in optimizer.param_groups)
        check_state_dict(state_dict, is_regrouped=any(isinstance(param, DTensor) for param in own))
    main, uses_own_class = blueprint.main, blueprint.uses_own_class
    state_dict = name_saved_groups(optimizer.param_groups, state_dict, blueprint.order)
    saved, states = state_dict["param_groups"], state_dict["state"]
    if optimizer_info(main).single_group:  # its state is one vector over all parameters
        check_same_groups(optimizer.param_groups, saved)
        check_flat_state(optimizer.param_groups[0], states.get(saved[0]["params"][0]) or {})
    _check_scheduler_can_follow(optimizer, saved)
    _refuse_later_release(optimizer, saved)
    for group in saved:
        name = group.get(ALGORITHM, main)
        # Our checkpoints record what was configured: where that differs, the config wins. Others are used as they are.
        if "configured" not in group and not uses_own_class.get(name, True):
            check_torch_can_resume(optimizer_info(name), group)
    matches = match_groups(optimizer.param_groups, state_dict)
    for match in matches:
        specs = optimizer_info(match.current.get(ALGORITHM, main)).hyperparameters
        check_saved_values(match.current, match.sources, specs)
    schedule_removed = was_schedule_removed(optimizer.param_groups, saved)
    if schedule_removed:
        log_removed_schedule()
    groups = []
    for match in matches:
        group = {**merge_values(match.current, match.sources), "params": list(match.state_keys)}
        if schedule_removed:
            group = without_schedule(group, match.current)
        name = match.current.get(ALGORITHM, main)
        param_names: Sequence[str] = match.current.get("param_names") or [f"parameter {k}" for k in match.state_keys]
        info = optimizer_info(name)
        check_saved_algorithm(info, dict(zip(match.state_keys, param_names, strict=True)), match.sources, states)
        if not uses_own_class[name] and info.is_built_in:
            states = {**states, **_without_modifiers(states, match.state_keys)}
            check_buffers(info, group, param_names, states)
            group = {key: value for key, value in group.items() if key not in info.own_only}
        groups.append(group)
    mark_moved_groups(optimizer, [str(match.current.get("name")) for match in matches if match.moved])
    params = {
        key: param
        for match in matches
        if not uses_own_class[match.current.get(ALGORITHM, main)]  # our classes copy what they load themselves
        for key, param in zip(match.state_keys, match.current["params"], strict=True)
    }
    copies = {key: copy_state(states[key], param) for key, param in params.items() if key in states}
    return {**state_dict, "param_groups": groups, "state": {**states, **copies}}


def _without_modifiers(states: Mapping[Any, Any], keys: Iterable[Any]) -> dict[Any, Any]:
    """Some parameters' states without what our modifiers have stored: torch's classes would carry it along for ever."""
    return {
        key: {name: value for name, value in states[key].items() if name not in MODIFIER_KEYS}
        for key in keys
        if key in states
    }


def _refuse_later_release(optimizer: Optimizer, saved: Iterable[Mapping[str, Any]]) -> None:
    """Raise where a saved group was configured with what this release does not know."""
    known = {ALGORITHM, SCHEDULE}.union(*(group.get("configured", ()) for group in optimizer.param_groups))
    for group in saved:
        configured = group.get("configured", {})
        foreign = [key for key in configured if key not in known and not algorithms_with(key)]
        refuse_unknown(foreign, (), "the checkpoint's hyperparameters")
        algorithms = {name for name in (group.get(ALGORITHM), configured.get(ALGORITHM)) if name is not None}
        unknown = [name for name in sorted(algorithms) if find_optimizer(name) is None]
        refuse_unknown(unknown, (), "the checkpoint's algorithms")


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
