"""Parameters with their names and the modules that own them, from whatever a caller passes as `params`."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from types import GeneratorType
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList

from ..core.errors import ConfigError, format_names

# Wrappers put one attribute between themselves and what they wrap; it is no part of a parameter's name.
_WRAPPERS = {
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel": "_fsdp_wrapped_module",
    "torch.distributed.algorithms._checkpoint.checkpoint_wrapper.CheckpointWrapper": "_checkpoint_wrapped_module",
    "torch.optim.swa_utils.AveragedModel": "module",
}
_BARE_PREFIXES = ("_orig_mod", "module", "_fsdp_wrapped_module")
# `fc.parametrizations.weight.original`, and `original0`, `original1` where one tensor is made of several.
_PARAMETRIZED = re.compile(r"(^|\.)parametrizations\.([^.]+)\.original\d*$")


@dataclass(frozen=True, kw_only=True)
class Use:
    """One of the places in a model where a parameter stands."""

    name: str
    """Its clean name there: without wrappers."""
    role: str
    """The path under which the module around it uses it: `fc.weight` where `name` is the `original` of a
    parametrization, else the name."""
    owner: nn.Module | None
    """The module that uses it; None where only names were given."""
    place: int
    """How many uses come before it in the model."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter of a model and all that a rule can ask of it."""

    name: str
    """The clean name, the first one where a parameter is tied; '' for a bare tensor."""
    tensor: Tensor
    uses: tuple[Use, ...]
    """Every place where it stands."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every clean name it has."""
        return tuple(use.name for use in self.uses)


def read_parameters(params: Any) -> list[Parameter]:
    """The parameters in `params`, in its order, each with its clean names.

    Args:
        params: an `nn.Module`; `(name, parameter)` pairs; the generator `module.parameters()` (or
            `module.named_parameters()`) or a generator expression over it; bare tensors, which get no name; or what
            this has returned.

    Raises:
        ConfigError: nothing in it, something else in it, or two parameters under one name.
    """
    if isinstance(params, nn.Module):
        parameters = _of_module(params)
    elif isinstance(params, list) and params and isinstance(params[0], Parameter):
        return params
    elif (module := _module_behind(params)) is not None:
        items = list(params)
        parameters = _those_of(module, items) or _of_items(items)
    else:
        parameters = _of_items(params)
    if not parameters:
        raise ConfigError(
            "params: there is no parameter in it. Pass the module, or named_parameters() "
            "(a generator that was used up gives nothing)."
        )
    return parameters


def nameless(parameters: Iterable[Parameter]) -> bool:
    """Whether these are bare tensors."""
    return any(not parameter.uses for parameter in parameters)


def clean_modules(root: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """`(clean path, module)` of a module and all below it, a shared module under each of its paths."""
    yield from _walk(root, "", frozenset())


def _walk(module: nn.Module, path: str, above: frozenset[int]) -> Iterator[tuple[str, nn.Module]]:
    yield path, module
    above = above | {id(module)}
    through = _wrapped_attribute(module)
    for name, child in module._modules.items():
        if child is not None and id(child) not in above:
            yield from _walk(child, path if name == through else _join(path, name), above)


def _of_module(root: nn.Module) -> list[Parameter]:
    found: dict[int, tuple[Tensor, list[Use]]] = {}
    modules: dict[str, nn.Module] = {}
    counter = count()
    for path, module in clean_modules(root):
        modules[path] = module
        for leaf, tensor in module._parameters.items():
            if tensor is not None:
                name = _join(path, leaf)
                role = _role(name) if isinstance(module, ParametrizationList) else name
                owner = module if role == name else modules[role.rpartition(".")[0]]
                use = Use(name=name, role=role, owner=owner, place=next(counter))
                found.setdefault(id(tensor), (tensor, []))[1].append(use)
    return _checked(found)


def _those_of(module: nn.Module, items: list[Any]) -> list[Parameter] | None:
    """The module's parameters that a generator over them gave; None where it made something else of them."""
    own = [(name, id(tensor)) for name, tensor in module.named_parameters(remove_duplicate=False)]
    known = {*own, *(identity for _, identity in own)}
    given = [(item[0], id(item[1])) if isinstance(item, tuple) and len(item) == 2 else id(item) for item in items]
    if not known.issuperset(given):
        return None
    wanted = {item[1] if isinstance(item, tuple) else item for item in given}
    return [parameter for parameter in _of_module(module) if id(parameter.tensor) in wanted]


def _of_items(params: Any) -> list[Parameter]:
    if isinstance(params, (str, bytes, dict, Tensor)) or not isinstance(params, Iterable):
        raise ConfigError(
            f"params: got {_type_of(params)}. Pass the module, its named_parameters(), or its parameters()."
        )
    items = list(params)
    if all(isinstance(item, Tensor) for item in items):
        return [Parameter(name="", tensor=item, uses=()) for item in _unique(items)]
    for item in items:
        if not (
            isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], Tensor)
        ):
            raise ConfigError(
                f"params: got {_type_of(item)} in it. Pass the module, or (name, parameter) pairs: named_parameters()."
            )
    found: dict[int, tuple[Tensor, list[Use]]] = {}
    names = without_leading_wrappers([name for name, _ in items])
    for place, (name, (_, tensor)) in enumerate(zip(names, items, strict=True)):
        use = Use(name=name, role=_role(name), owner=None, place=place)
        found.setdefault(id(tensor), (tensor, []))[1].append(use)
    return _checked(found)


def _checked(found: Mapping[int, tuple[Tensor, Sequence[Use]]]) -> list[Parameter]:
    parameters = [Parameter(name=uses[0].name, tensor=tensor, uses=tuple(uses)) for tensor, uses in found.values()]
    counts = Counter(name for parameter in parameters for name in set(parameter.names))
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ConfigError(
            f"params: two parameters have one name once wrappers' prefixes are dropped: {format_names(twice, 3)}. "
            "Pass the innermost module instead."
        )
    if lazy := [parameter.name for parameter in parameters if is_lazy(parameter.tensor)]:
        raise ConfigError(
            f"params: {len(lazy)} parameters have no shape yet, since their modules are lazy: {format_names(lazy, 3)}. "
            "Run one batch through the model first, for example in the LightningModule's configure_model"
        )
    return parameters


def _role(name: str) -> str:
    return _PARAMETRIZED.sub(r"\1\2", name)


def _module_behind(params: Any) -> nn.Module | None:
    """The module whose `parameters()` this generator, or the one a generator expression runs over, was made by.

    Names are lost in `module.parameters()`, but a generator keeps its locals while it is not used up: so the code
    of templates, `optimizer(params=self.trainer.model.parameters())`, works with rules and needs no edit.
    """
    while isinstance(params, GeneratorType) and inspect.getgeneratorstate(params) == inspect.GEN_CREATED:
        variables = inspect.getgeneratorlocals(params)
        if params.gi_code in (nn.Module.parameters.__code__, nn.Module.named_parameters.__code__):
            root = variables["self"]
            whole = variables.get("recurse", True) and not variables.get("prefix")
            return root if isinstance(root, nn.Module) and whole else None
        params = variables.get(".0")
    return None


def _wrapped_attribute(module: nn.Module) -> str | None:
    for cls in type(module).__mro__:
        if (attribute := _WRAPPERS.get(f"{cls.__module__}.{cls.__qualname__}")) is not None:
            return attribute
    return None


def without_leading_wrappers(names: Sequence[str]) -> list[str]:
    """Names less the prefixes that all of them begin with: one that only some have is a module of the user's own."""
    names = list(names)
    while names:
        shared = {name.partition(".")[0] for name in names}
        if len(shared) != 1 or not shared <= set(_BARE_PREFIXES) or not all("." in name for name in names):
            break
        names = [name.partition(".")[2] for name in names]
    return names


def _unique(tensors: Iterable[Tensor]) -> list[Tensor]:
    return list({id(tensor): tensor for tensor in tensors}.values())


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _type_of(value: Any) -> str:
    return f"a {type(value).__name__}"
