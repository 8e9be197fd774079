"""Whatever the model and the rules: a plan that a naive reading of the rules agrees with, or a ConfigError by key."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase

import pytest
import torch
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory
from lightning_optim.optim import Lion

pytest.importorskip("hypothesis", reason="hypothesis is not there")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*requires_grad=False:UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of the regular expressions that are drawn
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

LEGAL = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
KEY = re.compile(r"groups(\.[^:]*)?: .+", re.DOTALL)


def examples(count):
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


# Models


class Tree(nn.Module):
    """A module with children, and now and then parameters of its own."""


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


def uses_of(model):
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
# Scales are powers of two: products are exact, in whatever order they are taken.
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


def some(strategy, most=2):
    return st.one_of(strategy, st.lists(strategy, min_size=1, max_size=most))


@st.composite
def patterns(draw, model):
    name = draw(st.sampled_from(uses_of(model)))
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
def a_rule(draw, model):
    rule = {}
    for selector in draw(
        st.lists(st.sampled_from(["params", "params", "classes", "kinds", "layers", "layers"]), min_size=1, max_size=2)
    ):
        rule[selector] = draw(
            some(
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
        rule["stem"] = draw(st.one_of(some(patterns(model)), st.just([])))
    if draw(st.booleans()):
        rule["priority"] = draw(st.integers(-1, 1))
    if draw(st.integers(0, 9)):
        rule["allow_empty"] = True
    return rule


@dataclass
class Case:
    """A model, an algorithm and rules; prints as what one needs to see of a failure."""

    model: nn.Module
    top: str
    groups: dict

    def factory(self, groups=None):
        return OptimizerFactory(self.top, **TOPS[self.top], groups=self.groups if groups is None else groups)

    def __repr__(self):
        return f"Case({uses_of(self.model)}, {self.top!r}, {self.groups!r})"


@st.composite
def cases(draw):
    model = draw(models())
    names = draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=4, unique=True))
    top = draw(st.sampled_from(["adam"] * 4 + ["sgd"] * 2 + ["lion"] * 2 + ["rprop"]))
    return Case(model, top, {name: draw(a_rule(model)) for name in names})


# A naive reading of the rules: parameter by parameter, by name and isinstance, with nothing of the package


class Refused(Exception):
    """The rules say what cannot be done."""


def format_names(value):
    return [value] if isinstance(value, str) else list(value)


class Reading:
    """What the rules make of each parameter of a case."""

    def __init__(self, case):
        self.model, self.top, self.rules = case.model, case.top, case.groups
        modules = dict(case.model.named_modules(remove_duplicate=False))
        self.uses = [
            (name, parameter, modules[name.rpartition(".")[0]])
            for name, parameter in case.model.named_parameters(remove_duplicate=False)
        ]
        self.check_rules()
        matched = {name: self.matched_by(rule) for name, rule in self.rules.items()}
        self.held = {}
        self.frozen = []
        for name, parameter in case.model.named_parameters():
            by = {rule: matched[rule][parameter] for rule in sorted(self.rules) if parameter in matched[rule]}
            found = self.composed(by)
            if found is None:
                self.frozen.append(name)
            else:
                segments = [rule if layer is None else f"{rule}.{layer[0]}" for rule, layer in by.items()]
                self.held[name] = (".".join(segments) or "default", *found)
        if not self.held:
            raise Refused("all frozen")

    def check_rules(self):
        algorithms = {self.top, *(rule["optimizer"] for rule in self.rules.values() if "optimizer" in rule)}
        for rule in self.rules.values():
            effects = set(rule) & set(EFFECTS)
            if not effects and "layers" not in rule:
                raise Refused("says nothing")
            if "layer_decay" in effects and "layers" not in rule:
                raise Refused("no layers")
            taking = {rule["optimizer"]} if "optimizer" in rule else algorithms
            for effect in effects:
                needed = {"weight_decay_scale": "weight_decay"}.get(effect, effect)
                if needed in ("weight_decay", "betas", "momentum") and not any(needed in DEFAULTS[a] for a in taking):
                    raise Refused("no algorithm has it")

    def is_named(self, name, patterns):
        return any(
            re.fullmatch(pattern[3:], name) is not None
            if pattern.startswith("re:")
            else fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
            for pattern in format_names(patterns)
        )

    def has_kind(self, name, parameter, owner, kind):
        leaf = name.rpartition(".")[2]
        norm = isinstance(owner, (nn.LayerNorm, nn.BatchNorm1d))
        embedding = isinstance(owner, nn.Embedding) or (leaf == "pos_embed" and isinstance(owner, Tree))
        return {
            "bias": leaf == "bias",
            "norm": norm,
            "embedding": embedding,
            "matrix": parameter.ndim >= 2 and not norm and not embedding,
            "vector": parameter.ndim <= 1,
        }[kind]

    def layer_of(self, name, globs):
        """The number of the one module above it that is a layer; None where there is none."""
        path, numbers = name.split(".")[:-1], []
        for end in range(1, len(path) + 1):
            for glob in format_names(globs):
                pattern = re.escape(glob).replace(r"\*", ".*").replace(r"\{i\}", r"(\d+)")
                if match := re.fullmatch(pattern, ".".join(path[:end])):
                    numbers.append(int(match[1]))
                    break
        if len(numbers) > 1:
            raise Refused("a layer inside a layer")
        return numbers[0] if numbers else None

    def matched_by(self, rule):
        """By parameter: `(label, depth)` of its layer, or None where the rule has no layers."""
        allowed = [use for use in self.uses if "params" not in rule or self.is_named(use[0], rule["params"])]
        classes = tuple(CLASSES[name] for name in format_names(rule.get("classes", ())) if CLASSES[name] != ())
        meant = [
            (name, parameter)
            for name, parameter, owner in allowed
            if ("classes" not in rule or isinstance(owner, classes))
            and (
                "kinds" not in rule
                or any(self.has_kind(name, parameter, owner, k) for k in format_names(rule["kinds"]))
            )
        ]
        if "layers" not in rule:
            found = {parameter: None for _, parameter in meant}
        else:
            found = self.by_layer(rule, [name for name, *_ in allowed], meant)
        if not found and "allow_empty" not in rule:
            raise Refused("matches nothing")
        if rule.get("stem") and "allow_empty" not in rule and not any(self.is_named(n, rule["stem"]) for n, _ in meant):
            raise Refused("no stem")
        return found

    def by_layer(self, rule, allowed, meant):
        numbers = {name: self.layer_of(name, rule["layers"]) for name in allowed}
        order = sorted({number for number in numbers.values() if number is not None}, reverse=True)
        found = {}
        for name, parameter in meant:
            if numbers[name] is not None and parameter not in found:
                found[parameter] = (str(numbers[name]), order.index(numbers[name]) + 1)
        if found and "layer_decay" in rule:
            for name, parameter in meant:
                if parameter not in found and self.in_stem(name, rule, numbers):
                    found[parameter] = ("stem", len(order) + 1)
        return found

    def in_stem(self, name, rule, numbers):
        if "stem" in rule:
            return self.is_named(name, rule["stem"])
        everything = [use[0] for use in self.uses]
        first = [n for n in everything if numbers.get(n) is not None and n.split(".")[0] == name.split(".")[0]]
        return bool(first) and everything.index(name) < everything.index(first[0])

    def said(self, field, rules):
        """What the rules of the highest priority say; None where no rule says anything."""
        setters = [self.rules[name] for name in rules if field in self.rules[name]]
        if not setters:
            return None
        most = max(rule.get("priority", 0) for rule in setters)
        values = [self.plain(field, rule[field]) for rule in setters if rule.get("priority", 0) == most]
        if any(value != values[0] for value in values):
            raise Refused("a conflict")
        return values[0]

    @staticmethod
    def plain(field, value):
        if field == "schedule" and isinstance(value, str):
            return {"name": value}
        return tuple(value) if isinstance(value, list) else value

    def composed(self, by):
        frozen, schedule, optimizer = (self.said(field, by) for field in ("frozen", "schedule", "optimizer"))
        algorithm = optimizer or self.top
        values = dict(DEFAULTS[algorithm] if optimizer else TOPS[self.top])
        # What is said in the words of an algorithm that gave way to another is void; scales are not.
        speaking = [name for name in by if self.rules[name].get("optimizer", algorithm) == algorithm]
        for field in ("lr", "weight_decay", "betas", "momentum"):
            value = self.said(field, speaking)
            if value is None:
                continue
            if field not in values:
                raise Refused("its algorithm lacks it")
            values[field] = value
        for name, layer in by.items():
            rule = self.rules[name]
            if "weight_decay_scale" in rule and "weight_decay" not in values:
                raise Refused("its algorithm lacks it")
            values["lr"] *= rule.get("lr_scale", 1)
            if "layer_decay" in rule:
                values["lr"] *= rule["layer_decay"] ** layer[1]
            if "weight_decay_scale" in rule:
                values["weight_decay"] *= rule["weight_decay_scale"]
        return None if frozen else (algorithm, values, schedule)


def planned(case):
    """The plan, or the error's message."""
    try:
        return case.factory().plan(case.model)
    except ConfigError as error:
        return str(error)


def read(case):
    """The naive reading, or why it refuses."""
    try:
        return Reading(case)
    except Refused as error:
        return str(error)


def built(case):
    """The optimizer, or the error's message."""
    try:
        return case.factory()(case.model)
    except ConfigError as error:
        return str(error)


def agrees(case, seen):
    """Whether the plan is what the naive reading says; counts what the case had in it."""
    plan, reading = planned(case), read(case)
    if isinstance(plan, str) or isinstance(reading, str):
        assert isinstance(plan, str) and isinstance(reading, str), (plan, reading)
        assert KEY.fullmatch(plan), plan
        seen[reading] += 1
        return
    found = {
        name: (
            group.name,
            group.algorithm,
            {key: group.hyperparameters[key] for key in TOPS[group.algorithm]},
            group.schedule,
        )
        for group in plan.groups
        for name in group.params
    }
    assert found == reading.held
    assert list(plan.frozen) == reading.frozen
    order = list(reading.held)
    assert [group.name for group in plan.groups] == list(dict.fromkeys(reading.held[name][0] for name in order))
    assert all(list(group.params) == sorted(group.params, key=order.index) for group in plan.groups)
    seen["planned"] += 1
    seen["several groups"] += len(plan.groups) > 1
    seen["several algorithms"] += len({group.algorithm for group in plan.groups}) > 1
    seen["frozen parameters"] += bool(plan.frozen)
    seen["stem"] += any("stem" in group.name.split(".") for group in plan.groups)
    seen["rules together"] += any(len(group.made_by) > 1 for group in plan.groups)


def test_a_plan_is_what_a_naive_reading_of_the_rules_makes():
    seen = Counter()

    @examples(200)
    @given(cases())
    def check(case):
        agrees(case, seen)

    check()
    wanted = ("several groups", "several algorithms", "frozen parameters", "stem", "rules together", "a conflict")
    assert seen["planned"] > 60, seen
    assert all(seen[what] > 3 for what in wanted), seen


ALL, LAST = {"params": "*"}, {"params": "last"}
RARE = {
    "words of an algorithm that gave way": {
        "a": {**ALL, "optimizer": "adam", "lr": 0.125},
        "b": {**LAST, "optimizer": "lion", "priority": 1},
    },
    "words of another algorithm that gave way": {
        "a": {**ALL, "optimizer": "sgd", "momentum": 0.75},
        "b": {**LAST, "optimizer": "lion", "priority": 1, "lr": 0.125},
    },
    "scales of an algorithm that gave way": {
        "a": {**ALL, "optimizer": "adam", "lr_scale": 0.5, "weight_decay_scale": 4.0, "weight_decay": 0.25},
        "b": {**LAST, "optimizer": "lion", "priority": 1, "weight_decay": 0.125},
    },
    "scale that the winner lacks": {
        "a": {**ALL, "optimizer": "adam", "weight_decay_scale": 0.5},
        "b": {**LAST, "optimizer": "rprop", "priority": 1},
    },
    "field that the winner lacks": {"a": {**ALL, "weight_decay": 0}, "b": {**LAST, "optimizer": "rprop"}},
    "the top's algorithm anew": {"a": {**LAST, "optimizer": "adam"}},
    "conflict below the winner": {
        "a": {**ALL, "lr": 0.5},
        "b": {**ALL, "lr": 0.125},
        "no_decay": {**ALL, "lr": 0.0, "priority": 1},
    },
    "conflict beside a lower one": {
        "a": {**ALL, "lr": 0.5},
        "b": {**LAST, "lr": 0.125},
        "no_decay": {**ALL, "lr": 0.0, "priority": -1},
    },
    "frozen, and one thawed": {"a": {**ALL, "frozen": True}, "b": {**LAST, "frozen": False, "priority": 1}},
    "frozen, in another algorithm": {"a": {**LAST, "frozen": True}, "b": {**LAST, "optimizer": "lion"}},
    "all frozen": {"a": {**ALL, "frozen": True}},
    "equal schedules": {"a": {**ALL, "schedule": "constant"}, "b": {**LAST, "schedule": {"name": "constant"}}},
    "two layer decays": {
        "a": {"layers": "enc.layer.{i}", "layer_decay": 0.5},
        "b": {"layers": "*.{i}", "layer_decay": 0.25, "stem": ["last", "enc.embed"], "lr": 0.125},
    },
    "a stem of one kind": {
        "a": {"layers": "enc.layer.{i}", "layer_decay": 0.5, "kinds": "embedding", "allow_empty": True}
    },
}


@pytest.mark.parametrize("groups", RARE.values(), ids=RARE)
def test_the_naive_reading_agrees_on_what_is_rarely_drawn(groups):
    model = Tree()
    model.enc = Tree()
    model.enc.embed = nn.Embedding(2, 2)
    model.enc.layer = nn.ModuleList([nn.Linear(2, 2), nn.LayerNorm(2)])
    model.last = nn.Linear(2, 2)
    agrees(Case(model, "adam", groups), Counter())


@examples(150)
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_the_rules_matters_in_nothing(case, random):
    order = list(case.groups)
    random.shuffle(order)
    first, second = planned(case), planned(Case(case.model, case.top, {name: case.groups[name] for name in order}))
    assert first == second
    # Of several mistakes in one rule, the first that stands there is told; a plan is the same whatever stands first.
    turned = planned(Case(case.model, case.top, {name: dict(reversed(case.groups[name].items())) for name in order}))
    assert first == turned or (isinstance(first, str) and isinstance(turned, str))
    if not isinstance(first, str):
        assert [list(group.hyperparameters) for group in first.groups] == [
            list(group.hyperparameters) for group in second.groups
        ]
        assert [group.sources for group in first.groups] == [group.sources for group in second.groups]
        assert first.table().json() == second.table().json()
        assert str(first.table()) == str(second.table())


ALGORITHMS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD, "rprop": torch.optim.Rprop, "lion": Lion}
# Fused where the device has it: no rule decides it.
OF_THE_RUN = {"fused", "foreach", "peak_lr"}


def test_the_optimizer_holds_what_explain_says():
    seen = Counter()

    @examples(150)
    @given(cases())
    def check(case):
        plan = planned(case)
        wanted_grad = {name: parameter.requires_grad for name, parameter in case.model.named_parameters()}
        optimizer = built(case)
        if isinstance(plan, str):
            assert optimizer == plan
            return
        table = case.factory().explain(case.model)
        rows = json.loads(table.json())
        parameters = dict(case.model.named_parameters())
        frozen = set(table.frozen)

        held = [name for group in optimizer.param_groups for name in group["param_names"]]
        assert sorted([*held, *frozen]) == sorted(parameters)
        assert len(set(held)) == len(held)
        assert {name: p.requires_grad for name, p in parameters.items()} == {
            name: grad and name not in frozen for name, grad in wanted_grad.items()
        }
        groups = [row for row in rows if row["group"] not in ("(frozen)", "all")]
        names = [row["group"] for row in groups]
        assert len(set(names)) == len(names)
        assert all(LEGAL.fullmatch(name) for name in names)
        for row, planned_group, group in zip(groups, table.groups, optimizer.param_groups, strict=True):
            cls = ALGORITHMS[row["algorithm"]]
            one_class = len({row["algorithm"] for row in groups}) == 1
            assert type(optimizer) is cls if one_class else group["algorithm"] == row["algorithm"]
            if not one_class:
                assert type(optimizer.children[row["algorithm"]]) is cls
            assert row["group"] == group["name"] == planned_group.name
            assert row["params"] == list(group["param_names"]) == list(planned_group.params)
            pairs = zip(group["params"], row["params"], strict=True)
            assert all(tensor is parameters[name] for tensor, name in pairs)
            assert row["tensors"] == len(row["params"])
            assert row["parameters"] == sum(tensor.numel() for tensor in group["params"])
            assert row["lr"] == group["lr"] == group["peak_lr"]
            assert row.get("weight_decay") == group.get("weight_decay")
            own = set(cls([torch.zeros(1)]).defaults) - OF_THE_RUN
            assert own <= set(group)
            for key in own & set(planned_group.hyperparameters):
                assert group[key] == planned_group.hyperparameters[key], key
            for key in own & set(row):
                said = tuple(row[key]) if isinstance(row[key], list) else row[key]
                assert said == group[key], key
            # What the table leaves out is the same in every group of that algorithm.
            alike = [
                g for g, r in zip(optimizer.param_groups, groups, strict=True) if r["algorithm"] == row["algorithm"]
            ]
            assert all(g[key] == group[key] for key in own - set(row) for g in alike)
            assert group.get("schedule") == planned_group.schedule
            assert ("schedule" in row) == (planned_group.schedule is not None)
        seen["built"] += 1
        seen["several algorithms"] += len({row["algorithm"] for row in groups}) > 1

    check()
    assert seen["built"] > 40, seen
    assert seen["several algorithms"] > 3, seen


# Junk

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
JUNK = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.dictionaries(
        st.sampled_from(["name", "warmup_steps", "eta_min", "interval", "lr", "T_max"]), SCALARS, max_size=2
    ),
)
KEYS = (
    *("params", "classes", "kinds", "layers", "stem", "priority", "allow_empty"),
    *EFFECTS,
    *("eps", "amsgrad", "maximize", "weight_decay_mode", "foreach", "fused", "nesterov"),
    *("lr_mult", "wieght_decay", "param", "optimiser", "", "a.b", 3, None, True),
)
RULE_NAMES = st.sampled_from([*NAMES, *NAMES, "all", "default", "a.b", "1st", "", "größe", "a/b", 7, None])


@st.composite
def junk(draw):
    case = draw(cases())
    for name in list(case.groups):
        for key in draw(st.lists(st.sampled_from(KEYS), max_size=2)):
            case.groups[name][key] = draw(JUNK)
    if draw(st.integers(0, 3)) == 0:
        case.groups[draw(RULE_NAMES)] = draw(st.one_of(JUNK, a_rule(case.model)))
    if draw(st.integers(0, 30)) == 0:
        case.groups = draw(JUNK)
    return case


def test_whatever_is_written_is_planned_or_refused_by_its_key():
    seen = Counter()

    @examples(150)
    @given(junk())
    def check(case):
        plan = planned(case)
        if isinstance(plan, str):
            assert KEY.fullmatch(plan), plan
            seen["refused"] += 1
            return
        names = [group.name for group in plan.groups]
        assert len(set(names)) == len(names)
        assert all(LEGAL.fullmatch(name) for name in names)
        held = [*(name for group in plan.groups for name in group.params), *plan.frozen]
        assert sorted(held) == sorted(name for name, _ in case.model.named_parameters())
        assert all(group.hyperparameters["lr"] < float("inf") for group in plan.groups)
        json.loads(plan.table().json())
        str(plan.table())
        for name in held:
            str(plan.why(name))
        optimizer = built(case)
        assert not isinstance(optimizer, str) or KEY.fullmatch(optimizer), optimizer
        seen["planned"] += 1

    check()
    assert seen["planned"] > 20, seen
    assert seen["refused"] > 60, seen
