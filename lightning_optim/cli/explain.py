"""`explain`: the param groups and the unfreeze plan of a user's Hydra config, without training."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from torch import nn
from torch.nn.parameter import is_lazy

from ..build.executions import plan_executions
from ..build.factory import OptimizerFactory
from ..core.errors import ConfigError, did_you_mean, format_names, prefix_errors
from .nodes import find_nodes, instantiate_node, is_node

FACTORY = "lightning_optim.OptimizerFactory"
UNFREEZE = "lightning_optim.StagedUnfreeze"


def print_plans(
    console: Console, config: DictConfig, config_name: str, module_key: str, parameter: str | None
) -> nn.Module:
    """Print the group table of each optimizer in a config, and the stages over it; returns the model.

    Args:
        console: to print to.
        config: the composed config.
        config_name: its name, for messages.
        module_key: the key of the model.
        parameter: instead of the tables, print its layer and stage, and which rule or stage set which of its values.

    Raises:
        ConfigError: something in the config is wrong, or does not fit the model.
    """
    nodes = list(find_nodes(config))
    module = _build_module(console, config, module_key, [key for key, _ in nodes])
    factory_keys = [key for key, node in nodes if node["_target_"] == FACTORY]
    if not factory_keys:
        raise ConfigError(
            f"--config-name: {config_name} has no node with _target_: {FACTORY}. {_how_to_add_factory(nodes)}"
        )
    unfreeze_keys = [key for key, node in nodes if node["_target_"] == UNFREEZE]
    for key in factory_keys:
        factory = instantiate_factory(config, key)
        console.print(f"{key}: {factory.name}", style="bold", markup=False)
        is_staged = bool(unfreeze_keys) and key in outermost(factory_keys)
        with prefix_errors(key):
            plan = factory.plan(module)
            if parameter is None:
                console.print(plan_executions(plan).table())
            else:
                settings = plan.settings_of(parameter)
                if not is_staged:
                    console.print(settings)
        for unfreeze_key in unfreeze_keys if is_staged else ():
            console.print(unfreeze_key, style="bold", markup=False)
            unfreeze = instantiate_node(config, unfreeze_key)
            with prefix_errors(unfreeze_key):
                if parameter is None:
                    console.print(unfreeze.explain(module, factory))
                else:
                    console.print(unfreeze.settings_of(parameter, module, factory))
    return module


def outermost(factory_keys: Sequence[str]) -> list[str]:
    """The optimizers nearest the top level, to which stages belong; deeper ones are of other phases (`pretrain`)."""
    depth = min(key.count(".") for key in factory_keys)
    return [key for key in factory_keys if key.count(".") == depth]


def instantiate_factory(config: DictConfig, key: str) -> OptimizerFactory:
    """The optimizer factory that the node at `key` describes.

    Raises:
        ConfigError: it cannot be instantiated, or is a partial.
    """
    factory = instantiate_node(config, key)
    if not isinstance(factory, OptimizerFactory):
        raise ConfigError(f"{key}: a _partial_: true is left over in the config. Type {key}._partial_=false")
    return factory


def _build_module(console: Console, config: DictConfig, key: str, node_keys: list[str]) -> nn.Module:
    """The model as its `configure_optimizers` will see it."""
    with prefix_errors("--module"):
        exists = is_node(config, key)
    if not exists:
        raise ConfigError(
            f"--module: {key} is not a node with a _target_. Such nodes: {format_names(node_keys) or 'none'}."
            f"{did_you_mean(key, node_keys)}"
        )
    module = instantiate_node(config, key)
    if isinstance(module, functools.partial):
        module = _call_partial(module, key)
    if not isinstance(module, nn.Module):
        raise ConfigError(f"--module: {key} gives a {type(module).__name__}, not a torch.nn.Module")
    _configure_model(console, module, key)
    lazy = [name for name, parameter in module.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise ConfigError(
            f"--module: {key} infers the shapes of {format_names(lazy, 3)} from its first batch, and there is none "
            "here. Give these layers their input sizes"
        )
    return module


def _call_partial(partial: functools.partial[Any], key: str) -> Any:
    """What a `_partial_: true` gives without more arguments, which the user's code may add."""
    try:
        return partial()
    except Exception as error:  # the user's code may raise anything
        raise ConfigError(
            f"--module: {key} has _partial_: true, and calling it without more arguments fails: {_one_line(error)}. "
            f"Add those that your code passes, such as +{key}.ARGUMENT=VALUE"
        ) from error


def _configure_model(console: Console, module: nn.Module, key: str) -> None:
    """Let a LightningModule build its late layers, as the trainer does before it asks for optimizers."""
    configure = getattr(module, "configure_model", None)
    if configure is None:
        return
    try:
        configure()
    except Exception as error:  # the user's code may raise anything, and may need a trainer
        reason = f"{key}.configure_model() fails without a trainer: {_one_line(error)}"
        if next(module.parameters(), None) is None:
            raise ConfigError(
                f"--module: {reason}. Before this call the model has no parameters. "
                "Name a node that has them at once, such as the network inside it"
            ) from error
        console.print(f"note: {reason}. The tables show the model before this call", markup=False)


def _how_to_add_factory(nodes: list[tuple[str, DictConfig]]) -> str:
    """What to type to add a factory, in place of torch's own optimizer if the config has one."""
    for key, node in nodes:
        if re.fullmatch(r"torch\.optim\.\w+", node["_target_"]):
            return f"{key} is {node['_target_']}. Type +optimizer@{key}=adamw_groups"
    return "Type +optimizer=adamw_groups"


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
