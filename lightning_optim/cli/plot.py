"""`explain --plot`: each group's lr over a run of a user's Hydra config, drawn without running it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from torch import nn

from ..core.errors import ConfigError, did_you_mean, format_names, prefix_errors
from ..core.hyperparameters import Number
from ..schedule.factory import SchedulerFactory
from ..stages.stages import Stage, claim
from .draw import check_drawable, draw
from .explain import FACTORY, UNFREEZE, instantiate_factory, outermost
from .nodes import container_keys, find_nodes, get_value, instantiate_node, is_node, join_keys
from .run_length import RunLength
from .simulate import simulate

_SCHEDULER = "lightning_optim.SchedulerFactory"
_TORCH_SCHEDULERS = "torch.optim.lr_scheduler."
_STEPS = Number(default=100, low=1, integer=True, optional=True)
# Lightning's -1 means: no limit.
_LIMIT = Number(default=10, low=-1, integer=True, optional=True)


def check_options(path: Path | None, steps_per_epoch: int | None, node: str | None) -> None:
    """Check the options of a plot before anything is built.

    Raises:
        ConfigError: an option is wrong or given without `--plot`, or no figure can be drawn.
    """
    if path is not None:
        _STEPS.check(steps_per_epoch, "--steps-per-epoch")
        check_drawable(path)
        return
    for option, value in (("--steps-per-epoch", steps_per_epoch), ("--node", node)):
        if value is not None:
            raise ConfigError(f"{option}: this option belongs to a plot. Add --plot FILE.png, or leave it out")


def plot(
    console: Console, config: DictConfig, module: nn.Module, path: Path, steps_per_epoch: int | None, node: str | None
) -> None:
    """Draw each group's lr over the run, without training.

    Args:
        console: to print the path to.
        config: the composed config.
        module: the model in it.
        path: the file to write.
        steps_per_epoch: optimizer steps in an epoch.
        node: the key of the optimizer; None for the one nearest the top level.

    Raises:
        ConfigError: it is not clear which optimizer, schedule or stages are meant, or how long the run is; or one does
            not fit another.
    """
    targets = {key: str(target["_target_"]) for key, target in find_nodes(config)}
    factory_keys = _keys_of(targets, FACTORY)
    key = _choose_factory(factory_keys, node)
    scheduler_key = _find_scheduler(config, key, factory_keys, targets)
    scheduler = None if scheduler_key is None else _instantiate_scheduler(config, scheduler_key)
    unfreeze_key = _find_unfreeze(key, factory_keys, targets)
    stages: tuple[Stage, ...] = ()
    if unfreeze_key is not None:
        with prefix_errors(unfreeze_key):
            stages = claim(instantiate_node(config, unfreeze_key).stages, module)
    length = _read_length(config, steps_per_epoch)
    length.check(scheduler, stages)
    factory = instantiate_factory(config, key)
    simulation = simulate(module, factory, scheduler, stages, length=length, key=scheduler_key or key)
    parts = [f"{key}: {factory.name}"]
    parts += [f"{scheduler_key}: {scheduler.name}"] if scheduler is not None else ["no schedule"]
    parts += [f"{unfreeze_key}: {len(stages)} stages"] if stages else []
    draw(simulation, path, [", ".join(parts)])
    console.print(f"plot: {path}", markup=False, soft_wrap=True)


def _keys_of(targets: Mapping[str, str], wanted: str) -> list[str]:
    return [key for key, target in targets.items() if target == wanted]


def _choose_factory(factory_keys: Sequence[str], node: str | None) -> str:
    if node is not None:
        if node not in factory_keys:
            raise ConfigError(
                f"--node: {node} is not an optimizer in the config. Available: {format_names(factory_keys)}."
                f"{did_you_mean(node, factory_keys)}"
            )
        return node
    candidates = outermost(factory_keys)
    if len(candidates) > 1:
        raise ConfigError(
            f"--plot: it draws one optimizer, and the config has {format_names(candidates)}. Type --node "
            f"{candidates[0]}"
        )
    return candidates[0]


def _find_scheduler(
    config: DictConfig, factory_key: str, factory_keys: Sequence[str], targets: Mapping[str, str]
) -> str | None:
    """The schedule that has the same parent as the optimizer, else the one that has no other optimizer's parent."""
    found = list(_child_schedulers(config, _parent(factory_key)))
    if not found:
        taken = {_parent(key) for key in factory_keys if key != factory_key}
        schedulers = [key for key, target in targets.items() if _is_scheduler(target)]
        found = [key for key in schedulers if _parent(key) not in taken]
    if len(found) > 1:
        raise ConfigError(
            f"--plot: it draws one schedule for {factory_key}, and the config has {format_names(found)}. Remove the "
            f"others, for example with ~{found[-1]}"
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
    return target == _SCHEDULER or target.startswith(_TORCH_SCHEDULERS)


def _parent(key: str) -> str:
    return key.rpartition(".")[0]


def _instantiate_scheduler(config: DictConfig, key: str) -> SchedulerFactory:
    scheduler = instantiate_node(config, key)
    if isinstance(scheduler, SchedulerFactory):
        return scheduler
    target = get_value(config, key)["_target_"]
    if target == _SCHEDULER:
        raise ConfigError(f"{key}: a _partial_: true is left over in the config. Type {key}._partial_=false")
    raise ConfigError(
        f"{key}: {target} cannot be drawn, as only your code knows when it steps. Type "
        f"+scheduler@{key}=cosine_annealing"
    )


def _find_unfreeze(factory_key: str, factory_keys: Sequence[str], targets: Mapping[str, str]) -> str | None:
    found = _keys_of(targets, UNFREEZE) if factory_key in outermost(factory_keys) else []
    if len(found) > 1:
        raise ConfigError(
            f"--plot: it draws one unfreeze plan, and the config has {format_names(found)}. Remove one: ~{found[-1]}"
        )
    return found[0] if found else None


def _read_length(config: DictConfig, steps_per_epoch: int | None) -> RunLength:
    limits = {}
    for key in ("max_epochs", "max_steps"):
        limit = _LIMIT.check(get_value(config, f"trainer.{key}"), f"trainer.{key}")
        limits[key] = math.inf if limit in (None, -1) else limit
    return RunLength(**limits, steps_per_epoch=steps_per_epoch)
