"""Which parameters a model keeps frozen by design, so that the stage that claims them does not thaw them either."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from ..groups.parameters import Parameter, Parameters

# By model and parameter: whether it was frozen by design when the model was first read. Later on, a stage that waits
# for its trigger is frozen too.
_FIRST_READ: WeakKeyDictionary[nn.Module, dict[str, bool]] = WeakKeyDictionary()


def find_fixed(parameters: Parameters) -> frozenset[str]:
    """The clean names of the parameters that a model keeps frozen by design.

    Those are integer parameters, such as quantized weights, and those with `requires_grad=False` in a module that
    otherwise trains: a table of sinusoidal positions, the base weight beside an adapter's. A module that is frozen as a
    whole was frozen by hand.
    """
    model = parameters.modules.get("")
    first_read = {} if model is None else _FIRST_READ.setdefault(model, {})
    modules = _by_module(parameters)
    for parameter in parameters:
        if parameter.name not in first_read:
            first_read[parameter.name] = _is_frozen_among_trainable(parameter, modules)
    return frozenset(
        parameter.name
        for parameter in parameters
        if not can_train(parameter.tensor) or (first_read[parameter.name] and not parameter.tensor.requires_grad)
    )


def can_train(tensor: Tensor) -> bool:
    """Whether a tensor may require a gradient: an integer one, as of quantized weights, may not."""
    return tensor.is_floating_point() or tensor.is_complex()


def _by_module(parameters: Sequence[Parameter]) -> dict[str, list[Parameter]]:
    """By path of a module: the parameters in it and below it that can train."""
    modules: dict[str, list[Parameter]] = {}
    for parameter in parameters:
        if can_train(parameter.tensor):
            for path in _parent_paths(parameter.name):
                modules.setdefault(path, []).append(parameter)
    return modules


def _is_frozen_among_trainable(parameter: Parameter, modules: dict[str, list[Parameter]]) -> bool:
    """Whether the innermost module that has it and others trains some of those."""
    if parameter.tensor.requires_grad or not can_train(parameter.tensor):
        return False
    around = next((modules[path] for path in _parent_paths(parameter.name) if len(modules[path]) > 1), [])
    return any(other.tensor.requires_grad for other in around)


def _parent_paths(name: str) -> Iterator[str]:
    """The paths of the modules that contain a parameter, from the innermost to the root."""
    while name:
        name = name.rpartition(".")[0]
        yield name
