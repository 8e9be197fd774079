"""StableAdamW."""

from __future__ import annotations

from typing import Any

from ..base import ParamGroup
from ..update import Update
from .member import Member


class StableAdamW(Member, name="stable_adamw"):
    """AdamW with Adafactor's update clipping in each tensor (Wortsman et al., arXiv:2304.13013, algorithm 2).

    lr is divided by the RMS of g / √v where that is above 1: where v lags behind. Bias is corrected in the decay rates,
    so the state holds corrected averages. As in the paper's algorithm and pytorch_optimizer, `decoupled` and
    `corrected` decay are proportional to the divided lr; in the authors' code to lr itself. The default lr and
    weight_decay are the authors' for CLIP.

    Args:
        eps: added to the denominator; its square is the minimum of v in that RMS.

    Examples:
        >>> from torch import nn
        >>> optim.StableAdamW(nn.Linear(3, 2).parameters(), weight_decay=0.01).defaults["lr"]
        0.002
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        (b1, b2), eps = group["betas"], group["eps"]
        w1, w2 = (1 - b1) / (1 - b1**t), (1 - b2) / (1 - b2**t)
        by_lr = group["weight_decay_mode"] in ("decoupled", "corrected")
        return {"w1": w1, "b2": 1 - w2, "w2": w2, "eps": eps, "min_v": eps**2, "size": group["lr"], "by_lr": by_lr}

    @staticmethod
    def update(p, g, m, v, *, w1, b2, w2, eps, min_v, size, by_lr) -> Update:
        m.lerp_(g, w1)
        v.mul_(b2).addcmul_(g, g, value=w2)
        # ε² is 0 in float16, and 0 / 0 counts as 0.
        ratios = (g * g).div_(v.clamp_min(min_v)).nan_to_num_(nan=0.0)
        clip = ratios.mean().sqrt().clamp_min_(1.0)
        return Update(m, size, over=v.sqrt().add_(eps).mul_(clip), decay=clip.reciprocal() if by_lr else 1.0)
