"""StableAdamW."""

from __future__ import annotations

from typing import Any

from ..base import Group
from ..update import Update
from .member import Member


class StableAdamW(Member, name="stable_adamw"):
    """AdamW with Adafactor's clipping of the update in each tensor (Wortsman et al., arXiv:2304.13013, algorithm 2).

    The lr is divided by the RMS of g / √v where that is over 1: where v has fallen behind. Bias is corrected in the
    decay rates, so the state holds corrected averages. Decay is by the lr itself, as in the authors' code; the paper's
    algorithm and pytorch_optimizer decay by the clipped one.

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        lr: step size; it and weight_decay are the authors', for CLIP.
        betas: decay rates of the running averages of the gradient and of its square, in [0, 1).
        eps: added to the denominator; its square is the least v in that RMS.
        weight_decay: coefficient, or a `WeightDecay`.
        **options: `weight_decay_mode` (decoupled), `cautious_decay`, `maximize`, `foreach`, `fused`.

    State of each parameter, of its shape and dtype: `exp_avg`, `exp_avg_sq`.

    Raises:
        ConfigError: a hyperparameter is unknown or out of bounds, at the top or in a group.

    Example:
        >>> from torch import nn
        >>> optim.StableAdamW(nn.Linear(3, 2).parameters(), weight_decay=0.01).defaults["lr"]
        0.002
    """

    def buffers(self, group: Group) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def coefficients(self, t: float, group: Group) -> dict[str, Any]:
        (b1, b2), eps = group["betas"], group["eps"]
        w1, w2 = (1 - b1) / (1 - b1**t), (1 - b2) / (1 - b2**t)
        return {"w1": w1, "b2": 1 - w2, "w2": w2, "eps": eps, "least": eps**2, "size": group["lr"]}

    @staticmethod
    def update(p, g, m, v, *, w1, b2, w2, eps, least, size) -> Update:
        m.lerp_(g, w1)
        v.mul_(b2).addcmul_(g, g, value=w2)
        rms = (g * g).div_(v.clamp_min(least)).mean().sqrt()
        return Update(m, size, over=v.sqrt().add_(eps).mul_(rms.clamp_min(1.0)))
