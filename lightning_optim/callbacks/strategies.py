"""Which Lightning strategies each callback supports, and DDP's reducer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy, SingleDeviceStrategy
from torch.nn.parallel import DistributedDataParallel

from ..core.errors import ConfigError

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_REASONS = {
    "DeepSpeedStrategy": "DeepSpeed flattens the optimizer's parameters at the start, so no group can join later",
    "FSDPStrategy": "FSDP1 flattens parameters into one tensor, whose parts cannot be frozen separately",
}


def check_strategy_for_stages(trainer: Trainer) -> None:
    """Raises a ConfigError if StagedUnfreeze is not exact under the trainer's strategy."""
    # By exact type: sharding strategies are subclasses of these, DeepSpeed's of DDPStrategy.
    if type(trainer.strategy) not in (SingleDeviceStrategy, DDPStrategy, ModelParallelStrategy):
        name = type(trainer.strategy).__name__
        reason = _REASONS.get(name, "StagedUnfreeze has not been tested with it")
        raise ConfigError(
            f"trainer.strategy: {name}: {reason}. Type trainer.strategy=ddp, or for sharding use ModelParallelStrategy "
            "(FSDP2), or train without stages: unfreeze=none"
        )


def check_strategy_for_hessian(trainer: Trainer) -> None:
    """Raises a ConfigError unless each rank holds the full gradient of every parameter."""
    if type(trainer.strategy) not in (SingleDeviceStrategy, DDPStrategy):
        raise ConfigError(
            f"SophiaHessian: trainer.strategy: under {type(trainer.strategy).__name__} no rank has the full gradient "
            "of a parameter, which the estimate squares. Type trainer.strategy=ddp, or use another optimizer"
        )


def check_strategy_for_monitor(trainer: Trainer) -> None:
    """Raises a ConfigError if the optimizer holds flattened pieces instead of the model's parameters."""
    # DeepSpeed's class by name: it can only be imported where DeepSpeed is installed.
    name = type(trainer.strategy).__name__
    if isinstance(trainer.strategy, FSDPStrategy) or "DeepSpeedStrategy" in (
        c.__name__ for c in type(trainer.strategy).__mro__
    ):
        raise ConfigError(
            f"monitor: trainer.strategy: under {name} each rank's optimizer holds flattened pieces of parameters, so "
            "norms would be those of one rank's pieces. Type trainer.strategy=ddp, or for sharding use "
            "ModelParallelStrategy (FSDP2), or remove the monitor"
        )


def rebuild_ddp_reducer(trainer: Trainer) -> None:
    """Build DDP's reducer again: it averages the gradients of the parameters that were trainable when it was built."""
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy) and isinstance(strategy.model, DistributedDataParallel):
        strategy.model = strategy.model.module
        strategy.configure_ddp()
