"""The run that a config plans: which optimizer, which schedule, which stages, and how long."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig
from torch import nn

from ..build.factory import OptimizerFactory
from ..core.errors import ConfigError, did_you_mean, format_names, prefix_errors
from ..core.hyperparameters import Number
from ..schedule.factory import SchedulerFactory
from ..stages.stages import Stage, claim
from .find_scheduler import find_scheduler_key
from .nodes import find_nodes, get_value
from .own_nodes import FACTORY, SCHEDULER, UNFREEZE, read_own_node
from .plans import outermost
from .run_length import RunLength
from .stepping import check_stepping

_COUNT = Number(default=100, low=1, integer=True, optional=True)
# Lightning's -1 means: no limit.
_LIMIT = Number(default=10, low=-1, integer=True, optional=True)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What the command line says of the run."""

    steps_per_epoch: int | None = None
    """Optimizer steps in an epoch."""
    max_epochs: int | None = None
    """In place of `trainer.max_epochs`."""
    node: str | None = None
    """The key of the optimizer; None for the one nearest the top level."""

    def check(self, *, is_used: bool) -> None:
        """Check the options before anything is built.

        Args:
            is_used: whether anything is asked for that needs a run.

        Raises:
            ConfigError: an option is wrong, or nothing needs it.
        """
        for option, count in (("--steps-per-epoch", self.steps_per_epoch), ("--max-epochs", self.max_epochs)):
            _COUNT.check(count, option)
        for option, value in (("--max-epochs", self.max_epochs), ("--node", self.node)):
            if value is not None and not is_used:
                raise ConfigError(
                    f"{option}: this option belongs to a run. Add --steps-per-epoch N or --plot FILE.png, or leave it "
                    "out"
                )


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """What is known of a run from its config alone."""

    key: str
    """Of the optimizer."""
    factory: OptimizerFactory
    scheduler_key: str | None
    scheduler: SchedulerFactory | None
    unfreeze_key: str | None
    stages: tuple[Stage, ...]
    """With the parameters they claim."""
    length: RunLength
    stepping: str
    """How often the schedule steps, and whether that is known or assumed."""

    @property
    def title(self) -> str:
        """Its parts, in one line."""
        parts = [f"{self.key}: {self.factory.name}"]
        parts.append("no schedule" if self.scheduler is None else f"{self.scheduler_key}: {self.scheduler.name}")
        parts += [f"{self.unfreeze_key}: {len(self.stages)} stages"] if self.stages else []
        return ", ".join(parts)


def find_run(config: DictConfig, module: nn.Module, options: RunOptions, asked_by: str) -> PlannedRun:
    """The run of one optimizer in a config.

    Args:
        config: the composed config.
        module: the model in it.
        options: of the command line.
        asked_by: the option that needs the run, for messages.

    Raises:
        ConfigError: it is not clear which optimizer, schedule or stages are meant, how often the schedule steps, or how
            long the run is; or one does not fit another.
    """
    targets = {key: str(target["_target_"]) for key, target in find_nodes(config)}
    factory_keys = _keys_of(targets, FACTORY)
    key = _choose_factory(factory_keys, options.node, asked_by)
    scheduler_key = find_scheduler_key(config, key, factory_keys, targets, asked_by)
    unfreeze_key = _find_unfreeze(key, factory_keys, targets, asked_by)
    scheduler = None if scheduler_key is None else _read_scheduler(config, scheduler_key)
    stages: tuple[Stage, ...] = ()
    if unfreeze_key is not None:
        unfreeze = read_own_node(config, unfreeze_key)
        with prefix_errors(unfreeze_key):
            stages = claim(unfreeze.stages, module)
    stepping = check_stepping(config, module, targets, scheduler_key, scheduler)
    length = _read_length(config, options)
    length.check(scheduler, stages)
    return PlannedRun(
        key=key,
        factory=read_own_node(config, key),
        scheduler_key=scheduler_key,
        scheduler=scheduler,
        unfreeze_key=unfreeze_key,
        stages=stages,
        length=length,
        stepping=stepping,
    )


def _keys_of(targets: Mapping[str, str], wanted: str) -> list[str]:
    return [key for key, target in targets.items() if target == wanted]


def _choose_factory(factory_keys: Sequence[str], node: str | None, asked_by: str) -> str:
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
            f"{asked_by}: it takes one optimizer, and the config has {format_names(candidates)}. Type --node "
            f"{candidates[0]}"
        )
    return candidates[0]


def _read_scheduler(config: DictConfig, key: str) -> SchedulerFactory:
    target = get_value(config, key)["_target_"]
    if target == SCHEDULER:
        scheduler: SchedulerFactory = read_own_node(config, key)
        return scheduler
    raise ConfigError(
        f"{key}: {target} cannot be predicted, as only your code knows when it steps. Type "
        f"+scheduler@{key}=cosine_annealing"
    )


def _find_unfreeze(
    factory_key: str, factory_keys: Sequence[str], targets: Mapping[str, str], asked_by: str
) -> str | None:
    found = _keys_of(targets, UNFREEZE) if factory_key in outermost(factory_keys) else []
    if len(found) > 1:
        raise ConfigError(
            f"{asked_by}: it takes one unfreeze plan, and the config has {format_names(found)}. Remove one: "
            f"~{found[-1]}"
        )
    return found[0] if found else None


def _read_length(config: DictConfig, options: RunOptions) -> RunLength:
    limits = {}
    for key in ("max_epochs", "max_steps"):
        limit = _LIMIT.check(get_value(config, f"trainer.{key}"), f"trainer.{key}")
        limits[key] = math.inf if limit in (None, -1) else limit
    if options.max_epochs is not None:
        limits["max_epochs"] = options.max_epochs
    return RunLength(**limits, steps_per_epoch=options.steps_per_epoch)
