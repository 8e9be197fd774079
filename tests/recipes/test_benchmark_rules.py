"""The benchmark's arm `rules`: its models, its rules and its cases are what the table says."""

from __future__ import annotations

import json

import pytest

from lightning_optim import OptimizerFactory
from recipes.benchmarks.measure import Timing
from recipes.benchmarks.rules import (
    HEADLINE,
    RULES,
    SIZES,
    Size,
    exponents,
    first_match,
    make_cases,
    patterns_for,
    rules_for,
    transformer,
)
from tests.support.cases import every

TINY = Size(200, 12)


def test_exponents_of_the_rules() -> None:
    def timing(size: Size) -> Timing:
        median = 1e-5 * size.parameters**1.25 * size.rules**0.5
        return Timing(median_ms=median, low_ms=0, high_ms=2 * median)

    in_parameters, in_rules = exponents({str(size): timing(size) for size in SIZES}).values()
    assert (in_parameters, in_rules) == pytest.approx((1.25, 0.5))  # logarithms are rounded


@pytest.mark.parametrize("number", [24, 39, 200])
def test_model_has_the_requested_number_of_parameters_on_the_meta_device(number: int) -> None:
    names = dict(transformer(number).named_parameters())
    assert len(names) == number
    assert all(parameter.is_meta for parameter in names.values())
    assert {"backbone.encoder.layer.0.attention.query.weight", "head.classifier.bias"} < set(names)


def test_too_small_model_is_refused() -> None:
    with pytest.raises(ValueError, match="23 parameters are no model: at least 24"):
        transformer(23)


@pytest.mark.parametrize("size", every([TINY, Size(2_500, 50)], fast=[str(TINY)]))
def test_all_rules_match_and_each_parameter_is_in_one_group(size: Size) -> None:
    module, groups = transformer(size.parameters), rules_for(size)
    assert len(groups) == size.rules
    plan = OptimizerFactory("adamw", lr=1e-3, groups=groups).plan(module)  # raises where two conflict
    assert {rule for group in plan.groups for rule in group.made_by} == set(groups)
    planned = [name for group in plan.groups for name in group.params]
    assert len(planned) == size.parameters and set(planned) == {name for name, _ in module.named_parameters()}
    assert any(len(group.made_by) > 2 for group in plan.groups)  # rules overlap


def test_rules_use_every_kind_of_selector() -> None:
    groups = rules_for(TINY).values()
    patterns = [rule["params"] for rule in groups if isinstance(rule.get("params"), str)]
    assert any(pattern.startswith("re:") for pattern in patterns)
    assert any(pattern.startswith("*") for pattern in patterns)
    assert any(pattern.replace(".", "").isalnum() for pattern in patterns)
    assert {"params", "classes", "kinds", "lr_scale", "weight_decay", "weight_decay_scale"} == set().union(*groups)
    assert not any("{" in str(rule[key]) for rule in groups for key in rule)


def test_fifty_rules_are_all_different() -> None:
    rules = [json.dumps(rule) for rule in rules_for(Size(2_500, 50)).values()]
    assert len(set(rules)) == 50


def test_hand_written_loop() -> None:
    module = transformer(TINY.parameters)
    patterns = patterns_for(Size(TINY.parameters, 3))
    assert patterns == [rf"encoder\.layer\.{depth}\." for depth in (0, 4, 8)]
    matched, others = first_match(module, patterns)
    assert (len(matched), len(others)) == (3 * 16, 200 - 3 * 16)


def test_arm_compares_plans_with_the_hand_written_loop() -> None:
    cases = make_cases([TINY, Size(200, 5)], TINY)
    assert [case.name for case in cases] == ["200 × 12, auto layers", "200 × 12", "200 × 5", "hand-written 200 × 12"]
    by_layer, plan, fewer, (matched, others) = (case.run() for case in cases)
    assert len(by_layer.groups) > len(plan.groups) > len(fewer.groups) > 1
    assert len(matched) + len(others) == 200
    assert RULES.reference == f"hand-written {HEADLINE}"
