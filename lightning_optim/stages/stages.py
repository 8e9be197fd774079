"""Stages: which parameters thaw together, when, and at which part of their lr."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from ..core.errors import ConfigError, format_names
from ..core.hyperparameters import Flag, Number
from ..groups.index import Index
from ..groups.names import Parameter, read_parameters
from ..groups.rules import check_name
from ..groups.selectors import SELECTORS, Selector
from .overrides import check_known
from .triggers import Trigger, parse_each, parse_trigger

_OPTIONS = {
    "lr_scale": Number(default=0.1, low=0),
    "warmup_steps": Number(default=0, low=0, integer=True),
    "allow_unused": Flag(default=True),
    "allow_empty": Flag(default=True),
}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One entry of `stages`."""

    name: str
    """`top`; where it thaws layer by layer, each layer is a stage of its own: `top.11`."""
    selector: Selector
    trigger: Trigger
    each: Callable[[str], Trigger] | None = None
    """For a stage that thaws layer by layer: the trigger of each layer but the last, from the name of that before."""
    lr_scale: float = 1.0
    """On the curve of the group as configured."""
    warmup_steps: int = 0
    """Optimizer steps after the thaw in which lr climbs to that curve."""
    allow_unused: bool = False
    """Whether its parameters may go without a gradient."""
    allow_empty: bool = False
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    """What its groups have from the thaw on instead of what was configured."""
    params: frozenset[str] = field(default_factory=frozenset)
    """Clean names of what it claims, once `claim` has seen the model."""

    @property
    def key(self) -> str:
        """Where it stands in the config."""
        return f"stages.{self.name.partition('.')[0]}"


def parse_stages(given: Any) -> tuple[Stage, ...]:
    """The stages of a config, in the order in which they stand.

    Raises:
        ConfigError: a stage is wrong in itself; what needs the model is found by `claim`.
    """
    if not isinstance(given, Mapping) or not given:
        raise ConfigError(
            f"stages: got {given!r}. It takes a mapping from a stage's name to the stage, "
            "for example stages: {head: {params: head}, backbone: {params: backbone, at: {epoch: 1}}}"
        )
    stages = tuple(_parse_stage(str(name), given[name]) for name in given if given[name] is not None)
    if not any(stage.trigger.from_start for stage in stages):
        first = stages[0].name if stages else "head"
        raise ConfigError(f"stages: none is trained from the start. Leave out the trigger of one: {first}.at: null")
    return stages


def claim(stages: Sequence[Stage], params: nn.Module | list[Parameter]) -> tuple[Stage, ...]:
    """The stages with the parameters they claim; one belongs to the first stage that claims it.

    Args:
        stages: as parsed.
        params: the model, or what `read_parameters` has made of it.

    Raises:
        ConfigError: a stage claims nothing.
    """
    parameters = read_parameters(params)
    index = Index(parameters)
    free = {parameter.name: parameter for parameter in parameters}
    claimed: list[Stage] = []
    for stage in stages:
        matched = [parameters[place] for place in sorted(stage.selector.select(index))]
        mine = frozenset(parameter.name for parameter in matched if parameter.name in free)
        if not mine and not stage.allow_empty:
            raise ConfigError(f"{stage.key}: {_why_nothing(stage, matched, index)}")
        for name in mine:
            del free[name]
        claimed += [replace(stage, params=mine)] if stage.each is None else _by_layer(stage, mine, parameters, index)
    return tuple(claimed)


def check_unclaimed(
    stages: Sequence[Stage], params: nn.Module | list[Parameter], but: frozenset[str] = frozenset()
) -> None:
    """Whether every parameter that is trained belongs to a stage, but for those that a rule freezes.

    Raises:
        ConfigError: one does not: nobody has said when it is trained.
    """
    taken = but.union(*(stage.params for stage in stages))
    left = [p.name for p in read_parameters(params) if p.tensor.requires_grad and p.name not in taken]
    if left:
        raise ConfigError(
            f"stages: {len(left)} parameters that require a gradient belong to no stage: {format_names(left, 3)}. "
            f"Add a stage for them, for example {left[0].partition('.')[0]}: {{params: {left[0].partition('.')[0]}}}"
        )


def _parse_stage(name: str, given: Any) -> Stage:
    key = f"stages.{name}"
    check_name(name, key)
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"{key}: got {given!r}. A stage is a mapping, for example {name}: {{params: backbone, at: {{epoch: 1}}}}"
        )
    words = (*SELECTORS, "at", "each", *_OPTIONS)
    hyperparameters = {str(word): value for word, value in given.items() if word not in words}
    check_known(hyperparameters, key, words)
    options = {
        option: spec.check(given[option], f"{key}.{option}")
        for option, spec in _OPTIONS.items()
        if given.get(option) is not None
    }
    each = given.get("each")
    if each is not None and given.get("layers") is None:
        raise ConfigError(
            f"{key}.each: it thaws layer by layer, and there are none. Type for example "
            f'{key}.layers: "{name}.layer.{{i}}"'
        )
    return Stage(
        name=name,
        selector=Selector.parse(given, key),
        trigger=parse_trigger(given.get("at"), f"{key}.at"),
        each=None if each is None else parse_each(each, f"{key}.each"),
        hyperparameters=hyperparameters,
        **options,
    )


def _by_layer(stage: Stage, mine: frozenset[str], parameters: Sequence[Parameter], index: Index) -> Iterator[Stage]:
    """A stage for each of its layers, from the last on; one that stages above have claimed whole is left out."""
    members: dict[int, set[str]] = {}
    left = set(mine)
    for use, number in sorted(stage.selector.find_layers(index).numbers.items()):
        name = parameters[index.holders[use]].name
        if name in left:
            left.remove(name)
            members.setdefault(number, set()).add(name)
    previous = None
    for number in sorted(members, reverse=True):
        trigger = stage.trigger if previous is None or stage.each is None else stage.each(previous)
        previous = f"{stage.name}.{number}"
        yield replace(stage, name=previous, each=None, trigger=trigger, params=frozenset(members[number]))


def _why_nothing(stage: Stage, matched: Sequence[Parameter], index: Index) -> str:
    if matched:
        return (
            f"all {len(matched)} parameters it matches belong to a stage above it: "
            f"{format_names((p.name for p in matched), 3)}. "
            "A parameter belongs to the first stage that claims it: put the narrower stage first"
        )
    return f"{stage.selector.explain_miss(index)} If that may be so here, type {stage.key}.allow_empty: true"
