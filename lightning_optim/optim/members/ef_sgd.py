"""SGD with error feedback."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member


class EFSGD(Member, name="ef_sgd"):
    """Sign steps with error feedback (Karimireddy et al., arXiv:1901.09847, algorithm 1).

    What the compression leaves out of a step is stored in `error` and added to the next step together with lr · g, so
    with the lr at which it was left out. The compression `scaled_sign` keeps the mean magnitude of each tensor; `sign`,
    which the paper shows to be worse, is multiplied by lr, as in the authors' code. There the memory is off by default;
    here it is on, as the name says.

    Args:
        memory: store the error; False is signSGD.
        cautious_update: only without memory, which does not hold what it masks.

    State:
        error: what the compression has left out.

    Examples:
        >>> from torch import nn
        >>> optim.EFSGD(nn.Linear(3, 2).parameters(), lr=0.01).defaults["comp"]
        'scaled_sign'
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        flags = {
            "memory": group["memory"],
            "has_momentum": group["momentum"] > 0,
            "scaled": group["comp"] == "scaled_sign",
        }
        return {"lr": group["lr"], "momentum": group["momentum"], **flags}

    @staticmethod
    def update(p, g, *buffers, lr, momentum, memory, has_momentum, scaled) -> Update:
        # buffers: the error with memory, then the momentum with momentum > 0.
        d = buffers[-1].mul_(momentum).add_(g) if has_momentum else g
        c = buffers[0].add(d, alpha=lr) if memory else d * lr
        step = c.sign()
        step.mul_(c.abs().mean() if scaled else lr)
        if memory:
            buffers[0].copy_(c.sub_(step))
        return Update(step)
