"""Each rule of the report: on recorded sick and healthy runs, and at the edges of what it states."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from lightning_optim.report.curves import OptimizerCurves, Text
from lightning_optim.report.rules import Finding, Rule, Verdict, check
from lightning_optim.report.sicknesses import RULES
from tests.support.report_runs import curve, optimizer_curves

RECORDED = json.loads((Path(__file__).parent / "recorded_curves.json").read_text(encoding="utf-8"))
"""The first 25 steps of the runs of `recipes.curves`, by run and tag."""
SICKNESS = {
    "healthy": {},
    "lr_too_high": {"lr_too_high": ["backbone", "head"]},
    "second_moment_near_eps": {"second_moment_near_eps": ["backbone", "head"]},
    "no_gradient": {"no_gradient": ["backbone"]},
    "group_that_does_not_move": {"does_not_move": ["backbone"]},
    "nonfinite": {"nonfinite": ["head", "backbone"]},
}
ADAM = {"eps": 1e-8, "beta1": 0.9, "beta2": 0.999}


def recorded(name: str, **hyperparameters: object) -> OptimizerCurves:
    values: dict[str, dict[str, list[float]]] = {}
    for tag, numbers in RECORDED[name].items():
        signal, _, group = tag.rpartition("/")
        values.setdefault(signal, {})[group] = numbers
    known = hyperparameters or ADAM
    return optimizer_curves(values, hyperparameters={"backbone": known, "head": known})


def findings(curves: OptimizerCurves, rule: str | None = None) -> list[Finding]:
    verdicts = check(curves, RULES)
    return [found for name, it in verdicts.items() if rule in (None, name) for found in it.findings]


def unchecked(curves: OptimizerCurves) -> dict[str, str]:
    return {name: verdict.unchecked for name, verdict in check(curves, RULES).items() if verdict.unchecked}


@pytest.mark.parametrize("name", SICKNESS)
def test_a_recorded_run_has_its_sickness_and_no_other(name) -> None:
    found: dict[str, list[str]] = {}
    for one in findings(recorded(name)):
        found.setdefault(one.rule, []).append(one.group)
    assert found == SICKNESS[name]
    assert unchecked(recorded(name)) == {}


def test_findings_say_what_was_measured_against_what_and_what_to_type() -> None:
    (first, _) = findings(recorded("second_moment_near_eps"))
    assert (first.root, first.group, first.step, first.threshold) == ("optim", "backbone", 0, 3 * 1e-8)
    assert first.value == pytest.approx(4.09e-11, rel=0.01)  # 1.3e-12, corrected by sqrt(1 - 0.999)
    assert first.text == "rms/exp_avg_sq is 4.089e-11, 0.004089 times eps (1e-08), which so divides the step"
    assert "optimizer.eps=1e-14" in first.advice
    (first, _) = findings(recorded("lr_too_high"))
    assert (first.step, first.threshold, first.value) == (0, 0.1, pytest.approx(1.0, abs=1e-3))
    assert "lr (3)" in first.advice
    (still,) = findings(recorded("group_that_does_not_move"))
    assert still.value < 1e-6 and "(norm/grad 0." in still.advice and "--why" in still.advice
    (none,) = findings(recorded("no_gradient"))
    assert "none ever arrived" in none.text and "detach()" in none.advice


def test_statements_of_the_rules_have_their_thresholds() -> None:
    statements = {rule.name: rule.statement for rule in RULES}
    assert "≥ 0.1) in 3 logged steps" in statements["lr_too_high"] and "5% or more" in statements["lr_too_high"]
    assert "3 × eps in 10 logged steps in a row" in statements["second_moment_near_eps"]
    assert "below 1e-05 and 1,000 times less" in statements["does_not_move"]
    assert "last 10 logged steps" in statements["no_gradient"]


# Values that are not finite


def test_a_nan_is_named_at_its_first_step_with_the_parameter_that_the_monitor_named() -> None:
    values = {"nonfinite": {"body": [0, 0, 0, 7], "head": [0, 0, 1, 2]}}
    texts = (Text(2, "- head.\x1bbias (grad, param)"), Text(3, "- body.weight (grad)"))
    first, second = findings(optimizer_curves(values, steps=[10, 20, 30, 40], nonfinite=texts[:1]), "nonfinite")
    assert [(it.group, it.step, it.value) for it in (first, second)] == [("head", 30, 1.0), ("body", 40, 7.0)]
    (first, second) = findings(optimizer_curves(values, nonfinite=texts), "nonfinite")
    assert first.text == "nonfinite is 1: head.\ufffdbias" and second.text == "nonfinite is 7: body.weight"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_norm_that_is_not_finite_counts_without_the_monitors_count(value) -> None:
    (found,) = findings(optimizer_curves({"norm/grad": {"head": [1.0, value, 1.0]}}), "nonfinite")
    assert found.step == 1 and found.text == f"norm/grad is {value}"


# The lr is too high


def ratios(*values: float, share: float = 1.0, grad: float = 1.0) -> OptimizerCurves:
    grads = [1.0, *[grad] * (len(values) - 1)]
    return optimizer_curves(
        {
            "ratio/update_param": {"head": values},
            "norm/grad": {"head": grads},
            "norm/param": {"head": [share] * len(values), "all": [1.0] * len(values)},
        }
    )


def test_three_steps_of_a_tenth_are_too_many() -> None:
    assert findings(ratios(0.5, 0.2, 0.0999, 0.05, 0.01)) == []
    (found,) = findings(ratios(0.01, 0.5, 0.2, 0.1, 0.05))
    assert (found.rule, found.step, found.value) == ("lr_too_high", 1, 0.5)


def test_a_group_with_a_small_part_of_the_weights_may_change_fast() -> None:
    assert findings(ratios(*[0.5] * 9, share=0.049)) == []
    assert len(findings(ratios(*[0.5] * 9, share=0.05))) == 1


def test_weights_that_start_at_zero_are_judged_later() -> None:
    from_zero = [1 / (step + 1) for step in range(100)]
    assert findings(ratios(*from_zero)) == []
    warmed_up = [0.0, *(2 / (step + 1) for step in range(1, 100))]
    assert findings(ratios(*warmed_up)) == []
    # A huge lr looks alike, but the gradient shows it.
    assert len(findings(ratios(*from_zero, grad=10.5))) == 1
    assert len(findings(ratios(*from_zero[:40], *[0.2] * 60))) == 1
    assert len(findings(ratios(0.999, *from_zero[1:]))) == 1


def test_without_ratios_or_the_first_steps_what_to_type_is_said() -> None:
    missing = unchecked(optimizer_curves({"lr": {"head": [1.0]}}))
    assert set(missing) == {"lr_too_high", "does_not_move"}
    assert all("update_norm=True" in text for text in missing.values())
    sparse = optimizer_curves({"ratio/update_param": {"head": [1e-3] * 4}}, steps=[49, 99, 149, 199])
    assert "one step in 50 is logged" in unchecked(sparse)["lr_too_high"]
    assert unchecked(optimizer_curves({"ratio/update_param": {"head": [1e-3] * 4}}, steps=[4, 9, 14, 19])) == {}


# The second moment is near eps


def second_moments(values: list[float], key: str = "exp_avg_sq", **hyperparameters: object) -> OptimizerCurves:
    known = {"head": hyperparameters} if hyperparameters else {}
    return optimizer_curves({f"rms/{key}": {"head": values}}, hyperparameters=known)


def test_ten_points_in_a_row_near_eps_are_suspicious() -> None:
    near, far = 2.9e-8, 1e-5
    rule = "second_moment_near_eps"
    assert findings(second_moments([far] * 5 + [near] * 9 + [far], eps=1e-8), rule) == []
    (found,) = findings(second_moments([far] * 5 + [near] * 10 + [far], eps=1e-8), rule)
    assert found.step == 5
    assert findings(second_moments([3.1e-8] * 20, eps=1e-8), rule) == []
    assert len(findings(second_moments([near] * 3, eps=1e-8), rule)) == 1  # all of few
    assert findings(second_moments([near] * 2, eps=1e-8), rule) == []
    assert findings(second_moments([0.0] * 20, eps=1e-8), rule) == []  # no gradient: another rule's


def test_adams_second_moment_is_corrected_before_it_is_compared() -> None:
    small = [1e-7 * math.sqrt(1 - 0.999**step) for step in range(1, 31)]  # 3e-9 at first, below eps
    values = {"rms/exp_avg_sq": {"head": small}, "step": {"head": range(1, 31)}}
    rule = "second_moment_near_eps"
    assert findings(optimizer_curves(values, hyperparameters={"head": ADAM}), rule) == []
    assert len(findings(optimizer_curves(values, hyperparameters={"head": {"eps": 1e-8}}), rule)) == 1
    values["beta2"] = {"head": [0.999] * 30}
    assert findings(optimizer_curves(values, hyperparameters={"head": {"eps": 1e-8}}), rule) == []


def test_an_unknown_eps_is_said_and_one_of_another_meaning_is_not_used() -> None:
    assert "optim/<group>/eps" in unchecked(second_moments([1e-20] * 20))["second_moment_near_eps"]
    assert check(second_moments([1e-20] * 20, eps="[1e-30, 0.001]"), RULES)["second_moment_near_eps"] == Verdict()
    assert check(second_moments([1e-20] * 20, "variance", eps=1e-8), RULES)["second_moment_near_eps"] == Verdict()


def test_eps_is_the_one_that_was_used_in_each_step() -> None:
    eps = {"eps": {"head": [np.float32(1e-8)] * 10 + [np.float32(1e-6)] * 20}}
    values = {"rms/exp_avg_sq": {"head": [2e-7] * 30}, **eps}
    (found,) = findings(optimizer_curves(values, hyperparameters={"head": {"eps": 1e-8}}), "second_moment_near_eps")
    assert (found.step, found.threshold) == (10, 3e-6), "it is changed there; what was configured is another one"
    assert unchecked(optimizer_curves(values)).get("second_moment_near_eps") is None, "without hyperparameters too"
    values["eps"] = {"head": [0.0] * 30}
    assert check(optimizer_curves(values), RULES)["second_moment_near_eps"] == Verdict()


# No gradient arrives


def test_a_gradient_that_is_zero_to_the_end_is_suspicious() -> None:
    def found(values: list[float]) -> list[int]:
        return [it.step for it in findings(optimizer_curves({"norm/grad": {"head": values}}), "no_gradient")]

    assert found([1.0] * 5 + [0.0] * 10) == [5]
    assert found([1.0] * 5 + [0.0] * 9) == []
    assert found([0.0] * 10 + [1.0]) == []
    assert found([0.0] * 3) == [0]
    assert found([0.0] * 2) == []
    assert found([1e-30] * 20) == []


# A group does not move


def moving(**ratio: float) -> OptimizerCurves:
    return optimizer_curves({"ratio/update_param": {name: [value] * 20 for name, value in ratio.items()}})


def test_a_group_moves_far_less_than_another() -> None:
    (found,) = findings(moving(body=9e-6, head=1e-2), "does_not_move")
    assert found.group == "body" and "1,100 times less" in found.text
    assert findings(moving(body=1.1e-5, head=1e-1), "does_not_move") == []
    assert findings(moving(norms=2e-6, matrices=1e-4), "does_not_move") == []  # a small lr, and weights near 1
    (found,) = findings(moving(all_there_is=9e-8), "does_not_move")
    assert found.threshold == 1e-7


def test_warm_up_and_the_end_of_a_schedule_do_not_count() -> None:
    lr = [1e-9] * 30 + [1.0] * 10 + [1e-9] * 30
    body = [1e-12] * 30 + [1e-3] * 10 + [1e-12] * 30
    values = {"ratio/update_param": {"body": body, "head": [1e-2] * 70}, "lr": {"body": lr, "head": [1.0] * 70}}
    assert findings(optimizer_curves(values), "does_not_move") == []


def test_an_lr_that_is_logged_where_it_changes_holds_until_then() -> None:
    signals = {
        "ratio/update_param": {"body": curve([1e-3] * 30 + [1e-12] * 70), "head": curve([1e-2] * 100)},
        "lr": {"body": curve([1.0, 1e-9], [0, 30]), "head": curve([1.0], [0])},
    }
    assert findings(OptimizerCurves(root="optim", groups=("body", "head"), signals=signals), "does_not_move") == []


def test_what_another_rule_explains_is_left_out() -> None:
    values: Mapping[str, Mapping[str, list[float]]] = {
        "ratio/update_param": {"body": [0.0] * 20, "head": [1e-2] * 20},
        "norm/grad": {"body": [0.0] * 20, "head": [1.0] * 20},
    }
    assert [it.rule for it in findings(optimizer_curves(values))] == ["no_gradient"]
    without = {"ratio/update_param": values["ratio/update_param"]}
    assert [it.rule for it in findings(optimizer_curves(without))] == ["does_not_move"]


def test_a_rule_of_ones_own_is_checked_like_the_others() -> None:
    def find(curves: OptimizerCurves) -> Verdict:
        return Verdict(unchecked=f"{len(curves.groups)} groups")

    rule = Rule(name="mine", title="Mine", statement="as I say", find=find)
    assert check(moving(head=1e-3), [*RULES, rule])["mine"].unchecked == "1 groups"
