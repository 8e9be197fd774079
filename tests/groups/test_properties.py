"""For random models and rules: the plan is the reference implementation's, or a ConfigError with a config key."""

from __future__ import annotations

import json
import random
import re
from collections import Counter

import pytest
import torch
from torch import nn

from lightning_optim import ConfigError
from lightning_optim.optim import Lion

pytest.importorskip("hypothesis", reason="hypothesis is not installed")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.cases import every
from tests.support.rule_reference import ReferencePlan, Refused
from tests.support.rule_strategies import TOPS, Case, Tree, cases, possibly_invalid_cases

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*requires_grad=False:UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of random regular expressions
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

LEGAL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
MESSAGE = re.compile(r"groups(\.[^:]*)?: .+", re.DOTALL)
FEW, MANY = 15, 150
num_examples = pytest.mark.parametrize("num_examples", every([FEW, MANY], fast=[str(FEW)]))


def check_examples(num_examples, *strategies, check):
    """Run a check on this many examples, the same each time."""
    configure = settings(
        max_examples=num_examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    configure(given(*strategies)(check))()


def plan_or_message(case):
    try:
        return case.factory().plan(case.model)
    except ConfigError as error:
        return str(error)


def build_or_message(case):
    try:
        return case.factory()(case.model)
    except ConfigError as error:
        return str(error)


def reference_or_message(case):
    try:
        return ReferencePlan(case)
    except Refused as error:
        return str(error)


# The reference implementation


def check_against_reference(case, seen):
    """Compare the plan with the reference; `seen` counts what the case covers."""
    plan, reference = plan_or_message(case), reference_or_message(case)
    if isinstance(plan, str) or isinstance(reference, str):
        assert isinstance(plan, str) and isinstance(reference, str), (plan, reference)
        assert MESSAGE.fullmatch(plan), plan
        seen[reference] += 1
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
    assert found == reference.settings
    assert list(plan.frozen) == reference.frozen
    order = list(reference.settings)
    group_names = dict.fromkeys(group_name for group_name, *_ in reference.settings.values())
    assert [group.name for group in plan.groups] == list(group_names)
    assert all(list(group.params) == sorted(group.params, key=order.index) for group in plan.groups)
    seen["planned"] += 1
    seen["several groups"] += len(plan.groups) > 1
    seen["several algorithms"] += len({group.algorithm for group in plan.groups}) > 1
    seen["frozen parameters"] += bool(plan.frozen)
    seen["stem"] += any("stem" in group.name.split(".") for group in plan.groups)
    seen["several rules"] += any(len(group.made_by) > 1 for group in plan.groups)


@pytest.mark.parametrize("num_examples", every([FEW, 200], fast=[str(FEW)]))
def test_the_plan_is_that_of_the_reference_implementation(num_examples):
    seen = Counter()
    check_examples(num_examples, cases(), check=lambda case: check_against_reference(case, seen))
    assert seen["planned"] > 0, seen
    if num_examples > FEW:
        assert seen["planned"] > 0.3 * num_examples, seen
        kinds = ("several groups", "several algorithms", "frozen parameters", "stem", "several rules", "a conflict")
        assert all(seen[kind] > 3 for kind in kinds), seen


ALL, LAST = {"params": "*"}, {"params": "last"}
RARE = {
    "hyperparameter of an overridden algorithm": {
        "a": {**ALL, "optimizer": "adam", "lr": 0.125},
        "b": {**LAST, "optimizer": "lion", "priority": 1},
    },
    "hyperparameter that only an overridden algorithm has": {
        "a": {**ALL, "optimizer": "sgd", "momentum": 0.75},
        "b": {**LAST, "optimizer": "lion", "priority": 1, "lr": 0.125},
    },
    "scales of an overridden algorithm": {
        "a": {**ALL, "optimizer": "adam", "lr_scale": 0.5, "weight_decay_scale": 4.0, "weight_decay": 0.25},
        "b": {**LAST, "optimizer": "lion", "priority": 1, "weight_decay": 0.125},
    },
    "scale that the winning algorithm lacks": {
        "a": {**ALL, "optimizer": "adam", "weight_decay_scale": 0.5},
        "b": {**LAST, "optimizer": "rprop", "priority": 1},
    },
    "field that the winning algorithm lacks": {"a": {**ALL, "weight_decay": 0}, "b": {**LAST, "optimizer": "rprop"}},
    "the top-level algorithm again": {"a": {**LAST, "optimizer": "adam"}},
    "conflict below a higher priority": {
        "a": {**ALL, "lr": 0.5},
        "b": {**ALL, "lr": 0.125},
        "no_decay": {**ALL, "lr": 0.0, "priority": 1},
    },
    "conflict above a lower priority": {
        "a": {**ALL, "lr": 0.5},
        "b": {**LAST, "lr": 0.125},
        "no_decay": {**ALL, "lr": 0.0, "priority": -1},
    },
    "frozen, with one exception": {"a": {**ALL, "frozen": True}, "b": {**LAST, "frozen": False, "priority": 1}},
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
def test_the_plan_is_that_of_the_reference_implementation_in_rare_cases(groups):
    model = Tree()
    model.enc = Tree()
    model.enc.embed = nn.Embedding(2, 2)
    model.enc.layer = nn.ModuleList([nn.Linear(2, 2), nn.LayerNorm(2)])
    model.last = nn.Linear(2, 2)
    check_against_reference(Case(model, "adam", groups), Counter())


# Order


@num_examples
def test_the_order_of_rules_and_of_their_keys_has_no_effect(num_examples):
    def check(case, seed):
        order = list(case.groups)
        random.Random(seed).shuffle(order)
        plan = plan_or_message(case)
        shuffled = plan_or_message(Case(case.model, case.top, {name: case.groups[name] for name in order}))
        assert plan == shuffled
        reversed_rules = {name: dict(reversed(case.groups[name].items())) for name in order}
        reversed_plan = plan_or_message(Case(case.model, case.top, reversed_rules))
        # Of several mistakes in one rule, the first is reported; a valid plan does not depend on the order of keys.
        assert plan == reversed_plan or (isinstance(plan, str) and isinstance(reversed_plan, str))
        if not isinstance(plan, str):
            first, second = ([list(group.hyperparameters) for group in p.groups] for p in (plan, shuffled))
            assert first == second
            assert [group.sources for group in plan.groups] == [group.sources for group in shuffled.groups]
            assert plan.table().json() == shuffled.table().json()
            assert str(plan.table()) == str(shuffled.table())

    check_examples(num_examples, cases(), st.integers(0, 1000), check=check)


# The optimizer and its table

CLASSES_BY_NAME = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD, "rprop": torch.optim.Rprop, "lion": Lion}
# Not hyperparameters of a rule: how a step is executed, and the peak.
NOT_IN_RULES = {"fused", "foreach", "peak_lr"}


def check_param_groups(case, optimizer, table):
    """The optimizer has the groups of the table, and the rest of the model is frozen."""
    parameters = dict(case.model.named_parameters())
    rows = [row for row in json.loads(table.json()) if row["group"] not in ("(frozen)", "all")]
    trained = [name for group in optimizer.param_groups for name in group["param_names"]]
    assert sorted([*trained, *table.frozen]) == sorted(parameters)
    assert len(set(trained)) == len(trained)
    names = [row["group"] for row in rows]
    assert len(set(names)) == len(names)
    assert all(LEGAL_NAME.fullmatch(name) for name in names)
    is_composite = len({row["algorithm"] for row in rows}) > 1
    for row, planned, group in zip(rows, table.groups, optimizer.param_groups, strict=True):
        cls = CLASSES_BY_NAME[row["algorithm"]]
        if is_composite:
            assert group["algorithm"] == row["algorithm"]
            assert type(optimizer.children[row["algorithm"]]) is cls
        else:
            assert type(optimizer) is cls
        assert row["group"] == group["name"] == planned.name
        assert row["params"] == list(group["param_names"]) == list(planned.params)
        assert all(tensor is parameters[n] for tensor, n in zip(group["params"], row["params"], strict=True))
        assert row["tensors"] == len(row["params"])
        assert row["parameters"] == sum(tensor.numel() for tensor in group["params"])
        assert row["lr"] == group["lr"] == group["peak_lr"]
        assert row.get("weight_decay") == group.get("weight_decay")
        assert group.get("schedule") == planned.schedule
        assert ("schedule" in row) == (planned.schedule is not None)
        keys = set(cls([torch.zeros(1)]).defaults) - NOT_IN_RULES
        assert keys <= set(group)
        for key in keys & set(planned.hyperparameters):
            assert group[key] == planned.hyperparameters[key], key
        for key in keys & set(row):
            assert (tuple(row[key]) if isinstance(row[key], list) else row[key]) == group[key], key
        # What the table leaves out is equal in every group of the algorithm.
        others = [g for g, r in zip(optimizer.param_groups, rows, strict=True) if r["algorithm"] == row["algorithm"]]
        assert all(other[key] == group[key] for key in keys - set(row) for other in others)
    return is_composite


@num_examples
def test_the_optimizer_has_the_groups_that_explain_shows(num_examples):
    seen = Counter()

    def check(case):
        plan = plan_or_message(case)
        requires_grad = {name: parameter.requires_grad for name, parameter in case.model.named_parameters()}
        optimizer = build_or_message(case)
        if isinstance(plan, str):
            assert optimizer == plan
            return
        table = case.factory().explain(case.model)
        seen["composite"] += check_param_groups(case, optimizer, table)
        seen["built"] += 1
        assert {name: p.requires_grad for name, p in case.model.named_parameters()} == {
            name: required and name not in table.frozen for name, required in requires_grad.items()
        }

    check_examples(num_examples, cases(), check=check)
    assert seen["built"] > 0, seen
    if num_examples > FEW:
        assert seen["built"] > 0.26 * num_examples, seen
        assert seen["composite"] > 3, seen


# Invalid configs


@num_examples
def test_any_config_gives_a_plan_or_an_error_with_its_key(num_examples):
    seen = Counter()

    def check(case):
        plan = plan_or_message(case)
        if isinstance(plan, str):
            assert MESSAGE.fullmatch(plan), plan
            seen["refused"] += 1
            return
        names = [group.name for group in plan.groups]
        assert len(set(names)) == len(names)
        assert all(LEGAL_NAME.fullmatch(name) for name in names)
        parameters = [*(name for group in plan.groups for name in group.params), *plan.frozen]
        assert sorted(parameters) == sorted(name for name, _ in case.model.named_parameters())
        assert all(group.hyperparameters["lr"] < float("inf") for group in plan.groups)
        json.loads(plan.table().json())
        assert str(plan.table()) and str(plan.settings_of(parameters[0]))
        assert all(plan.settings_of(name).rows() for name in parameters)
        optimizer = build_or_message(case)
        assert not isinstance(optimizer, str) or MESSAGE.fullmatch(optimizer), optimizer
        seen["planned"] += 1

    check_examples(num_examples, possibly_invalid_cases(), check=check)
    assert seen["planned"] > 0 and seen["refused"] > 0, seen
    if num_examples > FEW:
        assert seen["planned"] > 0.13 * num_examples, seen
        assert seen["refused"] > 0.4 * num_examples, seen
