"""Adagrad."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..base import ParamGroup
from ..update import Update
from .member import Member


class Adagrad(Member, name="adagrad"):
    """Steps scaled by all gradients so far (Duchi et al. 2011, diagonal form), bitwise `torch.optim.Adagrad`'s loop.

    The state is created at a parameter's first gradient; torch creates it in the constructor, with the same values.

    State:
        sum: sum of squared gradients.

    Examples:
        >>> from torch import nn
        >>> optim.Adagrad(nn.Linear(3, 2).parameters(), lr=0.1, lr_decay=0.01).defaults["eps"]
        1e-10
    """

    def init_state(self, state: dict[str, Any], group: ParamGroup, param: Tensor) -> None:
        first = group["initial_accumulator_value"]
        state["sum"] = torch.full_like(param, complex(first, first) if param.is_complex() else first)

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        return {"size": group["lr"] / (1 + (t - 1) * group["lr_decay"]), "eps": group["eps"]}

    @staticmethod
    def update(p, g, total, *, size, eps) -> Update:
        total.addcmul_(g, g, value=1)
        return Update(g, size, over=total.sqrt().add_(eps))
