"""The rules of the report: the sicknesses of *Reading the curves* (docs/curves.md).

The thresholds lie between what was measured on sick runs and on healthy ones: those of `recipes.curves`, and a
transformer of seven layers on scikit-learn's digits, trained by AdamW (layer-wise lr, block by block, a head or biases
that start at zero, clipped gradients), SGD, Lion, Muon, Adafactor and RMSprop.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import format_names
from ..core.number_format import format_number
from ..core.printable import to_printable
from ..groups.group import ALL
from ..telemetry.tags import EPS
from .curves import Curve, OptimizerCurves
from .rules import Finding, Rule, Verdict

RATIO = "ratio/update_param"
# Measured: healthy runs reach 0.03 in their first steps; runs that no longer learn (lr 10 to 1000 times too high) stay
# above 0.1 for 3 to 10 steps and sink below it then, since their weights have grown.
HIGH_RATIO, _NUM_HIGH = 0.1, 3
USUAL_RATIOS = (1e-4, 1e-2)
# A small part of the weights may change fast: biases, the scales of layers that start at 1e-6.
_MIN_SHARE = 0.05
# From zero weights, the ratio is 1 at the first step, then at most 2 / (step + 1): below 0.05 after 40. A huge lr looks
# alike, but drives the gradient up, measured: 25 to 35 times in the first 20 steps, and up to 5 times from zero.
_FROM_ZERO, _STEPS_FROM_ZERO, _GRADIENT_GROWTH = 1 - 1e-4, 40, 10.0
# Measured: 1e5 in healthy runs, 0.004 where the loss is divided by 1e8. At 3 a step is a quarter smaller on average.
_NEAR_EPS = 3.0
_IN_A_ROW = 10
_MIN_POINTS = 3
# Measured: 1e-4 and more in healthy runs, layer-wise lr included; 8e-7, and 5000 times less than the other group, where
# the lr of a group is 1e-4 of that. Norms' weights, which are near 1, have ratios up to 100 times less than matrices'.
_STILL_RATIO, _TIMES_LESS = 1e-5, 1000.0
_FLOAT32_RATIO = 1e-7
"""Below this, updates round to nothing in float32."""

# Second moments of which the step is divided by the root plus eps.
_DIVIDED_BY_ROOT = ("exp_avg_sq", "max_exp_avg_sq", "exp_avg_var", "max_exp_avg_var", "square_avg", "sum")
_BIAS_CORRECTED = ("exp_avg_sq", "exp_avg_var")
_NO_RATIO = (
    "there is no optim/ratio/update_param: type OptimizerMonitor(update_norm=True), or monitor.update_norm=true, and "
    "train again"
)


def eps_of(curves: OptimizerCurves, group: str, steps: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """A group's eps at some steps, by its curve or else its hyperparameters; None where it is unknown, 0 or a pair."""
    if (logged := curves.get(EPS, group)) is not None:
        # Event files hold float32, as which 1e-8 is 9.99999994e-9.
        shortest = np.array([float(str(np.float32(value))) for value in logged.values])
        return Curve(logged.steps, shortest).at(steps) if (shortest > 0).all() else None
    eps = curves.hyperparameters.get(group, {}).get(EPS)
    return np.full(len(steps), float(eps)) if isinstance(eps, (int, float)) and eps > 0 else None


def compared_with_eps(curves: OptimizerCurves) -> list[str]:
    """The signals that the step compares with eps: `rms/exp_avg_sq`, ..."""
    return [signal for signal in curves.signals if signal in {f"rms/{name}" for name in _DIVIDED_BY_ROOT}]


def _find_nonfinite(curves: OptimizerCurves) -> Verdict:
    verdict = Verdict()
    for group in curves.groups:
        firsts = [
            (int(curve.steps[index]), signal, float(curve.values[index]))
            for signal in curves.signals
            if (curve := curves.get(signal, group)) is not None
            and (index := _first(_is_bad(signal, curve.values))) is not None
        ]
        if not firsts:
            continue
        step, signal, value = min(firsts)
        what = f"nonfinite is {value:.0f}" if signal == "nonfinite" else f"{signal} is {value}"
        verdict.findings.append(
            Finding(
                rule="nonfinite", root=curves.root, group=group, step=step, value=value, threshold=0.0,
                text=what + _name_parameters(curves, step),
                advice="Look at the batch of this step and at the loss. Divide the lr by ten, clip gradients "
                "(trainer.gradient_clip_val=1), and find the operation with trainer.detect_anomaly=true",
            )
        )  # fmt: skip
    # Where it began comes first; from there it spreads within a step or two.
    verdict.findings.sort(key=lambda found: found.step)
    return verdict


def _name_parameters(curves: OptimizerCurves, step: int) -> str:
    """The parameters that the monitor has named at this step."""
    lines = [line for text in curves.nonfinite if text.step == step for line in text.text.splitlines()]
    names = [to_printable(line.removeprefix("- ").partition(" (")[0]) for line in lines]
    return f": {format_names(names, 3)}" if names else ""


def _is_bad(signal: str, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    return ~np.isfinite(values) | (values > 0) if signal == "nonfinite" else ~np.isfinite(values)


def _find_lr_too_high(curves: OptimizerCurves) -> Verdict:
    if not curves.signals.get(RATIO):
        return Verdict(unchecked=_NO_RATIO)
    verdict = Verdict()
    for group, ratio in curves.of_groups(RATIO):
        counts = (ratio.values >= HIGH_RATIO) & (_share(curves, group, ratio) >= _MIN_SHARE)
        if (start := _start_from_zero(curves, group, ratio)) is not None:
            counts &= ratio.steps >= start + _STEPS_FROM_ZERO
        if counts.sum() < _NUM_HIGH:
            continue
        index = int(np.argmax(counts))
        lr = _value_at(curves.get("lr", group), int(ratio.steps[index]))
        verdict.findings.append(
            Finding(
                rule="lr_too_high", root=curves.root, group=group, step=int(ratio.steps[index]),
                value=float(ratio.values[index]), threshold=HIGH_RATIO,
                text=f"a step changes {_percent(ratio.values[index])} of the weights (ratio/update_param "
                f"{format_number(float(ratio.values[index]))}), and {HIGH_RATIO:.0%} or more in {counts.sum():,} "
                "logged steps",
                advice=f"Divide the lr{f' ({format_number(lr)})' if lr else ''} by ten until the ratio stays near 0.01 "
                "at most, and restart from fresh weights",
            )
        )  # fmt: skip
    if not verdict.findings and (gap := _gap(curves)) >= _STEPS_FROM_ZERO // 4:
        verdict.unchecked = (
            f"only one step in {gap} is logged, and a ratio that is too high at the start sinks within 20 steps. To "
            "see the start, train 50 steps with trainer.log_every_n_steps=1"
        )
    return verdict


def _start_from_zero(curves: OptimizerCurves, group: str, ratio: Curve) -> int | None:
    """The step at which a group's weights begin to grow from zero; None if they are not zero at first."""
    index = _first(ratio.values > 0)
    if index is None or ratio.values[index] < _FROM_ZERO:
        return None
    start = int(ratio.steps[index])
    grad = curves.get("norm/grad_unclipped", group) or curves.get("norm/grad", group)
    if grad is not None:
        first = grad.values[(grad.steps >= start) & (grad.steps < start + _STEPS_FROM_ZERO) & (grad.values > 0)]
        if len(first) and first.max() > _GRADIENT_GROWTH * first[0]:
            return None
    return start


def _share(curves: OptimizerCurves, group: str, at: Curve) -> NDArray[np.float64]:
    """The norm of a group's weights relative to that of all, at the steps of a curve; 1 where it is unknown."""
    own, total = curves.get("norm/param", group), curves.get("norm/param", ALL)
    if own is None or total is None:
        return np.ones(len(at.steps))
    norms = [np.interp(at.steps, curve.steps, curve.values) for curve in (own, total)]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.nan_to_num(norms[0] / norms[1], nan=1.0, posinf=1.0)


def _find_near_eps(curves: OptimizerCurves) -> Verdict:
    verdict, unknown = Verdict(), False
    for signal in compared_with_eps(curves):
        for group, rms in curves.of_groups(signal):
            used = eps_of(curves, group, rms.steps)
            if used is None:
                is_known = EPS in curves.hyperparameters.get(group, {}) or curves.get(EPS, group) is not None
                unknown = unknown or not is_known
                continue
            values = _correct_bias(curves, group, signal, rms)
            # 0: no gradient has arrived, which is another rule's.
            index = _start_of_row((values < _NEAR_EPS * used) & (rms.values > 0))
            if index is None:
                continue
            eps = float(used[index])
            verdict.findings.append(
                Finding(
                    rule="second_moment_near_eps", root=curves.root, group=group, step=int(rms.steps[index]),
                    value=float(values[index]), threshold=_NEAR_EPS * eps,
                    text=f"{signal} is {format_number(float(values[index]))}, "
                    f"{format_number(float(values[index] / eps))} times eps ({eps:g}), which so divides the step",
                    advice=f"Scale the loss up, or set eps well below the curve: optimizer.eps="
                    f"{_round_down(float(np.median(values)) / 1000)}",
                )
            )  # fmt: skip
    if unknown:
        verdict.unchecked = (
            "eps of some groups is neither a curve (optim/eps/<group>) nor a logged hyperparameter "
            "(optim/<group>/eps), so no line is drawn for it"
        )
    return verdict


def _correct_bias(curves: OptimizerCurves, group: str, signal: str, rms: Curve) -> NDArray[np.float64]:
    """The root of the second moment as Adam uses it; as logged, where beta2 or the step is unknown."""
    beta2 = curves.hyperparameters.get(group, {}).get("beta2")
    logged = curves.get("beta2", group)
    beta2 = float(logged.values[0]) if beta2 is None and logged is not None else beta2
    count = curves.get("step", group)
    if signal.removeprefix("rms/") not in _BIAS_CORRECTED or not isinstance(beta2, (int, float)) or count is None:
        return rms.values
    steps = np.maximum(np.interp(rms.steps, count.steps, count.values), 1.0)
    correction = 1 - float(beta2) ** steps if 0 < beta2 < 1 else np.ones(len(steps))
    return rms.values / np.sqrt(np.maximum(correction, 1e-12))


def _find_no_gradient(curves: OptimizerCurves) -> Verdict:
    verdict = Verdict()
    for group, norm in curves.of_groups("norm/grad"):
        is_zero = norm.values == 0
        num_last = len(is_zero) if is_zero.all() else int(np.argmin(is_zero[::-1]))
        if num_last < (_MIN_POINTS if is_zero.all() else _IN_A_ROW):
            continue
        index = len(is_zero) - num_last
        mib = curves.get("state_mib", group)
        never = is_zero.all() and mib is not None and not mib.values.any()
        since = "in all logged steps" if is_zero.all() else f"from here to the last logged step, {num_last:,} of them"
        verdict.findings.append(
            Finding(
                rule="no_gradient", root=curves.root, group=group, step=int(norm.steps[index]), value=0.0,
                threshold=0.0,
                text=f"norm/grad is exactly 0 {since}{', and there is no state: none ever arrived' * bool(never)}",
                advice="Look for a detach(), torch.no_grad() or an unused output in forward, and for requires_grad_("
                "False). If it is frozen on purpose, frozen: true in its rule takes it out of the optimizer",
            )
        )  # fmt: skip
    return verdict


def _find_still(curves: OptimizerCurves) -> Verdict:
    if not curves.signals.get(RATIO):
        return Verdict(unchecked=_NO_RATIO)
    ratios = {group: _ratio_near_peak(curves, group, curve) for group, curve in curves.of_groups(RATIO)}
    medians = {group: float(np.median(it.values)) for group, it in ratios.items() if len(it.steps) >= _MIN_POINTS}
    verdict, fastest = Verdict(), max(medians.values(), default=0.0)
    for group, median in medians.items():
        is_slower = median < _STILL_RATIO and median * _TIMES_LESS < fastest
        if not (is_slower or median < _FLOAT32_RATIO):
            continue
        grad, lr = curves.get("norm/grad", group), curves.get("lr", group)
        peak = lr and lr.highest()
        cause = f" (at most {format_number(peak)})" if peak is not None else ""
        arrives = (
            f"The gradient arrives (norm/grad {format_number(float(np.median(grad.values)))}), so" if grad else "If"
        )
        rest = f"its lr{cause} is the cause" if grad else f"the gradient arrives, its lr{cause} is the cause"
        verdict.findings.append(
            Finding(
                rule="does_not_move", root=curves.root, group=group, step=int(ratios[group].steps[0]), value=median,
                threshold=_STILL_RATIO if is_slower else _FLOAT32_RATIO,
                text=f"ratio/update_param is {format_number(median)} (median)"
                + (f", {format_number(float(f'{fastest / median:.2g}'))} times less than in another group"
                   if is_slower and median else ""),
                advice=f"{arrives} {rest}: lightning-optim explain ... --why PARAMETER shows which rule set it",
            )
        )  # fmt: skip
    return verdict


def _ratio_near_peak(curves: OptimizerCurves, group: str, ratio: Curve) -> Curve:
    """The finite ratios at the steps whose lr is at least half the group's highest: no warm-up, no end of a decay."""
    lr = curves.get("lr", group)
    used = np.isfinite(ratio.values)
    if lr is not None and (peak := lr.highest()) is not None:
        used &= lr.at(ratio.steps) >= 0.5 * peak
    return Curve(ratio.steps[used], ratio.values[used])


def _start_of_row(broken: NDArray[np.bool_]) -> int | None:
    """Where the first ten points in a row begin that break a rule; or the first, if all of at least three do."""
    length = min(_IN_A_ROW, max(len(broken), _MIN_POINTS))
    if len(broken) < length:
        return None
    rows = np.convolve(broken, np.ones(length, np.int64), "valid") == length
    return _first(rows)


def _first(mask: NDArray[np.bool_]) -> int | None:
    return int(np.argmax(mask)) if mask.any() else None


def _value_at(curve: Curve | None, step: int) -> float | None:
    return None if curve is None else float(curve.at(np.array([step]))[0])


def _gap(curves: OptimizerCurves) -> int:
    """The usual distance of two logged steps."""
    gaps = [int(np.median(np.diff(it.steps))) for _, it in curves.of_groups(RATIO) if len(it.steps) > 1]
    return min(gaps, default=1)


def _percent(ratio: Any) -> str:
    return f"{ratio:.0%}"


def _round_down(value: float) -> str:
    """The power of ten below."""
    return f"1e{int(np.floor(np.log10(value))):+03d}" if value > 0 else "1e-15"


RULES: tuple[Rule, ...] = (
    Rule(
        name="nonfinite",
        title="Values that are not finite",
        statement="A parameter, its gradient or its state is NaN or infinite in any logged step: nonfinite, the number "
        "of such parameters, is above 0, or a norm is not finite.",
        find=_find_nonfinite,
    ),
    Rule(
        name="lr_too_high",
        title="The lr is too high",
        statement=f"The update is {HIGH_RATIO:.0%} of the weights or more (ratio/update_param ≥ {HIGH_RATIO}) in "
        f"{_NUM_HIGH} logged steps, while the group has {_MIN_SHARE:.0%} or more of the norm of all weights. A group "
        f"whose weights start at zero (ratio 1 at its first step, and no gradient above {_GRADIENT_GROWTH:g} times its "
        f"first) is judged {_STEPS_FROM_ZERO} steps later.",
        find=_find_lr_too_high,
    ),
    Rule(
        name="second_moment_near_eps",
        title="The second moment is near eps",
        statement=f"The root of the mean second moment, corrected as Adam corrects it, is above 0 and below "
        f"{_NEAR_EPS:g} × eps in {_IN_A_ROW} logged steps in a row, or in all if there are fewer.",
        find=_find_near_eps,
    ),
    Rule(
        name="no_gradient",
        title="No gradient arrives",
        statement=f"norm/grad is exactly 0 in the last {_IN_A_ROW} logged steps or more, or in all.",
        find=_find_no_gradient,
    ),
    Rule(
        name="does_not_move",
        title="A group does not move",
        statement=f"Where the lr is at least half its highest, the median of ratio/update_param is below "
        f"{_STILL_RATIO:g} and {_TIMES_LESS:,.0f} times less than in another group; or it is below "
        f"{_FLOAT32_RATIO:g}, which rounds to nothing in float32. What another rule explains is left out.",
        find=_find_still,
        explained_by=("nonfinite", "second_moment_near_eps", "no_gradient"),
    ),
)
"""All rules, in the order in which they are checked; `check` takes others too."""
