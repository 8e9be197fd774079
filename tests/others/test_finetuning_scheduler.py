"""finetuning-scheduler and StagedUnfreeze at the same jobs.

`test_..._fts...` pins down what finetuning-scheduler 2.14.1 gets wrong, on Lightning 2.6.6 and torch 2.13.0. One that
goes red has been mended there: see that it now does what ours does, and delete it. They are not run by default, and are
skipped where it is not installed: `pip install -e ".[others]" -c constraints.txt && pytest -m others tests/others`.

- F1: replicas diverge under DDP, its default example. It does nothing about the reducer; no issue known.
- F2: `fit(ckpt_path=...)` begins at phase 0 again.
- F3: a resume amid a phase crashes LambdaLR. From `fit(ckpt_path=...)` alone it does not any more, as F2 then adds the
  groups anew; where `trainer.ckpt_path` is set too, the phase is right and the crash is there.
- F4: the lr of a late phase is not the one that the schedule names.
- F5: five of torch's schedulers are refused; where they are allowed, four crash and one leaves its curve.
- F6: a name is a pattern for `re.match`: that of layer 1 takes layer 10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim import lr_scheduler as torch_schedulers

from tests.support import other_scenarios as scenarios
from tests.support import other_tools as tools
from tests.support.other_tools import BACKBONE, HEAD, LR, TENTH, Tool, ours_in_phases, staged
from tests.support.training import BATCHES, same

TOP, STEM = 2 * BATCHES, 4 * BATCHES  # the steps before which they thaw
STEM_WEIGHT = "backbone.0.weight"


def others(test: Callable[..., None]) -> Callable[..., None]:
    """It warns of what it puts right in the schedule and in the callbacks."""
    return pytest.mark.others(pytest.mark.filterwarnings("ignore")(test))


@pytest.fixture
def fts() -> Callable[..., Tool]:
    pytest.importorskip("finetuning_scheduler")
    return tools.finetuning_scheduler


@others
def test_the_job_is_the_same(tmp_path, fts) -> None:
    """Where nothing goes wrong, the two train the same weights."""
    theirs, mine = (scenarios.train(tool, tmp_path) for tool in (fts(), ours_in_phases()))
    assert theirs.seen == mine.seen
    assert same(theirs.outcome, mine.outcome)


# F1: DDP.


@others
def test_f1_fts_lets_replicas_diverge(tmp_path, fts) -> None:
    """From the first transition on. When this is red, finetuning-scheduler has been mended: delete it."""
    replicas = scenarios.run_two_processes("ddp", "finetuning_scheduler", tmp_path)
    assert scenarios.steps_apart(replicas) == [*range(TOP, 6 * BATCHES)]


@pytest.mark.slow
def test_f1_ours_keeps_replicas_equal(tmp_path) -> None:
    replicas = scenarios.run_two_processes("ddp", "ours_in_phases", tmp_path)
    assert [len(step["trained"]) for step in replicas[0]] == [2] * TOP + [4] * (STEM - TOP) + [8] * 2 * BATCHES
    assert scenarios.steps_apart(replicas) == []


# F2: `trainer.fit(ckpt_path=...)`.


@others
def test_f2_fts_is_an_epoch_late_where_it_resumes_before_a_transition(tmp_path, fts) -> None:
    """It looks at `trainer.ckpt_path` in `setup`, where `fit(ckpt_path=...)` has not set it yet: the depth is 0 again.

    So the next epoch brings it to phase 1, and the one after that to phase 2, which was due.
    When this is red, finetuning-scheduler has been mended: delete it.
    """
    full, again = scenarios.resume(fts(), tmp_path, "epoch=3")
    assert [STEM_WEIGHT in lrs for lrs in full.seen[STEM:]] == [True] * 8
    assert [STEM_WEIGHT in lrs for lrs in again.seen] == [False] * BATCHES + [True] * BATCHES


@others
def test_f2_fts_leaves_a_phase_frozen_where_it_resumes_after_its_transition(tmp_path, fts) -> None:
    """Its group is in the optimizer and has no gradient.

    When this is red, finetuning-scheduler has been mended: delete it.
    """
    full, again = scenarios.resume(fts(), tmp_path, "epoch=4")
    assert STEM_WEIGHT in full.trained() and STEM_WEIGHT not in again.trained()
    assert again.seen == full.seen[5 * BATCHES :]


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_f2_ours_goes_on_as_if_nothing_had_happened(tmp_path, stop) -> None:
    full, again = scenarios.resume(ours_in_phases(), tmp_path, f"epoch={stop}")
    assert same(again.outcome, full.outcome)
    assert again.seen == full.seen[(stop + 1) * BATCHES :]


# F3: LambdaLR.

LAMBDA = scenarios.scheduled(lambda optimizer: torch_schedulers.LambdaLR(optimizer, lambda step: 0.9**step))


@others
@pytest.mark.parametrize("stop", ["epoch=2", "epoch=4"])
def test_f3_fts_crashes_lambda_lr_in_the_middle_of_a_phase(tmp_path, fts, stop) -> None:
    """Its lambdas are extended at a transition only, and the next epoch has none.

    When this is red, finetuning-scheduler has been mended: delete it.
    """
    with pytest.raises(ValueError, match=r"zip\(\) argument 2 is longer than argument 1"):
        scenarios.resume(fts(), tmp_path, stop, LAMBDA, tell=True)


@pytest.mark.parametrize("stop", [2, 4])
def test_f3_ours_goes_on_with_lambda_lr(tmp_path, stop) -> None:
    full, again = scenarios.resume(ours_in_phases(), tmp_path, f"epoch={stop}", LAMBDA, tell=True)
    assert same(again.outcome, full.outcome)
    assert again.seen == full.seen[(stop + 1) * BATCHES :]


# F4: schedulers that multiply what is there. All end, after 14 steps, at the lr as configured.

RAMPS: dict[str, scenarios.MakeScheduler] = {
    "constant": lambda o: torch_schedulers.ConstantLR(o, 0.1, total_iters=14),
    "linear": lambda o: torch_schedulers.LinearLR(o, 0.1, 1.0, total_iters=14),
}


@others
@pytest.mark.parametrize(("ramp", "last"), [("constant", LR), ("linear", 1.6279e-3)])
def test_f4_fts_ends_at_another_lr_than_its_schedule_names(tmp_path, fts, ramp, last) -> None:
    """The phase begins at its lr, where the others are on a curve; torch then takes off a factor that was never on.

    When this is red, finetuning-scheduler has been mended: delete it.
    """
    head, top = scenarios.follow_a_schedule(fts(), tmp_path, RAMPS[ramp])
    assert head == scenarios.curve(RAMPS[ramp])
    assert top[0] == TENTH
    assert top[-1] == pytest.approx(last, rel=1e-4)


@pytest.mark.parametrize("ramp", RAMPS)
def test_f4_ours_ends_at_the_lr_that_its_stage_names(tmp_path, ramp) -> None:
    expected = scenarios.curve(RAMPS[ramp])
    head, top = scenarios.follow_a_schedule(ours_in_phases(), tmp_path, RAMPS[ramp])
    assert (head, top) == (expected, [lr * 0.1 for lr in expected[TOP:]])
    assert top[-1] == pytest.approx(TENTH)


# F5: schedulers.

REFUSED: dict[str, tuple[scenarios.MakeScheduler, type[Exception], str]] = {
    "one cycle": (lambda o: torch_schedulers.OneCycleLR(o, 0.1, total_steps=25), KeyError, "max_lr"),
    "cyclic": (lambda o: torch_schedulers.CyclicLR(o, 1e-3, 0.1, step_size_up=3), ValueError, r"zip\(\)"),
    "sequential": (
        lambda o: torch_schedulers.SequentialLR(
            o, [torch_schedulers.LinearLR(o, 0.1, total_iters=6), torch_schedulers.CosineAnnealingLR(o, 20)], [6]
        ),
        AttributeError,
        "'SequentialLR' object has no attribute 'base_lrs'",
    ),
    "chained": (
        lambda o: torch_schedulers.ChainedScheduler(
            [torch_schedulers.ConstantLR(o, 0.1, 6), torch_schedulers.ExponentialLR(o, 0.9)]
        ),
        AttributeError,
        "'ChainedScheduler' object has no attribute 'base_lrs'",
    ),
}


def _polynomial(optimizer: Any) -> Any:
    return torch_schedulers.PolynomialLR(optimizer, 25)


@others
@pytest.mark.parametrize("make", [*(case[0] for case in REFUSED.values()), _polynomial], ids=[*REFUSED, "polynomial"])
def test_f5_fts_refuses_schedulers(tmp_path, fts, make) -> None:
    """When this is red, finetuning-scheduler has been mended: delete it."""
    with pytest.raises(MisconfigurationException, match="is not currently supported by FinetuningScheduler"):
        scenarios.follow_a_schedule(fts(), tmp_path, make)


@others
@pytest.mark.parametrize(("make", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_f5_fts_crashes_where_they_are_allowed(tmp_path, fts, make, error, message) -> None:
    """With `allow_untested=True`. When this is red, finetuning-scheduler has been mended: delete it."""
    with pytest.raises(error, match=message):
        scenarios.follow_a_schedule(fts(allow_untested=True), tmp_path, make)


@others
def test_f5_fts_is_off_the_curve_where_polynomial_lr_is_allowed(tmp_path, fts) -> None:
    """By half as much again. When this is red, finetuning-scheduler has been mended: delete it."""
    head, top = scenarios.follow_a_schedule(fts(allow_untested=True), tmp_path, _polynomial)
    assert top == pytest.approx([lr * 0.1 * 25 / 17 for lr in head[TOP:]])


@pytest.mark.parametrize("make", [*(case[0] for case in REFUSED.values()), _polynomial], ids=[*REFUSED, "polynomial"])
def test_f5_ours_follows_them(tmp_path, make) -> None:
    expected = scenarios.curve(make)
    tops = [lr * 0.1 for lr in expected[TOP:]]
    assert scenarios.follow_a_schedule(ours_in_phases(), tmp_path, make) == (expected, tops)


# F6: names.


@others
def test_f6_fts_thaws_layer_10_with_layer_1(tmp_path, fts) -> None:
    """`backbone.1` is a pattern that the name only has to begin with, and its dot is any character.

    When this is red, finetuning-scheduler has been mended: delete it.
    """
    phases = {
        0: {"params": ["head"], "max_transition_epoch": 1},
        1: {"params": ["backbone.1"], "max_transition_epoch": 2, "lr": TENTH},
    }
    trained = scenarios.thaw_one_of_eleven_layers(fts(phases), tmp_path)
    assert sorted(trained) == sorted(f"backbone.{layer}.{leaf}" for layer in (1, 10) for leaf in ("weight", "bias"))


def test_f6_ours_thaws_the_layer_that_is_named(tmp_path) -> None:
    rest = {**BACKBONE, "at": {"epoch": 9}}
    tool = staged({**HEAD, "one": {**BACKBONE, "params": "backbone.1"}, "rest": rest})
    assert sorted(scenarios.thaw_one_of_eleven_layers(tool, tmp_path)) == ["backbone.1.bias", "backbone.1.weight"]
