"""Which Lightning strategies each callback supports, and DDP's reducer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy
from torch.distributed import ProcessGroup
from torch.nn.parallel import DistributedDataParallel

from ..core.errors import ConfigError
from .lightning_internals import ddp_comm_state, wrap_in_ddp_again

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_REASONS = {
    "DeepSpeedStrategy": "DeepSpeed flattens the optimizer's parameters at the start, so no group can join later",
    "FSDPStrategy": "FSDP1 flattens parameters into one tensor, whose parts cannot be frozen separately",
}


def check_strategy_for_factory(trainer: Trainer) -> None:
    """Raises a ConfigError if the optimizer would not step the parameters that it is built over."""
    if _is_a(trainer.strategy, "DeepSpeedStrategy"):
        raise ConfigError(
            f"trainer.strategy: {type(trainer.strategy).__name__}: DeepSpeed replaces the optimizer's parameters by "
            "flattened pieces, under which rules, algorithms and checkpoints by name have not been tested. Type "
            "trainer.strategy=ddp, or for sharding use ModelParallelStrategy (FSDP2)"
        )


def check_strategy_for_stages(trainer: Trainer) -> None:
    """Raises a ConfigError if StagedUnfreeze is not exact under the trainer's strategy."""
    strategy = trainer.strategy
    # By exact type: sharding strategies are subclasses of these, DeepSpeed's of DDPStrategy.
    if type(strategy) not in (SingleDeviceStrategy, DDPStrategy, ModelParallelStrategy):
        reason = next((reason for name, reason in _REASONS.items() if _is_a(strategy, name)), "")
        raise ConfigError(
            f"trainer.strategy: {type(strategy).__name__}: {reason or 'StagedUnfreeze has not been tested with it'}. "
            "Type trainer.strategy=ddp, or for sharding use ModelParallelStrategy (FSDP2), or train without stages: "
            "unfreeze=none"
        )
    state = ddp_comm_state(strategy) if isinstance(strategy, DDPStrategy) else None
    if state is not None and not isinstance(state, ProcessGroup):
        raise ConfigError(
            f"trainer.strategy: ddp_comm_state is a {type(state).__name__}, which belongs to the buckets of gradients "
            "of a DDP wrapper, and each thaw makes other buckets. Type ddp_comm_hook=fp16_compress_hook, which has no "
            "state, or train without stages: unfreeze=none"
        )


def check_strategy_for_eval_weights(trainer: Trainer) -> None:
    """Raises a ConfigError if EvalWeights is not exact under the trainer's strategy."""
    strategy = trainer.strategy
    if type(strategy) not in (SingleDeviceStrategy, DDPStrategy, ModelParallelStrategy):
        raise ConfigError(
            f"trainer.strategy: {type(strategy).__name__}: EvalWeights has not been tested with it. Type "
            "trainer.strategy=ddp, or for sharding use ModelParallelStrategy (FSDP2), or type schedule_free: null and "
            "remove EvalWeights"
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
    if any(_is_a(trainer.strategy, name) for name in _REASONS):
        raise ConfigError(
            f"monitor: trainer.strategy: under {type(trainer.strategy).__name__} each rank's optimizer holds flattened "
            "pieces of parameters, so norms would be those of one rank's pieces. Type trainer.strategy=ddp, or for "
            "sharding use ModelParallelStrategy (FSDP2), or remove the monitor"
        )


def rebuild_ddp_reducer(trainer: Trainer) -> None:
    """Build DDP's reducer again: it averages the gradients of the parameters that were trainable when it was built."""
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy) and isinstance(strategy.model, DistributedDataParallel):
        wrap_in_ddp_again(strategy)


def _is_a(strategy: object, name: str) -> bool:
    """Whether a strategy is of a class of this name. DeepSpeed's can be used only where DeepSpeed is installed."""
    return any(cls.__name__ == name for cls in type(strategy).__mro__)
