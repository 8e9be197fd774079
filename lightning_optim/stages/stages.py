"""Stages: which parameters thaw together, when, and with which lr and hyperparameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from ..core.errors import ConfigError, format_names
from ..core.hyperparameters import Flag, Number
from ..groups.index import ParameterIndex
from ..groups.parameters import Parameter, read_parameters
from ..groups.rules import check_name
from ..groups.selectors import SELECTORS, Selector
from .fixed_parameters import can_train, find_fixed
from .overrides import check_hyperparameters
from .trigger_config import parse_each, parse_trigger
from .triggers import Trigger

_OPTIONS = {
    "lr_scale": Number(default=0.1, low=0),
    "warmup_steps": Number(default=0, low=0, integer=True),
    "allow_unused": Flag(default=True),
    "allow_empty": Flag(default=True),
}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One entry of `stages`, or one layer of an entry with `each`."""

    name: str
    """The name in the config; of a layer, with its number: `top.11`."""
    selector: Selector
    trigger: Trigger
    each: Callable[[str], Trigger] | None = None
    """With `each`: gives the trigger of a layer from the name of the previous one."""
    lr_scale: float = 1.0
    """Factor on the lr of the configured group."""
    warmup_steps: int = 0
    """Optimizer steps after the thaw in which the lr rises to its curve."""
    allow_unused: bool = False
    """Whether its parameters may have no gradient."""
    allow_empty: bool = False
    """Whether it may claim no parameter."""
    optimizer: str | None = None
    """The algorithm that steps its parameters; None for the configured one."""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    """Hyperparameters of its groups from the thaw on, which override the configured ones; those of `optimizer`, if it
    is set."""
    params: frozenset[str] = field(default_factory=frozenset)
    """Clean names of the parameters it claims; set by `claim`."""
    fixed: frozenset[str] = field(default_factory=frozenset)
    """Clean names of the parameters that it matches and the model keeps frozen; set by `claim`."""

    @property
    def key(self) -> str:
        """Its key in the config."""
        return f"stages.{self.name.partition('.')[0]}"


def parse_stages(given: Any) -> tuple[Stage, ...]:
    """The stages of a config, in its order.

    Raises:
        ConfigError: a stage is wrong in itself. Errors that need the model are raised by `claim`.
    """
    if not isinstance(given, Mapping) or not given:
        raise ConfigError(
            f"stages: got {given!r}. It takes a mapping from a stage's name to the stage, "
            "for example stages: {head: {params: head}, backbone: {params: backbone, at: {epoch: 1}}}"
        )
    stages = tuple(_parse_stage(str(name), given[name]) for name in given if given[name] is not None)
    if not any(stage.trigger.from_start for stage in stages):
        first = stages[0].name if stages else "head"
        raise ConfigError(f"stages: no stage is trained from the start. Remove the trigger of one: {first}.at: null")
    return stages


def claim(stages: Sequence[Stage], params: nn.Module | list[Parameter]) -> tuple[Stage, ...]:
    """The stages with the parameters they claim; a parameter belongs to the first stage that selects it.

    A stage with `each` becomes one stage per layer. What the model keeps frozen by design stays frozen, unless a stage
    matches nothing else that can train.

    Args:
        stages: from `parse_stages`.
        params: the model, or the result of `read_parameters`.

    Raises:
        ConfigError: a stage without `allow_empty` claims no parameter.
    """
    parameters = read_parameters(params)
    index = ParameterIndex(parameters)
    fixed = find_fixed(parameters)
    integers = frozenset(parameter.name for parameter in parameters if not can_train(parameter.tensor))
    unclaimed = {parameter.name: parameter for parameter in parameters}
    result: list[Stage] = []
    for stage in stages:
        matched = [parameters[position] for position in sorted(stage.selector.select_parameters(index))]
        claimed = frozenset(parameter.name for parameter in matched if parameter.name in unclaimed)
        if not claimed - integers and not stage.allow_empty:
            raise ConfigError(f"{stage.key}: {_explain_empty(stage, matched, claimed, index)}")
        for name in claimed:
            del unclaimed[name]
        kept_frozen = claimed & fixed if claimed - fixed else claimed & integers
        if stage.each is None:
            result.append(replace(stage, params=claimed - kept_frozen, fixed=kept_frozen))
        else:
            layers = list(_split_by_layer(stage, claimed - kept_frozen, parameters, index))
            if kept_frozen:
                layers[-1:] = [replace(layers[-1] if layers else replace(stage, each=None), fixed=kept_frozen)]
            result += layers
    return tuple(result)


def check_all_claimed(
    stages: Sequence[Stage], params: nn.Module | list[Parameter], excluded: frozenset[str] = frozenset()
) -> None:
    """Check that every parameter that requires a gradient belongs to a stage.

    Args:
        stages: from `claim`.
        params: the model, or the result of `read_parameters`.
        excluded: clean names of the parameters that `frozen: true` rules take.

    Raises:
        ConfigError: no stage claims a parameter, so it is not known when to train it.
    """
    taken = excluded.union(*(stage.params for stage in stages))
    missing = [p.name for p in read_parameters(params) if p.tensor.requires_grad and p.name not in taken]
    if missing:
        module = missing[0].partition(".")[0]
        raise ConfigError(
            f"stages: {len(missing)} parameters that require a gradient belong to no stage: "
            f"{format_names(missing, 3)}. Add a stage for them, for example {module}: {{params: {module}}}"
        )


def _parse_stage(name: str, given: Any) -> Stage:
    key = f"stages.{name}"
    check_name(name, key)
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"{key}: got {given!r}. A stage is a mapping, for example {name}: {{params: backbone, at: {{epoch: 1}}}}"
        )
    stage_keys = (*SELECTORS, "at", "each", "optimizer", *_OPTIONS)
    hyperparameters = {str(entry): value for entry, value in given.items() if entry not in stage_keys}
    optimizer = given.get("optimizer")
    check_hyperparameters(hyperparameters, key, stage_keys, optimizer)
    options = {
        option: spec.check(given[option], f"{key}.{option}")
        for option, spec in _OPTIONS.items()
        if given.get(option) is not None
    }
    each = given.get("each")
    if each is not None and given.get("layers") is None:
        raise ConfigError(
            f"{key}.each: it thaws layer by layer, and the stage has no layers. Type for example "
            f'{key}.layers: "{name}.layer.{{i}}"'
        )
    return Stage(
        name=name,
        selector=Selector.parse(given, key),
        trigger=parse_trigger(given.get("at"), f"{key}.at"),
        each=None if each is None else parse_each(each, f"{key}.each"),
        optimizer=optimizer,
        hyperparameters=hyperparameters,
        **options,
    )


def _split_by_layer(
    stage: Stage, claimed: frozenset[str], parameters: Sequence[Parameter], index: ParameterIndex
) -> Iterator[Stage]:
    """A stage for each layer, the last layer first; layers without a claimed parameter are left out.

    With several towers, layers at the same distance from the output are one stage.
    """
    by_depth: dict[int, set[str]] = {}
    labels: dict[int, dict[str, None]] = {}
    unassigned = set(claimed)
    layer_of = stage.selector.find_layers(index).layer_of
    for use in sorted(layer_of):
        layer = layer_of[use]
        name = parameters[index.parameter_of[use]].name
        if name in unassigned:
            unassigned.remove(name)
            by_depth.setdefault(layer.depth, set()).add(name)
            labels.setdefault(layer.depth, {})[layer.label] = None
    previous = None
    for depth in sorted(by_depth):
        trigger = stage.trigger if previous is None or stage.each is None else stage.each(previous)
        previous = ".".join([stage.name, *labels[depth]])
        yield replace(stage, name=previous, each=None, trigger=trigger, params=frozenset(by_depth[depth]))


def _explain_empty(stage: Stage, matched: Sequence[Parameter], claimed: frozenset[str], index: ParameterIndex) -> str:
    if claimed:
        return (
            f"all {len(claimed)} parameters it claims are integers, which have no gradient: "
            f"{format_names(sorted(claimed), 3)}. Remove the stage"
        )
    if matched:
        return (
            f"all {len(matched)} parameters it matches belong to a stage above it: "
            f"{format_names((p.name for p in matched), 3)}. "
            "A parameter belongs to the first stage that claims it: put the narrower stage first"
        )
    return f"{stage.selector.explain_miss(index)} To let it claim nothing, type {stage.key}.allow_empty: true"
