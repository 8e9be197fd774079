"""Parameters with their names and owner modules, read from whatever a caller passes as `params`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from types import GeneratorType
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList

from ..core.errors import ConfigError, format_names
from .model_hints import find_exemptions, find_input_layers, find_output_layers
from .wrappers import clean_named_modules, join_path, strip_wrapper_prefixes

# `fc.parametrizations.weight.original`; `original0`, `original1` where several tensors make up one.
_PARAMETRIZED = re.compile(r"(^|\.)parametrizations\.([^.]+)\.original\d*$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Occurrence:
    """One use of a parameter in a model; a tied parameter has several."""

    name: str
    """The clean name: without wrapper prefixes."""
    effective_name: str
    """The name under which the owner uses the tensor: `fc.weight` where `name` is the `original` of a parametrization,
    else the same as `name`."""
    owner: nn.Module | None
    """The module that uses it; None where only names were given."""
    order: int
    """How many occurrences come before it in the model."""
    is_input: bool = False
    """Whether the owner embeds the model's input."""
    is_output: bool = False
    """Whether the owner is the output layer of a language model."""
    is_exempt: bool = False
    """Whether the model exempts the parameter from weight decay."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """A parameter of a model and everything a rule can select it by."""

    name: str
    """The clean name; the first one where the parameter is tied; '' for a bare tensor."""
    tensor: Tensor
    occurrences: tuple[Occurrence, ...]
    """Every use in the model, in its order; empty for a bare tensor."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every clean name it has."""
        return tuple(occurrence.name for occurrence in self.occurrences)


class Parameters(list[Parameter]):
    """Parameters of a model, with the modules around them.

    Args:
        parameters: in the model's order.
        modules: every module of the model by its clean path, without wrappers; empty where only names were given.
        complete: all parameters of the model, where these are only some of them.
    """

    def __init__(
        self,
        parameters: Iterable[Parameter],
        modules: Mapping[str, nn.Module] | None = None,
        complete: list[Parameter] | None = None,
    ) -> None:
        super().__init__(parameters)
        self.modules: Mapping[str, nn.Module] = modules or {}
        self.complete: list[Parameter] = self if complete is None else complete


def read_parameters(params: Any) -> Parameters:
    """The parameters in `params`, in its order, each with its clean names.

    Args:
        params: an `nn.Module`; `(name, parameter)` pairs; the generator `module.parameters()` or
            `module.named_parameters()`, or a generator expression over it; bare tensors, which get no name; or a
            result of this function.

    Raises:
        ConfigError: `params` is empty, holds something else, or gives two parameters the same name.
    """
    if isinstance(params, nn.Module):
        parameters = _read_module(params)
    elif isinstance(params, list) and params and isinstance(params[0], Parameter):
        return params if isinstance(params, Parameters) else Parameters(params)
    elif (source := _find_module_of_generator(params)) is not None:
        items = list(params)
        parameters = _select_from_module(*source, items) or _read_items(items)
    else:
        parameters = _read_items(params)
    if not parameters:
        raise ConfigError(
            "params: it contains no parameters. Pass the module, or named_parameters() "
            "(a generator that is used up yields nothing)."
        )
    return parameters


def has_bare_tensors(parameters: Iterable[Parameter]) -> bool:
    """Whether the parameters are bare tensors, without names."""
    return any(not parameter.occurrences for parameter in parameters)


def _read_module(root: nn.Module, prefix: str = "") -> Parameters:
    """The parameters of a module, whose own path is `prefix`."""
    found: dict[int, tuple[Tensor, list[Occurrence]]] = {}
    named_modules = list(clean_named_modules(root, prefix))
    # Without the wrappers, which have the path of what they wrap.
    modules = dict(named_modules)
    input_layers, output_layers = find_input_layers(modules), find_output_layers(modules)
    is_exempt = find_exemptions(modules)
    counter = count()
    for path, module in named_modules:
        for leaf, tensor in module._parameters.items():
            if tensor is not None:
                name = join_path(path, leaf)
                effective_name = _effective_name(name) if isinstance(module, ParametrizationList) else name
                owner = module if effective_name == name else modules[effective_name.rpartition(".")[0]]
                occurrence = Occurrence(
                    name=name,
                    effective_name=effective_name,
                    owner=owner,
                    order=next(counter),
                    is_input=id(owner) in input_layers,
                    is_output=id(owner) in output_layers,
                    is_exempt=is_exempt(effective_name, tensor),
                )
                found.setdefault(id(tensor), (tensor, []))[1].append(occurrence)
    return Parameters(_build_parameters(found), modules)


def _find_module_of_generator(params: Any) -> tuple[nn.Module, str] | None:
    """The module whose `parameters()` created this generator, or the one that a generator expression iterates over.

    `module.parameters()` yields no names, but a generator that has not started keeps its locals. So the code of common
    templates, `optimizer(params=self.trainer.model.parameters())`, works with rules unchanged.

    Returns:
        The module and the `prefix` of `named_parameters(prefix)`, which is empty otherwise.
    """
    while isinstance(params, GeneratorType) and inspect.getgeneratorstate(params) == inspect.GEN_CREATED:
        variables = inspect.getgeneratorlocals(params)
        if params.gi_code in (nn.Module.parameters.__code__, nn.Module.named_parameters.__code__):
            root = variables["self"]
            is_usable = isinstance(root, nn.Module) and variables.get("recurse", True)
            return (root, variables.get("prefix", "")) if is_usable else None
        params = variables.get(".0")
    return None


def _select_from_module(module: nn.Module, prefix: str, items: list[Any]) -> Parameters | None:
    """The module's parameters among a generator's items; None where the generator changed names or tensors."""
    named = module.named_parameters(prefix, remove_duplicate=False)
    pairs = [(name, id(tensor)) for name, tensor in named]
    known = {*pairs, *(identity for _, identity in pairs)}
    given = [(item[0], id(item[1])) if isinstance(item, tuple) and len(item) == 2 else id(item) for item in items]
    if not known.issuperset(given):
        return None
    identities = {item[1] if isinstance(item, tuple) else item for item in given}
    complete = _read_module(module, prefix)
    selected = (parameter for parameter in complete if id(parameter.tensor) in identities)
    return Parameters(selected, complete.modules, complete)


def _read_items(params: Any) -> Parameters:
    if isinstance(params, (str, bytes, dict, Tensor)) or not isinstance(params, Iterable):
        raise ConfigError(
            f"params: got {_format_type(params)}. Pass the module, its named_parameters(), or its parameters()."
        )
    try:
        items = list(params)
    except Exception as error:
        raise ConfigError(
            f"params: got {_format_type(params)} whose items cannot be read: {error}. Pass the module"
        ) from None
    if all(isinstance(item, Tensor) for item in items):
        bare = [Parameter(name="", tensor=item, occurrences=()) for item in _deduplicate(items)]
        _check_shapes(bare)
        return Parameters(bare)
    for item in items:
        if isinstance(item, Mapping):
            raise ConfigError(
                "params: it contains a dict. Param groups are made by rules in the config, for example "
                "groups: {no_decay: {kinds: [bias, norm], weight_decay: 0}}. Pass the module, or its "
                "named_parameters(): hydra.utils.instantiate(cfg)(module)"
            )
        if not (
            isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], Tensor)
        ):
            raise ConfigError(
                f"params: it contains {_format_type(item)}. Pass the module, or (name, parameter) pairs: "
                "named_parameters()."
            )
    found: dict[int, tuple[Tensor, list[Occurrence]]] = {}
    names = strip_wrapper_prefixes([name for name, _ in items])
    for order, (name, (_, tensor)) in enumerate(zip(names, items, strict=True)):
        occurrence = Occurrence(name=name, effective_name=_effective_name(name), owner=None, order=order)
        found.setdefault(id(tensor), (tensor, []))[1].append(occurrence)
    return Parameters(_build_parameters(found))


def _build_parameters(found: Mapping[int, tuple[Tensor, Sequence[Occurrence]]]) -> list[Parameter]:
    parameters = [
        Parameter(name=occurrences[0].name, tensor=tensor, occurrences=tuple(occurrences))
        for tensor, occurrences in found.values()
    ]
    names = {occurrence.name: parameter for parameter in parameters for occurrence in parameter.occurrences}
    duplicates = [o.name for p in parameters for o in p.occurrences if names[o.name] is not p]
    if duplicates:
        raise ConfigError(
            "params: two parameters have the same name once wrapper prefixes are dropped: "
            f"{format_names(duplicates, 3)}. Pass the innermost module instead."
        )
    _check_shapes(parameters)
    return parameters


def _check_shapes(parameters: Iterable[Parameter]) -> None:
    if lazy := [parameter.name for parameter in parameters if is_lazy(parameter.tensor)]:
        raise ConfigError(
            f"params: {len(lazy)} parameters have no shape yet, because their modules are lazy: "
            f"{format_names(lazy, 3)}. Run one batch through the model first, for example in the LightningModule's "
            "configure_model"
        )


def _effective_name(name: str) -> str:
    return _PARAMETRIZED.sub(r"\1\2", name)


def _deduplicate(tensors: Iterable[Tensor]) -> list[Tensor]:
    return list({id(tensor): tensor for tensor in tensors}.values())


def _format_type(value: Any) -> str:
    return f"a {type(value).__name__}"
