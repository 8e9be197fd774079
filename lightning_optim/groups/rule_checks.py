"""Checks of rules against a model: that the names they need are known, and that they match something."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from ..core.errors import ConfigError, format_names
from .index import ParameterIndex
from .parameters import Parameter, has_bare_tensors
from .rules import Rule
from .selectors import format_no_match, match_names


def check_names_available(parameters: Sequence[Parameter], rules: Sequence[Rule]) -> None:
    """Check that the parameters have the names and owner modules that the rules need.

    Raises:
        ConfigError: they do not.
    """
    if not rules:
        return
    if has_bare_tensors(parameters):
        raise ConfigError(
            f"groups.{rules[0].name}: a rule needs the parameters' names, but params are bare tensors. "
            "Pass the module, or its names: optimizer(params=self.trainer.model.named_parameters())"
        )
    if all(occurrence.owner is not None for parameter in parameters for occurrence in parameter.occurrences):
        return
    for rule in rules:
        if selector := rule.selector.find_selector_needing_modules():
            raise ConfigError(
                f"{rule.key}.{selector}: a list of (name, parameter) pairs does not tell which modules use the "
                "parameters. Pass the module, or its parameters(): "
                "optimizer(params=self.trainer.model.parameters())"
            )


def check_matched(rule: Rule, matched: Sequence[Parameter], index: ParameterIndex) -> None:
    """Check what a rule matches in a model; warn where nothing of it requires a gradient.

    Raises:
        ConfigError: it matches nothing, or its `stem` does not.
    """
    if not rule.allow_empty:
        if not matched:
            raise ConfigError(
                f"{rule.key}: {rule.selector.explain_miss(index)} "
                f"To let it match nothing, type {rule.key}.allow_empty: true"
            )
        if rule.stem:
            _check_stem(rule, rule.stem, index)
    if matched and not rule.effects.get("frozen") and not any(p.tensor.requires_grad for p in matched):
        warnings.warn(
            f"{rule.key}: all {len(matched)} parameters it matches have requires_grad=False: "
            f"{format_names((p.name for p in matched), 3)}",
            stacklevel=2,
        )


def _check_stem(rule: Rule, patterns: Sequence[str], index: ParameterIndex) -> None:
    stem = match_names(patterns, index, f"{rule.key}.stem")
    if not stem:
        raise ConfigError(f"{rule.key}.stem: {format_no_match(patterns, index.names)}")
    if stem <= rule.selector.find_layers(index).layer_of.keys():
        raise ConfigError(
            f"{rule.key}.stem: everything that {format_names(map(repr, patterns))} matches is in layers, and the stem "
            "comes before them. Name something else, or remove stem"
        )
    if stem.isdisjoint(rule.selector.select_occurrences(index)):
        raise ConfigError(
            f"{rule.key}.stem: the rule's other selectors match nothing of {format_names(map(repr, patterns))}. "
            "Widen them, or remove stem"
        )
