"""16-bit dtypes, and checks that a rule stays finite in float16, whose smallest number is 6e-8."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..core.errors import ConfigError

HALF_DTYPES = (torch.float16, torch.bfloat16)
# An eps that Adam's rules work with in float16.
_EPS = 1e-4


def check_float16(
    group: Mapping[str, Any], params: Iterable[Tensor], floor: Callable[[Mapping[str, Any]], float | None], prefix: str
) -> None:
    """Check that a rule which computes in the parameter's dtype never divides 0 by 0 in float16.

    Args:
        group: the values of a param group.
        params: its parameters.
        floor: what keeps the rule's denominators above 0, by the values of a group; None if nothing is needed.
        prefix: comes before a key in the message.

    Raises:
        ConfigError: a parameter is float16, and the floor is 0 in the dtype that its rule computes in.
    """
    value = floor(group)
    is_safe = value is None or (value > 0 if group["master_weights"] else not _is_zero(value))
    if is_safe or all(param.dtype != torch.float16 for param in params):
        return
    cures = [f"eps: {_EPS:g}"] if not _is_zero(floor({**group, "eps": _EPS})) else []
    cures += ["master_weights: true"] if value else []
    cures = cures or [f"eps: {_EPS:g} and master_weights: true"]
    raise ConfigError(
        f"{prefix}eps: got {group['eps']:g}, and in float16 the rule would divide by 0 where gradients are 0. "
        f"Type {' or '.join(cures)}, or train in bfloat16"
    )


def _is_zero(floor: float | None) -> bool:
    return floor is not None and float(torch.tensor(floor, dtype=torch.float16)) == 0
