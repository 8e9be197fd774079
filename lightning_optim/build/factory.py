"""`OptimizerFactory`: an optimizer as a config describes it, checked when constructed, built when called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..catalog.info import OptimizerInfo
from ..catalog.modifiers import MODIFIERS
from ..catalog.registry import algorithms_with, optimizer_info
from ..core.config_values import read_attributes, to_plain, to_yaml
from ..core.errors import ConfigError, explain_call, format_choices, leftover_hint, requires_name
from ..core.short_repr import format_call, settings_html
from ..groups.parameters import Parameter, read_parameters
from ..groups.parse_rules import parse_rules
from ..groups.plan import Plan
from ..groups.rules import RULE_ONLY_KEYS, AlgorithmSpec, Rule
from ..groups.table import Table
from ..optim.decay import WeightDecay
from .dotted_keys import merge_dotted_keys
from .executions import plan_executions
from .flat_parameters import check_flat_parameters
from .implementation import needs_own_class
from .leftovers import explain_source
from .matrix_layouts import resolve_matrices
from .optimizer import build_optimizer
from .plan_checks import check_plan

Params = nn.Module | Iterable[Tensor] | Iterable[tuple[str, Tensor]] | list[Parameter]
"""A module; `(name, parameter)` pairs; the generator `module.parameters()` or a generator expression over it; bare
tensors; or the result of `read_parameters`."""


class OptimizerFactory:
    """An optimizer as a config describes it: checked when constructed; call it with parameters to build the optimizer.

    It holds str, number, bool, list and dict only, and a call does not change it. So it pickles, loads under
    `torch.load(weights_only=True)`, and may be a hyperparameter of a LightningModule.

    Args:
        name: a registered optimizer, see `list_optimizers()`.
        groups: rules by name, each with selectors (`params`, `classes`, `kinds`, `layers`) and effects
            (hyperparameters, `lr_scale`, `weight_decay_scale`, `layer_decay`, `optimizer`, `schedule`, `frozen`). All
            rules that match a parameter apply, field by field.
        implementation: `torch`: torch's class; `own`: ours; `auto`: torch's where it can do what is asked, else ours.
        **hyperparameters: of the algorithm, see `optimizer_info(name).hyperparameters`. A key such as
            `groups.head.lr_scale` changes one key of one rule of `groups`.

    Raises:
        ConfigError: an argument is invalid. What can only be checked with the model is checked when the factory is
            called.

    Examples:
        >>> from torch import nn
        >>> factory = OptimizerFactory("adamw", lr=3e-4, groups={"no_decay": {"kinds": ["bias"], "weight_decay": 0}})
        >>> [group["name"] for group in factory(nn.Linear(3, 2)).param_groups]
        ['default', 'no_decay']
    """

    __module__ = "lightning_optim"  # the public import path: pickles survive a move of this file

    @requires_name(example="adamw", argument="module")
    def __init__(
        self,
        /,
        name: str,
        *,
        groups: Mapping[str, Any] | None = None,
        implementation: str = "auto",
        **hyperparameters: Any,
    ) -> None:
        groups, hyperparameters = merge_dotted_keys(to_plain(groups, "groups"), hyperparameters)
        self.name = to_plain(name, "name")
        self.groups: dict[str, Any] = _expand_weight_decay(to_plain(groups, "groups")) if groups is not None else {}
        self.implementation = to_plain(implementation, "implementation")
        self.hyperparameters: dict[str, Any] = _expand_weight_decay(to_plain(hyperparameters))
        self._check()

    def __call__(self, params: Params) -> Optimizer:
        """The optimizer over all of `params`, whatever their `requires_grad`, except those that a rule freezes.

        Frozen parameters get `requires_grad=False`. Each param group has its `name`, `param_names`, `peak_lr` and,
        under `configured`, its hyperparameters as configured, which loading by name compares. Where rules give some
        parameters another algorithm, the result is one `Composite`, whose groups have their `algorithm`.

        Raises:
            ConfigError: a rule matches nothing, two rules conflict, a rule needs names that are not known, or the
                algorithm does not take what the rules give it.
        """
        return build_optimizer(self.plan(params))

    def plan(self, params: Params) -> Plan:
        """The groups that a call with `params` would build; nothing is built or changed.

        Raises:
            ConfigError: as a call.
        """
        specs, rules = self._parse()
        parameters = read_parameters(params)
        check_flat_parameters(parameters, specs.values(), rules)
        plan = replace(Plan.resolve(parameters, rules, specs[self.name]), specs=specs)
        plan = resolve_matrices(plan, parameters, self.implementation)
        check_plan(plan)
        return plan

    def explain(self, params: Params) -> Table:
        """The group table for `params`, to print before training."""
        return plan_executions(self.plan(params)).table()

    @property
    def __name__(self) -> str:
        """The factory as text. Lightning's WandbLogger writes this of a hyperparameter that is callable."""
        return repr(self)

    def _check(self) -> None:
        """Check everything that can be checked without the model."""
        specs, rules = self._parse()
        if len(specs) > 1 and optimizer_info(self.name).is_exclusive:
            raise ConfigError(
                f"groups.{next(rule.name for rule in rules if rule.algorithm)}.optimizer: {self.name} evaluates "
                "the model several times a step, so it can be combined with no other optimizer. Type name: adamw"
            )

    def _parse(self) -> tuple[dict[str, AlgorithmSpec], tuple[Rule, ...]]:
        """By name: every algorithm of the config, the top-level one first; and the rules."""
        top = self._parse_top_level()
        rules = parse_rules(self.groups, top)
        specs = {top.algorithm: top}
        for rule in rules:
            if rule.spec is not None:
                specs.setdefault(rule.spec.algorithm, rule.spec)
        return {
            name: replace(spec, uses_own_class=self._needs_own_class(spec, rules)) for name, spec in specs.items()
        }, rules

    def _parse_top_level(self) -> AlgorithmSpec:
        info = optimizer_info(self.name)
        given = self.hyperparameters
        _check_keys(info, given, self.groups)
        hyperparameters = {
            key: hyperparameter.check(given[key], key) if key in given else hyperparameter.default
            for key, hyperparameter in info.hyperparameters.items()
        }
        if hyperparameters.get("fused"):
            for flag in ("foreach", "differentiable"):
                if hyperparameters.get(flag):
                    raise ConfigError(f"{info.name}: fused: true excludes {flag}: true. Remove one of them")
        if conflict := info.find_conflict(hyperparameters):
            raise ConfigError(f"{info.name}: {conflict}")
        return AlgorithmSpec(algorithm=info.name, hyperparameters=hyperparameters, given=frozenset(given))

    def _needs_own_class(self, spec: AlgorithmSpec, rules: Sequence[Rule]) -> bool:
        settings = {"": spec.hyperparameters}
        for rule in rules:
            if rule.algorithm in (None, spec.algorithm):
                settings[f"{rule.key}."] = rule.effects
        with _name_rule_in_errors(None if spec.algorithm == self.name else spec.algorithm, rules):
            return needs_own_class(spec.info, self.implementation, settings)

    def __setstate__(self, state: Any) -> None:
        """Restore it from a pickle, such as a checkpoint; a call checks it like a new one."""
        kinds = {"name": str, "groups": dict, "implementation": str, "hyperparameters": dict}
        plain = read_attributes(state, kinds)
        vars(self).update({key: plain[key] for key in kinds})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OptimizerFactory) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        arguments = {**self.hyperparameters, **({"groups": self.groups} if self.groups else {})}
        if self.implementation != "auto":
            arguments["implementation"] = self.implementation
        return format_call(self, self.name, **arguments)

    def _repr_html_(self) -> str:
        rules = {f"groups.{name}": rule for name, rule in self.groups.items()}
        implementation = {"implementation": self.implementation} if self.implementation != "auto" else {}
        return settings_html(f"{type(self).__name__}: {self.name}", {**self.hyperparameters, **implementation, **rules})


def _check_keys(info: OptimizerInfo, given: Mapping[str, Any], rules: Any) -> None:
    """Check that the top-level keys are hyperparameters of the algorithm, and that the required ones are there."""
    for key in given:
        is_rule_key = key in RULE_ONLY_KEYS and key not in info.hyperparameters
        if is_rule_key and (key != "params" or _is_selector(given[key])):
            raise ConfigError(
                f"{key}: it belongs in a rule, not at the top level. Type for example "
                f"groups: {to_yaml({'head': {'params': 'head', 'lr_scale': 0.1, key: given[key]}})}"
            )
    if "params" in given:
        raise ConfigError(f"params: {explain_call('module')}")
    for key, value in given.items():
        if key not in info.hyperparameters:
            if isinstance(value, (nn.Module, Iterator)):
                raise ConfigError(f"{key}: got a {type(value).__name__}: {explain_call('module')}")
            if key in MODIFIERS and info.has_torch_class and not info.own:
                raise ConfigError(
                    f"{key}: {info.name} has no hyperparameter {key!r}: it is a modifier of our optimizers, and "
                    f"{info.name} is torch's. Type another name, for example name: adamw (lightning-optim list)"
                )
            known = (*info.hyperparameters, "groups", "implementation")
            source = explain_source(key, info.name, given, rules if isinstance(rules, Mapping) else {})
            raise ConfigError(
                f"{key}: {info.name} has no hyperparameter {key!r}."
                f"{leftover_hint(key, algorithms_with(key), source)}{format_choices(key, known)}"
            )
    for key, hyperparameter in info.hyperparameters.items():
        if hyperparameter.required and key not in given:
            raise ConfigError(f"{key}: {info.name} requires it. Type {key}: ...")


def _is_selector(value: Any) -> bool:
    """Whether `params` is a pattern on names, and not the parameters themselves."""
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(item, str) for item in values)


def _expand_weight_decay(config: Any) -> Any:
    """The config with each `WeightDecay` in it replaced by the equivalent keys."""
    if not isinstance(config, Mapping):
        return config
    expanded = {key: _expand_weight_decay(value) for key, value in config.items()}
    if isinstance(decay := expanded.get("weight_decay"), WeightDecay):
        expanded |= decay.keys()
    return expanded


@contextmanager
def _name_rule_in_errors(algorithm: str | None, rules: Sequence[Rule]) -> Iterator[None]:
    """Add to errors the rule that asks for the algorithm; None for the top-level algorithm."""
    try:
        yield
    except ConfigError as error:
        key = next((rule.key for rule in rules if algorithm and rule.algorithm == algorithm), None)
        raise ConfigError(f"{error} (for {key}.optimizer: {algorithm})" if key else str(error)) from None


torch.serialization.add_safe_globals([OptimizerFactory])
