"""Optimizers, param groups and staged unfreezing for PyTorch Lightning and Hydra, from config.

Everything public is imported from here, and lazily: `import lightning_optim` loads no torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import optim as optim
    from .callbacks.monitor import OptimizerMonitor as OptimizerMonitor
    from .callbacks.override import OptimizerOverride as OptimizerOverride
    from .callbacks.rng import RNGState as RNGState
    from .callbacks.sophia import SophiaHessian as SophiaHessian
    from .callbacks.unfreeze import StagedUnfreeze as StagedUnfreeze
    from .configure import configure_optimizers as configure_optimizers
    from .errors import ConfigError as ConfigError
    from .factory import OptimizerFactory as OptimizerFactory
    from .optim.decay import WeightDecay as WeightDecay
    from .registry import list_optimizers as list_optimizers
    from .registry import optimizer_info as optimizer_info
    from .registry import register_optimizer as register_optimizer
    from .schedule.factory import SchedulerFactory as SchedulerFactory

_HOME = {
    "ConfigError": "errors",
    "OptimizerFactory": "factory",
    "OptimizerMonitor": "callbacks.monitor",
    "OptimizerOverride": "callbacks.override",
    "RNGState": "callbacks.rng",
    "SchedulerFactory": "schedule.factory",
    "SophiaHessian": "callbacks.sophia",
    "StagedUnfreeze": "callbacks.unfreeze",
    "WeightDecay": "optim.decay",
    "configure_optimizers": "configure",
    "list_optimizers": "registry",
    "optim": "optim",
    "optimizer_info": "registry",
    "register_optimizer": "registry",
}

__all__ = [
    "ConfigError",
    "OptimizerFactory",
    "OptimizerMonitor",
    "OptimizerOverride",
    "RNGState",
    "SchedulerFactory",
    "SophiaHessian",
    "StagedUnfreeze",
    "WeightDecay",
    "configure_optimizers",
    "list_optimizers",
    "optim",
    "optimizer_info",
    "register_optimizer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f".{_HOME[name]}", __name__)
    value = home if name == _HOME[name] else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


if "torch" in sys.modules:
    # Checkpoints hold the two factories; torch.load(weights_only=True) must know them before they are first used.
    from .factory import OptimizerFactory
    from .schedule.factory import SchedulerFactory
