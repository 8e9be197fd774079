"""Optimizers, param groups and staged unfreezing for PyTorch Lightning and Hydra, from config.

Everything public is imported from here, and lazily: `import lightning_optim` loads no torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import optim as optim
    from .build.factory import OptimizerFactory as OptimizerFactory
    from .callbacks.configure import configure_optimizers as configure_optimizers
    from .callbacks.eval_weights import EvalWeights as EvalWeights
    from .callbacks.hessian import SophiaHessian as SophiaHessian
    from .callbacks.monitor import OptimizerMonitor as OptimizerMonitor
    from .callbacks.override import OptimizerOverride as OptimizerOverride
    from .callbacks.rng import RNGState as RNGState
    from .callbacks.unfreeze import StagedUnfreeze as StagedUnfreeze
    from .catalog.registry import list_optimizers as list_optimizers
    from .catalog.registry import optimizer_info as optimizer_info
    from .catalog.registry import register_optimizer as register_optimizer
    from .core.errors import ConfigError as ConfigError
    from .optim.decay import WeightDecay as WeightDecay
    from .schedule.factory import SchedulerFactory as SchedulerFactory

    __version__: str

_MODULES = {
    "ConfigError": "core.errors",
    "EvalWeights": "callbacks.eval_weights",
    "OptimizerFactory": "build.factory",
    "OptimizerMonitor": "callbacks.monitor",
    "OptimizerOverride": "callbacks.override",
    "RNGState": "callbacks.rng",
    "SchedulerFactory": "schedule.factory",
    "SophiaHessian": "callbacks.hessian",
    "StagedUnfreeze": "callbacks.unfreeze",
    "WeightDecay": "optim.decay",
    "configure_optimizers": "callbacks.configure",
    "list_optimizers": "catalog.registry",
    "optim": "optim",
    "optimizer_info": "catalog.registry",
    "register_optimizer": "catalog.registry",
}

__all__ = [
    "ConfigError",
    "EvalWeights",
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
    value: Any
    if name == "__version__":
        value = import_module(".core.version", __name__).read_version()
    elif name in _MODULES:
        module = import_module(f".{_MODULES[name]}", __name__)
        value = module if name == _MODULES[name] else getattr(module, name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


if "torch" in sys.modules:
    # Checkpoints hold the two factories; torch.load(weights_only=True) must know them before they are first used.
    from .build.factory import OptimizerFactory
    from .schedule.factory import SchedulerFactory
