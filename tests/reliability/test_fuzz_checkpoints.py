"""Checkpoints whose structure was changed are resumed exactly, as they say, or refused with a `ConfigError`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import reduce
from typing import Any

import pytest
import torch

from lightning_optim import ConfigError
from tests.support.checkpoint_mutations import replace
from tests.support.checkpointed_runs import RUNS, resume, save_checkpoint
from tests.support.equality import equal
from tests.support.fuzzed_checkpoints import AS_SAVED, REFUSED, UNCHANGED, CheckpointFuzzer, checkpoint_fuzzer


@pytest.fixture(scope="module")
def fuzzer() -> Iterator[CheckpointFuzzer]:
    with checkpoint_fuzzer() as fuzzer:
        yield fuzzer


@pytest.mark.parametrize(("seed", "count"), [(0, 20), pytest.param(1, 160, marks=pytest.mark.slow)])
def test_a_changed_checkpoint_is_resumed_or_refused(fuzzer, seed, count) -> None:
    outcomes = list(fuzzer.run_cases(seed, count))
    assert [f"--case {o.seed}: {o.run}: {o.verdict}: {o.detail[:200]}" for o in outcomes if o.is_wrong] == []
    assert {o.run for o in outcomes} == set(RUNS)
    counts = Counter(o.verdict for o in outcomes)
    assert min(counts[verdict] for verdict in (UNCHANGED, AS_SAVED, REFUSED)) > 0, counts


def test_the_same_seed_is_the_same_case(fuzzer) -> None:
    first, second = ([(o.verdict, o.run) for o in fuzzer.run_cases(3, 4)] for _ in range(2))
    assert first == second


STAGES = ("callbacks", "StagedUnfreeze")
WRONG: dict[str, tuple[tuple[Any, ...], Any]] = {
    "a tensor": (STAGES, torch.zeros(2)),
    "a thaw that is no time": ((*STAGES, "thaw_times", "head"), [set(), 0, 0.0]),
    "a row of the log without a stage": ((*STAGES, "thaw_log"), [{"step": 1}]),
    "a log that is a set": ((*STAGES, "thaw_log"), set()),
    "steps as text": ((*STAGES, "optimizers", 0, "num_steps", "head"), "4"),
    "a pending step that is a number": ((*STAGES, "plateaus", "pending_steps"), [1]),
    "a flag that is none": ((*STAGES, "optimizers", 0, "scheduler_groups", 0, "amsgrad"), {0: {}}),
    "an lr of NaN": ((*STAGES, "optimizers", 0, "scheduler_groups", 0, "lr"), float("nan")),
}


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Any:
    run = RUNS["torch's adamw, cosine, stages"]
    path = save_checkpoint(run, tmp_path_factory.mktemp("run"))
    return run, path, torch.load(path)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_state_of_stages_is_refused(staged, tmp_path, name) -> None:
    run, _, content = staged
    torch.save(replace(content, *WRONG[name]), tmp_path / "wrong.ckpt")
    with pytest.raises(ConfigError, match=r"callbacks\.StagedUnfreeze"):
        resume(run, tmp_path / "wrong.ckpt")


CHANGED: dict[str, tuple[tuple[Any, ...], Any, str]] = {
    "the state of the scheduler": (("lr_schedulers",), [], "lr_schedulers: is empty, although the run has"),
    "the state of the optimizer": (("optimizer_states",), [], "optimizer_states: is empty"),
    "an argument of the schedule": (("lr_schedulers", 0, "T_max"), 21, "must be 20, as its record says"),
    "an argument in a tensor": (("lr_schedulers", 0, "T_max"), torch.tensor(20), "must be 20, as its record says"),
    "a record of billions of values": (
        ("lr_schedulers", 0, "schedule", "curves", 0, "T_max"),
        reduce(lambda value, _: [value] * 10, range(10), 0),
        "record: .*T_max",
    ),
    "a flag in a tensor": (("lr_schedulers", 0, "eta_min"), torch.tensor(True), "eta_min .* must be a number"),
    "a schedule that has not begun": (("lr_schedulers", 0, "last_epoch"), -1, "last_epoch .* must be an integer >= 0"),
    "a counter": (("lr_schedulers", 0, "last_epoch"), 2.5, "last_epoch .* must be an integer"),
    "an algorithm with a line end": (
        ("optimizer_states", 0, "param_groups", 0, "configured", "algorithm"),
        "lion\nall is well",
        "the checkpoint has lion.all is well, which",
    ),
    "a text of 100,000 characters": (
        ("optimizer_states", 0, "param_groups", 0, "configured", "algorithm"),
        "x" * 100_000,
        "algorithm: text of 100,000 characters",
    ),
    "a step of 1e308": (("optimizer_states", 0, "state", 0, "step"), 1e308, "step: must be a number >= 0 and < "),
    "a class that is a list": (("lr_schedulers", 0, "class"), [0], "class in the checkpoint must be a name"),
    "a configured value that is no number": (
        ("optimizer_states", 0, "param_groups", 0, "configured", "betas"),
        [torch.zeros(2), 0.9],
        "configured.betas: must be a number",
    ),
    "a step of 0.01": (("optimizer_states", 0, "state", 0, "step"), 0.01, "step: must be a whole number"),
    "a step of -4": (("optimizer_states", 0, "state", 0, "step"), torch.tensor(-4.0), "must be a number >= 0"),
    "a number of no parameter": (
        ("optimizer_states", 0, "param_groups", 1, "params", 1),
        "3",
        r"state\[3\]: no param group has",
    ),
    "a peak that would make lr a tensor": (
        ("optimizer_states", 0, "param_groups", 1, "peak_lr"),
        torch.tensor(0.5),
        "peak_lr: must be a number, got a tensor",
    ),
    "a flag that no module takes": (
        ("optimizer_states", 0, "param_groups", 0, "differentiable"),
        True,
        "differentiable: torch steps no parameters",
    ),
    "a factor out of bounds": (("optimizer_states", 0, "param_groups", 0, "eps"), -1.0, "eps: got -1.0"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_a_run_would_take_in_silence_is_refused(staged, tmp_path, name) -> None:
    run, _, content = staged
    path, value, message = CHANGED[name]
    torch.save(replace(content, path, value), tmp_path / "changed.ckpt")
    with pytest.raises(ConfigError, match=message):
        resume(run, tmp_path / "changed.ckpt")


def test_a_value_in_itself_that_is_of_no_parameter_is_refused(staged, tmp_path) -> None:
    run, _, content = staged
    value: list[Any] = []
    value.append(value)
    states = {**content["optimizer_states"][0]["state"], "extra": value}
    torch.save(replace(content, ("optimizer_states", 0, "state"), states), tmp_path / "changed.ckpt")
    with pytest.raises(ConfigError, match="nested more than 20 deep"):
        resume(run, tmp_path / "changed.ckpt")


def test_a_state_in_which_every_step_is_missing_is_refused(staged, tmp_path) -> None:
    run, _, content = staged
    states = content["optimizer_states"][0]["state"]
    without = {key: {name: value for name, value in state.items() if name != "step"} for key, state in states.items()}
    torch.save(replace(content, ("optimizer_states", 0, "state"), without), tmp_path / "changed.ckpt")
    with pytest.raises(ConfigError, match="has no step"):
        resume(run, tmp_path / "changed.ckpt")


def test_a_run_that_gets_stages_goes_on_at_its_lr(tmp_path) -> None:
    """Without the callback's state, the lrs are those of the optimizer's groups, and not the config's."""
    run = RUNS["factories in the hyperparameters"]
    path = save_checkpoint(run, tmp_path)
    content = torch.load(path)
    del content["callbacks"]["StagedUnfreeze"]
    torch.save(content, tmp_path / "unstaged.ckpt")
    unstaged, expected = resume(run, tmp_path / "unstaged.ckpt"), resume(run, path)
    assert expected.ended is not None and equal(unstaged.ended, expected.ended)
    torch.save({**content, "optimizer_states": [{"a": 2}]}, tmp_path / "wrong.ckpt")
    with pytest.raises(ConfigError, match=r"optimizer_states\[0\]: param_groups: missing"):
        resume(run, tmp_path / "wrong.ckpt")
