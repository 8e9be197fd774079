"""The optimizers that torch, this package or both have a class for, and configs that only ours supports."""

from __future__ import annotations

import pytest

from lightning_optim import OptimizerFactory, optimizer_info
from tests.support.cases import every

TORCH_CLASSES = {
    "adadelta": "Adadelta",
    "adafactor": "Adafactor",
    "adagrad": "Adagrad",
    "adam": "Adam",
    "adamax": "Adamax",
    "adamw": "AdamW",
    "asgd": "ASGD",
    "lbfgs": "LBFGS",
    "muon": "Muon",
    "nadam": "NAdam",
    "radam": "RAdam",
    "rmsprop": "RMSprop",
    "rprop": "Rprop",
    "sgd": "SGD",
    "sparse_adam": "SparseAdam",
}
OWN_CLASSES = {
    "adabelief": "AdaBelief",
    "adabound": "AdaBound",
    "adaboundw": "AdaBoundW",
    "adadelta": "Adadelta",
    "adagrad": "Adagrad",
    "adai": "Adai",
    "adam": "Adam",
    "adam_mini": "AdamMini",
    "adamax": "Adamax",
    "adamod": "AdaMod",
    "adamp": "AdamP",
    "adamuon": "AdaMuon",
    "adamw": "AdamW",
    "adan": "Adan",
    "ademamix": "AdEMAMix",
    "adopt": "ADOPT",
    "amsbound": "AMSBound",
    "amsgrad": "AMSGrad",
    "diffgrad": "DiffGrad",
    "ef_sgd": "EFSGD",
    "extra_adam": "ExtraAdam",
    "extra_sgd": "ExtraSGD",
    "lamb": "LAMB",
    "laprop": "LaProp",
    "lars": "LARS",
    "lion": "Lion",
    "madgrad": "MADGRAD",
    "mars": "MARS",
    "muon": "Muon",
    "nadam": "NAdam",
    "nadamw": "NAdamW",
    "normuon": "NorMuon",
    "novograd": "NovoGrad",
    "omd": "OMD",
    "optimistic_adam": "OptimisticAdam",
    "padam": "Padam",
    "prodigy": "Prodigy",
    "qhadam": "QHAdam",
    "radam": "RAdam",
    "rmsprop": "RMSprop",
    "sgd": "SGD",
    "shampoo": "Shampoo",
    "signum": "Signum",
    "soap": "SOAP",
    "sophia_g": "SophiaG",
    "stable_adamw": "StableAdamW",
    "storm": "STORM",
    "yogi": "Yogi",
}
TORCH_AND_NATIVE = sorted(TORCH_CLASSES.keys() & OWN_CLASSES.keys() - {"muon"})
"""Not Muon, whose torch class has no foreach: see tests/optim/test_matrices.py."""
BY_FLAG = [name for name in TORCH_AND_NATIVE if "decoupled_weight_decay" in optimizer_info(name).hyperparameters]

ABSOLUTE = {"weight_decay_mode": "absolute"}
TOP = {"lr": 0.05, "weight_decay": 0.1}
HEAD = {"head": {"params": "head", "lr_scale": 0.5, "weight_decay": 0.3}}
# Every option that both classes have.
VARIANTS = [
    *((name, {}) for name in TORCH_AND_NATIVE),
    *((name, {"maximize": True}) for name in TORCH_AND_NATIVE),
    *((name, {"weight_decay_mode": mode}) for name in BY_FLAG for mode in ("l2", "decoupled")),
    *((name, {"decoupled_weight_decay": True}) for name in BY_FLAG),
    ("adadelta", {"rho": 0.5}),
    ("adagrad", {"initial_accumulator_value": 0.5, "lr_decay": 0.1}),
    ("adam", {"amsgrad": True, "betas": [0.9, 0.8]}),
    ("adamw", {"amsgrad": True, "betas": [0.9, 0.8]}),
    ("nadam", {"momentum_decay": 0.5}),
    ("radam", {"betas": [0.8, 0.8]}),
    ("rmsprop", {"momentum": 0.9}),
    ("rmsprop", {"centered": True}),
    ("rmsprop", {"momentum": 0.9, "centered": True}),
]
# What only our class can do.
OWN_ONLY = [
    *(
        (name, {"weight_decay_mode": mode})
        for name in TORCH_AND_NATIVE
        for mode in ("l1", "absolute", "relative", "corrected")
    ),
    *((name, {"weight_decay_mode": "decoupled"}) for name in TORCH_AND_NATIVE if name not in ("adamw", *BY_FLAG)),
    ("adamw", {"weight_decay_mode": "l2"}),
    ("adamw", {"cautious_decay": True}),
    *((name, {"cautious_decay": True, "weight_decay_mode": "decoupled"}) for name in TORCH_AND_NATIVE),
    *((name, {"cautious_decay": True, "decoupled_weight_decay": True}) for name in BY_FLAG),
    ("adam", {"optimized_update": True}),
    ("adamw", {"optimized_update": True}),
    ("radam", {"optimized_update": False}),
    ("radam", {"degenerate_to_sgd": False}),
    ("radam", {"amsgrad": True}),
]


def case_id(case):
    name, given = case
    return " ".join([name, *(f"{key}={value}" for key, value in given.items())])


FAST_VARIANTS = ["adam", "adamw", "adam weight_decay_mode=decoupled", "rmsprop momentum=0.9 centered=True"]
FAST_VARIANTS += [
    "adagrad initial_accumulator_value=0.5 lr_decay=0.1",
    "nadam momentum_decay=0.5",
    "radam maximize=True",
]
FAST_OWN_ONLY = ["adam weight_decay_mode=l1", "adagrad weight_decay_mode=decoupled", "adamw weight_decay_mode=l2"]
FAST_OWN_ONLY += ["adamw cautious_decay=True", "nadam cautious_decay=True decoupled_weight_decay=True"]
FAST_OWN_ONLY += ["adam optimized_update=True", "radam degenerate_to_sgd=False", "radam amsgrad=True"]
variants = pytest.mark.parametrize(("name", "given"), every(VARIANTS, fast=FAST_VARIANTS, id=case_id))
own_only = pytest.mark.parametrize(("name", "given"), every(OWN_ONLY, fast=FAST_OWN_ONLY, id=case_id))
directions = pytest.mark.parametrize(
    ("first", "then"), [("own", "torch"), ("torch", "own")], ids=["own to torch", "torch to own"]
)
flag_names = pytest.mark.parametrize("name", every(BY_FLAG, fast=["adam"]))


def factory_of(name, implementation, **given):
    """A factory whose class computes bit by bit what the other one does: torch's loop, not its foreach."""
    return OptimizerFactory(name, implementation=implementation, foreach=False, **{**TOP, "groups": HEAD, **given})


def for_head(given):
    return {"groups": {"head": {"params": "head", **given}}}
