"""The plan: which parameters form which group, under which name, with which hyperparameters. The one truth.

The factory builds from it, the callbacks follow it, `explain` prints it, a checkpoint is checked against it.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from ..catalog.registry import name_of
from ..core.errors import ConfigError, format_names
from .compose import compose
from .group import DEFAULT, Group
from .index import Index
from .layers import Layer
from .loading import remap
from .names import Parameter, nameless, read_parameters
from .rules import Rule, Spec
from .selectors import no_such_name, uses_named
from .table import Table
from .why import Why

if TYPE_CHECKING:
    from torch.optim import Optimizer


class Stage(Protocol):
    """What `Plan.split` asks of a stage."""

    @property
    def name(self) -> str:
        """Heads the names of its groups."""

    @property
    def params(self) -> frozenset[str]:
        """Clean names of what it claims."""

    @property
    def lr_scale(self) -> float:
        """On its groups' curves."""

    @property
    def warmup_steps(self) -> int:
        """Of its groups."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Groups in the order of their first parameter: the same on every rank and under every hash seed."""

    groups: tuple[Group, ...]
    frozen: tuple[str, ...] = ()
    """Parameters that a `frozen: true` rule took: in no optimizer, without gradient."""
    frozen_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    """By each of them: the keys of the config that froze it."""
    tensors: Mapping[str, Tensor] = field(repr=False, compare=False)
    """Every parameter by its clean name; by its place where there are only bare tensors."""
    named: bool = True
    """Whether the parameters have names."""
    specs: Mapping[str, Spec] = field(default_factory=dict, repr=False, compare=False)
    """Each algorithm of the config by name, the config's own first; none for a plan that no factory made."""
    peaks: bool = True
    """Whether each group's lr is known to be its peak; a hand-made optimizer's may be in the middle of a curve."""
    sparse: bool = False
    """Whether a module says that it makes sparse gradients, which no fused kernel takes."""
    aliases: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """By each name of a parameter, tied ones' later names too: the one it is held under."""

    @classmethod
    def resolve(cls, params: Any, rules: Sequence[Rule], spec: Spec) -> Plan:
        """The plan of a config for a model.

        Args:
            params: what `read_parameters` takes.
            rules: what `parse_rules` gave.
            spec: the top of the config.

        Raises:
            ConfigError: a rule matches nothing, two rules conflict, or the names a rule needs are not there.
        """
        parameters = read_parameters(params)
        _check_named(parameters, rules)
        index = Index(parameters)
        matched: list[list[tuple[Rule, Layer | None]]] = [[] for _ in parameters]
        for rule in rules:
            found = rule.match(index)
            _check_matched(rule, [parameters[place] for place in found], index)
            for place, layer in found.items():
                matched[place].append((rule, layer))
        members: dict[tuple[str, ...], list[int]] = {}
        for place, by in enumerate(matched):
            members.setdefault(tuple(_segment(rule, layer) for rule, layer in by), []).append(place)

        groups, frozen = [], dict[str, tuple[str, ...]]()
        everything = _names(parameters)
        for segments, held in members.items():
            names = tuple(everything[place] for place in held)
            composed = compose(matched[held[0]], spec, names)
            if composed.frozen:
                frozen.update(dict.fromkeys(names, composed.sources["frozen"]))
                continue
            groups.append(
                Group(
                    name=".".join(segments) or DEFAULT,
                    params=names,
                    algorithm=composed.spec.algorithm,
                    hyperparameters=composed.hyperparameters,
                    made_by=tuple(rule.name for rule, _ in matched[held[0]]),
                    schedule=composed.schedule,
                    sources=composed.sources,
                )
            )
        tensors = dict(zip(_names(parameters), (parameter.tensor for parameter in parameters), strict=True))
        if not groups:
            raise ConfigError(f"groups: frozen: true took all {len(tensors)} parameters; nothing is left to train")
        return cls(
            groups=tuple(groups),
            frozen=tuple(name for name in tensors if name in frozen),
            frozen_by=frozen,
            tensors=tensors,
            named=not nameless(parameters),
            sparse=any(getattr(use.owner, "sparse", False) for use in index.uses),
            aliases={use.name: parameters[holder].name for use, holder in zip(index.uses, index.holders, strict=True)},
        )

    @classmethod
    def of(cls, optimizer: Optimizer, module: nn.Module) -> Plan:
        """The plan that an optimizer carries out, whoever made it: its groups, by identity of their tensors.

        Groups without a name are called `default`, `group1`, ... by their place. A tensor that the module does not
        hold is called by its place as well.
        """
        names = {id(parameter.tensor): parameter.name for parameter in read_parameters(module)}
        defaults_of = getattr(optimizer, "defaults_of", lambda group: optimizer.defaults)
        tensors: dict[str, Tensor] = {}
        groups = []
        for index, group in enumerate(optimizer.param_groups):
            params = tuple(names.get(id(t), f"param_groups.{index}.{place}") for place, t in enumerate(group["params"]))
            tensors.update(zip(params, group["params"], strict=True))
            name = str(group.get("name") or (DEFAULT if index == 0 else f"group{index}")).replace("/", ".")
            groups.append(
                Group(
                    name=name,
                    params=params,
                    algorithm=group.get("algorithm") or name_of(type(optimizer)) or type(optimizer).__name__.lower(),
                    hyperparameters={
                        **{key: value for key, value in group.items() if key in defaults_of(group)},
                        **({"lr": group["peak_lr"]} if "peak_lr" in group else {}),
                    },
                    made_by=() if name == DEFAULT else tuple(name.split(".")),
                    schedule=group.get("schedule"),
                )
            )
        peaks = all("peak_lr" in group for group in optimizer.param_groups)
        return cls(groups=_renamed(groups), tensors=tensors, peaks=peaks)

    @classmethod
    def whole(cls, module: nn.Module) -> Plan:
        """A module's parameters as one group, for where there is no optimizer yet."""
        tensors = {parameter.name: parameter.tensor for parameter in read_parameters(module)}
        group = Group(name=DEFAULT, params=tuple(tensors), algorithm="", hyperparameters={})
        return cls(groups=(group,), tensors=tensors)

    def split(self, stages: Sequence[Stage]) -> Plan:
        """Group × stage, in the order of the stages, then of the groups; what no stage claims is left out."""
        place_of = {name: place for place, stage in enumerate(stages) for name in stage.params}
        members: dict[tuple[int, int], list[str]] = {}
        for number, group in enumerate(self.groups):
            for name in group.params:
                if name in place_of:
                    members.setdefault((place_of[name], number), []).append(name)
        parts = [
            replace(
                self.groups[number],
                params=tuple(names),
                stage=stages[place].name,
                lr_scale=stages[place].lr_scale,
                warmup_steps=stages[place].warmup_steps,
                parent=self.groups[number].name,
            )
            for (place, number), names in sorted(members.items())
        ]
        return replace(self, groups=_renamed(_staged(parts)))

    def remap(self, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        """An optimizer's state dict in these groups: each parameter's state follows it by name.

        Args:
            state_dict: of an optimizer with the same parameters, in whatever groups.

        Raises:
            ConfigError: a parameter is missing from it, unknown here, or of another shape.
        """
        current = [
            {
                "name": group.name,
                "param_names": group.params,
                "params": [self.tensors[name] for name in group.params],
                "peak_lr": group.hyperparameters.get("lr"),
                "configured": {**group.hyperparameters, "algorithm": group.algorithm},
                **({"schedule": group.schedule} if group.schedule else {}),
                **group.hyperparameters,
            }
            for group in self.groups
        ]
        return remap(current, state_dict)

    def table(self, thaw_times: Sequence[tuple[str, str]] = ()) -> Table:
        """The plan as a table, for terminals, Markdown and JSON.

        Args:
            thaw_times: `(stage, when it thaws)`, where the plan is split by stages.
        """
        sizes = {name: tensor.numel() for name, tensor in self.tensors.items()}
        return Table(groups=self.groups, frozen=self.frozen, sizes=sizes, thaw_times=tuple(thaw_times))

    def why(self, parameter: str) -> Why:
        """Which rule set which field of one parameter.

        Args:
            parameter: one of its clean names.

        Raises:
            ConfigError: there is no such parameter.
        """
        name = self.aliases.get(parameter, parameter)
        if name not in self.tensors:
            raise ConfigError(f"{no_such_name([parameter], self.tensors)}")
        return Why(
            name, next((group for group in self.groups if name in group.params), None), self.frozen_by.get(name, ())
        )


def _check_named(parameters: Sequence[Parameter], rules: Sequence[Rule]) -> None:
    if not rules:
        return
    if nameless(parameters):
        raise ConfigError(
            f"groups.{rules[0].name}: a rule needs the parameters' names, but params are bare tensors. "
            "Pass the module, or its names: optimizer(params=self.trainer.model.named_parameters())"
        )
    for rule in rules:
        if rule.selector.needs_modules() and any(use.owner is None for p in parameters for use in p.uses):
            raise ConfigError(
                f"{rule.key}.classes: classes of owners cannot be read off (name, parameter) pairs. "
                "Pass the module, or its parameters(): optimizer(params=self.trainer.model.parameters())"
            )


def _check_matched(rule: Rule, matched: Sequence[Parameter], index: Index) -> None:
    if not rule.allow_empty:
        if not matched:
            raise ConfigError(
                f"{rule.key}: {rule.selector.explain_miss(index)} "
                f"If that may be so here, type {rule.key}.allow_empty: true"
            )
        if rule.stem and not (stem := uses_named(rule.stem, index)):
            raise ConfigError(f"{rule.key}.stem: {no_such_name(rule.stem, index.names)}")
        if rule.stem and stem <= rule.selector.find_layers(index).numbers.keys():
            raise ConfigError(
                f"{rule.key}.stem: all that {format_names(map(repr, rule.stem))} matches is in layers, and the "
                "stem comes "
                "before them. Name something else, or remove stem"
            )
        if rule.stem and stem.isdisjoint(rule.selector.uses(index)):
            raise ConfigError(
                f"{rule.key}.stem: {format_names(map(repr, rule.stem))} is outside of what the rule's other "
                "selectors mean. "
                "Widen them, or remove stem"
            )
    if matched and not rule.effects.get("frozen") and not any(p.tensor.requires_grad for p in matched):
        warnings.warn(
            f"{rule.key}: all {len(matched)} parameters it matches have requires_grad=False: "
            f"{format_names((p.name for p in matched), 3)}",
            stacklevel=2,
        )


def _segment(rule: Rule, layer: Layer | None) -> str:
    """What a rule adds to a group's name: itself, and the layer's number where it has layers."""
    return f"{rule.name}.{layer.label}" if layer else rule.name


def _names(parameters: Iterable[Parameter]) -> tuple[str, ...]:
    """Clean names; where there are only bare tensors, their places."""
    return tuple(parameter.name or f"param{index}" for index, parameter in enumerate(parameters))


def _staged(parts: Sequence[Group]) -> list[Group]:
    """Named by stage, then rules; a rule named like its stage is said once, unless two groups would share a name."""

    def name(part: Group, *, whole: bool) -> str:
        segments = [] if part.name == DEFAULT else part.name.split(".")
        return ".".join([str(part.stage), *(segment for segment in segments if whole or segment != part.stage)])

    short = Counter(name(part, whole=False) for part in parts)
    return [replace(part, name=name(part, whole=short[name(part, whole=False)] > 1)) for part in parts]


def _renamed(groups: Sequence[Group]) -> tuple[Group, ...]:
    """The groups under names that differ: `x`, `x-2`, `x-3`. Hand-made optimizers may repeat one."""
    seen: Counter[str] = Counter()
    taken = {group.name for group in groups}
    renamed = []
    for group in groups:
        seen[group.name] += 1
        name = group.name
        while seen[group.name] > 1 and name in taken:
            name = f"{group.name}-{seen[group.name]}"
            if name in taken:
                seen[group.name] += 1
        taken.add(name)
        renamed.append(group if name == group.name else replace(group, name=name))
    return tuple(renamed)
