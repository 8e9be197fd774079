"""The plan of each optimizer in a config, and of the stages over it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from omegaconf import DictConfig
from torch import nn

from ..build.executions import plan_executions
from ..build.factory import OptimizerFactory
from ..core.errors import ConfigError, prefix_errors
from ..groups.parameter_settings import ParameterSettings
from ..groups.table import Table
from ..schedule.also import Also
from .find_scheduler import find_also
from .own_nodes import FACTORY, UNFREEZE, read_own_node

_Nodes = Sequence[tuple[str, DictConfig]]
_ExplainedT = TypeVar("_ExplainedT", bound="Table | ParameterSettings | None")


@dataclass(frozen=True, kw_only=True)
class ExplainedOptimizer:
    """An optimizer of the config: its table, or the settings of one parameter."""

    key: str
    name: str
    own: Table | ParameterSettings | None
    """None for the settings of a parameter where there are stages: `staged` has all of them."""
    staged: tuple[tuple[str, Table | ParameterSettings], ...]
    """By the key of an unfreeze plan: the same, split by stages."""


def explain_optimizers(
    config: DictConfig, config_name: str, nodes: _Nodes, module: nn.Module, parameter: str | None
) -> Iterator[ExplainedOptimizer]:
    """Each optimizer in a config, in its order.

    Args:
        config: the composed config.
        config_name: its name, for messages.
        nodes: its nodes by key.
        module: the model.
        parameter: gives the settings of this parameter instead of tables.

    Raises:
        ConfigError: there is no optimizer, something in the config is wrong, or it does not fit the model.
    """
    factory_keys = [key for key, node in nodes if node["_target_"] == FACTORY]
    if not factory_keys:
        raise ConfigError(
            f"--config-name: {config_name} has no node with _target_: {FACTORY}. {_how_to_add_factory(nodes)}"
        )
    unfreeze_keys = [key for key, node in nodes if node["_target_"] == UNFREEZE]
    targets = {key: str(node["_target_"]) for key, node in nodes}
    for key in factory_keys:
        factory = read_own_node(config, key)
        stage_keys = unfreeze_keys if key in outermost(factory_keys) else []
        also = find_also(config, key, factory_keys, targets)
        yield ExplainedOptimizer(
            key=key,
            name=factory.name,
            own=_with_also(_explain(key, factory, module, parameter, is_staged=bool(stage_keys)), also),
            staged=tuple(
                (it, _with_also(_explain_stages(config, it, factory, module, parameter), also)) for it in stage_keys
            ),
        )


def _with_also(explained: _ExplainedT, also: Also) -> _ExplainedT:
    return replace(explained, also=also) if isinstance(explained, Table) else explained


def _explain(
    key: str, factory: OptimizerFactory, module: nn.Module, parameter: str | None, *, is_staged: bool
) -> Table | ParameterSettings | None:
    with prefix_errors(key):
        plan = factory.plan(module)
        if parameter is None:
            return plan_executions(plan).table()
        settings = plan.settings_of(parameter)
        return None if is_staged else settings


def _explain_stages(
    config: DictConfig, key: str, factory: OptimizerFactory, module: nn.Module, parameter: str | None
) -> Table | ParameterSettings:
    unfreeze = read_own_node(config, key)
    with prefix_errors(key):
        explained: Table | ParameterSettings = (
            unfreeze.explain(module, factory) if parameter is None else unfreeze.settings_of(parameter, module, factory)
        )
    return explained


def outermost(factory_keys: Sequence[str]) -> list[str]:
    """The optimizers nearest the top level, to which stages belong; deeper ones are of other phases (`pretrain`)."""
    depth = min(key.count(".") for key in factory_keys)
    return [key for key in factory_keys if key.count(".") == depth]


def _how_to_add_factory(nodes: _Nodes) -> str:
    """What to type to add a factory, in place of torch's own optimizer if the config has one."""
    for key, node in nodes:
        if re.fullmatch(r"torch\.optim\.\w+", node["_target_"]):
            return f"{key} is {node['_target_']}. Type +optimizer@{key}=adamw_groups"
    return "Type +optimizer=adamw_groups"
