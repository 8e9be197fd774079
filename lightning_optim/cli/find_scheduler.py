"""Which schedule in a config belongs to an optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from omegaconf import DictConfig

from ..core.errors import ConfigError, format_names
from ..schedule.also import Also
from ..schedule.factory import SchedulerFactory
from .nodes import container_keys, get_value, is_node, join_keys
from .own_nodes import SCHEDULER, read_own_node

_TORCH_SCHEDULERS = "torch.optim.lr_scheduler."


def find_scheduler_key(
    config: DictConfig, factory_key: str, factory_keys: Sequence[str], targets: Mapping[str, str], asked_by: str
) -> str | None:
    """The schedule that has the same parent as the optimizer, else the one that has no other optimizer's parent.

    Args:
        config: the composed config.
        factory_key: of the optimizer.
        factory_keys: of all optimizers.
        targets: of the config's nodes, by key.
        asked_by: the option that needs it, for messages.

    Raises:
        ConfigError: there are several.
    """
    found = list(_child_schedulers(config, _parent(factory_key)))
    if not found:
        taken = {_parent(key) for key in factory_keys if key != factory_key}
        schedulers = [key for key, target in targets.items() if _is_scheduler(target)]
        found = [key for key in schedulers if _parent(key) not in taken]
    if len(found) > 1:
        raise ConfigError(
            f"{asked_by}: it takes one schedule for {factory_key}, and the config has {format_names(found)}. Remove "
            f"the others, for example with ~{found[-1]}"
        )
    return found[0] if found else None


def _child_schedulers(config: DictConfig, parent: str) -> Iterator[str]:
    """The keys of the schedules directly below a key, interpolations included."""
    for key in container_keys(get_value(config, parent) if parent else config):
        child = join_keys(parent, key)
        try:
            found = is_node(config, child) and _is_scheduler(str(get_value(config, child)["_target_"]))
        except ConfigError:
            continue  # a node that needs it raises when it is instantiated
        if found:
            yield child


def _is_scheduler(target: str) -> bool:
    return target == SCHEDULER or target.startswith(_TORCH_SCHEDULERS)


def find_also(config: DictConfig, factory_key: str, factory_keys: Sequence[str], targets: Mapping[str, str]) -> Also:
    """What the optimizer's schedule drives besides lr; nothing where it is not clear which schedule is meant."""
    with suppress(ConfigError):  # whatever asks for the run reports it
        key = find_scheduler_key(config, factory_key, factory_keys, targets, "")
        if key is not None and targets.get(key) == SCHEDULER:
            scheduler: SchedulerFactory = read_own_node(config, key)
            return scheduler.also or {}
    return {}


def _parent(key: str) -> str:
    return key.rpartition(".")[0]
