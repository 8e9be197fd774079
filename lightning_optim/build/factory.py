"""From config to optimizer: where registry, plan and classes meet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..catalog.registry import algorithms_with, optimizer_info
from ..core.config_values import to_plain, to_yaml
from ..core.errors import ConfigError, choices, leftover_hint, requires_name
from ..groups.names import Parameter
from ..groups.plan import Plan
from ..groups.rules import IN_RULES, Rule, Spec, parse_rules
from ..groups.table import Table
from ..optim.decay import WeightDecay
from .implementation import uses_own_class
from .optimizer import build_optimizer
from .plan_checks import check_takes

Params = nn.Module | Iterable[Tensor] | Iterable[tuple[str, Tensor]] | list[Parameter]
"""A module; `(name, parameter)` pairs; the generator `module.parameters()` or one over it; bare tensors; read ones."""


class OptimizerFactory:
    """An optimizer as a config describes it, checked when made; call it with parameters to build it.

    It holds str, number, bool, list and dict only and learns nothing when called: so it pickles, loads under
    `torch.load(weights_only=True)`, and may be a hyperparameter of a LightningModule.

    Args:
        name: an optimizer of the registry, see `list_optimizers()`.
        groups: rules by name, each with selectors (`params`, `classes`, `kinds`, `layers`) and effects
            (hyperparameters, `lr_scale`, `weight_decay_scale`, `layer_decay`, `optimizer`, `schedule`, `frozen`). All
            rules that match a parameter apply, field by field.
        implementation: `torch`: torch's class; `own`: ours; `auto`: torch's where it can do what is asked, else ours.
        **hyperparameters: the algorithm's, see `optimizer_info(name).hyperparameters`.

    Raises:
        ConfigError: something of this is wrong in itself. What needs the model is found when the factory is called.

    Example:
        >>> from torch import nn
        >>> factory = OptimizerFactory("adamw", lr=3e-4, groups={"no_decay": {"kinds": ["bias"], "weight_decay": 0}})
        >>> [group["name"] for group in factory(nn.Linear(3, 2)).param_groups]
        ['default', 'no_decay']
    """

    __module__ = "lightning_optim"  # where users import it from: pickles outlive a move of this file

    @requires_name(example="adamw")
    def __init__(
        self,
        name: str,
        *,
        groups: Mapping[str, Any] | None = None,
        implementation: str = "auto",
        **hyperparameters: Any,
    ) -> None:
        self.name = name
        self.groups: dict[str, Any] = _expand_weight_decay(to_plain(groups, "groups")) if groups is not None else {}
        self.implementation = implementation
        self.hyperparameters: dict[str, Any] = _expand_weight_decay(to_plain(hyperparameters))
        self._check()

    def __call__(self, params: Params) -> Optimizer:
        """The optimizer over all of `params`, whatever their `requires_grad`, less those a `frozen: true` rule takes.

        Those get `requires_grad=False`. Each param group carries its `name`, `param_names`, `peak_lr` and, under
        `configured`, the hyperparameters as they are here: loading by name goes by them. Where rules give some
        parameters another algorithm, it is one `Composite`, whose groups carry their `algorithm`.

        Raises:
            ConfigError: a rule matches nothing, two conflict, a rule needs names that are not there, or the algorithm
                does not take what the rules gave it.
        """
        return build_optimizer(self.plan(params))

    def plan(self, params: Params) -> Plan:
        """The groups that calling it with `params` would make; nothing is built, nothing is changed.

        Raises:
            ConfigError: as when it is called.
        """
        specs, rules = self._parse()
        plan = Plan.resolve(params, rules, specs[self.name])
        check_takes(plan)
        return replace(plan, specs=specs)

    def explain(self, params: Params) -> Table:
        """The group table for `params`, to print before anything is trained."""
        return self.plan(params).table()

    def _check(self) -> None:
        """Find all that the config can get wrong in itself."""
        specs, rules = self._parse()
        if len(specs) > 1 and optimizer_info(self.name).stands_alone:
            raise ConfigError(
                f"groups.{next(rule.name for rule in rules if rule.algorithm)}.optimizer: {self.name} evaluates "
                "the model several times a step, so no other optimizer can stand beside it. Type name: adamw"
            )

    def _parse(self) -> tuple[dict[str, Spec], tuple[Rule, ...]]:
        """Every algorithm of the config by its name, the config's own first; and the rules."""
        top = self._spec()
        rules = parse_rules(self.groups, top)
        specs = {top.algorithm: top}
        for rule in rules:
            if rule.spec is not None:
                specs.setdefault(rule.spec.algorithm, rule.spec)
        return {name: replace(spec, own=self._uses_own(spec, rules)) for name, spec in specs.items()}, rules

    def _uses_own(self, spec: Spec, rules: Sequence[Rule]) -> bool:
        """Whether our class of an algorithm is built, and not torch's."""
        settings = {"": spec.hyperparameters}
        for rule in rules:
            if rule.algorithm in (None, spec.algorithm):
                settings[f"{rule.key}."] = rule.effects
        with _of_rule(None if spec.algorithm == self.name else spec.algorithm, rules):
            return uses_own_class(spec.info, self.implementation, settings)

    def _spec(self) -> Spec:
        info = optimizer_info(self.name)
        given = self.hyperparameters
        for key in given:
            if key in IN_RULES and key not in info.hyperparameters and (key != "params" or _is_selector(given[key])):
                raise ConfigError(
                    f"{key}: it belongs in a rule, not at the top. Type for example "
                    f"groups: {to_yaml({'head': {'params': 'head', 'lr_scale': 0.1, key: given[key]}})}"
                )
        if "params" in given:
            raise ConfigError(
                "params: the factory takes it when it is called, not when it is made: a _partial_: true is left over "
                "in the config. Type _partial_: false"
            )
        for key in given:
            if key not in info.hyperparameters:
                known = (*info.hyperparameters, "groups", "implementation")
                raise ConfigError(
                    f"{key}: {info.name} has no hyperparameter {key!r}."
                    f"{leftover_hint(key, algorithms_with(key))}{choices(key, known)}"
                )
        for key, spec in info.hyperparameters.items():
            if spec.required and key not in given:
                raise ConfigError(f"{key}: {info.name} cannot do without it. Type {key}: ...")
        hyperparameters = {
            key: spec.check(given[key], key) if key in given else spec.default
            for key, spec in info.hyperparameters.items()
        }
        if hyperparameters.get("fused"):
            for flag in ("foreach", "differentiable"):
                if hyperparameters.get(flag):
                    raise ConfigError(f"{info.name}: fused: true excludes {flag}: true. Remove one of them")
        if wrong := info.find_conflict(hyperparameters):
            raise ConfigError(f"{info.name}: {wrong}")
        return Spec(algorithm=info.name, hyperparameters=hyperparameters, given=frozenset(given))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OptimizerFactory) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        arguments = {**self.hyperparameters, **({"groups": self.groups} if self.groups else {})}
        if self.implementation != "auto":
            arguments["implementation"] = self.implementation
        return f"OptimizerFactory({', '.join([repr(self.name), *(f'{k}={v!r}' for k, v in arguments.items())])})"


def _is_selector(value: Any) -> bool:
    """Whether `params` is a pattern on names, and not the parameters."""
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(item, str) for item in values)


def _expand_weight_decay(config: Any) -> Any:
    """A config with each `WeightDecay` in it as the keys that say the same."""
    if not isinstance(config, Mapping):
        return config
    words = {key: _expand_weight_decay(value) for key, value in config.items()}
    if isinstance(decay := words.get("weight_decay"), WeightDecay):
        words |= decay.keys()
    return words


@contextmanager
def _of_rule(algorithm: str | None, rules: Sequence[Rule]) -> Iterator[None]:
    """Where the algorithm is not the config's own, say which rule's it is."""
    try:
        yield
    except ConfigError as error:
        by = next((rule.key for rule in rules if algorithm and rule.algorithm == algorithm), None)
        raise ConfigError(f"{error} (for {by}.optimizer: {algorithm})" if by else str(error)) from None


torch.serialization.add_safe_globals([OptimizerFactory])
