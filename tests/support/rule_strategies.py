"""Hypothesis strategies for models and for the rules of a config, valid and invalid."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn

from lightning_optim import OptimizerFactory

# Models


class Tree(nn.Module):
    """A module with children, and sometimes parameters of its own."""


LEAVES = {
    "linear": lambda: nn.Linear(2, 2),
    "no bias": lambda: nn.Linear(2, 2, bias=False),
    "norm": lambda: nn.LayerNorm(2),
    "batch norm": lambda: nn.BatchNorm1d(2),
    "embedding": lambda: nn.Embedding(2, 2),
    "conv": lambda: nn.Conv1d(2, 2, 1),
    "empty": nn.Tanh,
}
BARE = {"pos_embed": (1, 2, 2), "scale": (), "w": (2, 2), "gamma": (2,)}
TOP_NAMES = ("backbone", "head", "head2", "enc", "layer1", "layer2", "layer10", "embed", "norm")
INNER_NAMES = ("layer", "fc", "norm1", "embed", "layer3", "head", "k")


@st.composite
def subtrees(draw, depth):
    shape = draw(st.sampled_from(["leaf", "list", "tree", "bare", "encoder", "encoder"])) if depth else "leaf"
    if shape == "leaf":
        return LEAVES[draw(st.sampled_from(list(LEAVES)))]()
    if shape == "list":
        if draw(st.integers(0, 9)) == 0:
            return nn.ModuleList([draw(subtrees(0))] * 3)
        layers = [draw(subtrees(depth - 1)) for _ in range(draw(st.integers(1, 3)))]
        if draw(st.booleans()):
            return nn.ModuleList(layers)
        numbers = draw(st.lists(st.integers(0, 12), min_size=len(layers), max_size=len(layers), unique=True))
        return nn.ModuleDict({str(number): layer for number, layer in zip(numbers, layers, strict=True)})
    tree = Tree()
    if shape == "encoder":
        tree.embed = nn.Embedding(2, 2)
        tree.layer = nn.ModuleList([draw(subtrees(0)) for _ in range(draw(st.integers(1, 3)))])
        tree.norm = nn.LayerNorm(2)
        return tree
    if shape == "bare":
        for name in draw(st.lists(st.sampled_from(list(BARE)), min_size=1, max_size=2, unique=True)):
            tree.register_parameter(name, nn.Parameter(torch.zeros(BARE[name])))
    for name in draw(st.lists(st.sampled_from(INNER_NAMES), max_size=3, unique=True)):
        tree.add_module(name, draw(subtrees(depth - 1)))
    return tree


@st.composite
def models(draw):
    root = Tree()
    for name in draw(st.lists(st.sampled_from(TOP_NAMES), min_size=1, max_size=4, unique=True)):
        root.add_module(name, draw(subtrees(2)))
    root.add_module("last", nn.Linear(2, 2))
    matrices = [module for module in root.modules() if isinstance(module, (nn.Linear, nn.Embedding))]
    if draw(st.integers(0, 2)) == 0:
        first, second = draw(st.sampled_from(matrices)), draw(st.sampled_from(matrices))
        second.weight = first.weight
    for parameter in root.parameters():
        parameter.requires_grad_(draw(st.integers(0, 5)) > 0)
    return root


def names_with_duplicates(model):
    return [name for name, _ in model.named_parameters(remove_duplicate=False)]


# Rules

CLASSES = {
    "Linear": nn.Linear,
    "torch.nn.LayerNorm": nn.LayerNorm,
    "torch.nn.modules.conv.Conv1d": nn.Conv1d,
    "Embedding": nn.Embedding,
    "_NormBase": nn.modules.batchnorm._NormBase,
    "Tree": Tree,
    "Module": nn.Module,
    "Linaer": (),
    "mine.Linear": (),
}
KINDS = ("bias", "norm", "embedding", "matrix", "vector")
NAMES = ("a", "b", "no_decay", "Depth", "x-1", "_y")
LABELS = ("d", "e", "Nd", "n2", "z-0", "_z", "w", "a")
TOPS = {
    "adam": {"lr": 0.5, "weight_decay": 0.25, "betas": (0.8, 0.9)},
    "sgd": {"lr": 0.5, "weight_decay": 0.25, "momentum": 0.5},
    "lion": {"lr": 0.5, "weight_decay": 0.25, "betas": (0.8, 0.9)},
    "rprop": {"lr": 0.5},
}
DEFAULTS = {
    "adam": {"lr": 1e-3, "weight_decay": 0.0, "betas": (0.9, 0.999)},
    "sgd": {"lr": 1e-3, "weight_decay": 0.0, "momentum": 0.0},
    "lion": {"lr": 1e-4, "weight_decay": 0.0, "betas": (0.9, 0.99)},
    "rprop": {"lr": 1e-2},
}
# Scales are powers of two: products are exact in any order.
EFFECTS = {
    "lr": (0.5, 0.125, 0.0),
    "weight_decay": (0.25, 0, 0.0),
    "betas": ([0.5, 0.75], (0.5, 0.75), [0.25, 0.5]),
    "momentum": (0.5, 0.75),
    "lr_scale": (0.5, 0.25, 2, 0),
    "weight_decay_scale": (0.5, 4.0),
    "layer_decay": (0.5, 0.25, 1),
    "frozen": (True, False),
    "optimizer": ("lion", "lion", "adam", "adam", "sgd", "rprop"),
    "schedule": ("constant", {"name": "constant"}, {"warmup_steps": 5}),
}
COMMON = ("lr", "weight_decay", "lr_scale", "layer_decay", "frozen", "optimizer", "schedule")


def one_or_several(strategy, max_size=2):
    return st.one_of(strategy, st.lists(strategy, min_size=1, max_size=max_size))


@st.composite
def patterns(draw, model):
    name = draw(st.sampled_from(names_with_duplicates(model)))
    parts = name.split(".")
    return draw(
        st.sampled_from(
            [
                "*",
                parts[0],
                f"*{parts[-1]}",
                name,
                ".".join(parts[:2]),
                f"{parts[0]}*",
                f"?{name[1:]}",
                f"re:.*{parts[-1]}",
                "haed",
                "head",
                "*.junk",
            ]
        )
    )


@st.composite
def layer_globs(draw, model):
    numbered = [
        re.sub(r"\d+$", "{i}", path) for path, _ in model.named_modules(remove_duplicate=False) if path[-1:].isdigit()
    ]
    return draw(st.sampled_from([*dict.fromkeys(numbered), "*.{i}", "layer{i}", "junk.{i}"]))


@st.composite
def rule_configs(draw, model):
    rule = {}
    for selector in draw(
        st.lists(st.sampled_from(["params", "params", "classes", "kinds", "layers", "layers"]), min_size=1, max_size=2)
    ):
        rule[selector] = draw(
            one_or_several(
                {
                    "params": patterns(model),
                    "classes": st.sampled_from(list(CLASSES)),
                    "kinds": st.sampled_from(KINDS),
                    "layers": layer_globs(model),
                }[selector]
            )
        )
    fields = st.sampled_from(list(EFFECTS) if draw(st.integers(0, 5)) == 0 else COMMON)
    for effect in draw(st.lists(fields, min_size=0 if "layers" in rule else 1, max_size=4)):
        if effect != "layer_decay" or "layers" in rule or draw(st.integers(0, 9)) == 0:
            rule[effect] = draw(st.sampled_from(EFFECTS[effect]))
    if "layers" in rule and draw(st.booleans()):
        rule["layer_decay"] = draw(st.sampled_from(EFFECTS["layer_decay"]))
    if "layer_decay" in rule and draw(st.booleans()):
        rule["stem"] = draw(st.one_of(one_or_several(patterns(model)), st.just([])))
    if draw(st.booleans()):
        rule["priority"] = draw(st.integers(-1, 1))
    if draw(st.integers(0, 7)) == 0:
        rule["name"] = draw(st.sampled_from(LABELS))
    if draw(st.integers(0, 9)):
        rule["allow_empty"] = True
    return rule


@dataclass
class Case:
    """A model, a top-level algorithm and rules; its repr is what a failure needs to show."""

    model: nn.Module
    top: str
    groups: Any

    def factory(self, groups=None):
        return OptimizerFactory(self.top, **TOPS[self.top], groups=self.groups if groups is None else groups)

    def __repr__(self):
        return f"Case({names_with_duplicates(self.model)}, {self.top!r}, {self.groups!r})"


@st.composite
def cases(draw):
    model = draw(models())
    names = draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=4, unique=True))
    top = draw(st.sampled_from(["adam"] * 4 + ["sgd"] * 2 + ["lion"] * 2 + ["rprop"]))
    return Case(model, top, {name: draw(rule_configs(model)) for name in names})


# Cases with keys and values that may be invalid

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.just(10**400),
    st.floats(),
    st.sampled_from(
        ["", "head", "1/2", "1e-3", "constant", "muon", "lbfgs", "re:(", "re:a{99999999999}", "{i}", "*.[{i}]"]
    ),
    st.text(alphabet="ab()[]{}*+?\\|^$.,:-09i", max_size=6).map(lambda text: f"re:{text}"),
)
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.dictionaries(
        st.sampled_from(["name", "warmup_steps", "eta_min", "interval", "lr", "T_max"]), SCALARS, max_size=2
    ),
)
RULE_KEYS = (
    *("params", "classes", "kinds", "layers", "stem", "priority", "allow_empty", "name"),
    *EFFECTS,
    *("eps", "amsgrad", "maximize", "weight_decay_mode", "foreach", "fused", "nesterov"),
    *("lr_mult", "wieght_decay", "param", "optimiser", "", "a.b", 3, None, True),
)
RULE_NAMES = st.sampled_from([*NAMES, *NAMES, "all", "default", "a.b", "1st", "", "größe", "a/b", 7, None])


@st.composite
def possibly_invalid_cases(draw):
    case = draw(cases())
    for name in list(case.groups):
        for key in draw(st.lists(st.sampled_from(RULE_KEYS), max_size=2)):
            case.groups[name][key] = draw(VALUES)
    if draw(st.integers(0, 3)) == 0:
        case.groups[draw(RULE_NAMES)] = draw(st.one_of(VALUES, rule_configs(case.model)))
    if draw(st.integers(0, 30)) == 0:
        case.groups = draw(VALUES)
    return case
