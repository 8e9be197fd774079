"""`explain`: the param groups and the unfreeze plan of a user's Hydra config; nothing is trained."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from torch import nn
from torch.nn.parameter import is_lazy

from ..build.factory import OptimizerFactory
from ..core.errors import ConfigError, did_you_mean, format_names, prefix_errors
from .config import is_node, made, nodes

FACTORY = "lightning_optim.OptimizerFactory"
UNFREEZE = "lightning_optim.StagedUnfreeze"


def print_plans(console: Console, config: DictConfig, config_name: str, key: str, why: str | None) -> nn.Module:
    """The group table of each optimizer in the config, and the stages over it; returns the model.

    Args:
        console: where to.
        config: the composed one.
        config_name: for messages.
        key: where in the config the model is.
        why: instead of the tables, which rule set which value of this parameter.

    Raises:
        ConfigError: something in the config is wrong, or does not fit the model.
    """
    everything = list(nodes(config))
    module = _module(console, config, key, [place for place, _ in everything])
    factories = [place for place, node in everything if node["_target_"] == FACTORY]
    if not factories:
        raise ConfigError(
            f"--config-name: {config_name} holds no node with _target_: {FACTORY}. {_how_to_adopt(everything)}"
        )
    stages = [place for place, node in everything if node["_target_"] == UNFREEZE]
    for place in factories:
        factory = factory_at(config, place)
        console.print(f"{place}: {factory.name}", style="bold", markup=False)
        with prefix_errors(place):
            console.print(factory.plan(module).why(why) if why is not None else factory.explain(module))
        if why is not None or place not in nearest_top(factories):
            continue
        for stage in stages:
            console.print(stage, style="bold", markup=False)
            unfreeze = made(config, stage)
            with prefix_errors(stage):
                console.print(unfreeze.explain(module, factory))
    return module


def nearest_top(factories: Sequence[str]) -> list[str]:
    """Of several optimizers those that stages belong to: the others are other phases' (`pretrain.optimizer`)."""
    depth = min(place.count(".") for place in factories)
    return [place for place in factories if place.count(".") == depth]


def factory_at(config: DictConfig, place: str) -> OptimizerFactory:
    """The optimizer's factory that a node makes.

    Raises:
        ConfigError: making it failed, or it makes a part of one.
    """
    factory = made(config, place)
    if not isinstance(factory, OptimizerFactory):
        raise ConfigError(f"{place}: a _partial_: true is left over in the config. Type {place}._partial_=false")
    return factory


def _module(console: Console, config: DictConfig, key: str, places: list[str]) -> nn.Module:
    """The model as its `configure_optimizers` will see it."""
    with prefix_errors("--module"):
        there = is_node(config, key)
    if not there:
        raise ConfigError(
            f"--module: {key} is no node with a _target_. Such nodes are: {format_names(places) or 'none'}."
            f"{did_you_mean(key, places)}"
        )
    module = made(config, key)
    if isinstance(module, functools.partial):
        module = _called(module, key)
    if not isinstance(module, nn.Module):
        raise ConfigError(f"--module: {key} makes a {type(module).__name__}, not a torch.nn.Module")
    _configure_model(console, module, key)
    lazy = [name for name, parameter in module.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise ConfigError(
            f"--module: {key} learns the shapes of {format_names(lazy, 3)} from its first batch, and there is "
            "none here. "
            "Give those layers their input sizes"
        )
    return module


def _called(partial: functools.partial[Any], key: str) -> Any:
    """What a `_partial_: true` makes without more arguments, as the user's code may yet give it some."""
    try:
        return partial()
    except Exception as error:  # the user's own code may raise anything
        raise ConfigError(
            f"--module: {key} has _partial_: true, and calling it as it is fails: {_said(error)}. "
            f"Give what your code gives it, such as +{key}.ARGUMENT=VALUE"
        ) from error


def _configure_model(console: Console, module: nn.Module, key: str) -> None:
    """Let a LightningModule make the layers that it makes late, as the trainer does before it asks for optimizers."""
    configure = getattr(module, "configure_model", None)
    if configure is None:
        return
    try:
        configure()
    except Exception as error:  # the user's own code may raise anything, and it may need a trainer
        said = f"{key}.configure_model() fails without a trainer: {_said(error)}"
        if next(module.parameters(), None) is None:
            raise ConfigError(
                f"--module: {said}. Until then the model has no parameters. "
                "Name a node that makes them at once, such as the network in it"
            ) from error
        console.print(f"note: {said}. What follows is the model before it", markup=False)


def _how_to_adopt(everything: list[tuple[str, DictConfig]]) -> str:
    """What to type: in the place of torch's own optimizer, where there is one."""
    for place, node in everything:
        if re.fullmatch(r"torch\.optim\.\w+", node["_target_"]):
            return f"{place} is {node['_target_']}. Type +optimizer@{place}=adamw_groups"
    return "Type +optimizer=adamw_groups"


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
