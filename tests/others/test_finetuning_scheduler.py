"""finetuning-scheduler and StagedUnfreeze on the same jobs.

`test_..._fts...` records a bug of finetuning-scheduler 2.14.1, on Lightning 2.6.6 and torch 2.13.0. If one fails, the
bug has been fixed there: check that it now does what StagedUnfreeze does, and delete the test. Not run by default, and
skipped if it is not installed: `pip install -e ".[others]" -c constraints.txt && pytest -m others tests/others`.

- F1: replicas diverge under DDP, its default example. It does not rebuild the reducer; no issue known.
- F2: `fit(ckpt_path=...)` starts at phase 0 again.
- F3: a resume within a phase crashes LambdaLR. With `fit(ckpt_path=...)` alone it no longer does, because F2 then adds
  the groups again; if `trainer.ckpt_path` is set too, the phase is right and the crash occurs.
- F4: the lr of a later phase is not the one in the schedule.
- F5: five of torch's schedulers are refused; if allowed, four crash and one leaves its curve.
- F6: a name is a pattern for `re.match`: that of layer 1 also matches layer 10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim import lr_scheduler as torch_schedulers

from tests.support import other_scenarios as scenarios
from tests.support import other_tools as tools
from tests.support.cases import every
from tests.support.equality import equal
from tests.support.other_tools import BACKBONE, HEAD, LR, TENTH, Tool, ours_in_phases, ours_with_stages
from tests.support.training import BATCHES

TOP, STEM = 2 * BATCHES, 4 * BATCHES  # the steps at which they thaw
STEM_WEIGHT = "backbone.0.weight"


def others(test: Callable[..., None]) -> Callable[..., None]:
    """finetuning-scheduler warns about what it corrects in the schedule and in the callbacks."""
    return pytest.mark.others(pytest.mark.filterwarnings("ignore")(test))


@pytest.fixture
def fts() -> Callable[..., Tool]:
    pytest.importorskip("finetuning_scheduler")
    return tools.finetuning_scheduler


@others
def test_weights_are_equal_when_nothing_goes_wrong(tmp_path, fts) -> None:
    theirs, mine = (scenarios.train(tool, tmp_path) for tool in (fts(), ours_in_phases()))
    assert theirs.records == mine.records
    assert equal(theirs.final_state, mine.final_state)


# F1: DDP.


@others
def test_f1_fts_lets_replicas_diverge(tmp_path, fts) -> None:
    """From the first transition on. If this fails, finetuning-scheduler has fixed it: delete this test."""
    replicas = scenarios.run_two_processes("ddp", "finetuning_scheduler", tmp_path)
    assert scenarios.diverged_steps(replicas) == [*range(TOP, 6 * BATCHES)]


@pytest.mark.slow
def test_f1_ours_keeps_replicas_equal(tmp_path) -> None:
    replicas = scenarios.run_two_processes("ddp", "ours_in_phases", tmp_path)
    assert [len(step["trained"]) for step in replicas[0]] == [2] * TOP + [4] * (STEM - TOP) + [8] * 2 * BATCHES
    assert scenarios.diverged_steps(replicas) == []


# F2: `trainer.fit(ckpt_path=...)`.


@others
def test_f2_fts_is_an_epoch_late_if_it_resumes_before_a_transition(tmp_path, fts) -> None:
    """It reads `trainer.ckpt_path` in `setup`, before `fit(ckpt_path=...)` has set it: the depth is 0 again.

    So it reaches phase 1 in the next epoch, and phase 2, which was due, in the one after.
    If this fails, finetuning-scheduler has fixed it: delete this test.
    """
    full, resumed = scenarios.resume(fts(), tmp_path, "epoch=3")
    assert [STEM_WEIGHT in lrs for lrs in full.records[STEM:]] == [True] * 8
    assert [STEM_WEIGHT in lrs for lrs in resumed.records] == [False] * BATCHES + [True] * BATCHES


@others
def test_f2_fts_leaves_a_phase_frozen_if_it_resumes_after_its_transition(tmp_path, fts) -> None:
    """The phase's group is in the optimizer but has no gradient.

    If this fails, finetuning-scheduler has fixed it: delete this test.
    """
    full, resumed = scenarios.resume(fts(), tmp_path, "epoch=4")
    assert STEM_WEIGHT in full.trainable_names() and STEM_WEIGHT not in resumed.trainable_names()
    assert resumed.records == full.records[5 * BATCHES :]


@pytest.mark.parametrize("stop", every([2, 3, 4], fast=["3"]))
def test_f2_ours_resumes_bitwise(tmp_path, stop) -> None:
    full, resumed = scenarios.resume(ours_in_phases(), tmp_path, f"epoch={stop}")
    assert equal(resumed.final_state, full.final_state)
    assert resumed.records == full.records[(stop + 1) * BATCHES :]


# F3: LambdaLR.

LAMBDA = scenarios.sgd_with(lambda optimizer: torch_schedulers.LambdaLR(optimizer, lambda step: 0.9**step))


@others
@pytest.mark.parametrize("stop", ["epoch=2", "epoch=4"])
def test_f3_fts_crashes_lambda_lr_within_a_phase(tmp_path, fts, stop) -> None:
    """Its lambdas are extended only at a transition, and the next epoch has none.

    If this fails, finetuning-scheduler has fixed it: delete this test.
    """
    with pytest.raises(ValueError, match=r"zip\(\) argument 2 is longer than argument 1"):
        scenarios.resume(fts(), tmp_path, stop, LAMBDA, set_ckpt_path=True)


@pytest.mark.parametrize("stop", every([2, 4], fast=["2"]))
def test_f3_ours_resumes_with_lambda_lr(tmp_path, stop) -> None:
    full, resumed = scenarios.resume(ours_in_phases(), tmp_path, f"epoch={stop}", LAMBDA, set_ckpt_path=True)
    assert equal(resumed.final_state, full.final_state)
    assert resumed.records == full.records[(stop + 1) * BATCHES :]


# F4: schedulers that multiply the current lr. After 14 steps, all reach the configured lr.

RAMPS: dict[str, scenarios.MakeScheduler] = {
    "constant": lambda o: torch_schedulers.ConstantLR(o, 0.1, total_iters=14),
    "linear": lambda o: torch_schedulers.LinearLR(o, 0.1, 1.0, total_iters=14),
}


@others
@pytest.mark.parametrize(("ramp", "last"), [("constant", LR), ("linear", 1.6279e-3)])
def test_f4_fts_ends_at_another_lr_than_in_its_schedule(tmp_path, fts, ramp, last) -> None:
    """The phase starts at its full lr while the others are on a curve; torch then divides by a factor never applied.

    If this fails, finetuning-scheduler has fixed it: delete this test.
    """
    head, top = scenarios.train_with_scheduler(fts(), tmp_path, RAMPS[ramp])
    assert head == scenarios.expected_lrs(RAMPS[ramp])
    assert top[0] == TENTH
    assert top[-1] == pytest.approx(last, rel=1e-4)


@pytest.mark.parametrize("ramp", every(RAMPS, fast=["linear"]))
def test_f4_ours_ends_at_the_lr_of_its_stage(tmp_path, ramp) -> None:
    expected = scenarios.expected_lrs(RAMPS[ramp])
    head, top = scenarios.train_with_scheduler(ours_in_phases(), tmp_path, RAMPS[ramp])
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


SCHEDULERS = {**{name: case[0] for name, case in REFUSED.items()}, "polynomial": _polynomial}


@others
@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
def test_f5_fts_refuses_schedulers(tmp_path, fts, make) -> None:
    """If this fails, finetuning-scheduler has fixed it: delete this test."""
    with pytest.raises(MisconfigurationException, match="is not currently supported by FinetuningScheduler"):
        scenarios.train_with_scheduler(fts(), tmp_path, make)


@others
@pytest.mark.parametrize(("make", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_f5_fts_crashes_if_they_are_allowed(tmp_path, fts, make, error, message) -> None:
    """With `allow_untested=True`. If this fails, finetuning-scheduler has fixed it: delete this test."""
    with pytest.raises(error, match=message):
        scenarios.train_with_scheduler(fts(allow_untested=True), tmp_path, make)


@others
def test_f5_fts_leaves_the_curve_if_polynomial_lr_is_allowed(tmp_path, fts) -> None:
    """Its lr is 25 / 17 of that on the curve. If this fails, finetuning-scheduler has fixed it: delete this test."""
    head, top = scenarios.train_with_scheduler(fts(allow_untested=True), tmp_path, _polynomial)
    assert top == pytest.approx([lr * 0.1 * 25 / 17 for lr in head[TOP:]])


@pytest.mark.parametrize("name", every(SCHEDULERS, fast=["sequential"]))
def test_f5_ours_follows_them(tmp_path, name) -> None:
    make = SCHEDULERS[name]
    expected = scenarios.expected_lrs(make)
    expected_top = [lr * 0.1 for lr in expected[TOP:]]
    assert scenarios.train_with_scheduler(ours_in_phases(), tmp_path, make) == (expected, expected_top)


# F6: names.


@others
def test_f6_fts_thaws_layer_10_with_layer_1(tmp_path, fts) -> None:
    """`backbone.1` is a pattern that only has to match the start of a name, and its dot is any character.

    If this fails, finetuning-scheduler has fixed it: delete this test.
    """
    phases = {
        0: {"params": ["head"], "max_transition_epoch": 1},
        1: {"params": ["backbone.1"], "max_transition_epoch": 2, "lr": TENTH},
    }
    trained = scenarios.thaw_layer_1_of_eleven(fts(phases), tmp_path)
    assert sorted(trained) == sorted(f"backbone.{layer}.{leaf}" for layer in (1, 10) for leaf in ("weight", "bias"))


def test_f6_ours_thaws_only_the_named_layer(tmp_path) -> None:
    rest = {**BACKBONE, "at": {"epoch": 9}}
    tool = ours_with_stages({**HEAD, "one": {**BACKBONE, "params": "backbone.1"}, "rest": rest})
    assert sorted(scenarios.thaw_layer_1_of_eleven(tool, tmp_path)) == ["backbone.1.bias", "backbone.1.weight"]
