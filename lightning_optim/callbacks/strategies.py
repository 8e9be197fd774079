"""The strategies of Lightning under which the callbacks are exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy, SingleDeviceStrategy
from torch.nn.parallel import DistributedDataParallel

from ..core.errors import ConfigError

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_REASONS = {
    "DeepSpeedStrategy": "DeepSpeed cuts the optimizer's parameters into flat pieces at the start, which none can join",
    "FSDPStrategy": "FSDP1 flattens parameters into one tensor, whose parts cannot be frozen or thawed apart",
}


def check_strategy(trainer: Trainer) -> None:
    """Whether stages are exact under it.

    Raises:
        ConfigError: it is not.
    """
    # By exact type: strategies that shard derive from these, DeepSpeed's for one.
    if type(trainer.strategy) not in (SingleDeviceStrategy, DDPStrategy, ModelParallelStrategy):
        name = type(trainer.strategy).__name__
        why = _REASONS.get(name, "StagedUnfreeze has not been tried on it")
        raise ConfigError(
            f"trainer.strategy: {name}: {why}. Type trainer.strategy=ddp, or for sharding take ModelParallelStrategy "
            "(FSDP2), or leave the unfreeze out: unfreeze=none"
        )


def check_replicas(trainer: Trainer) -> None:
    """Whether each rank holds the whole model, and nothing but torch.distributed stands between them.

    Raises:
        ConfigError: it does not.
    """
    if type(trainer.strategy) not in (SingleDeviceStrategy, DDPStrategy):
        raise ConfigError(
            f"SophiaHessian: trainer.strategy: under {type(trainer.strategy).__name__} no rank has the whole gradient "
            "of a parameter to square. Type trainer.strategy=ddp, or take another optimizer"
        )


def check_whole_parameters(trainer: Trainer) -> None:
    """Whether the optimizer holds the model's parameters, and not pieces of which nobody knows whose they are.

    Raises:
        ConfigError: it does not.
    """
    # DeepSpeed's class needs DeepSpeed to be imported, so by name.
    name = type(trainer.strategy).__name__
    if isinstance(trainer.strategy, FSDPStrategy) or "DeepSpeedStrategy" in (
        c.__name__ for c in type(trainer.strategy).__mro__
    ):
        raise ConfigError(
            f"monitor: trainer.strategy: under {name} each rank's optimizer holds flat pieces of parameters, so norms "
            "would be of one rank's pieces. Type trainer.strategy=ddp, or for sharding take ModelParallelStrategy "
            "(FSDP2), or leave the monitor out"
        )


def rebuild_reducer(trainer: Trainer) -> None:
    """DDP averages the gradients of what was trainable when it was built: build it over what is trainable now."""
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy) and isinstance(strategy.model, DistributedDataParallel):
        strategy.model = strategy.model.module
        strategy.configure_ddp()
