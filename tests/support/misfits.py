"""Checkpoints that do not fit a config: of another model, or of another algorithm."""

from __future__ import annotations

from typing import Any

from tests.support.loading_runs import MUON

MODELS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "wider head": ({"head": 3}, ["head."]),
    "narrower head": ({"head": 1}, ["head."]),
    "a layer more": ({"more": True}, ["2 parameters", "neck.weight", "neck.bias"]),
    "a bias less": ({"less": True}, ["1 parameters", "backbone.4.bias"]),
}
"""By case: arguments of `OtherModel`, and what the refusal names."""

HEAD = {"params": "head"}
MATRICES = {"params": "backbone", "kinds": ["matrix"]}
OTHER_ALGORITHMS: dict[str, tuple[Any, Any, str]] = {
    "adam -> sgd": (("adam", {}), ("sgd", {}), "backbone.0.weight"),
    "adam -> sgd with momentum": (("adam", {}), ("sgd", {"momentum": 0.9}), "backbone.0.weight"),
    "sgd with momentum -> adam": (("sgd", {"momentum": 0.9}), ("adam", {}), "backbone.0.weight"),
    "adamw -> muon": (("adamw", {}), ("adamw", {"groups": MUON}), "backbone.0.weight"),
    "muon -> adamw": (("adamw", {"groups": MUON}), ("adamw", {}), "backbone.0.weight"),
    "muon -> lion": (
        ("adamw", {"groups": MUON}),
        ("adamw", {"groups": {"m": {**MATRICES, "optimizer": "lion"}}}),
        "backbone.0",
    ),
    "lion -> adam": (("lion", {}), ("adam", {}), "backbone.0.weight"),
    "lion -> own adam": (("lion", {}), ("adam", {"implementation": "own"}), "backbone.0.weight"),
    "own adam -> lion": (("adam", {"implementation": "own"}), ("lion", {}), "backbone.0.weight"),
    "adam -> adagrad": (("adam", {}), ("adagrad", {}), "backbone.0.weight"),
    "rmsprop -> adam": (("rmsprop", {}), ("adam", {}), "backbone.0.weight"),
    "adam -> adabelief": (("adam", {}), ("adabelief", {}), "backbone.0.weight"),
    "adam -> rprop": (("adam", {}), ("rprop", {}), "backbone.0.weight"),
    "adam -> asgd": (("adam", {}), ("asgd", {}), "backbone.0.weight"),
    "adam -> adamax": (("adam", {}), ("adamax", {}), "backbone.0.weight"),
    "adam -> adafactor": (("adam", {}), ("adafactor", {}), "backbone.0.weight"),
    "adafactor -> adam": (("adafactor", {}), ("adam", {}), "backbone.0.weight"),
    "muon -> sgd, whose buffer has the same name": (
        ("adamw", {"groups": MUON}),
        ("adamw", {"groups": {"m": {**MATRICES, "optimizer": "sgd", "momentum": 0.9}}}),
        "was saved by muon, and this run uses sgd for them",
    ),
    "own adamw -> lamb, whose buffers have the same names": (
        ("adamw", {"implementation": "own"}),
        ("lamb", {}),
        "backbone.0.weight",
    ),
    "amsgrad on": (("adam", {}), ("adam", {"amsgrad": True}), "backbone.0.weight"),
    "own amsgrad on": (
        ("adam", {"implementation": "own"}),
        ("adam", {"amsgrad": True, "implementation": "own"}),
        "backbone.0.weight",
    ),
    "amsgrad on in one rule": (
        ("adam", {}),
        ("adam", {"groups": {"h": {**HEAD, "amsgrad": True}}}),
        "head.weight",
    ),
    "centered on": (("rmsprop", {}), ("rmsprop", {"centered": True}), "backbone.0.weight"),
    "rmsprop's momentum on": (("rmsprop", {}), ("rmsprop", {"momentum": 0.9}), "backbone.0.weight"),
    "adabelief's amsgrad on": (("adabelief", {}), ("adabelief", {"amsgrad": True}), "backbone.0.weight"),
}
"""By case: what was saved, what loads it, and what the refusal names."""
