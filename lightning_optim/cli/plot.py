"""`explain --plot`: the run of one optimizer of a user's Hydra config, drawn before it is run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig, ListConfig
from rich.console import Console
from torch import nn

from ..core.errors import ConfigError, did_you_mean, format_names, prefix_errors
from ..core.hyperparameters import Number
from ..schedule.factory import SchedulerFactory
from ..stages.stages import Stage, claim
from .config import is_node, made, nodes, value_at
from .draw import check_drawable, draw
from .explain import FACTORY, UNFREEZE, factory_at, nearest_top
from .length import Length
from .simulate import simulate

_SCHEDULER = "lightning_optim.SchedulerFactory"
_TORCH_SCHEDULERS = "torch.optim.lr_scheduler."
_STEPS = Number(default=100, low=1, integer=True, optional=True)
# -1 is Lightning's for: no end.
_LIMIT = Number(default=10, low=-1, integer=True, optional=True)


def check_options(path: Path | None, steps_per_epoch: int | None, node: str | None) -> None:
    """Whether these go together, and a figure can be drawn; before anything is made.

    Raises:
        ConfigError: they do not, or none can.
    """
    if path is not None:
        _STEPS.check(steps_per_epoch, "--steps-per-epoch")
        check_drawable(path)
        return
    for option, value in (("--steps-per-epoch", steps_per_epoch), ("--node", node)):
        if value is not None:
            raise ConfigError(f"{option}: it belongs to a plot. Type --plot FILE.png too, or leave it out")


def plot(
    console: Console, config: DictConfig, module: nn.Module, path: Path, steps_per_epoch: int | None, node: str | None
) -> None:
    """Draw each group's lr over the run; trains nothing.

    Args:
        console: where to say so.
        config: the composed one.
        module: the model in it.
        path: where to.
        steps_per_epoch: optimizer steps.
        node: where in the config the optimizer is; None where one is nearest the top.

    Raises:
        ConfigError: it is not clear which optimizer, schedule or stages are meant, or how long the run is; or one does
            not fit another.
    """
    targets = {place: str(target["_target_"]) for place, target in nodes(config)}
    factories = _of(targets, FACTORY)
    place = _chosen(factories, node)
    scheduler_place = _beside(config, place, factories, targets)
    scheduler = None if scheduler_place is None else _scheduler_at(config, scheduler_place)
    stages_place = _stages_over(place, factories, targets)
    stages: tuple[Stage, ...] = ()
    if stages_place is not None:
        with prefix_errors(stages_place):
            stages = claim(made(config, stages_place).stages, module)
    length = _length(config, steps_per_epoch)
    length.check(scheduler, stages)
    factory = factory_at(config, place)
    simulation = simulate(module, factory, scheduler, stages, length=length, key=scheduler_place or place)
    said = [f"{place}: {factory.name}"]
    said += [f"{scheduler_place}: {scheduler.name}"] if scheduler is not None else ["no schedule"]
    said += [f"{stages_place}: {len(stages)} stages"] if stages else []
    draw(simulation, path, [", ".join(said)])
    console.print(f"plot: {path}", markup=False, soft_wrap=True)


def _of(targets: dict[str, str], wanted: str) -> list[str]:
    return [place for place, target in targets.items() if target == wanted]


def _chosen(factories: Sequence[str], node: str | None) -> str:
    """The optimizer that is meant."""
    if node is not None:
        if node not in factories:
            raise ConfigError(
                f"--node: {node} is no optimizer here. There are: "
                f"{format_names(factories)}.{did_you_mean(node, factories)}"
            )
        return node
    first = nearest_top(factories)
    if len(first) > 1:
        raise ConfigError(
            f"--plot: it draws one optimizer, and there are {format_names(first)}. Type --node {first[0]}"
        )
    return first[0]


def _beside(config: DictConfig, place: str, factories: Sequence[str], targets: dict[str, str]) -> str | None:
    """The schedule that is meant: the one beside the optimizer, else the one that is beside no other."""
    found = list(_schedulers_below(config, _parent(place)))
    if not found:
        taken = {_parent(other) for other in factories if other != place}
        schedulers = [where for where, target in targets.items() if _is_scheduler(target)]
        found = [where for where in schedulers if _parent(where) not in taken]
    if len(found) > 1:
        raise ConfigError(
            f"--plot: which of {format_names(found)} goes with {place}? Leave the others out, for example with "
            f"~{found[-1]}"
        )
    return found[0] if found else None


def _schedulers_below(config: DictConfig, parent: str) -> Iterator[str]:
    """The schedules that stand at a key, or are referred to there."""
    around = value_at(config, parent) if parent else config
    for key in range(len(around)) if isinstance(around, ListConfig) else list(around):
        below = f"{parent}.{key}" if parent else str(key)
        try:
            found = is_node(config, below) and _is_scheduler(str(value_at(config, below)["_target_"]))
        except ConfigError:
            continue  # whoever needs it is told so when it is made
        if found:
            yield below


def _is_scheduler(target: str) -> bool:
    return target == _SCHEDULER or target.startswith(_TORCH_SCHEDULERS)


def _parent(place: str) -> str:
    return place.rpartition(".")[0]


def _scheduler_at(config: DictConfig, place: str) -> SchedulerFactory:
    scheduler = made(config, place)
    if isinstance(scheduler, SchedulerFactory):
        return scheduler
    target = value_at(config, place)["_target_"]
    if target == _SCHEDULER:
        raise ConfigError(f"{place}: a _partial_: true is left over in the config. Type {place}._partial_=false")
    raise ConfigError(
        f"{place} is {target}, whose steps only your code knows. Type +scheduler@{place}=cosine_annealing"
    )


def _stages_over(place: str, factories: Sequence[str], targets: dict[str, str]) -> str | None:
    """The stages that are meant, if there are."""
    found = _of(targets, UNFREEZE) if place in nearest_top(factories) else []
    if len(found) > 1:
        raise ConfigError(
            f"--plot: it draws one unfreeze, and there are {format_names(found)}. Leave one out: ~{found[-1]}"
        )
    return found[0] if found else None


def _length(config: DictConfig, steps_per_epoch: int | None) -> Length:
    limits = {}
    for key in ("max_epochs", "max_steps"):
        limit = _LIMIT.check(value_at(config, f"trainer.{key}"), f"trainer.{key}")
        limits[key] = math.inf if limit in (None, -1) else limit
    return Length(**limits, steps_per_epoch=steps_per_epoch)
