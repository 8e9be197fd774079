"""From numbers of tensors to signals of groups."""

from __future__ import annotations

import math

import pytest

from lightning_optim.telemetry.summary import DOT, MOMENTUM, Numbers, summarize


def norms(signal: str, group: str, **squares: float) -> Numbers:
    return Numbers(signal, group, list(squares), [2] * len(squares), list(squares.values()))


def test_groups_and_all() -> None:
    found = summarize([norms("norm/x", "a", p=9.0, q=16.0), norms("norm/x", "b", r=144.0)]).values
    assert [found["norm/x", group] for group in ("a", "b", "all")] == [5.0, 12.0, 13.0]


def test_a_root_mean_square_is_over_the_elements() -> None:
    found = summarize([norms("rms/v", "a", p=8.0), norms("rms/v", "b", q=24.0)]).values
    assert [found["rms/v", group] for group in ("a", "b", "all")] == [2.0, math.sqrt(12), math.sqrt(8)]


def test_of_what_is_no_norm_the_largest_counts() -> None:
    found = summarize([norms("step", "a", p=3.0, q=7.0), norms("lr", "a", p=0.1), norms("step", "b", r=2.0)]).values
    assert (found["step", "a"], found["lr", "a"], found["step", "b"]) == (7.0, 0.1, 2.0)
    assert not any(group == "all" for signal, group in found if signal != "nonfinite")


def test_ratio_of_update_to_parameter() -> None:
    measured = [norms("norm/update", "a", p=1.0), norms("norm/param", "a", p=100.0)]
    assert summarize(measured).values["ratio/update_param", "a"] == 0.1
    still = [norms("norm/update", "a", p=0.0), norms("norm/param", "a", p=0.0)]
    assert summarize(still).values["ratio/update_param", "a"] == 0.0


def test_a_cosine_takes_a_group_as_one_vector() -> None:
    def of(group: str, dot: float) -> list[Numbers]:
        return [norms("norm/grad", group, p=4.0), norms(MOMENTUM, group, p=9.0), norms(DOT, group, p=dot)]

    found = summarize(of("a", 6.0) + of("b", -6.0)).values
    assert [found["cos/grad_momentum", group] for group in ("a", "b", "all")] == [1.0, -1.0, 0.0]
    zero = [norms("norm/grad", "a", p=0.0), norms(MOMENTUM, "a", p=9.0), norms(DOT, "a", p=0.0)]
    assert summarize(zero).values["cos/grad_momentum", "a"] == 0.0


def test_no_cosine_where_a_gradient_has_no_momentum_yet() -> None:
    late = [
        norms("norm/grad", "a", p=4.0),
        norms("norm/grad", "b", q=4.0),
        norms(MOMENTUM, "a", p=4.0),
        norms(DOT, "a", p=4.0),
    ]
    found = summarize(late).values
    assert ("cos/grad_momentum", "a") in found
    assert not {("cos/grad_momentum", "b"), ("cos/grad_momentum", "all")} & found.keys()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_has_its_parameter_s_name(value) -> None:
    measured = [
        norms("norm/grad", "a", p=1.0, q=value),
        norms("norm/param", "a", p=1.0, q=value),
        norms("norm/param", "b", r=1.0),
    ]
    summary = summarize(measured)
    assert summary.nonfinite == {"q": ["grad", "param"]}
    assert [summary.values["nonfinite", group] for group in ("a", "b", "all")] == [1, 0, 1]


def test_by_parameter() -> None:
    summary = summarize([norms("norm/x", "a", p=9.0), norms("rms/v", "a", p=8.0), norms(MOMENTUM, "a", p=1.0)])
    assert list(summary.by_parameter()) == [("norm/x", "p", 3.0), ("rms/v", "p", 2.0)]
