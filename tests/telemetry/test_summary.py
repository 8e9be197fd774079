"""The values of each group's signals, from one number for each of its tensors."""

from __future__ import annotations

import math

import pytest

from lightning_optim.telemetry.summary import DOT, MOMENTUM, SignalNumbers, summarize


def numbers(signal: str, group: str, **by_parameter: float) -> SignalNumbers:
    """A signal with these numbers by parameter, of two elements each."""
    return SignalNumbers(signal, group, list(by_parameter), [2] * len(by_parameter), list(by_parameter.values()))


def test_a_norm_is_over_each_group_and_over_all() -> None:
    values = summarize([numbers("norm/x", "a", p=9.0, q=16.0), numbers("norm/x", "b", r=144.0)]).values
    assert [values["norm/x", group] for group in ("a", "b", "all")] == [5.0, 12.0, 13.0]


def test_a_root_mean_square_is_over_the_elements() -> None:
    values = summarize([numbers("rms/v", "a", p=8.0), numbers("rms/v", "b", q=24.0)]).values
    assert [values["rms/v", group] for group in ("a", "b", "all")] == [2.0, math.sqrt(12), math.sqrt(8)]


def test_a_root_mean_square_of_no_elements_is_0() -> None:
    assert summarize([numbers("rms/v", "a")]).values["rms/v", "a"] == 0.0


def test_of_other_signals_the_largest_number_counts() -> None:
    signals = [numbers("step", "a", p=3.0, q=7.0), numbers("lr", "a", p=0.1), numbers("step", "b", r=2.0)]
    values = summarize(signals).values
    assert (values["step", "a"], values["lr", "a"], values["step", "b"]) == (7.0, 0.1, 2.0)
    assert not any(group == "all" for signal, group in values if signal != "nonfinite")


def test_the_update_ratio_is_0_where_both_norms_are_0() -> None:
    signals = [numbers("norm/update", "a", p=1.0), numbers("norm/param", "a", p=100.0)]
    assert summarize(signals).values["ratio/update_param", "a"] == 0.1
    zeros = [numbers("norm/update", "a", p=0.0), numbers("norm/param", "a", p=0.0)]
    assert summarize(zeros).values["ratio/update_param", "a"] == 0.0


def test_the_cosine_treats_a_group_as_one_vector() -> None:
    def parts(group: str, dot: float) -> list[SignalNumbers]:
        return [numbers("norm/grad", group, p=4.0), numbers(MOMENTUM, group, p=9.0), numbers(DOT, group, p=dot)]

    values = summarize(parts("a", 6.0) + parts("b", -6.0)).values
    assert [values["cos/grad_momentum", group] for group in ("a", "b", "all")] == [1.0, -1.0, 0.0]
    zeros = [numbers("norm/grad", "a", p=0.0), numbers(MOMENTUM, "a", p=9.0), numbers(DOT, "a", p=0.0)]
    assert summarize(zeros).values["cos/grad_momentum", "a"] == 0.0


def test_there_is_no_cosine_where_a_gradient_has_no_momentum_yet() -> None:
    signals = [
        numbers("norm/grad", "a", p=4.0),
        numbers("norm/grad", "b", q=4.0),
        numbers(MOMENTUM, "a", p=4.0),
        numbers(DOT, "a", p=4.0),
    ]
    values = summarize(signals).values
    assert ("cos/grad_momentum", "a") in values
    assert not {("cos/grad_momentum", "b"), ("cos/grad_momentum", "all")} & values.keys()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nonfinite_numbers_are_named_by_parameter(value) -> None:
    signals = [
        numbers("norm/grad", "a", p=1.0, q=value),
        numbers("norm/param", "a", p=1.0, q=value),
        numbers("norm/param", "b", r=1.0),
    ]
    summary = summarize(signals)
    assert summary.nonfinite == {"q": ["grad", "param"]}
    assert [summary.values["nonfinite", group] for group in ("a", "b", "all")] == [1, 0, 1]


def test_norms_and_root_mean_squares_by_parameter() -> None:
    summary = summarize([numbers("norm/x", "a", p=9.0), numbers("rms/v", "a", p=8.0), numbers(MOMENTUM, "a", p=1.0)])
    assert list(summary.by_parameter()) == [("norm/x", "p", 3.0), ("rms/v", "p", 2.0)]
