"""`compare`: our rules on one model next to what its authors do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory
from lightning_optim.groups.auto_layers import find_auto_layers
from lightning_optim.groups.index import ParameterIndex
from lightning_optim.groups.parameters import read_parameters

from .differences import Difference
from .library import Library

LAYER_DECAY = 0.5
"""A power of two: the products of lrs are exact."""
_PRESETS = Path(__file__).parents[2] / "conf" / "optimizer" / "groups"
_LAYERS_KEY = "groups.depth.layers"
# A projection of pixels or audio, which some vision models return as their input embeddings.
_PROJECTIONS = (nn.Linear, nn.modules.conv._ConvNd)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is different on one model."""

    model: str
    """The name that the library knows it by."""
    differences: tuple[Difference, ...]
    """In weight decay."""
    lr_differences: tuple[str, ...] | None
    """The parameters of another lr scale under `layers: auto`; None where the library has no layers of its own."""
    muon_failures: tuple[str, ...]
    """The embeddings and output layers among the parameters that the preset muon_hidden selects."""
    num_projections: int
    """How many it selects that the model returns as its input embeddings, but which project pixels or audio."""
    has_tensors: bool
    """Whether it selects tensors of more than two dimensions, which torch's Muon refuses."""
    refusal: str
    """Why `layers: auto` finds no layers; empty if it does."""


@cache
def read_preset(name: str) -> Mapping[str, Any]:
    """The rule of a preset that has only one."""
    (rule,) = yaml.safe_load((_PRESETS / f"{name}.yaml").read_text(encoding="utf-8")).values()
    return MappingProxyType(rule)


def compare(name: str, model: nn.Module, library: Library) -> Comparison:
    """The differences between our rules and the library's on a model.

    Args:
        name: what the library calls it.
        model: may be on the meta device.
        library: whose functions say what its authors do.
    """
    index = ParameterIndex(read_parameters(model))
    selected = _select(index, read_preset("muon_hidden")["kinds"])
    embeddings, outputs, projections = _protected(model)
    named = {index.parameters[p].name: index.parameters[p].tensor for p in sorted(selected)}
    return Comparison(
        model=name,
        differences=tuple(_find_differences(index, model, library)),
        lr_differences=_find_lr_differences(model, library),
        muon_failures=tuple(key for key, tensor in named.items() if id(tensor) in embeddings | outputs),
        num_projections=sum(id(tensor) in projections for tensor in named.values()),
        has_tensors=any(tensor.ndim > 2 for tensor in named.values()),
        refusal=_find_refusal(index),
    )


def find_no_decay(index: ParameterIndex) -> set[str]:
    """Every name of the parameters that the preset no_decay exempts."""
    selected = _select(index, read_preset("no_decay")["kinds"])
    return {name for position in selected for name in index.parameters[position].names}


def _select(index: ParameterIndex, kinds: list[str]) -> set[int]:
    """The positions of the parameters of any of these kinds."""
    return {index.parameter_of[occurrence] for occurrence in index.with_kinds(kinds)}


def _find_differences(index: ParameterIndex, model: nn.Module, library: Library) -> Iterator[Difference]:
    ours, theirs = find_no_decay(index), library.no_decay(model)
    assert ours | theirs <= set(index.names)
    if ours == theirs:
        return
    exempt_in_timm = set(_find_exempt_in_timm(model))
    for position, occurrence in enumerate(index.occurrences):
        name = occurrence.name
        if (name in ours) != (name in theirs):
            assert occurrence.owner is not None  # it was read from a module
            yield Difference(
                name=name,
                shape=tuple(index.parameters[index.parameter_of[position]].tensor.shape),
                owner=type(occurrence.owner),
                is_ours=name in ours,
                is_exempt_in_timm=name in exempt_in_timm,
            )


def _find_exempt_in_timm(model: nn.Module) -> Iterator[str]:
    """The names of the parameters that timm exempts in the models of timm inside a model."""
    for path, module in model.named_modules():
        if "pretrained_cfg" in vars(module):
            patterns = tuple(_call(module, "no_weight_decay") or ())
            for name, parameter in module.named_parameters():
                if parameter.ndim <= 1 or any(fnmatch(name, pattern) for pattern in patterns):
                    yield f"{path}.{name}" if path else name


def _find_lr_differences(model: nn.Module, library: Library) -> tuple[str, ...] | None:
    theirs = library.lr_scales(model, LAYER_DECAY)
    if theirs is None:
        return None
    rule = {**read_preset("layer_decay"), "layer_decay": LAYER_DECAY}
    try:
        plan = OptimizerFactory("adamw", lr=1.0, groups={"depth": rule}).plan(model)
    except ConfigError as error:
        return (str(error),)
    ours = {name: group.hyperparameters["lr"] for group in plan.groups for name in group.params}
    return tuple(
        f"{name}: {ours.get(name)}, and {theirs.get(name)} in {library.name}"
        for name in ours | dict(theirs)
        if ours.get(name) != theirs.get(name)
    )


def _find_refusal(index: ParameterIndex) -> str:
    try:
        find_auto_layers(index, _LAYERS_KEY)
    except ConfigError as error:
        return str(error).removeprefix(f"{_LAYERS_KEY}: ")
    return ""


def _protected(model: nn.Module) -> tuple[set[int], set[int], set[int]]:
    """The ids of the tensors of embeddings, of output layers, and of input projections, as the model names them."""
    embeddings: set[int] = set()
    outputs: set[int] = set()
    projections: set[int] = set()
    for module in model.modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            embeddings.update(map(id, module.parameters()))
        if isinstance(layer := _call(module, "get_output_embeddings"), nn.Module):
            outputs.update(map(id, layer.parameters()))
        if isinstance(layer := _call(module, "get_input_embeddings"), nn.Module):
            for part in layer.modules():
                found = projections if isinstance(part, _PROJECTIONS) else embeddings
                found.update(map(id, part.parameters(recurse=False)))
    return embeddings, outputs, projections - outputs


def _call(module: nn.Module, method: str) -> Any:
    """What a method of a module returns; None if the module does not have it."""
    if not callable(getattr(type(module), method, None)):
        return None
    try:
        return getattr(module, method)()
    except (AttributeError, NotImplementedError):  # how transformers says that a model has none
        return None
