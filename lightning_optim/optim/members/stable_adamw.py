"""StableAdamW."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member


class StableAdamW(Member, name="stable_adamw"):
    """AdamW with Adafactor's clipping of the update in each tensor (Wortsman et al., arXiv:2304.13013, algorithm 2).

    The lr is divided by the RMS of g / √v where that is over 1: where v has fallen behind. Bias is corrected in the
    decay rates, so the state holds corrected averages. As in the paper's algorithm and pytorch_optimizer, `decoupled`
    and `corrected` decay are in proportion to the divided lr; in the authors' code, to the lr itself.

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        lr: step size; it and weight_decay are the authors', for CLIP.
        betas: decay rates of the running averages of the gradient and of its square, in [0, 1).
        eps: added to the denominator; its square is the least v in that RMS.
        weight_decay: coefficient, or a `WeightDecay`.
        **options: `weight_decay_mode` (decoupled), `cautious_decay`, the modifiers (see `Adam`), `maximize`, `foreach`,
            `fused`.

    State of each parameter, of its shape and dtype: `exp_avg`, `exp_avg_sq`.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
        >>> from torch import nn
        >>> optim.StableAdamW(nn.Linear(3, 2).parameters(), weight_decay=0.01).defaults["lr"]
        0.002
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        (b1, b2), eps = group["betas"], group["eps"]
        w1, w2 = (1 - b1) / (1 - b1**t), (1 - b2) / (1 - b2**t)
        by_lr = group["weight_decay_mode"] in ("decoupled", "corrected")
        return {"w1": w1, "b2": 1 - w2, "w2": w2, "eps": eps, "least": eps**2, "size": group["lr"], "by_lr": by_lr}

    @staticmethod
    def update(p, g, m, v, *, w1, b2, w2, eps, least, size, by_lr) -> Update:
        m.lerp_(g, w1)
        v.mul_(b2).addcmul_(g, g, value=w2)
        # 0 / 0, where in float16 ε² is 0, counts as 0.
        parts = (g * g).div_(v.clamp_min(least)).nan_to_num_(nan=0.0)
        clip = parts.mean().sqrt().clamp_min_(1.0)
        return Update(m, size, over=v.sqrt().add_(eps).mul_(clip), decay=clip.reciprocal() if by_lr else 1.0)
