"""`Plan`: which parameters form which group, under which name, with which hyperparameters.

The factory builds from it, the callbacks follow it, `explain` prints it, and checkpoints are checked against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from ..catalog.registry import find_optimizer_name
from ..core.errors import ConfigError
from ..schedule.also import Also
from ..schedule.optimizer_marks import driven_values
from ..schedule.value_curves import with_configured
from .compose import CombinedRules, MatchedRules, combine_rules
from .group import DEFAULT, Group
from .group_names import deduplicate_names, join_segments, name_by_stage
from .index import ParameterIndex
from .layers import Layer
from .match_by_name import remap_state_dict
from .parameter_settings import ParameterSettings
from .parameters import has_bare_tensors, read_parameters
from .rule_checks import check_matched, check_names_available
from .rules import AlgorithmSpec, Rule
from .rules_by_group import rules_by_group
from .selectors import format_no_match
from .table import Table

if TYPE_CHECKING:
    from torch.optim import Optimizer


class Stage(Protocol):
    """What `Plan.split` needs of a stage."""

    @property
    def name(self) -> str:
        """The first part of the names of its groups."""

    @property
    def params(self) -> frozenset[str]:
        """Clean names of the parameters it claims."""

    @property
    def lr_scale(self) -> float:
        """Multiplies the lr of its groups."""

    @property
    def warmup_steps(self) -> int:
        """The warm-up of its groups after the thaw."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Groups in the order of their first parameter: the same on every rank and under every hash seed."""

    groups: tuple[Group, ...]
    frozen: tuple[str, ...] = ()
    """Parameters frozen by a `frozen: true` rule: in no optimizer, without gradient."""
    frozen_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    """By frozen parameter: the config keys that froze it."""
    fixed: tuple[str, ...] = ()
    """Parameters that the model itself keeps frozen, where the plan is split by stages."""
    tensors: Mapping[str, Tensor] = field(repr=False, compare=False)
    """Every parameter by its clean name; bare tensors by position: `param0`, `param1`."""
    has_names: bool = True
    """Whether the parameters have names."""
    specs: Mapping[str, AlgorithmSpec] = field(default_factory=dict, repr=False, compare=False)
    """By name: each algorithm of the config, the top-level one first; empty for a plan that no factory made."""
    knows_peaks: bool = True
    """Whether each group's lr is known to be its peak; that of a hand-made optimizer may be midway along a schedule."""
    sparse_gradients: bool = False
    """Whether a module declares sparse gradients, which no fused kernel takes."""
    model_tensors: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    """Every parameter of the model by its clean name, where `tensors` may be some of them; empty without names."""
    aliases: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """By every name of a parameter, further names of tied ones included: the clean name it is listed under."""
    model: nn.Module | None = field(default=None, repr=False, compare=False)
    """The model, where it is known and not only its parameters."""
    also: Also = field(default_factory=dict, repr=False, compare=False)
    """What a scheduler drives besides lr, where it is known."""

    @classmethod
    def resolve(cls, params: Any, rules: Sequence[Rule], spec: AlgorithmSpec) -> Plan:
        """The plan of a config for a model.

        Args:
            params: anything that `read_parameters` takes.
            rules: the result of `parse_rules`.
            spec: the algorithm at the top level of the config.

        Raises:
            ConfigError: a rule matches nothing, two rules conflict, or a rule needs names that are not known.
        """
        parameters = read_parameters(params)
        check_names_available(parameters, rules)
        index = ParameterIndex(parameters)
        all_names = [parameter.name or f"param{position}" for position, parameter in enumerate(parameters)]
        tensors = {name: parameter.tensor for name, parameter in zip(all_names, parameters, strict=True)}
        groups, frozen_by = [], dict[str, tuple[str, ...]]()
        combined: dict[tuple[str, ...], CombinedRules] = {}
        for matched, positions in _group_by_rules(_match_rules(rules, index)):
            names = tuple([all_names[position] for position in positions])
            made_by = tuple([rule.name for rule, _ in matched])
            if made_by not in combined:
                combined[made_by] = combine_rules([rule for rule, _ in matched], spec, names)
            settings = combined[made_by].settings
            if settings.frozen:
                frozen_by.update(dict.fromkeys(names, settings.sources["frozen"]))
                continue
            hyperparameters, sources = combined[made_by].scale([layer for _, layer in matched])
            groups.append(
                Group(
                    name=join_segments(matched),
                    params=names,
                    algorithm=settings.spec.algorithm,
                    hyperparameters=hyperparameters,
                    made_by=made_by,
                    layers={rule.name: layer for rule, layer in matched if layer},
                    schedule=settings.schedule,
                    sources=sources,
                )
            )
        if not groups:
            raise ConfigError(f"groups: frozen: true matches all {len(tensors)} parameters; nothing is left to train")
        return cls(
            groups=tuple(groups),
            frozen=tuple(name for name in tensors if name in frozen_by),
            frozen_by=frozen_by,
            tensors=tensors,
            has_names=not has_bare_tensors(parameters),
            sparse_gradients=any(getattr(owner, "sparse", False) for owner in index.owners),
            model_tensors={parameter.name: parameter.tensor for parameter in parameters.complete if parameter.name},
            aliases={o.name: parameter.name for parameter in parameters for o in parameter.occurrences},
            model=next(iter(parameters.modules.values()), None),
        )

    @classmethod
    def from_optimizer(cls, optimizer: Optimizer, module: nn.Module | None = None) -> Plan:
        """The plan that an existing optimizer follows, whoever built it.

        Parameters are named by identity of their tensors. Groups without a name are called `default`, `group1`, ... by
        position. A tensor that is not a parameter of the module is called by its position too. The rules are known
        where a factory has built the optimizer.
        """
        parameters = [] if module is None else read_parameters(module)
        names = {id(parameter.tensor): parameter.name for parameter in parameters}
        rules = rules_by_group(optimizer)
        defaults_of = getattr(optimizer, "defaults_of", lambda group: optimizer.defaults)
        values = driven_values(optimizer)
        also: Also = {} if values is None else values.also
        tensors: dict[str, Tensor] = {}
        groups = []
        for index, group in enumerate(optimizer.param_groups):
            params = tuple(names.get(id(t), f"param_groups.{index}.{i}") for i, t in enumerate(group["params"]))
            tensors.update(zip(params, group["params"], strict=True))
            name = str(group.get("name") or (DEFAULT if index == 0 else f"group{index}")).replace("/", ".")
            groups.append(
                Group(
                    name=name,
                    params=params,
                    algorithm=group.get("algorithm")
                    or find_optimizer_name(type(optimizer))
                    or type(optimizer).__name__.lower(),
                    hyperparameters={
                        **{key: v for key, v in with_configured(group, also).items() if key in defaults_of(group)},
                        **({"lr": group["peak_lr"]} if "peak_lr" in group else {}),
                    },
                    made_by=rules.get(name, ()),
                    schedule=group.get("schedule"),
                )
            )
        knows_peaks = all("peak_lr" in group for group in optimizer.param_groups)
        return cls(groups=deduplicate_names(groups), tensors=tensors, knows_peaks=knows_peaks, also=also)

    @classmethod
    def from_module(cls, module: nn.Module) -> Plan:
        """All parameters of a module as one group, for use before there is an optimizer."""
        tensors = {parameter.name: parameter.tensor for parameter in read_parameters(module)}
        group = Group(name=DEFAULT, params=tuple(tensors), algorithm="", hyperparameters={})
        return cls(groups=(group,), tensors=tensors)

    def split(self, stages: Sequence[Stage]) -> Plan:
        """Stages × groups, ordered by stage, then by group; parameters that no stage claims are left out."""
        stage_of = {name: number for number, stage in enumerate(stages) for name in stage.params}
        members: dict[tuple[int, int], list[str]] = {}
        for index, group in enumerate(self.groups):
            for name in group.params:
                if name in stage_of:
                    members.setdefault((stage_of[name], index), []).append(name)
        parts = [
            replace(
                self.groups[index],
                params=tuple(names),
                stage=stages[number].name,
                lr_scale=stages[number].lr_scale,
                warmup_steps=stages[number].warmup_steps,
                parent=self.groups[index].name,
            )
            for (number, index), names in sorted(members.items())
        ]
        return replace(self, groups=deduplicate_names(name_by_stage(parts)))

    def remap(self, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        """An optimizer's state dict in these groups: each parameter's state follows it by name.

        Args:
            state_dict: of an optimizer with the same parameters, in any groups.

        Raises:
            ConfigError: a parameter is missing from it, is unknown here, or has another shape.
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
        return remap_state_dict(current, state_dict)

    def table(self, thaw_times: Sequence[tuple[str, str]] = ()) -> Table:
        """The plan as a table, for terminals, Markdown and JSON.

        Args:
            thaw_times: `(stage, when it thaws)`, where the plan is split by stages.
        """
        sizes = {name: tensor.numel() for name, tensor in self.tensors.items()}
        keys = dict.fromkeys(key for keys in self.frozen_by.values() for key in keys)
        return Table(
            groups=self.groups,
            frozen=self.frozen,
            fixed=self.fixed,
            sizes=sizes,
            frozen_by=tuple(sorted(key.removeprefix("groups.").removesuffix(".frozen") for key in keys)),
            thaw_times=tuple(thaw_times),
            also=self.also,
        )

    def __repr__(self) -> str:
        total = sum(tensor.numel() for tensor in self.tensors.values())
        return f"Plan({len(self.groups)} groups, {len(self.tensors)} tensors, {total:,} parameters)"

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def settings_of(self, parameter: str, thaw_times: Sequence[tuple[str, str]] = ()) -> ParameterSettings:
        """Every setting of one parameter, with the rules that set it, and its stage where the plan is split by stages.

        Args:
            parameter: any of its clean names.
            thaw_times: `(stage, when it thaws)`, where the plan is split by stages.

        Raises:
            ConfigError: there is no such parameter.
        """
        name = self.aliases.get(parameter, parameter)
        if name not in self.tensors:
            raise ConfigError(format_no_match([parameter], self.tensors))
        group = next((group for group in self.groups if name in group.params), None)
        thaws = dict(thaw_times).get(group.stage or "") if group else None
        by_model = ("the model, which sets requires_grad=False",) if name in self.fixed else ()
        return ParameterSettings(name, group, self.frozen_by.get(name, by_model), thaws)


def _match_rules(rules: Sequence[Rule], index: ParameterIndex) -> list[list[tuple[Rule, Layer | None]]]:
    """By position in `index.parameters`: the rules that match the parameter; one tuple for each rule and layer."""
    matched: list[list[tuple[Rule, Layer | None]]] = [[] for _ in index.parameters]
    for rule in rules:
        found = rule.match(index)
        check_matched(rule, [index.parameters[position] for position in found], index)
        pairs = {layer: (rule, layer) for layer in set(found.values())}
        for position, layer in found.items():
            matched[position].append(pairs[layer])
    return matched


def _group_by_rules(matched: Sequence[MatchedRules]) -> list[tuple[MatchedRules, list[int]]]:
    """Each combination of rules and layers, with the positions of its parameters, in order of the first."""
    members: dict[tuple[int, ...], list[int]] = {}
    for position, rules in enumerate(matched):
        members.setdefault(tuple(map(id, rules)), []).append(position)
    return [(matched[positions[0]], positions) for positions in members.values()]
