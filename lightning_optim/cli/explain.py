"""`explain`: the param groups and the unfreeze plan of a user's Hydra config, without training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from torch import nn

from ..groups.group import Group
from ..groups.parameter_settings import ParameterSettings
from ..groups.table import Table
from .build_module import build_module
from .nodes import find_nodes
from .plans import ExplainedOptimizer, explain_optimizers

# Fields of a parameter's settings that are numbers; those of the optimizer are, where its config has one.
_NUMBERS = {"lr": float, "lr_scale": float, "warmup_steps": int}


@dataclass(kw_only=True)
class Explanation:
    """What `explain` says of a config; its optimizers are explained as they are asked for."""

    module: nn.Module
    notes: list[str]
    optimizers: Iterator[ExplainedOptimizer] = field(repr=False)


def explain(config: DictConfig, config_name: str, module_key: str, parameter: str | None) -> Explanation:
    """The group table of each optimizer in a config, and the stages over it.

    Args:
        config: the composed config.
        config_name: its name, for messages.
        module_key: the key of the model.
        parameter: instead of the tables, its layer and stage, and which rule or stage set which of its values.

    Raises:
        ConfigError: something in the config is wrong, or does not fit the model.
    """
    nodes = list(find_nodes(config))
    module, notes = build_module(config, module_key, [key for key, _ in nodes])
    optimizers = explain_optimizers(config, config_name, nodes, module, parameter)
    return Explanation(module=module, notes=notes, optimizers=optimizers)


def print_explanation(console: Console, explanation: Explanation) -> None:
    """Print the tables, each as soon as it is known.

    Args:
        console: to print to.
        explanation: from `explain`.

    Raises:
        ConfigError: something in the config is wrong, or does not fit the model.
    """
    for note in explanation.notes:
        console.print(f"note: {note}", markup=False)
    for optimizer in explanation.optimizers:
        console.print(f"{optimizer.key}: {optimizer.name}", style="bold", markup=False)
        if optimizer.own is not None:
            console.print(optimizer.own, crop=False)
        for key, table in optimizer.staged:
            console.print(key, style="bold", markup=False)
            console.print(table, crop=False)


def describe_explanation(explanation: Explanation) -> dict[str, Any]:
    """What `explain --json` prints: `notes` and `optimizers`.

    Args:
        explanation: from `explain`.

    Raises:
        ConfigError: something in the config is wrong, or does not fit the model.
    """
    optimizers = [
        {
            "key": it.key,
            "name": it.name,
            **(_describe(it.own) if it.own is not None else {}),
            "unfreeze": [{"key": key, **_describe(table)} for key, table in it.staged],
        }
        for it in explanation.optimizers
    ]
    return {"notes": explanation.notes, "optimizers": optimizers}


def _describe(explained: Table | ParameterSettings) -> dict[str, Any]:
    if isinstance(explained, ParameterSettings):
        return {"parameter": _describe_parameter(explained)}
    # The first rows are those of the groups, in their order.
    groups = [_describe_group(group, row) for group, row in zip(explained.groups, explained.rows(), strict=False)]
    return {"groups": groups, "frozen": explained.frozen, "frozen_by_the_model": explained.fixed}


def _describe_group(group: Group, row: Mapping[str, Any]) -> dict[str, Any]:
    """A group with the same keys in every plan; `lr` is the peak, times `lr_scale`."""
    return {
        "group": group.name,
        "stage": group.stage,
        "thaws": row.get("thaws"),
        "layer": group.layer,
        "algorithm": group.algorithm,
        "execution": group.execution,
        "tensors": row["tensors"],
        "parameters": row["parameters"],
        "lr": row.get("lr"),
        "lr_scale": group.lr_scale,
        "hyperparameters": group.hyperparameters,
        "schedule": group.schedule,
        "rules": group.made_by,
        "params": group.params,
    }


def _describe_parameter(settings: ParameterSettings) -> dict[str, Any]:
    values = dict(settings.group.hyperparameters) if settings.group else {"frozen": True}
    fields = [
        {"field": name, "value": _read_value(name, text, values), "set_by": keys}
        for name, text, keys in settings.rows()
    ]
    return {"name": settings.parameter, "group": settings.group and settings.group.name, "fields": fields}


def _read_value(name: str, text: str, values: Mapping[str, Any]) -> Any:
    """The value of a row: `lr` has been multiplied by the `lr_scale` of a stage, so it is read from the row."""
    return _NUMBERS[name](text) if name in _NUMBERS else values.get(name, text)
