"""Whether a closure computes gradients, for optimizers that take several of them in a step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from ..core.errors import ConfigError

GradientVersions = list[tuple[Tensor, int]]
"""The gradients of all parameters, each with the number of times it has been written."""


def read_gradient_versions(groups: Iterable[Mapping[str, Any]]) -> GradientVersions:
    """The current gradients; they are held, so that a new one is never taken for an old one."""
    grads = (param.grad for group in groups for param in group["params"])
    return [(grad, grad._version) for grad in grads if grad is not None]


def has_new_gradients(groups: Iterable[Mapping[str, Any]], before: GradientVersions) -> bool:
    """Whether a gradient has been replaced, written or removed since `before`, or there is none at all."""
    after = read_gradient_versions(groups)
    unchanged = len(before) == len(after) and all(
        a is b and version == now for (a, version), (b, now) in zip(before, after, strict=True)
    )
    return not (after and unchanged)


def no_gradients_error(cls_name: str, evaluations: int) -> ConfigError:
    """What to type where a closure has computed no gradients for an optimizer that takes `evaluations` of them."""
    return ConfigError(
        f"{cls_name} takes {evaluations} gradients a step, and the closure has not computed one: in manual "
        "optimization Lightning passes a closure that does nothing. Type opt.step(closure=closure), where closure "
        "calls opt.zero_grad() and self.manual_backward(loss), and returns the loss"
    )
