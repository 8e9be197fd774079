"""Whatever is configured is built or refused with a `ConfigError`; and the fuzzing finds guards that are taken out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lightning_optim.build import plan_checks
from lightning_optim.core import config_values, errors
from lightning_optim.core.hyperparameters import Number
from tests.support.fuzzed_cases import KINDS, run_case, run_cases


def check_cases(seed: int, count: int) -> None:
    counts, wrong = run_cases(seed, count)
    assert [f"--case {o.seed}: {o.kind}: {o.verdict}: {o.detail[:200]}" for o in wrong] == []
    assert sum(counts.values()) == count
    assert {kind for kind, verdict in counts if verdict == "built"} == set(KINDS), counts
    assert {kind for kind, verdict in counts if verdict == "refused"} >= {"optimizer", "schedule", "stages"}, counts


def test_two_hundred_cases_are_built_or_refused() -> None:
    check_cases(seed=0, count=200)


@pytest.mark.slow
def test_a_thousand_other_cases_are_built_or_refused() -> None:
    check_cases(seed=1, count=1000)


@pytest.mark.slow
def test_the_same_seed_is_the_same_case() -> None:
    assert [run_case(seed) for seed in range(20)] == [run_case(seed) for seed in range(20)]


def _without_depth_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_values, "_MAX_DEPTH", 10**9)


def _without_integer_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_values, "_MAX_BITS", 10**9)


def _without_value_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_values, "_MAX_VALUES", 10**18)


def _without_print_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_values, "_check_printable", lambda value, key: None)


def _without_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "escape_hidden", lambda message: message)


def _without_message_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_MAX_MESSAGE", 10**9)


def _without_number_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_checks, "check_numbers", lambda plan: None)


def _without_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    convert = Number._convert

    def convert_without_bounds(self: Number, value: Any) -> Any:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return value if is_number else convert(self, value)

    monkeypatch.setattr(Number, "_convert", convert_without_bounds)


@pytest.fixture(autouse=True)
def usual_recursion_limit() -> Iterator[None]:
    """That of Python: torch.compile raises it in the process where it has run, and then nothing is too deep."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(limit)


FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str, int]] = {
    "containers of any depth": (_without_depth_limit, "RecursionError", 355),
    "integers of any length": (_without_integer_limit, "ValueError", 102),
    "any number of values": (_without_value_limit, "TimeLimitError", 19),
    "values that cannot be printed": (_without_print_check, "RuntimeError", 2429),
    "control characters": (_without_escapes, "message with", 116),
    "messages of any length": (_without_message_limit, "message of", 622),
    "numbers that the dtype does not hold": (_without_number_checks, "RuntimeError", 3965),
    "numbers out of bounds": (_without_bounds, "Error", 511),
}
"""By name: the guard, what the case ends in without it, and the first seed from 0 on that notices it."""


# The limit of time may stop a callback of the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "fault",
    [pytest.param(name, marks=() if name == "control characters" else pytest.mark.slow) for name in FAULTS],
)
def test_a_guard_that_is_taken_out_is_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take_out, verdict, seed = FAULTS[fault]
    assert verdict not in run_case(seed).verdict
    take_out(monkeypatch)
    assert verdict in run_case(seed).verdict
