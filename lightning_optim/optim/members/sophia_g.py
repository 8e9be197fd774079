"""Sophia-G."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..base import ParamGroup
from ..bucket import real
from ..checks import check_gradients
from ..finite import all_finite
from ..update import Update
from .member import Member


class SophiaG(Member, name="sophia_g"):
    """Momentum over an estimate of the Hessian's diagonal, clipped (Liu et al., arXiv:2305.14342, algorithm 3).

    lr is what a coordinate moves by at most, as in the authors' code and the paper's last version (its first version,
    and pytorch_optimizer's Sophia-H, clip at ρ and move by lr ρ at most). As in that code eps is added to ρ h; the
    paper takes the larger of the two. Until `update_hessian` is first called a step is the momentum's sign.

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        lr: the largest step of a coordinate.
        betas: decay rates of the running averages of the gradient and of the Hessian's estimates, in [0, 1).
        rho: how much of the Hessian counts: a step is clipped where |m| > ρ h. The smaller, the more are.
        eps: added to the denominator.
        weight_decay: coefficient, or a `WeightDecay`.
        **options: `weight_decay_mode` (decoupled), `cautious_decay`, the modifiers (see `Adam`), `maximize`, `foreach`,
            `fused`.

    State of each parameter, of its shape and dtype: `exp_avg`, `hessian`. In float16 the default eps is 0: use bfloat16
    or float32.

    Raises:
        ConfigError: a hyperparameter is unknown, out of bounds or at odds with another, at the top or in a group.

    Example:
        >>> import torch
        >>> model, inputs = torch.nn.Linear(3, 2), torch.ones(8, 3)
        >>> optimizer = optim.SophiaG(model.parameters(), lr=1e-3)
        >>> logits = model(inputs)  # every ten steps or so
        >>> sampled = torch.distributions.Categorical(logits=logits).sample()
        >>> torch.nn.functional.cross_entropy(logits, sampled).backward()
        >>> optimizer.update_hessian(num_samples=8)
        >>> optimizer.zero_grad()
    """

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        return {"w": 1 - group["betas"][0], "rho": group["rho"], "eps": group["eps"], "size": group["lr"]}

    @staticmethod
    def update(p, g, m, h, *, w, rho, eps, size) -> Update:
        m.lerp_(g, w)
        return Update((m / (h * rho).add_(eps)).clamp_min_(-1.0).clamp_max_(1.0), size)

    @torch.no_grad()
    def update_hessian(self, num_samples: float, grads: Mapping[Tensor, Tensor] | None = None) -> None:
        """Take in an estimate of the Hessian's diagonal: h ← β2 h + (1 - β2) B g², the Gauss-Newton-Bartlett estimator.

        One that is not finite is left out. Under Lightning `SophiaHessian` calls it.

        Args:
            num_samples: B, the number of samples, or of tokens, that the loss is the mean over.
            grads: of the loss with labels sampled from the model's own output, by parameter, each of its shape and not
                scaled; None: those at hand, the parameters' `grad`.

        Raises:
            ConfigError: a gradient is sparse.
        """
        every = [param for group in self.param_groups for param in group["params"]]
        found = {p: p.grad for p in every if p.grad is not None} if grads is None else grads
        for index, group in enumerate(self.param_groups if all_finite(found.values()) else ()):
            check_gradients(group, index, "SophiaG", allow_complex=True)
            b2 = group["betas"][1]
            for param in (param for param in group["params"] if param in found):
                h = real(self.ensure_state(group, param)["hessian"])
                g = real(found[param]).to(h.dtype)
                h.mul_(b2).addcmul_(g, g, value=(1 - b2) * num_samples)
