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

from ..errors import ConfigError, listed
from ..registry import name_of
from .names import Parameter, nameless, read_parameters
from .rules import Rule, Spec, compose

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from .table import Table

DEFAULT = "default"


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
class Group:
    """A row of the table, a param group, a curve in TensorBoard, a key in the checkpoint."""

    name: str
    """Legal as a segment of a tag in every logger."""
    params: tuple[str, ...]
    """Clean names, in the model's order."""
    algorithm: str
    """The optimizer's name in the registry, or its class's where it is in none."""
    hyperparameters: Mapping[str, Any]
    """Every effect applied; `lr` is the peak."""
    made_by: tuple[str, ...] = ()
    """The rules, sorted."""
    stage: str | None = None
    """The stage that thaws it, if a plan has stages."""
    lr_scale: float = 1.0
    """On its parent group's curve."""
    warmup_steps: int = 0
    """Optimizer steps after the thaw in which its lr climbs to the curve."""
    parent: str | None = None
    """The group as configured that it follows, once a plan is split by stages."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Groups in the order of their first parameter: the same on every rank and under every hash seed."""

    groups: tuple[Group, ...]
    frozen: tuple[str, ...] = ()
    """Parameters that a `frozen: true` rule took: in no optimizer, without gradient."""
    tensors: Mapping[str, Tensor] = field(repr=False, compare=False)
    """Every parameter by its clean name; by its place where there are only bare tensors."""
    named: bool = True
    """Whether the parameters have names."""
    sparse: bool = False
    """Whether a module says that it makes sparse gradients, which no fused kernel takes."""

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
        matched = {rule.name: [rule.selector.matches(parameter) for parameter in parameters] for rule in rules}
        for rule in rules:
            _check_matched(rule, [p for p, hit in zip(parameters, matched[rule.name], strict=True) if hit], parameters)
        members: dict[tuple[str, ...], list[Parameter]] = {}
        for index, parameter in enumerate(parameters):
            members.setdefault(tuple(rule.name for rule in rules if matched[rule.name][index]), []).append(parameter)

        groups, frozen = [], set[str]()
        for made_by, held in members.items():
            names = _names(held)
            hyperparameters = compose([rule for rule in rules if rule.name in made_by], spec, names)
            if hyperparameters.pop("frozen"):
                frozen.update(names)
                continue
            groups.append(
                Group(
                    name=".".join(made_by) or DEFAULT,
                    params=names,
                    algorithm=spec.algorithm,
                    hyperparameters=hyperparameters,
                    made_by=made_by,
                )
            )
        tensors = dict(zip(_names(parameters), (parameter.tensor for parameter in parameters), strict=True))
        if not groups:
            raise ConfigError(f"groups: frozen: true took all {len(tensors)} parameters; nothing is left to train")
        return cls(
            groups=tuple(groups),
            frozen=tuple(name for name in tensors if name in frozen),
            tensors=tensors,
            named=not nameless(parameters),
            sparse=any(getattr(owner, "sparse", False) for p in parameters for owner in p.owners),
        )

    @classmethod
    def of(cls, optimizer: Optimizer, module: nn.Module) -> Plan:
        """The plan that an optimizer carries out, whoever made it: its groups, by identity of their tensors.

        Groups without a name are called `default`, `group1`, ... by their place. A tensor that the module does not
        hold is called by its place as well.
        """
        names = {id(parameter.tensor): parameter.name for parameter in read_parameters(module)}
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
                    algorithm=name_of(type(optimizer)) or type(optimizer).__name__.lower(),
                    hyperparameters={
                        **{key: value for key, value in group.items() if key in optimizer.defaults},
                        **({"lr": group["peak_lr"]} if "peak_lr" in group else {}),
                    },
                    made_by=() if name == DEFAULT else tuple(name.split(".")),
                )
            )
        return cls(groups=_renamed(groups), tensors=tensors)

    @classmethod
    def whole(cls, module: nn.Module) -> Plan:
        """A module's parameters as one group, for where there is no optimizer yet."""
        tensors = {parameter.name: parameter.tensor for parameter in read_parameters(module)}
        group = Group(name=DEFAULT, params=tuple(tensors), algorithm="", hyperparameters={})
        return cls(groups=(group,), tensors=tensors)

    def split(self, stages: Sequence[Stage]) -> Plan:
        """Group × stage, in the order of the stages, then of the groups; what no stage claims is left out."""
        parts = []
        for stage in stages:
            for group in self.groups:
                if params := tuple(name for name in group.params if name in stage.params):
                    parts.append(
                        replace(
                            group,
                            params=params,
                            stage=stage.name,
                            lr_scale=stage.lr_scale,
                            warmup_steps=stage.warmup_steps,
                            parent=group.name,
                        )
                    )
        return replace(self, groups=_renamed(_staged(parts)))

    def check(self, saved: Sequence[Mapping[str, Any]]) -> None:
        """Whether a checkpoint's param groups are these.

        Args:
            saved: `optimizer.state_dict()["param_groups"]`.

        Raises:
            ConfigError: they are not: loading by place would put a state at another parameter.
        """
        check_saved([{"name": group.name, "param_names": group.params} for group in self.groups], saved)

    def table(self) -> Table:
        """The plan as a table, for terminals, Markdown and JSON."""
        from .table import Table

        return Table(self)


def check_saved(current: Sequence[Mapping[str, Any]], saved: Sequence[Mapping[str, Any]]) -> None:
    """Whether a checkpoint's param groups are the current ones: loading goes by place, and must not swap states.

    Args:
        current: param groups with `name` and `param_names` where they have them.
        saved: `optimizer.state_dict()["param_groups"]`.

    Raises:
        ConfigError: there are others, or other parameters in them.
    """
    advice = "Give the groups and stages that the checkpoint was saved under."
    if len(current) != len(saved):
        here, there = (", ".join(str(group.get("name", "unnamed")) for group in groups) for groups in (current, saved))
        raise ConfigError(
            f"the checkpoint has {len(saved)} param groups ({there}), this run {len(current)} ({here}). {advice}"
        )
    for ours, theirs in zip(current, saved, strict=True):
        mine, other = tuple(ours.get("param_names") or ()), tuple(theirs.get("param_names") or ())
        if mine and other and mine != other:
            odd = sorted(set(mine) ^ set(other)) or list(mine)
            raise ConfigError(
                f"param group '{ours.get('name')}' of this run is '{theirs.get('name')}' in the checkpoint, "
                f"and they differ in {len(odd)} parameters: {listed(odd, 3)}. {advice}"
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
        if rule.selector.needs_modules() and any(owner is None for p in parameters for owner in p.owners):
            raise ConfigError(
                f"{rule.key}.classes: classes of owners cannot be read off (name, parameter) pairs. "
                "Pass the module, or its parameters(): optimizer(params=self.trainer.model.parameters())"
            )


def _check_matched(rule: Rule, matched: Sequence[Parameter], parameters: Sequence[Parameter]) -> None:
    if not matched and not rule.allow_empty:
        raise ConfigError(
            f"{rule.key}: {rule.selector.explain_miss(parameters)} "
            f"If that may be so here, type {rule.key}.allow_empty: true"
        )
    if matched and not rule.effects.get("frozen") and not any(p.tensor.requires_grad for p in matched):
        warnings.warn(
            f"{rule.key}: all {len(matched)} parameters it matches have requires_grad=False: "
            f"{listed(_names(matched), 3)}",
            stacklevel=2,
        )


def _names(parameters: Iterable[Parameter]) -> tuple[str, ...]:
    """Clean names; where there are only bare tensors, their places."""
    return tuple(parameter.name or f"param{index}" for index, parameter in enumerate(parameters))


def _staged(parts: Sequence[Group]) -> list[Group]:
    """Named by stage, then rules; a rule named like its stage is said once, unless two groups would share a name."""

    def name(part: Group, *, whole: bool) -> str:
        rules = [rule for rule in part.made_by if whole or rule != part.stage]
        return ".".join([str(part.stage), *rules])

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
