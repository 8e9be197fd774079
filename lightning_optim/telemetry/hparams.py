"""Each group's hyperparameters on the loggers' pages of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..groups.plan import Plan

_KEYS = ("lr", "weight_decay", "momentum", "eps")


def hyperparameters(root: str, plan: Plan) -> dict[str, Any]:
    """`optim/<group>/lr`, `optim/<group>/beta1`, ...: what each group is configured with; `lr` is its peak."""
    found: dict[str, Any] = {}
    for group in plan.groups:
        values: Mapping[str, Any] = group.hyperparameters
        given = {"algorithm": group.algorithm, **{key: values[key] for key in _KEYS if key in values}}
        if "lr" in given:
            given["lr"] *= group.lr_scale
        given |= {f"beta{number}": beta for number, beta in enumerate(values.get("betas") or (), start=1)}
        found |= {f"{root}/{group.name}/{key}": _plain(value) for key, value in given.items()}
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):  # adafactor has two eps
        return str(list(value))
    return value if value is None or isinstance(value, (str, bool, int, float)) else float(value)
