"""The arm `rules`: the time to resolve a config's param-group rules over a large model.

The model is a transformer on the `meta` device. The rules have ten forms in equal shares, which use every kind of
selector and overlap: each rule matches something, and no two rules conflict.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from lightning_optim import OptimizerFactory

from .arm import Arm
from .measure import Case, Timing, exponent


@dataclass(frozen=True, order=True)
class Size:
    """The number of parameter tensors and of rules."""

    parameters: int
    rules: int

    def __str__(self) -> str:
        return f"{self.parameters:,} × {self.rules}"


HEADLINE = Size(10_000, 50)
SIZES = (HEADLINE, Size(5_000, 50), Size(2_500, 50), Size(10_000, 25), Size(10_000, 12))
REFERENCE = f"hand-written {HEADLINE}"

# In place of one of the rules: a group for each layer and combination of rules, thousands of them.
AUTO_LAYERS = {"layers": "auto", "layer_decay": 0.9}

_TENSORS_PER_LAYER, _TENSORS_OUTSIDE_LAYERS = 16, 8
_WIDTH = 8  # any value: nothing is computed

# The values of the placeholders change in each pass through the forms, so that no two of 50 rules are the same.
_PARTS = ("query", "key", "value", "intermediate", "output")
_CLASSES = ("Linear", "LayerNorm", "Embedding", "torch.nn.Linear", "torch.nn.modules.normalization.LayerNorm")
_KINDS = ("bias", "norm", "embedding", "matrix", "vector")
_FORMS: Mapping[str, Mapping[str, Any]] = {
    "layer": {"params": "backbone.encoder.layer.{depth}", "lr_scale": 0.9},
    "no_decay": {"params": "*.{part}.*", "kinds": ["bias", "norm"], "weight_decay": 0.0},
    "attention": {"params": "*.layer.{depth}.attention.*", "lr_scale": 0.5},
    "of_class": {"classes": "{cls}", "lr_scale": 0.8},
    "two_layers": {"params": r"re:backbone\.encoder\.layer\.({before}|{depth})\..*weight", "weight_decay_scale": 0.5},
    "of_kind": {"kinds": "{kind}", "lr_scale": 2.0},
    "part": {"params": "*.{part}.weight", "weight_decay_scale": 0.9},
    "norms": {"params": "*.layer.{depth}.*", "classes": ["LayerNorm"], "weight_decay": 0.0},
    "ends": {"params": ["head", "backbone.embeddings", "backbone.encoder.layer.{depth}.output"], "lr_scale": 3.0},
    "biases": {"params": r"re:.*\.layer\.{depth}\..*", "kinds": ["bias"], "weight_decay": 0.0},
}


def transformer(num_parameters: int) -> nn.Module:
    """A model with exactly this many parameter tensors, named as in a transformer; they take no memory."""
    num_layers = num_layers_of(num_parameters)
    num_prompts = num_parameters - _TENSORS_OUTSIDE_LAYERS - _TENSORS_PER_LAYER * num_layers
    with torch.device("meta"):
        embeddings = nn.ModuleDict({"word": _embedding(), "position": _embedding(), "norm": _norm()})
        # Prompt tables fill up the number.
        embeddings["prompt"] = nn.ModuleList(_embedding() for _ in range(num_prompts))
        encoder = nn.ModuleDict({"layer": nn.ModuleList(_layer() for _ in range(num_layers))})
        backbone = nn.ModuleDict({"embeddings": embeddings, "encoder": encoder})
        head = nn.ModuleDict({"dense": _linear(), "classifier": _linear()})
        return nn.ModuleDict({"backbone": backbone, "head": head})


def num_layers_of(num_parameters: int) -> int:
    """The number of layers in a model with this many parameter tensors."""
    num_layers = (num_parameters - _TENSORS_OUTSIDE_LAYERS) // _TENSORS_PER_LAYER
    if num_layers < 1:
        raise ValueError(
            f"{num_parameters} parameters are no model: at least {_TENSORS_OUTSIDE_LAYERS + _TENSORS_PER_LAYER} are"
        )
    return num_layers


def rules_for(size: Size) -> dict[str, dict[str, Any]]:
    """The `groups` of a config for the model of this size: the forms in turn, at depths spread over the layers."""
    groups = {}
    for index, depth in enumerate(_depths(size)):
        turn, form_index = divmod(index, len(_FORMS))
        name, rule = list(_FORMS.items())[form_index]
        placeholders = {
            "depth": depth,
            "before": max(depth - 1, 0),
            "part": _PARTS[turn % len(_PARTS)],
            "cls": _CLASSES[turn % len(_CLASSES)],
            "kind": _KINDS[turn % len(_KINDS)],
        }
        groups[f"{name}_{turn}"] = {key: _fill(value, placeholders) for key, value in rule.items()}
    return groups


def first_match(module: nn.Module, patterns: Sequence[str]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The usual hand-written loop: the parameters whose name some regex is found in, and the others."""
    matched: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        for pattern in patterns:
            if re.search(pattern, name):
                matched.append(parameter)
                break
        else:
            others.append(parameter)
    return matched, others


def patterns_for(size: Size) -> list[str]:
    """As many regexes for `first_match`, one layer each, so that most names are tried with all of them."""
    return [rf"encoder\.layer\.{depth}\." for depth in _depths(size)]


def make_cases(sizes: Sequence[Size], reference: Size) -> list[Case]:
    """A case for each size, and the hand-written loop at the reference size."""
    models = {number: transformer(number) for number in sorted({size.parameters for size in (*sizes, reference)})}
    hand_written = partial(first_match, models[reference.parameters], patterns_for(reference))
    with_layers = dict(list(rules_for(reference).items())[:-1]) | {"depth": AUTO_LAYERS}
    return [
        Case(name=f"{reference}, auto layers", run=_build_planner(models[reference.parameters], with_layers)),
        *(Case(name=str(size), run=_build_planner(models[size.parameters], rules_for(size))) for size in sizes),
        Case(name=f"hand-written {reference}", run=hand_written),
    ]


def exponents(timings: Mapping[str, Timing]) -> dict[str, float]:
    """How the time grows with the parameters at the most rules, and with the rules at the most parameters."""
    by_parameters = sorted(size for size in SIZES if size.rules == HEADLINE.rules)
    by_rules = sorted(size for size in SIZES if size.parameters == HEADLINE.parameters)
    return {
        f"exponent in the number of parameters, at {HEADLINE.rules} rules": exponent(
            [size.parameters for size in by_parameters], [timings[str(size)].median_ms for size in by_parameters]
        ),
        f"exponent in the number of rules, at {HEADLINE.parameters:,} parameters": exponent(
            [size.rules for size in by_rules], [timings[str(size)].median_ms for size in by_rules]
        ),
    }


def _build_planner(module: nn.Module, groups: dict[str, dict[str, Any]]) -> Callable[[], object]:
    return partial(OptimizerFactory("adamw", lr=1e-3, groups=groups).plan, module)


def _depths(size: Size) -> list[int]:
    num_layers = num_layers_of(size.parameters)
    return [index * num_layers // size.rules for index in range(size.rules)]


def _fill(value: Any, placeholders: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_fill(item, placeholders) for item in value]
    return value.format(**placeholders) if isinstance(value, str) else value


def _layer() -> nn.Module:
    names = ("query", "key", "value", "output")
    attention = nn.ModuleDict({**{name: _linear() for name in names}, "norm": _norm()})
    return nn.ModuleDict({"attention": attention, "intermediate": _linear(), "output": _linear(), "norm": _norm()})


def _linear() -> nn.Module:
    return nn.Linear(_WIDTH, _WIDTH)


def _norm() -> nn.Module:
    return nn.LayerNorm(_WIDTH)


def _embedding() -> nn.Module:
    return nn.Embedding(_WIDTH, _WIDTH)


RULES = Arm(
    title="Resolving param-group rules (parameters × rules)",
    make_cases=lambda device: make_cases(SIZES, HEADLINE),
    reference=REFERENCE,
    uses_device=False,
    findings=exponents,
)
