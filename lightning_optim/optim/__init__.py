"""The native optimizers: their base class, and one class per algorithm.

Examples:
    >>> from torch import nn
    >>> optimizer = optim.Lion(nn.Linear(3, 2).parameters(), lr=1e-4, weight_decay=0.1, cautious_decay=True)
    >>> optimizer.param_groups[0]["weight_decay_mode"]
    'decoupled'
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Each class is imported when it is first used, so that a callback or another class does not load all of them.
_MODULES = {
    "ADOPT": "members.adopt",
    "AMSBound": "members.adabound",
    "AMSGrad": "members.adam",
    "AdEMAMix": "members.ademamix",
    "AdaBelief": "members.adabelief",
    "AdaBound": "members.adabound",
    "AdaBoundW": "members.adabound",
    "AdaMuon": "members.adamuon",
    "AdaMod": "members.adamod",
    "Adadelta": "members.adadelta",
    "Adagrad": "members.adagrad",
    "Adai": "members.adai",
    "Adam": "members.adam",
    "AdamMini": "members.adam_mini",
    "AdamP": "members.adamp",
    "AdamW": "members.adam",
    "Adamax": "members.adamax",
    "Adan": "members.adan",
    "AdaptiveOptimizer": "base",
    "DiffGrad": "members.diffgrad",
    "EFSGD": "members.ef_sgd",
    "ExtraAdam": "members.extra",
    "ExtraSGD": "members.extra",
    "LAMB": "members.lamb",
    "LARS": "members.lars",
    "LaProp": "members.laprop",
    "Lion": "members.lion",
    "MADGRAD": "members.madgrad",
    "MARS": "members.mars",
    "Muon": "members.muon",
    "NAdam": "members.nadam",
    "NAdamW": "members.nadam",
    "NorMuon": "members.normuon",
    "NovoGrad": "members.novograd",
    "OMD": "members.omd",
    "OptimisticAdam": "members.optimistic_adam",
    "Padam": "members.padam",
    "Prodigy": "members.prodigy",
    "QHAdam": "members.qhadam",
    "RAdam": "members.radam",
    "RMSprop": "members.rmsprop",
    "SGD": "members.sgd",
    "SOAP": "members.soap",
    "STORM": "members.storm",
    "Shampoo": "members.shampoo",
    "Signum": "members.signum",
    "SophiaG": "members.sophia_g",
    "StableAdamW": "members.stable_adamw",
    "Update": "update",
    "WeightDecay": "decay",
    "Yogi": "members.yogi",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
