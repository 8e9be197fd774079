"""SGD with error feedback."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member


class EFSGD(Member, name="ef_sgd"):
    """Steps by the sign, that make up for what the sign left out (Karimireddy et al., arXiv:1901.09847, algorithm 1).

    What a step lost by its compression stays in the memory, and is added to the next one: with lr · g, so at the lr at
    which it was lost. `scaled_sign` keeps the mean size too, in each tensor; `sign`, which the paper shows to be the
    worse, is multiplied by lr, as in the authors' code. There the memory is off by default; here it is on, as
    the name says.

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        lr: step size.
        momentum: factor of the running sum of gradients, before the compression; 0: none is kept.
        weight_decay: coefficient, or a `WeightDecay`.
        comp: the compression: `scaled_sign`, ‖c‖₁ / d · sign(c), or `sign`, lr · sign(c).
        memory: keep the error; without, it is signSGD.
        **options: `weight_decay_mode` (L2), `cautious_decay`, `maximize`, `foreach`, `fused`, and the modifiers (see
            `Adam`), `cautious_update` without memory only.

    State of each parameter, of its shape and dtype: with memory `error`, with momentum `momentum_buffer`.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
        >>> from torch import nn
        >>> optim.EFSGD(nn.Linear(3, 2).parameters(), lr=0.01).defaults["comp"]
        'scaled_sign'
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        flags = {"memory": group["memory"], "moves": group["momentum"] > 0, "scaled": group["comp"] == "scaled_sign"}
        return {"lr": group["lr"], "momentum": group["momentum"], **flags}

    @staticmethod
    def update(p, g, *buffers, lr, momentum, memory, moves, scaled) -> Update:
        # buffers: the error where there is a memory, then the momentum where it moves
        d = buffers[-1].mul_(momentum).add_(g) if moves else g
        whole = buffers[0].add(d, alpha=lr) if memory else d * lr
        step = whole.sign()
        step.mul_(whole.abs().mean() if scaled else lr)
        if memory:
            buffers[0].copy_(whole.sub_(step))
        return Update(step)
