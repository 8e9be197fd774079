"""Sophia-G."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from ...core.errors import ConfigError
from ..base import ParamGroup
from ..checks import check_gradients
from ..eager import run_eagerly
from ..finite import all_finite, full_tensor
from ..real_view import real
from ..update import Update
from .member import Member

STEPS_WITHOUT_HESSIAN = 10
"""How many steps Sophia-G takes before it must have been given a Hessian: the paper's k."""


class SophiaG(Member, name="sophia_g"):
    """Momentum over a clipped estimate of the Hessian's diagonal (Liu et al., arXiv:2305.14342, algorithm 3).

    lr is the largest step of a coordinate, as in the authors' code and the paper's last version (its first version, and
    pytorch_optimizer's Sophia-H, clip at ρ and so move by lr ρ at most). As in that code, eps is added to ρ h; the
    paper takes the larger of the two. Until `update_hessian` is first called, a step is the sign of the momentum;
    after ten such steps, the next one raises.

    Args:
        lr: learning rate, the largest step of a coordinate.
        rho: scale of the Hessian: a step is clipped where |m| > ρ h, so more often with a smaller ρ.

    State:
        hessian: running average of the Hessian's estimates.

    Raises:
        ConfigError: it has taken ten steps and no estimate of the Hessian has come.

    Examples:
        >>> import torch
        >>> model, inputs = torch.nn.Linear(3, 2), torch.ones(8, 3)
        >>> optimizer = optim.SophiaG(model.parameters(), lr=1e-3)
        >>> logits = model(inputs)  # every ten steps or so
        >>> sampled = torch.distributions.Categorical(logits=logits).sample()
        >>> torch.nn.functional.cross_entropy(logits, sampled).backward()
        >>> optimizer.update_hessian(num_samples=8)
        >>> optimizer.zero_grad()
    """

    has_hessian = False  # whether an estimate has come; after a load or copy, the state says so

    def step_scope(self, groups: Sequence[ParamGroup]) -> AbstractContextManager[None]:
        self.has_hessian = self.has_hessian or check_hessian(self, groups)
        return super().step_scope(groups)

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        return {"w": 1 - group["betas"][0], "rho": group["rho"], "eps": group["eps"], "size": group["lr"]}

    @staticmethod
    def update(p, g, m, h, *, w, rho, eps, size) -> Update:
        m.lerp_(g, w)
        return Update((m / (h * rho).add_(eps)).clamp_min_(-1.0).clamp_max_(1.0), size)

    @run_eagerly
    @torch.no_grad()
    def update_hessian(self, num_samples: float, grads: Mapping[Tensor, Tensor] | None = None) -> None:
        """Update the Hessian's diagonal with the Gauss-Newton-Bartlett estimator: h ← β2 h + (1 - β2) B g².

        An estimate that is not finite is ignored. With Lightning, the callback `SophiaHessian` calls this method.

        Args:
            num_samples: B, the number of samples or tokens that the loss averages over.
            grads: gradients by parameter, each of its shape and unscaled, of the loss with labels sampled from the
                model's own output; None: the parameters' current `grad`.

        Raises:
            ConfigError: a gradient is sparse.
        """
        if grads is None:
            params = [param for group in self.param_groups for param in group["params"]]
            grads = {param: param.grad for param in params if param.grad is not None}
        if all_finite(grads.values()):
            update_diagonal(self, num_samples, grads)


def update_diagonal(optimizer: SophiaG, num_samples: float, grads: Mapping[Tensor, Tensor]) -> None:
    """Update the Hessian's diagonal with finite gradients."""
    for index, group in enumerate(optimizer.param_groups):
        check_gradients(group, index, "SophiaG", allow_complex=True)
        b2 = group["betas"][1]
        for param in (param for param in group["params"] if param in grads):
            h = real(optimizer.ensure_state(group, param)["hessian"])
            g = real(grads[param]).to(h.dtype)
            h.mul_(b2).addcmul_(g, g, value=(1 - b2) * num_samples)
            optimizer.has_hessian = True


def check_hessian(optimizer: SophiaG, groups: Sequence[ParamGroup]) -> bool:
    """Whether there is an estimate of the Hessian; asks the device only once there must be one.

    Args:
        optimizer: after its last step.
        groups: the groups of the next one. At lr 0 it moves nothing, and needs no estimate.

    Raises:
        ConfigError: there is none, after `STEPS_WITHOUT_HESSIAN` steps.
    """
    params = (param for group in optimizer.param_groups for param in group["params"])
    states = [state for param in params if "step" in (state := optimizer.state.get(param, {}))]
    steps = max((float(state["step"]) for state in states), default=0.0)
    if steps < STEPS_WITHOUT_HESSIAN or not any(group["lr"] for group in groups):
        return False
    if any(bool(full_tensor(state["hessian"].any())) for state in states):
        return True
    raise ConfigError(
        f"SophiaG has taken {steps:g} steps without an estimate of the Hessian, so each was the sign of the momentum. "
        "With Lightning, add the callback SophiaHessian (callbacks=[SophiaHessian(every_n_steps=10)]). Without "
        "Lightning, call optimizer.update_hessian, for the first time before the first step (see optim.SophiaG)"
    )
