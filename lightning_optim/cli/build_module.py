"""The model of a config, built as before a fit: `--module`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig
from torch import nn
from torch.nn.parameter import is_lazy

from ..core.errors import ConfigError, did_you_mean, format_names, prefix_errors
from .nodes import instantiate_node, is_node


def build_module(config: DictConfig, key: str, node_keys: Sequence[str]) -> tuple[nn.Module, list[str]]:
    """The model as its `configure_optimizers` will see it, and notes on what could not be built.

    Args:
        config: the composed config.
        key: the model's.
        node_keys: the keys of all nodes, for messages.

    Raises:
        ConfigError: there is no such node, or it gives no model whose parameters are known.
    """
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
    notes = _configure_model(module, key)
    lazy = [name for name, parameter in module.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise ConfigError(
            f"--module: {key} infers the shapes of {format_names(lazy, 3)} from its first batch, and there is none "
            "here. Give these layers their input sizes"
        )
    return module, notes


def _call_partial(partial: functools.partial[Any], key: str) -> Any:
    """What a `_partial_: true` gives without more arguments, which the user's code may add."""
    try:
        return partial()
    except Exception as error:  # the user's code may raise anything
        raise ConfigError(
            f"--module: {key} has _partial_: true, and calling it without more arguments fails: {_one_line(error)}. "
            f"Add those that your code passes, such as +{key}.ARGUMENT=VALUE"
        ) from error


def _configure_model(module: nn.Module, key: str) -> list[str]:
    """Let a LightningModule build its late layers, as the trainer does before it asks for optimizers; gives notes."""
    configure = getattr(module, "configure_model", None)
    if configure is None:
        return []
    try:
        configure()
    except Exception as error:  # the user's code may raise anything, and may need a trainer
        reason = f"{key}.configure_model() fails without a trainer: {_one_line(error)}"
        if next(module.parameters(), None) is None:
            raise ConfigError(
                f"--module: {reason}. Before this call the model has no parameters. "
                "Name a node that has them at once, such as the network inside it"
            ) from error
        return [f"{reason}. The tables show the model before this call"]
    return []


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
