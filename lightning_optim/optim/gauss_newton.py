"""The Gauss-Newton-Bartlett estimate of a Hessian's diagonal, from the loss that a training step computes anyway.

For a loss that is a mean of B negative log-likelihoods, B g² with g its gradient at labels drawn from the model's own
output is an unbiased estimate of the Gauss-Newton matrix's diagonal (Liu et al., arXiv:2305.14342, section 2.3).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..core.errors import ConfigError, format_names

Take = Callable[[float, Mapping[Tensor, Tensor]], None]
"""Gets B and the gradients by parameter, of those that the loss depends on."""


class SampledGradients(TorchFunctionMode):
    """While it is entered, a loss that is computed is computed once more, with labels drawn from the model's output.

    Nothing else changes: no gradient is accumulated, no second forward pass made, and torch's own generators draw no
    number more. Losses are those in `LOSSES`, and `torch.nn`'s classes of the same.

    Args:
        params: what the gradients are of.
        seed: of the labels.
        scale: the loss times this; for float16, whose gradients may vanish otherwise.
        take: gets them.

    Raises:
        ConfigError: a loss is not a plain mean, or there is a second one.
    """

    def __init__(self, params: Sequence[Tensor], seed: int, scale: float, take: Take) -> None:
        super().__init__()
        self.taken = False
        """Whether there was a loss."""
        self._params, self._seed, self._scale, self._take = params, seed, scale, take

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        # Only what will be differentiated: a metric may call a loss too.
        if func in LOSSES and isinstance(result, Tensor) and result.requires_grad:
            self._differentiate(func, inspect.signature(func).bind(*args, **(kwargs or {})))
        return result

    def _differentiate(self, loss: Callable[..., Tensor], given: inspect.BoundArguments) -> None:
        given.apply_defaults()
        _check_plain(loss, given.arguments)
        if self.taken:
            raise ConfigError(
                f"SophiaHessian: training_step computes a second loss, {loss.__name__}, and nothing says how the two "
                "add up. Call optimizer.update_hessian yourself (see optim.SophiaG), or wrap the loss that does not "
                "count in torch.no_grad()"
            )
        self.taken = True
        output = given.arguments["input"]
        generator = Generator(device=output.device).manual_seed(self._seed)
        # In float32 at least: probabilities in 16 bits do not add up to 1.
        wide = output.detach().to(torch.promote_types(output.dtype, torch.float32))
        labels, num_samples = LOSSES[loss](wide, given.arguments, generator)
        given.arguments["target"] = labels
        if "label_smoothing" in given.arguments:
            given.arguments["label_smoothing"] = 0.0  # else drawn labels would vary less than the model says
        sampled = loss(*given.args, **given.kwargs) * self._scale
        # Not backward(): it would add to the gradients at hand, and start DDP's hooks.
        grads = torch.autograd.grad(sampled, self._params, retain_graph=True, allow_unused=True)
        found = {param: grad for param, grad in zip(self._params, grads, strict=True) if grad is not None}
        self._take(num_samples / self._scale**2, found)


def _check_plain(loss: Callable[..., Tensor], arguments: Mapping[str, Any]) -> None:
    """Whether a loss is a mean of negative log-likelihoods.

    Smoothed and soft labels are: the Gauss-Newton matrix of a cross-entropy does not depend on them.
    """
    weighted = [key for key in ("weight", "pos_weight", "size_average", "reduce") if arguments.get(key) is not None]
    if weighted or arguments["reduction"] != "mean":
        what = format_names([f"{key}=" for key in weighted] or [f"reduction={arguments['reduction']!r}"])
        raise ConfigError(
            f"SophiaHessian: {loss.__name__} with {what} is not a plain mean, of which alone the estimate is one. "
            "Leave it out, or call optimizer.update_hessian yourself (see optim.SophiaG)"
        )


def _of_classes(output: Tensor, arguments: Mapping[str, Any], generator: Generator) -> tuple[Tensor, float]:
    """Classes from logits or log-probabilities, with a dimension of classes after that of samples, if there is one."""
    target: Tensor = arguments["target"]
    probabilities = output.movedim(min(1, output.ndim - 1), -1).softmax(dim=-1)
    rows = probabilities.reshape(-1, probabilities.shape[-1])
    labels = rows.multinomial(1, generator=generator).reshape(probabilities.shape[:-1])
    if target.is_floating_point():
        return labels, labels.numel()
    ignored = target == arguments["ignore_index"]
    return labels.masked_fill_(ignored, arguments["ignore_index"]), float(ignored.logical_not_().sum())


def _of_two(output: Tensor, arguments: Mapping[str, Any], generator: Generator) -> tuple[Tensor, float]:
    """0 or 1 from logits."""
    return output.sigmoid().bernoulli(generator=generator).to(arguments["input"].dtype), output.numel()


def _of_normal(output: Tensor, arguments: Mapping[str, Any], generator: Generator) -> tuple[Tensor, float]:
    """Numbers from a normal distribution around the output, of the variance of which (y - f)² is the likelihood."""
    noise = torch.randn(output.shape, generator=generator, device=output.device, dtype=output.dtype)
    return noise.mul_(0.5**0.5).add_(output).to(arguments["input"].dtype), output.numel()


LOSSES: dict[Callable[..., Tensor], Callable[[Tensor, Mapping[str, Any], Generator], tuple[Tensor, float]]] = {
    functional.cross_entropy: _of_classes,
    functional.nll_loss: _of_classes,
    functional.binary_cross_entropy_with_logits: _of_two,
    functional.mse_loss: _of_normal,
}
"""The losses that a distribution is known of, and what draws labels from it: those, and how many there are."""
