"""What a rule is that says what is suspicious in an optimizer's curves, and `check`, which applies rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .curves import OptimizerCurves


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A rule that a group breaks."""

    rule: str
    """The name of the rule."""
    root: str
    """Of the tags of the group's optimizer."""
    group: str
    step: int
    """The first logged step at which it is broken."""
    value: float
    """What was measured there."""
    threshold: float
    """What it is compared with."""
    text: str
    """Both in words."""
    advice: str
    """What to type."""


@dataclass(kw_only=True)
class Verdict:
    """What a rule says of one optimizer."""

    findings: list[Finding] = field(default_factory=list)
    unchecked: str = ""
    """Why some or all of it could not be checked, and what to type; '' where all was."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One sickness: how it shows in the curves.

    Examples:
        >>> rule = Rule(name="my_rule", title="Mine", statement="...", find=lambda curves: Verdict())
        >>> check(OptimizerCurves(root="optim", groups=(), signals={}), [rule])["my_rule"].findings
        []
    """

    name: str
    """As in JSON."""
    title: str
    statement: str
    """The rule in words, with its thresholds; the page prints it."""
    find: Callable[[OptimizerCurves], Verdict]
    explained_by: tuple[str, ...] = ()
    """The names of earlier rules whose findings in a group explain this one's there, which is then left out."""


def check(curves: OptimizerCurves, rules: Sequence[Rule]) -> dict[str, Verdict]:
    """The verdict of each rule, by its name.

    Args:
        curves: of one optimizer.
        rules: in this order; those that explain others come first.
    """
    verdicts: dict[str, Verdict] = {}
    for rule in rules:
        verdict = rule.find(curves)
        explained = {found.group for name in rule.explained_by for found in verdicts[name].findings}
        verdict.findings = [found for found in verdict.findings if found.group not in explained]
        verdicts[rule.name] = verdict
    return verdicts
