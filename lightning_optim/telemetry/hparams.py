"""Each group's hyperparameters, as the loggers' hyperparameter pages show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..groups.plan import Plan

_KEYS = ("lr", "weight_decay", "momentum", "eps")


def collect_hyperparameters(root: str, plan: Plan) -> dict[str, Any]:
    """`optim/<group>/lr`, `optim/<group>/beta1`, ...: each group's configured values; `lr` is its peak."""
    collected: dict[str, Any] = {}
    for group in plan.groups:
        values: Mapping[str, Any] = group.hyperparameters
        shown = {"algorithm": group.algorithm, **{key: values[key] for key in _KEYS if key in values}}
        if "lr" in shown:
            shown["lr"] *= group.lr_scale
        shown |= {f"beta{number}": beta for number, beta in enumerate(values.get("betas") or (), start=1)}
        collected |= {f"{root}/{group.name}/{key}": _to_plain(value) for key, value in shown.items()}
    return collected


def _to_plain(value: Any) -> Any:
    """A value that YAML stores without naming a Python type: a NumPy float would be one, and is a float."""
    if isinstance(value, (list, tuple)):  # adafactor's eps is a pair
        return str([_to_plain(item) for item in value])
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    return int(value) if isinstance(value, int) else float(value)
