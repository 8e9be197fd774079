"""`check_numbers`: whether torch can calculate with a group's hyperparameters in the dtype of its parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from ..core.errors import ConfigError
from ..groups.group import Group
from ..groups.plan import Plan


def check_numbers(plan: Plan) -> None:
    """Check that no hyperparameter, and none times the lr, is larger than the largest number of a parameter's dtype.

    torch raises a RuntimeError for it in the step, without the name of the value.

    Raises:
        ConfigError: one is.
    """
    for group in plan.groups:
        dtypes = {plan.tensors[name].dtype for name in group.params}
        if group.hyperparameters.get("master_weights"):
            dtypes = {torch.float32}
        floating = [dtype for dtype in dtypes if dtype.is_floating_point or dtype.is_complex]
        if floating:
            _check_group(group, min(floating, key=lambda dtype: torch.finfo(dtype).max))


def _check_group(group: Group, dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    lr = group.hyperparameters["lr"]
    for key, value in group.hyperparameters.items():
        for number in _floats(value):
            factor = max(1.0, abs(lr)) if key != "lr" else 1.0
            if abs(number) * factor > largest:
                source = (group.sources.get(key) or (key,))[0]
                product = f", and times the lr {lr:g}," if factor > 1 else ", which"
                raise ConfigError(
                    f"{source}: got {number:g}{product} is more than {largest:g}, the largest number of {dtype}, the "
                    f"dtype of parameters in param group {group.name!r}. Type a smaller one"
                )


def _floats(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _floats(item)
