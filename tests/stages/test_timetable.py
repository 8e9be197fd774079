"""Timetable: what thaws when and in which order, what counts from which thaw, and that it resumes from its state."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from lightning_optim import ConfigError
from lightning_optim.stages.stages import claim, parse_stages
from lightning_optim.stages.timetable import Timetable
from lightning_optim.stages.triggers import Clock

STEPS_PER_EPOCH = 4


def build_timetable(**triggers: Any) -> Timetable:
    """Stages with these triggers, after a head that is trained from the start."""
    at = {"head": None, **triggers}
    return Timetable(parse_stages({name: {"params": name, "at": trigger} for name, trigger in at.items()}))


def plateau(monitor: str, patience: int = 1) -> dict[str, Any]:
    return {"plateau": {"monitor": monitor, "patience": patience}}


def clock_at(step: int) -> Clock:
    return Clock(epoch=step // STEPS_PER_EPOCH, step=step, fraction=step / 48)


def names(stages: Iterable[Any]) -> list[str]:
    return [stage.name for stage in stages]


def thaw_steps(plan: Timetable, steps: Sequence[int]) -> dict[int, list[str]]:
    """The stages that thaw at each of these steps, without steps at which none does."""
    due = {step: names(plan.thaw_due(clock_at(step))) for step in steps}
    return {step: found for step, found in due.items() if found}


# Order


def test_each_stage_thaws_once_when_its_trigger_is_due() -> None:
    plan = build_timetable(a={"step": 9}, b={"epoch": 1}, c={"fraction": 0.125})
    assert (plan.thawed, names(plan.waiting)) == (["head"], ["a", "b", "c"])
    assert thaw_steps(plan, range(48)) == {4: ["b"], 6: ["c"], 9: ["a"]}
    assert (plan.thawed, plan.waiting) == (["head", "b", "c", "a"], []), "in the order in which they thawed"


def test_stages_due_at_one_step_thaw_in_the_order_of_the_plan() -> None:
    plan = build_timetable(a={"step": 9}, b={"epoch": 1}, c={"step": 2})
    assert thaw_steps(plan, [20]) == {20: ["a", "b", "c"]}
    assert plan.thawed == ["head", "a", "b", "c"]


def test_several_stages_may_be_trained_from_the_start() -> None:
    plan = build_timetable(a={"epoch": 0}, b={"step": 1}, c={"any": [{"step": 0}, {"epoch": 9}]})
    assert plan.thawed == ["head", "a", "c"]
    assert thaw_steps(plan, range(3)) == {1: ["b"]}


def test_user_function_is_called_until_it_returns_true() -> None:
    def condition() -> None: ...

    called = []

    def evaluate(function: Any) -> bool:
        called.append(function)
        return len(called) == 3

    plan = build_timetable(a=condition)
    due = [names(plan.thaw_due(Clock(epoch=0, step=step, evaluate=evaluate))) for step in range(5)]
    assert due == [[], [], ["a"], [], []]
    assert called == [condition] * 3, "and is not called again"


# Counting from the previous thaw


@pytest.mark.parametrize(
    ("first", "then", "expected"),
    [
        ({"epoch": 1}, {"epochs": 2}, {4: ["a"], 12: ["b"]}),
        ({"step": 6}, {"epochs": 2}, {6: ["a"], 12: ["b"]}),
        ({"step": 6}, {"steps": 1}, {6: ["a"], 7: ["b"]}),
        ({"step": 0}, {"steps": 5}, {5: ["b"]}),
    ],
    ids=["epochs after an epoch", "epochs after a step", "one step after", "from the start"],
)
def test_after_counts_from_the_thaw_of_the_stage_above(first, then, expected) -> None:
    assert thaw_steps(build_timetable(a=first, b={"after": then}), range(48)) == expected


def test_after_counts_from_the_actual_thaw_where_that_was_late() -> None:
    late = build_timetable(a={"step": 3}, b={"after": {"steps": 5}}, c={"after": {"epochs": 1}})
    assert thaw_steps(late, range(10, 48)) == {10: ["a"], 15: ["b"], 16: ["c"]}


def test_after_counts_from_the_stage_above_in_the_plan_not_from_the_last_thaw() -> None:
    plan = build_timetable(a={"step": 20}, b={"after": {"steps": 2}}, c={"step": 5}, d={"after": {"steps": 2}})
    assert thaw_steps(plan, range(48)) == {5: ["c"], 7: ["d"], 20: ["a"], 22: ["b"]}


@pytest.mark.parametrize(("after", "step"), [({"steps": 3}, 3), ({"epochs": 1}, 4)], ids=["steps", "epochs"])
def test_after_in_the_first_stage_counts_from_the_start_of_the_run(after, step) -> None:
    plan = Timetable(parse_stages({"a": {"params": "a", "at": {"after": after}}, "head": {"params": "head"}}))
    assert thaw_steps(plan, range(48)) == {step: ["a"]}
    assert plan.unpredictable == []


def test_after_waits_until_the_stage_above_has_thawed() -> None:
    plan = build_timetable(a=plateau("loss"), b={"after": {"steps": 1}})
    assert thaw_steps(plan, range(30)) == {}
    for value in (1.0, 1.0):
        plan.watched[0].observe(value)
    assert thaw_steps(plan, range(30, 48)) == {30: ["a"], 31: ["b"]}


def test_stages_that_count_from_a_plateau_are_unpredictable() -> None:
    """`e` has an epoch of its own, so `f`, which counts from it, is predictable resumed."""
    after = {"after": {"steps": 1}}
    plan = build_timetable(a=after, b=plateau("loss"), c=after, d=after, e={"epoch": 9}, f=after, g=len)
    assert names(plan.unpredictable) == ["b", "c", "d", "g"]


# Watched metrics


def monitors(plan: Timetable) -> list[str]:
    return [plateau.monitor for plateau in plan.watched]


def test_metric_is_watched_from_the_thaw_of_the_stage_above_to_that_of_its_own_stage() -> None:
    plan = build_timetable(a={"step": 5}, b=plateau("x"), c=plateau("y"))
    watched = {}
    for step in range(12):
        watched[step] = monitors(plan)
        for watched_plateau in plan.watched:
            watched_plateau.observe(0.0)
        plan.thaw_due(clock_at(step))
    # A patience of 1 needs two observations.
    assert watched == {**{step: [] for step in range(6)}, 6: ["x"], 7: ["x"], 8: ["y"], 9: ["y"], 10: [], 11: []}
    assert plan.thawed == ["head", "a", "b", "c"]


def test_all_metrics_of_any_are_watched_until_one_trigger_is_due() -> None:
    plan = build_timetable(a={"any": [plateau("x", 3), {"step": 6}, plateau("y", 3)]}, b=plateau("z"))
    assert monitors(plan) == ["x", "y"]
    assert thaw_steps(plan, range(7)) == {6: ["a"]}
    assert monitors(plan) == ["z"]


def test_any_may_be_due_before_its_metric_is_watched() -> None:
    plan = build_timetable(a={"step": 9}, b={"any": [plateau("x"), {"step": 4}]})
    assert monitors(plan) == []
    assert thaw_steps(plan, range(10)) == {4: ["b"], 9: ["a"]}


def test_metric_of_the_first_stage_is_watched_from_the_start() -> None:
    plan = Timetable(parse_stages({"a": {"params": "a", "at": plateau("x")}, "head": {"params": "head"}}))
    assert monitors(plan) == ["x"]


# Saving and loading

RICH: dict[str, Any] = {
    "a": {"step": 3},
    "b": plateau("x", 2),
    "c": {"any": [plateau("x", 3), plateau("y", 5), {"epoch": 9}]},
    "d": {"after": {"epochs": 2}},
    "e": {"after": {"steps": 3}},
    "f": {"fraction": 0.75},
}
X, Y = (([5, 4, 3, 4, 2] * 12)[:48], list(range(48, 0, -1)))


def run(plan: Timetable, first: int = 0, until: int = 48) -> list[Any]:
    """At each step: its number, the stages that thaw, the state. Metrics are observed at even steps, pending at odd."""
    found = []
    for step in range(first, until):
        for watched_plateau in plan.watched:
            if step % 2:
                watched_plateau.pending = True
            else:
                watched_plateau.observe({"x": X, "y": Y}[watched_plateau.monitor][step])
        found.append((step, names(plan.thaw_due(clock_at(step))), plan.state_dict()))
    return found


def test_timetable_resumes_from_every_step() -> None:
    uninterrupted = run(build_timetable(**RICH))
    assert [name for _, found, _ in uninterrupted for name in found] == ["a", "b", "c", "d", "e", "f"]
    for step in range(1, 48):
        saved = json.loads(json.dumps(uninterrupted[step - 1][2]))
        resumed = build_timetable(**RICH)
        resumed.load_state_dict(saved)
        assert resumed.state_dict() == uninterrupted[step - 1][2], step
        assert run(resumed, step) == uninterrupted[step:], step


def test_checkpoint_decides_what_has_thawed_where_a_step_was_edited() -> None:
    """With an earlier `step`, the stage thaws at the next batch; with a later one, it stays thawed."""
    before = build_timetable(a={"step": 5}, b={"step": 9})
    run(before, until=7)
    earlier, later = build_timetable(a={"step": 5}, b={"step": 6}), build_timetable(a={"step": 30}, b={"step": 9})
    for resumed in (earlier, later):
        resumed.load_state_dict(before.state_dict())
        assert resumed.thawed == ["head", "a"]
    assert thaw_steps(earlier, range(7, 48)) == {7: ["b"]}
    assert thaw_steps(later, range(7, 48)) == {9: ["b"]}


def test_new_stage_waits_for_its_trigger_after_a_resume() -> None:
    before = build_timetable(a={"step": 5})
    run(before, until=7)
    resumed = build_timetable(a={"step": 5}, new={"after": {"steps": 4}}, at_once={"step": 0})
    resumed.load_state_dict(before.state_dict())
    assert thaw_steps(resumed, range(7, 48)) == {7: ["at_once"], 9: ["new"]}


def test_edited_metric_starts_from_zero_and_the_others_resume() -> None:
    before = build_timetable(a={"any": [plateau("x", 3), plateau("y", 3)]})
    for watched_plateau in before.watched:
        for value in (1.0, 1.0, 1.0):
            watched_plateau.observe(value)
    edited = build_timetable(a={"any": [plateau("x", 3), plateau("z", 3)]})
    edited.load_state_dict(before.state_dict())
    assert [(p.monitor, p.wait_count) for p in edited.watched] == [("x", 2), ("z", 0)]


def test_added_metric_starts_from_zero() -> None:
    before = build_timetable(a=plateau("x", 3))
    for value in (1.0, 1.0):
        before.watched[0].observe(value)
    edited = build_timetable(a={"any": [plateau("x", 3), plateau("y", 3)]})
    edited.load_state_dict(before.state_dict())
    assert [(p.monitor, p.wait_count) for p in edited.watched] == [("x", 1), ("y", 0)]


def test_removed_stage_that_has_thawed_is_refused_with_the_nearest_name() -> None:
    before = build_timetable(backbone={"step": 1})
    run(before, until=3)
    with pytest.raises(ConfigError, match=r"^stages: the checkpoint has thawed 'backbone', .*Did you mean 'back_bone'"):
        build_timetable(back_bone={"step": 1}).load_state_dict(before.state_dict())


def test_stage_that_has_not_thawed_may_be_removed() -> None:
    before = build_timetable(a={"step": 1}, b=plateau("x"))
    run(before, until=3)
    resumed = build_timetable(a={"step": 1})
    resumed.load_state_dict(before.state_dict())
    assert (resumed.thawed, resumed.waiting) == (["head", "a"], [])


def test_state_loads_with_weights_only(tmp_path) -> None:
    plan = build_timetable(**RICH)
    run(plan, until=20)
    torch.save(plan.state_dict(), tmp_path / "state")
    loaded = torch.load(tmp_path / "state", weights_only=True)
    assert loaded == plan.state_dict() == json.loads(json.dumps(loaded))


# Another fit, other stages


@pytest.mark.parametrize(("after", "step"), [({"steps": 4}, 4), ({"epochs": 2}, 8)], ids=["steps", "epochs"])
def test_reset_thaw_times_counts_from_zero_and_keeps_what_has_thawed(after, step) -> None:
    plan = build_timetable(a={"step": 5}, b={"after": after}, c={"step": 30})
    assert thaw_steps(plan, range(8)) == {5: ["a"]}
    plan.reset_thaw_times()
    assert plan.thawed == ["head", "a"]
    assert thaw_steps(plan, range(48)) == {step: ["b"], 30: ["c"]}


def test_with_stages_keeps_what_has_thawed_in_its_order() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.stem = nn.Linear(2, 2), nn.Linear(2, 2)
            self.layer = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))

    given = {
        "stem": {"params": "stem", "at": {"step": 4}},
        "head": {"params": "head"},
        "top": {"layers": "layer.{i}", "at": {"step": 1}, "each": {"steps": 1}},
    }
    read = Timetable(parse_stages(given))
    assert read.thawed == ["head"]
    plan = read.with_stages(claim(parse_stages(given), Net()))
    assert names(plan.stages) == ["stem", "head", "top.2", "top.1", "top.0"]
    assert thaw_steps(plan, range(5)) == {1: ["top.2"], 2: ["top.1"], 3: ["top.0"], 4: ["stem"]}
    resumed = plan.with_stages(claim(parse_stages(given), Net()))
    assert resumed.thawed == ["head", "top.2", "top.1", "top.0", "stem"]
    fewer = plan.with_stages(claim(parse_stages({**given, "top": {**given["top"], "each": None}}), Net()))
    assert fewer.thawed == ["head", "stem"], "removed stages are forgotten"


def test_with_stages_keeps_the_thaw_times() -> None:
    plan = build_timetable(a={"step": 5}, b={"after": {"steps": 4}})
    run(plan, until=6)
    resumed = plan.with_stages(build_timetable(a={"step": 5}, b={"after": {"steps": 4}}).stages)
    assert thaw_steps(resumed, range(6, 48)) == {9: ["b"]}
    assert plan.thawed == ["head", "a"], "the original is unchanged"


def test_with_stages_keeps_the_progress_of_plateaus() -> None:
    plan = build_timetable(a=plateau("x", 3))
    for value in (1.0, 1.0):
        plan.watched[0].observe(value)
    other = plan.with_stages(build_timetable(a=plateau("x", 3)).stages)
    assert [(p.monitor, p.wait_count) for p in other.watched] == [("x", 1)]
