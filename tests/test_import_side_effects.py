"""Importing everything public changes nothing in the process that others can see, but two safe globals of torch."""

from __future__ import annotations

import json

import pytest

SNAPSHOT = """
import atexit, copyreg, gc, json, locale, logging, os, random, signal, sys, threading, warnings
import hydra, lightning.pytorch.cli, numpy, omegaconf, torch
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from lightning.fabric.strategies import STRATEGY_REGISTRY
from omegaconf.basecontainer import BaseContainer

Plugins.instance()

def names(values):
    return sorted(f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}" for value in values)

def all_below(cls):
    return [cls] + [found for direct in type.__subclasses__(cls) for found in all_below(direct)]

def hooks(module):
    return {name: repr(table) for name, table in vars(module).items() if "hook" in name and isinstance(table, dict)}

def snapshot():
    loggers = {"root": logging.root, **logging.root.manager.loggerDict}
    return {
        "modules": sorted(name for name in sys.modules if not name.startswith("lightning_optim")),
        "import system": [names(sys.meta_path), names(sys.path_hooks), sys.path],
        "interpreter hooks": names([sys.excepthook, sys.displayhook, sys.unraisablehook, threading.excepthook]),
        "interpreter settings": [sys.getrecursionlimit(), sys.getswitchinterval(), gc.isenabled(), gc.get_threshold()],
        "gc callbacks": names(gc.callbacks),
        "at exit": atexit._ncallbacks(),
        "pickle": names(copyreg.dispatch_table),
        "warnings filters": [repr(entry) for entry in warnings.filters],
        "warnings": [repr(warnings.showwarning), repr(warnings.formatwarning)],
        "loggers": {
            name: [logger.level, logger.propagate, logger.disabled, names(logger.handlers), names(logger.filters)]
            for name, logger in loggers.items()
            if isinstance(logger, logging.Logger) and not name.startswith("lightning_optim")
        },
        "signals": {number.name: repr(signal.getsignal(number)) for number in signal.valid_signals()
                    if isinstance(number, signal.Signals)},
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "locale": locale.setlocale(locale.LC_ALL),
        "random numbers": [hash(random.getstate()), repr(numpy.random.get_state()[1:]),
                           torch.random.get_rng_state().sum().item()],
        "numpy": repr(numpy.geterr()),
        "safe globals": names(torch.serialization.get_safe_globals()),
        "torch hooks": [hooks(torch.nn.modules.module), hooks(sys.modules["torch.optim.optimizer"])],
        "torch patches": names([torch.load, torch.save, torch.optim.Optimizer.step, torch.optim.Optimizer.__init__,
                                torch.optim.Optimizer.load_state_dict, torch.Tensor.backward]),
        "torch settings": [str(torch.get_default_dtype()), str(torch.get_default_device()), torch.is_grad_enabled(),
                           torch.is_anomaly_enabled(), torch.get_num_threads(), torch.get_float32_matmul_precision(),
                           torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark,
                           torch.is_warn_always_enabled()],
        "torch operators": len(torch._C._dispatch_get_all_op_names()),
        "torch pytrees": names(torch.utils._pytree.SUPPORTED_NODES),
        "torch distributions": torch.distributed.is_initialized(),
        "strategies": sorted(STRATEGY_REGISTRY.available_strategies()),
        "Hydra's singletons": names(Singleton._instances),
        "Hydra's ConfigStore": repr(sorted(ConfigStore.instance().repo)),
        "Hydra's plugins": names(Plugins.instance().discover()),
        "OmegaConf's resolvers": sorted(BaseContainer._resolvers),
        "optimizers": names(cls for cls in all_below(torch.optim.Optimizer)
                            if not cls.__module__.startswith("lightning_optim")),
    }

before = snapshot()
import lightning_optim
from lightning_optim import optim
for module in (lightning_optim, optim):
    for name in module.__all__:
        getattr(module, name)
after = snapshot()
print(json.dumps({key: [before[key], after[key]] for key in before}, default=str))
"""


@pytest.mark.slow
def test_importing_every_public_name_changes_two_safe_globals_and_nothing_else(run_python):
    compared = json.loads(run_python(SNAPSHOT).splitlines()[-1])
    before, after = compared.pop("safe globals")
    added = [name for name in after if name not in before]
    assert added == ["lightning_optim.OptimizerFactory", "lightning_optim.SchedulerFactory"]
    assert {key: pair for key, pair in compared.items() if pair[0] != pair[1]} == {}
    assert len(compared) >= 29


def test_the_package_alone_imports_only_the_standard_library(run_python):
    code = """
import sys
before = set(sys.modules)
import lightning_optim
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))
"""
    assert run_python(code).split() == ["lightning_optim"]
