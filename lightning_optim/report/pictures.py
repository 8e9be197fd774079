"""Which charts a run has, in the order in which one reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..core.number_format import format_number
from ..telemetry.tags import EPS, in_reading_order, is_setting
from .charts import Chart
from .curves import Curve, OptimizerCurves
from .sicknesses import HIGH_RATIO, RATIO, USUAL_RATIOS, compared_with_eps, eps_of

_CAPTIONS = {
    "lr": "as the optimizer used it",
    RATIO: "norm of a step's update relative to that of the weights; in the band all is well",
    "norm/grad": "as the optimizer saw it, after clipping",
    "norm/grad_unclipped": "before clipping",
    "norm/param": "of the weights after the step",
    "norm/update": "of what the step has added to the weights",
    "nonfinite": "parameters that are NaN or infinite, or whose gradient or state is",
    "cos/grad_momentum": "between the gradient and the momentum before it",
}
# Counts, and what the tables have.
_LEFT_OUT = ("step", "state_mib")
_LINEAR = ("cos/grad_momentum", "nonfinite")


def charts_of(curves: OptimizerCurves) -> Iterator[tuple[Chart, str]]:
    """Each chart of an optimizer with a caption; signals without points, or constants, have none."""
    seconds = [signal for signal in curves.signals if signal.startswith("rms/")]
    # The norm of a second moment, a root of a sum of fourth powers, can be compared with nothing.
    hidden = {*_LEFT_OUT, *(signal.replace("rms/", "norm/", 1) for signal in seconds)}
    for signal in in_reading_order(name for name in curves.signals if name not in hidden):
        by_group = dict(curves.of_groups(signal))
        if not by_group or ((signal == "nonfinite" or is_setting(signal)) and _is_constant(by_group)):
            continue
        lines, caption = [], _CAPTIONS.get(signal, "")
        if signal == RATIO:
            lines = [(HIGH_RATIO, "lr too high")] if _reaches(by_group, HIGH_RATIO) else []
        elif signal in compared_with_eps(curves):
            found = (eps_of(curves, group, curve.steps) for group, curve in by_group.items())
            levels = sorted({float(eps) for values in found if values is not None for eps in values})
            lines = [(eps, f"eps {format_number(eps)}") for eps in levels]
            caption = "root of the mean second moment; " + (
                "far above eps in a healthy run" if lines else "eps is unknown or 0, so there is no line for it"
            )
        is_log = (
            False
            if signal in _LINEAR or (is_setting(signal) and signal != EPS)
            else True
            if lines or signal == RATIO
            else None
        )
        band = USUAL_RATIOS if signal == RATIO else None
        yield (
            Chart(title=signal, curves=by_group, is_log=is_log, lines=lines, band=band, is_held=is_setting(signal)),
            caption,
        )


def _reaches(curves: Mapping[str, Curve], level: float) -> bool:
    return any((curve.values >= level).any() for curve in curves.values())


def _is_constant(curves: Mapping[str, Curve]) -> bool:
    return all((curve.values == curve.values[0]).all() for curve in curves.values())
