"""`Library`: the models of a library, and what its authors do with their parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from .differences import Reason


@dataclass(frozen=True, kw_only=True)
class Library:
    """A library of models to compare with."""

    name: str
    version: str
    models: Sequence[str]
    """The names of its models."""
    build: Callable[[str], nn.Module]
    """Builds a model by its name, with random weights or none."""
    no_decay: Callable[[nn.Module], set[str]]
    """Every name of the parameters that the authors exempt from weight decay."""
    reasons: Sequence[Reason]
    """Why our rule differs from `no_decay`, where it does."""
    lr_scales: Callable[[nn.Module, float], Mapping[str, float] | None] = lambda model, layer_decay: None
    """By name: the authors' lr scale under layer decay; None where they have no layers."""


def names_by_id(model: nn.Module) -> dict[int, list[str]]:
    """Every name of each parameter by its id: a tied one has several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return names


def names_of(tensors: Iterable[Tensor], model: nn.Module) -> set[str]:
    """Every name of these parameters of a model."""
    names = names_by_id(model)
    return {name for tensor in tensors for name in names[id(tensor)]}
