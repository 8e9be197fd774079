"""Sophia-G's estimates of the Hessian, made as Lightning trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from ..core.errors import ConfigError
from ..core.hyperparameters import Number
from ..optim.composite import Composite
from ..optim.gauss_newton import LOSSES, SampledGradients
from .lightning_internals import logger_step
from .strategies import check_replicas

if TYPE_CHECKING:
    from ..optim import SophiaG


class SophiaHessian(Callback):
    """Feeds Sophia-G its estimate of the Hessian's diagonal before each n-th step, from the first one on.

    In the first batch of such a step, the loss that `training_step` computes is differentiated a second time, at labels
    drawn from the model's own output (the Gauss-Newton-Bartlett estimator, arXiv:2305.14342, algorithms 2 and 3). So
    such a step costs one more backward pass, and no forward pass. The labels depend on nothing but the step and the
    rank: a run that resumes draws the same. An estimate that is not finite is left out.

    `training_step` calls one of `torch.nn.functional`'s cross_entropy, nll_loss, binary_cross_entropy_with_logits and
    mse_loss, or `torch.nn`'s class of it; where there is another loss, call `update_hessian` of `optim.SophiaG`
    yourself.

    Args:
        every_n_steps: from one estimate to the next, in optimizer steps; the paper's k.

    Raises:
        ConfigError: no optimizer is Sophia-G, the strategy shards parameters, or the loss is none of these.

    Example:
        >>> callback = SophiaHessian(every_n_steps=10)
    """

    __module__ = "lightning_optim"  # where users import it from: pickles outlive a move of this file

    def __init__(self, every_n_steps: int = 10) -> None:
        steps = Number(default=10, low=1, integer=True)
        self.every_n_steps: int = steps.check(every_n_steps, "every_n_steps")
        self._due = False
        self._own: Any = None
        """A training step that stood on the module itself, and not on its class."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a strategy under which no rank has the whole gradient of a parameter."""
        if stage == "fit":
            check_replicas(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look into each training step from here on."""
        if not _sophias(trainer.optimizers):
            raise ConfigError(
                "SophiaHessian: no optimizer is Sophia-G. Type optimizer=sophia_g, or leave the callback out"
            )
        own = pl_module.training_step

        @wraps(own)
        def training_step(*args: Any, **kwargs: Any) -> Any:
            return self._look(trainer, lambda: own(*args, **kwargs))

        self._own = vars(pl_module).get("training_step")
        pl_module.training_step = training_step  # type: ignore[method-assign]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """An estimate is due in the first batch of a step."""
        step = logger_step(trainer)
        self._due = step % self.every_n_steps == 0 and batch_idx % trainer.accumulate_grad_batches == 0

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look no more."""
        self._undo(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The same."""
        self._undo(pl_module)

    def _undo(self, module: LightningModule) -> None:
        if vars(module).pop("training_step", None) and self._own:
            module.training_step = self._own  # type: ignore[method-assign]

    def _look(self, trainer: Trainer, training_step: Callable[[], Any]) -> Any:
        """A training step; where an estimate is due, with one."""
        if not self._due:
            return training_step()
        self._due = False
        sophias = _sophias(trainer.optimizers)
        params = [p for sophia in sophias for group in sophia.param_groups for p in group["params"] if p.requires_grad]
        if not params:  # all frozen, as yet
            return training_step()
        step = logger_step(trainer)
        scaler = getattr(trainer.precision_plugin, "scaler", None)

        def take(num_samples: float, grads: Mapping[Tensor, Tensor]) -> None:
            num_samples, grads = _over_ranks(num_samples, grads, params)
            if num_samples:
                for sophia in sophias:
                    sophia.update_hessian(num_samples, grads)

        sampled = SampledGradients(
            params,
            seed=step * trainer.world_size + trainer.global_rank,
            scale=scaler.get_scale() if scaler else 1.0,
            take=take,
        )
        with sampled:
            output = training_step()
        if not sampled.taken and output is not None:  # else Lightning skips the batch
            raise ConfigError(
                "SophiaHessian: training_step computes none of the losses that labels can be drawn for: "
                f"{', '.join(sorted(loss.__name__ for loss in LOSSES))} of torch.nn.functional. Compute one of them "
                "there, or leave the callback out and call optimizer.update_hessian yourself (see optim.SophiaG)"
            )
        return output


def _sophias(optimizers: Sequence[Optimizer]) -> list[SophiaG]:
    from ..optim import SophiaG  # a callback loads no optimizer before there is one

    every = [part for one in optimizers for part in (one.linked() if isinstance(one, Composite) else [one])]
    return [optimizer for optimizer in every if isinstance(optimizer, SophiaG)]


def _over_ranks(
    num_samples: float, grads: Mapping[Tensor, Tensor], params: Sequence[Tensor]
) -> tuple[float, Mapping[Tensor, Tensor]]:
    """The gradients of the mean loss over all ranks' batches, and how many samples it is the mean over."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return num_samples, grads
    counts = torch.tensor([num_samples, *(float(param in grads) for param in params)], device=params[0].device)
    torch.distributed.all_reduce(counts)
    num_samples, *uses = counts.tolist()
    means = {}
    for param, used in zip(params, uses, strict=True):
        if used:
            means[param] = grads[param] if param in grads else torch.zeros_like(param)
            torch.distributed.all_reduce(means[param])
            means[param] /= torch.distributed.get_world_size()
    return num_samples, means
