"""The timetable: what thaws in which order, what counts from which thaw, and that it goes on from its state."""

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


def timetable(**triggers: Any) -> Timetable:
    """Of stages with these triggers, after a head that is trained from the start."""
    at = {"head": None, **triggers}
    return Timetable(parse_stages({name: {"params": name, "at": trigger} for name, trigger in at.items()}))


def plateau(monitor: str, patience: int = 1) -> dict[str, Any]:
    return {"plateau": {"monitor": monitor, "patience": patience}}


def moment(step: int) -> Clock:
    return Clock(epoch=step // STEPS_PER_EPOCH, step=step, total_steps=48)


def names(stages: Iterable[Any]) -> list[str]:
    return [stage.name for stage in stages]


def thaws(plan: Timetable, steps: Sequence[int]) -> dict[int, list[str]]:
    """What thaws at which of these steps."""
    due = {step: names(plan.due(moment(step))) for step in steps}
    return {step: found for step, found in due.items() if found}


# The order


def test_stages_thaw_each_at_its_own_moment_and_once() -> None:
    plan = timetable(a={"step": 9}, b={"epoch": 1}, c={"fraction": 0.125})
    assert (plan.thawed, names(plan.waiting)) == (["head"], ["a", "b", "c"])
    assert thaws(plan, range(48)) == {4: ["b"], 6: ["c"], 9: ["a"]}
    assert (plan.thawed, plan.waiting) == (["head", "b", "c", "a"], []), "in the order in which they thawed"


def test_those_due_at_one_moment_thaw_in_the_order_of_the_plan() -> None:
    plan = timetable(a={"step": 9}, b={"epoch": 1}, c={"step": 2})
    assert thaws(plan, [20]) == {20: ["a", "b", "c"]}
    assert plan.thawed == ["head", "a", "b", "c"]


def test_several_are_trained_from_the_start() -> None:
    plan = timetable(a={"epoch": 0}, b={"step": 1}, c={"any": [{"step": 0}, {"epoch": 9}]})
    assert plan.thawed == ["head", "a", "c"]
    assert thaws(plan, range(3)) == {1: ["b"]}


def test_an_answer_of_the_users_thaws() -> None:
    def question() -> None: ...

    asked = []

    def ask(function: Any) -> bool:
        asked.append(function)
        return len(asked) == 3

    plan = timetable(a=question)
    due = [names(plan.due(Clock(epoch=0, step=step, ask=ask))) for step in range(5)]
    assert due == [[], [], ["a"], [], []]
    assert asked == [question] * 3, "and is not asked again"


# What is counted from the thaw before


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
def test_it_counts_from_the_thaw_of_the_stage_above(first, then, expected) -> None:
    assert thaws(timetable(a=first, b={"after": then}), range(48)) == expected


def test_it_counts_from_when_that_thawed_and_not_from_when_it_was_due() -> None:
    late = timetable(a={"step": 3}, b={"after": {"steps": 5}}, c={"after": {"epochs": 1}})
    assert thaws(late, range(10, 48)) == {10: ["a"], 15: ["b"], 16: ["c"]}


def test_the_stage_above_is_the_one_before_in_the_plan_not_the_one_thawed_before() -> None:
    plan = timetable(a={"step": 20}, b={"after": {"steps": 2}}, c={"step": 5}, d={"after": {"steps": 2}})
    assert thaws(plan, range(48)) == {5: ["c"], 7: ["d"], 20: ["a"], 22: ["b"]}


@pytest.mark.parametrize(("after", "step"), [({"steps": 3}, 3), ({"epochs": 1}, 4)], ids=["steps", "epochs"])
def test_the_first_stage_counts_from_the_start_of_the_run(after, step) -> None:
    plan = Timetable(parse_stages({"a": {"params": "a", "at": {"after": after}}, "head": {"params": "head"}}))
    assert thaws(plan, range(48)) == {step: ["a"]}
    assert plan.unpredictable == []


def test_it_waits_as_long_as_the_stage_above_does() -> None:
    plan = timetable(a=plateau("loss"), b={"after": {"steps": 1}})
    assert thaws(plan, range(30)) == {}
    for value in (1.0, 1.0):
        plan.watched[0].observe(value)
    assert thaws(plan, range(30, 48)) == {30: ["a"], 31: ["b"]}


def test_which_thaws_nobody_can_foresee() -> None:
    """From a plateau on, whatever counts from it; a stage with a moment of its own can be counted from again."""
    after = {"after": {"steps": 1}}
    plan = timetable(a=after, b=plateau("loss"), c=after, d=after, e={"epoch": 9}, f=after, g=len)
    assert names(plan.unpredictable) == ["b", "c", "d", "g"]


# What is watched


def monitors(plan: Timetable) -> list[str]:
    return [one.monitor for one in plan.watched]


def test_a_metric_is_watched_from_the_thaw_of_the_stage_above_to_its_own() -> None:
    plan = timetable(a={"step": 5}, b=plateau("x"), c=plateau("y"))
    watched = {}
    for step in range(12):
        watched[step] = monitors(plan)
        for one in plan.watched:
            one.observe(0.0)
        plan.due(moment(step))
    # `b` takes the moment of its thaw for its first look: two are what a patience of 1 needs.
    assert watched == {**{step: [] for step in range(6)}, 6: ["x"], 7: ["x"], 8: ["y"], 9: ["y"], 10: [], 11: []}
    assert plan.thawed == ["head", "a", "b", "c"]


def test_all_metrics_of_any_are_watched_and_none_once_one_of_them_is_reached() -> None:
    plan = timetable(a={"any": [plateau("x", 3), {"step": 6}, plateau("y", 3)]}, b=plateau("z"))
    assert monitors(plan) == ["x", "y"]
    assert thaws(plan, range(7)) == {6: ["a"]}
    assert monitors(plan) == ["z"]


def test_any_may_thaw_by_a_count_before_its_metric_is_watched() -> None:
    plan = timetable(a={"step": 9}, b={"any": [plateau("x"), {"step": 4}]})
    assert thaws(plan, range(10)) == {4: ["b"], 9: ["a"]}


def test_the_first_stage_is_watched_from_the_start() -> None:
    plan = Timetable(parse_stages({"a": {"params": "a", "at": plateau("x")}, "head": {"params": "head"}}))
    assert monitors(plan) == ["x"]


# Saved

RICH: dict[str, Any] = {
    "a": {"step": 3},
    "b": plateau("x", 2),
    "c": {"any": [plateau("x", 3), plateau("y", 5), {"epoch": 9}]},
    "d": {"after": {"epochs": 2}},
    "e": {"after": {"steps": 3}},
    "f": {"fraction": 0.75},
}
X, Y = (([5, 4, 3, 4, 2] * 12)[:48], list(range(48, 0, -1)))


def go_on(plan: Timetable, first: int = 0, until: int = 48) -> list[Any]:
    """A run that looks at each metric at every other step, and at the other ones finds that it is due."""
    seen = []
    for step in range(first, until):
        for one in plan.watched:
            if step % 2:
                one.due = True
            else:
                one.observe({"x": X, "y": Y}[one.monitor][step])
        seen.append((step, names(plan.due(moment(step))), plan.state_dict()))
    return seen


def test_it_goes_on_from_every_moment() -> None:
    whole = go_on(timetable(**RICH))
    assert [name for _, found, _ in whole for name in found] == ["a", "b", "c", "d", "e", "f"]
    for step in range(1, 48):
        saved = json.loads(json.dumps(whole[step - 1][2]))
        again = timetable(**RICH)
        again.load_state_dict(saved)
        assert again.state_dict() == whole[step - 1][2], step
        assert go_on(again, step) == whole[step:], step


def test_the_checkpoint_says_what_has_thawed_and_not_the_plan() -> None:
    """With `step` brought forward, the stage thaws at the next batch; put off, it stays."""
    before = timetable(a={"step": 5}, b={"step": 9})
    go_on(before, until=7)
    forward, put_off = timetable(a={"step": 5}, b={"step": 6}), timetable(a={"step": 30}, b={"step": 9})
    for again in (forward, put_off):
        again.load_state_dict(before.state_dict())
        assert again.thawed == ["head", "a"]
    assert thaws(forward, range(7, 48)) == {7: ["b"]}
    assert thaws(put_off, range(7, 48)) == {9: ["b"]}


def test_a_stage_that_is_new_in_the_plan_waits_for_its_trigger() -> None:
    before = timetable(a={"step": 5})
    go_on(before, until=7)
    again = timetable(a={"step": 5}, new={"after": {"steps": 4}}, at_once={"step": 0})
    again.load_state_dict(before.state_dict())
    assert thaws(again, range(7, 48)) == {7: ["at_once"], 9: ["new"]}


def test_a_metric_that_was_edited_is_watched_anew_and_the_others_go_on() -> None:
    before = timetable(a={"any": [plateau("x", 3), plateau("y", 3)]})
    for one in before.watched:
        for value in (1.0, 1.0, 1.0):
            one.observe(value)
    edited = timetable(a={"any": [plateau("x", 3), plateau("z", 3)]})
    edited.load_state_dict(before.state_dict())
    assert [(one.monitor, one.num_bad) for one in edited.watched] == [("x", 2), ("z", 0)]


def test_a_metric_more_than_was_saved_begins_anew() -> None:
    before = timetable(a=plateau("x", 3))
    for value in (1.0, 1.0):
        before.watched[0].observe(value)
    edited = timetable(a={"any": [plateau("x", 3), plateau("y", 3)]})
    edited.load_state_dict(before.state_dict())
    assert [(one.monitor, one.num_bad) for one in edited.watched] == [("x", 1), ("y", 0)]


def test_a_stage_that_has_thawed_and_is_gone_is_refused_with_the_nearest_name() -> None:
    before = timetable(backbone={"step": 1})
    go_on(before, until=3)
    with pytest.raises(ConfigError, match=r"^stages: the checkpoint has thawed 'backbone', .*Did you mean 'back_bone'"):
        timetable(back_bone={"step": 1}).load_state_dict(before.state_dict())


def test_a_stage_that_still_waited_may_be_gone() -> None:
    before = timetable(a={"step": 1}, b=plateau("x"))
    go_on(before, until=3)
    again = timetable(a={"step": 1})
    again.load_state_dict(before.state_dict())
    assert (again.thawed, again.waiting) == (["head", "a"], [])


def test_the_state_is_what_weights_only_accepts(tmp_path) -> None:
    plan = timetable(**RICH)
    go_on(plan, until=20)
    torch.save(plan.state_dict(), tmp_path / "state")
    loaded = torch.load(tmp_path / "state", weights_only=True)
    assert loaded == plan.state_dict() == json.loads(json.dumps(loaded))


# Another fit, another reading of the plan


@pytest.mark.parametrize(("after", "step"), [({"steps": 4}, 4), ({"epochs": 2}, 8)], ids=["steps", "epochs"])
def test_another_fit_counts_from_zero_and_keeps_what_has_thawed(after, step) -> None:
    plan = timetable(a={"step": 5}, b={"after": after}, c={"step": 30})
    assert thaws(plan, range(8)) == {5: ["a"]}
    plan.reset_thaw_times()
    assert plan.thawed == ["head", "a"]
    assert thaws(plan, range(48)) == {step: ["b"], 30: ["c"]}


def test_another_reading_of_the_plan_keeps_what_has_thawed_in_its_order() -> None:
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
    plan = read.with_claims(claim(parse_stages(given), Net()))
    assert names(plan.stages) == ["stem", "head", "top.2", "top.1", "top.0"]
    assert thaws(plan, range(5)) == {1: ["top.2"], 2: ["top.1"], 3: ["top.0"], 4: ["stem"]}
    again = plan.with_claims(claim(parse_stages(given), Net()))
    assert again.thawed == ["head", "top.2", "top.1", "top.0", "stem"]
    fewer = plan.with_claims(claim(parse_stages({**given, "top": {**given["top"], "each": None}}), Net()))
    assert fewer.thawed == ["head", "stem"], "and forgets those that are gone"


def test_another_reading_still_counts_from_the_thaws_of_the_one_before() -> None:
    plan = timetable(a={"step": 5}, b={"after": {"steps": 4}})
    go_on(plan, until=6)
    again = plan.with_claims(timetable(a={"step": 5}, b={"after": {"steps": 4}}).stages)
    assert thaws(again, range(6, 48)) == {9: ["b"]}
    assert plan.thawed == ["head", "a"], "the first is left as it was"
