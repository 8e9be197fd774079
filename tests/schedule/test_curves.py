"""Our own curves against their closed forms."""

from __future__ import annotations

import math

import pytest

from lightning_optim.schedule.curves import (
    InverseSqrt,
    Noam,
    Warmup,
    WarmupCosine,
    WarmupLinear,
    WarmupStableDecay,
    progress,
    warmup,
)


def stable(shape: str, final_scale: float = 0.0) -> WarmupStableDecay:
    return WarmupStableDecay(warmup_steps=2, total_steps=10, decay_steps=4, decay_shape=shape, final_scale=final_scale)


# All numbers are exact in floating point.
@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        pytest.param(Warmup(4), {0: 0.25, 1: 0.5, 2: 0.75, 3: 1.0, 4: 1.0, 99: 1.0}, id="warmup"),
        pytest.param(Warmup(0), {0: 1.0, 5: 1.0}, id="no warmup"),
        pytest.param(
            WarmupCosine(warmup_steps=4, total_steps=12, final_scale=0.0),
            {0: 0.25, 3: 1.0, 4: 1.0, 6: (1 + math.cos(math.pi / 4)) / 2, 8: 0.5, 12: 0.0, 13: 0.0, 99: 0.0},
            id="cosine",
        ),
        pytest.param(
            WarmupCosine(warmup_steps=0, total_steps=8, final_scale=0.5),
            {0: 1.0, 4: 0.75, 8: 0.5, 9: 0.5},
            id="cosine with final_scale",
        ),
        pytest.param(
            WarmupLinear(warmup_steps=4, total_steps=12, final_scale=0.0),
            {0: 0.25, 3: 1.0, 4: 1.0, 6: 0.75, 8: 0.5, 12: 0.0, 13: 0.0, 99: 0.0},
            id="linear",
        ),
        pytest.param(
            WarmupLinear(warmup_steps=0, total_steps=8, final_scale=0.5),
            {0: 1.0, 4: 0.75, 8: 0.5, 9: 0.5},
            id="linear with final_scale",
        ),
        pytest.param(
            stable("linear"),
            {0: 0.5, 1: 1.0, 3: 1.0, 6: 1.0, 7: 0.75, 8: 0.5, 9: 0.25, 10: 0.0, 99: 0.0},
            id="stable linear",
        ),
        pytest.param(
            stable("cosine"),
            {0: 0.5, 6: 1.0, 7: (1 + math.cos(math.pi / 4)) / 2, 8: 0.5, 10: 0.0, 99: 0.0},
            id="stable cosine",
        ),
        pytest.param(
            stable("sqrt"), {0: 0.5, 6: 1.0, 7: 0.5, 8: 1 - math.sqrt(0.5), 10: 0.0, 99: 0.0}, id="stable sqrt"
        ),
        pytest.param(stable("sqrt", 0.5), {6: 1.0, 7: 0.75, 10: 0.5, 99: 0.5}, id="stable with final_scale"),
        pytest.param(Noam(4), {0: 0.25, 1: 0.5, 3: 1.0, 15: 0.5, 63: 0.25}, id="noam"),
        pytest.param(InverseSqrt(warmup_steps=0, timescale=4), {0: 1.0, 12: 0.5, 60: 0.25}, id="inverse_sqrt"),
        pytest.param(
            InverseSqrt(warmup_steps=2, timescale=4), {0: 0.5, 1: 1.0, 2: 1.0, 14: 0.5}, id="inverse_sqrt with warmup"
        ),
    ],
)
def test_factor_at_each_step(curve, expected) -> None:
    assert {t: curve(t) for t in expected} == expected


CURVES = {
    "cosine": WarmupCosine(warmup_steps=5, total_steps=20, final_scale=0.1),
    "warmup_linear": WarmupLinear(warmup_steps=5, total_steps=20, final_scale=0.1),
    **{f"stable {shape}": WarmupStableDecay(5, 20, 7, shape, 0.1) for shape in ("linear", "cosine", "sqrt")},
    "noam": Noam(5),
    "inverse_sqrt": InverseSqrt(warmup_steps=5, timescale=3),
}


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_curve_rises_to_the_peak_and_never_increases_afterwards(curve) -> None:
    factors = [curve(t) for t in range(60)]
    assert factors[:5] == [(t + 1) / 5 for t in range(5)]
    assert max(factors) == 1.0
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert min(factors) > 0


def test_noam_is_the_paper_s_formula_divided_by_its_peak() -> None:
    d_model, warmup_steps = 512, 40
    peak = d_model**-0.5 * warmup_steps**-0.5
    paper = [d_model**-0.5 * min(step**-0.5, step * warmup_steps**-1.5) for step in range(1, 200)]
    # The two formulas round differently, by a few units in the last place.
    assert [peak * Noam(warmup_steps)(t) for t in range(199)] == pytest.approx(paper, rel=1e-14)


@pytest.mark.parametrize(
    ("t", "start", "end", "fraction"), [(0, 2, 6, 0), (2, 2, 6, 0), (5, 2, 6, 0.75), (9, 2, 6, 1), (3, 2, 2, 1)]
)
def test_progress_is_clamped(t, start, end, fraction) -> None:
    assert progress(t, start, end) == fraction


def test_no_warmup_step_has_lr_0() -> None:
    assert all(warmup(0, steps) > 0 for steps in range(100))
