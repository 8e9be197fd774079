"""The Gauss-Newton-Bartlett estimate of a Hessian's diagonal, from the loss that a training step computes anyway.

For a loss that is a mean of B negative log-likelihoods, let g be its gradient at labels sampled from the model's own
output. Then B g² is an unbiased estimate of the Gauss-Newton matrix's diagonal (Liu et al., arXiv:2305.14342, section
2.3).
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

OnSample = Callable[[float, Mapping[Tensor, Tensor]], None]
"""Gets B and the gradients by parameter, for the parameters that the loss depends on."""
SampleLabels = Callable[[Tensor, Mapping[str, Any], Generator], tuple[Tensor, float]]
"""Gets the model's output in float32 or wider, the arguments of the loss and a generator; returns labels and B."""


class SampledGradients(TorchFunctionMode):
    """A context in which each loss is computed a second time, with labels sampled from the model's output.

    It has no other effect: no gradient is accumulated, no second forward pass is made, and torch's own generators do
    not advance. Losses are those in `LOSSES` and the `torch.nn` classes that call them.

    Args:
        params: what to differentiate by.
        seed: of the labels.
        scale: multiplies the loss, for float16, whose gradients may underflow otherwise.
        on_sample: gets the gradients.

    Raises:
        ConfigError: a loss is not a plain mean, or there is a second one.
    """

    def __init__(self, params: Sequence[Tensor], seed: int, scale: float, on_sample: OnSample) -> None:
        super().__init__()
        self.found_loss = False
        """Whether a loss has been computed in the context."""
        self._params, self._seed, self._scale, self._on_sample = params, seed, scale, on_sample

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        # Only a loss that will be differentiated: a metric may call these functions too.
        if func in LOSSES and isinstance(result, Tensor) and result.requires_grad:
            self._differentiate(func, inspect.signature(func).bind(*args, **(kwargs or {})))
        return result

    def _differentiate(self, loss: Callable[..., Tensor], given: inspect.BoundArguments) -> None:
        given.apply_defaults()
        _check_plain(loss, given.arguments)
        if self.found_loss:
            raise ConfigError(
                f"SophiaHessian: training_step computes a second loss, {loss.__name__}, and it is not known how "
                "the two are combined. Call optimizer.update_hessian yourself (see optim.SophiaG), or wrap the loss "
                "that does not count in torch.no_grad()"
            )
        self.found_loss = True
        output = given.arguments["input"]
        generator = Generator(device=output.device).manual_seed(self._seed)
        # At least float32: probabilities in 16 bits do not add up to 1.
        wide = output.detach().to(torch.promote_types(output.dtype, torch.float32))
        labels, num_samples = LOSSES[loss](wide, given.arguments, generator)
        given.arguments["target"] = labels
        if "label_smoothing" in given.arguments:
            given.arguments["label_smoothing"] = 0.0  # else the labels would vary less than the model says
        sampled = loss(*given.args, **given.kwargs) * self._scale
        # Not backward(): it would add to the current gradients, and start DDP's hooks.
        grads = torch.autograd.grad(sampled, self._params, retain_graph=True, allow_unused=True)
        by_param = {param: grad for param, grad in zip(self._params, grads, strict=True) if grad is not None}
        self._on_sample(num_samples / self._scale**2, by_param)


def _check_plain(loss: Callable[..., Tensor], arguments: Mapping[str, Any]) -> None:
    """Check that a loss is a mean of negative log-likelihoods.

    Smoothed and soft labels are allowed: the Gauss-Newton matrix of a cross-entropy does not depend on them.
    """
    weighted = [key for key in ("weight", "pos_weight", "size_average", "reduce") if arguments.get(key) is not None]
    if weighted or arguments["reduction"] != "mean":
        what = format_names([f"{key}=" for key in weighted] or [f"reduction={arguments['reduction']!r}"])
        raise ConfigError(
            f"SophiaHessian: {loss.__name__} with {what} is not a plain mean, and the estimate needs one. "
            "Remove that argument, or call optimizer.update_hessian yourself (see optim.SophiaG)"
        )


def _sample_classes(output: Tensor, arguments: Mapping[str, Any], generator: Generator) -> tuple[Tensor, float]:
    """Classes from logits or log-probabilities; the classes are dimension 1 or, without a batch dimension, 0."""
    target: Tensor = arguments["target"]
    probabilities = output.movedim(min(1, output.ndim - 1), -1).softmax(dim=-1)
    rows = probabilities.reshape(-1, probabilities.shape[-1])
    labels = rows.multinomial(1, generator=generator).reshape(probabilities.shape[:-1])
    if target.is_floating_point():
        return labels, labels.numel()
    ignored = target == arguments["ignore_index"]
    return labels.masked_fill_(ignored, arguments["ignore_index"]), float(ignored.logical_not_().sum())


def _sample_bernoulli(output: Tensor, arguments: Mapping[str, Any], generator: Generator) -> tuple[Tensor, float]:
    """0 or 1 from logits."""
    return output.sigmoid().bernoulli(generator=generator).to(arguments["input"].dtype), output.numel()


def _sample_normal(output: Tensor, arguments: Mapping[str, Any], generator: Generator) -> tuple[Tensor, float]:
    """Numbers from a normal distribution around the output, with the variance whose likelihood is (y - f)²."""
    noise = torch.randn(output.shape, generator=generator, device=output.device, dtype=output.dtype)
    return noise.mul_(0.5**0.5).add_(output).to(arguments["input"].dtype), output.numel()


LOSSES: dict[Callable[..., Tensor], SampleLabels] = {
    functional.cross_entropy: _sample_classes,
    functional.nll_loss: _sample_classes,
    functional.binary_cross_entropy_with_logits: _sample_bernoulli,
    functional.mse_loss: _sample_normal,
}
"""The losses whose distribution is known, each with the function that samples labels from it."""
