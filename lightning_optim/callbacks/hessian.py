"""SophiaHessian: estimates the Hessian for Sophia-G while Lightning trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from ..core.errors import ConfigError, checks_arguments
from ..core.hyperparameters import Number
from ..core.short_repr import format_call
from ..optim.composite import Composite
from ..optim.gauss_newton import LOSSES, SampledGradients
from .lightning_internals import logger_step
from .rank_average import average_over_ranks
from .resumed_epoch import ResumedEpochCallback
from .strategies import check_strategy_for_hessian

if TYPE_CHECKING:
    from ..optim import SophiaG


class SophiaHessian(ResumedEpochCallback):
    """Gives Sophia-G an estimate of the Hessian's diagonal before every n-th step, starting with the first.

    In the first batch of such a step, the loss that `training_step` computes is differentiated a second time, with
    labels sampled from the model's own output (the Gauss-Newton-Bartlett estimator, arXiv:2305.14342, algorithms 2 and
    3). So such a step costs one more backward pass and no forward pass. The labels depend only on the step and the
    rank, so a resumed run samples the same ones. An estimate that is not finite is dropped.

    `training_step` must call one of `torch.nn.functional`'s cross_entropy, nll_loss, binary_cross_entropy_with_logits
    and mse_loss, or the `torch.nn` class of it. With another loss, call `update_hessian` of `optim.SophiaG` yourself.

    Args:
        every_n_steps: optimizer steps from one estimate to the next; the paper's k.

    Raises:
        ConfigError: no optimizer is Sophia-G, the strategy shards parameters, or the loss is none of these.

    Examples:
        >>> callback = SophiaHessian(every_n_steps=10)
    """

    __module__ = "lightning_optim"  # where users import it from: pickles survive a move of this file

    @checks_arguments
    def __init__(self, every_n_steps: int = 10) -> None:
        steps = Number(default=10, low=1, integer=True)
        self.every_n_steps: int = steps.check(every_n_steps, "every_n_steps")
        self._is_due = False
        self._has_wrapped = False
        self._instance_training_step: Any = None
        """The `training_step` that was set on the strategy instance rather than on its class, if any."""

    def __repr__(self) -> str:
        return format_call(self, every_n_steps=self.every_n_steps)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a strategy under which no rank has a parameter's full gradient."""
        if stage == "fit":
            check_strategy_for_hessian(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wrap the strategy's `training_step`, which calls the module's: so the module can be copied and pickled."""
        super().on_train_start(trainer, pl_module)
        if not _find_sophias(trainer.optimizers):
            raise ConfigError(
                "SophiaHessian: no optimizer is Sophia-G. Type optimizer=sophia_g, or remove the callback"
            )
        strategy = trainer.strategy
        original = strategy.training_step

        @wraps(original)
        def training_step(*args: Any, **kwargs: Any) -> Any:
            return self._run_training_step(trainer, lambda: original(*args, **kwargs))

        self._instance_training_step = vars(strategy).get("training_step")
        strategy.training_step = training_step  # type: ignore[method-assign]
        self._has_wrapped = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """An estimate is due in the first batch of every n-th step."""
        starts_step = batch_idx % trainer.accumulate_grad_batches == 0
        self._is_due = starts_step and logger_step(trainer) % self.every_n_steps == 0

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the strategy's `training_step`."""
        self._restore_training_step(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore it after an error too."""
        self._restore_training_step(trainer)

    def _restore_training_step(self, trainer: Trainer) -> None:
        if not self._has_wrapped:
            return
        del trainer.strategy.training_step
        if self._instance_training_step is not None:
            trainer.strategy.training_step = self._instance_training_step  # type: ignore[method-assign]
        self._has_wrapped, self._instance_training_step = False, None

    def _run_training_step(self, trainer: Trainer, training_step: Callable[[], Any]) -> Any:
        """Run `training_step`, and update the Hessian from its loss if an estimate is due."""
        if not self._is_due:
            return training_step()
        self._is_due = False
        sophias = _find_sophias(trainer.optimizers)
        params = [p for sophia in sophias for group in sophia.param_groups for p in group["params"] if p.requires_grad]
        if not params:  # all of them are still frozen
            return training_step()
        scaler = getattr(trainer.precision_plugin, "scaler", None)

        def update_hessians(num_samples: float, grads: Mapping[Tensor, Tensor]) -> None:
            num_samples, grads = average_over_ranks(num_samples, grads, params)
            if num_samples:
                for sophia in sophias:
                    sophia.update_hessian(num_samples, grads)

        sampled = SampledGradients(
            params,
            seed=logger_step(trainer) * trainer.world_size + trainer.global_rank,
            scale=scaler.get_scale() if scaler else 1.0,
            on_sample=update_hessians,
        )
        num_steps = trainer.global_step
        with sampled:
            output = training_step()
        # None: Lightning skips the batch, except in manual optimization, where training_step takes the steps itself.
        if not sampled.found_loss and (output is not None or trainer.global_step > num_steps):
            raise ConfigError(
                "SophiaHessian: training_step computes none of the losses that labels can be sampled for: "
                f"{', '.join(sorted(loss.__name__ for loss in LOSSES))} of torch.nn.functional. Compute one of them "
                "there, or remove the callback and call optimizer.update_hessian yourself (see optim.SophiaG)"
            )
        return output


def _find_sophias(optimizers: Sequence[Optimizer]) -> list[SophiaG]:
    from ..optim import SophiaG  # importing a callback must not load the optimizers

    parts = [p for o in optimizers for p in (o.synced_children() if isinstance(o, Composite) else [o])]
    return [optimizer for optimizer in parts if isinstance(optimizer, SophiaG)]
