"""Which parameters a model keeps frozen by design, so that the stage that claims them does not thaw them either."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
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
    unknown = [parameter for parameter in parameters if parameter.name not in first_read]
    frozen = {parameter.name for parameter in unknown if not parameter.tensor.requires_grad}
    among_trainable = _frozen_among_trainable(parameters, frozen) if frozen else set()
    first_read |= {parameter.name: parameter.name in among_trainable for parameter in unknown}
    return frozenset(
        parameter.name
        for parameter in parameters
        if not can_train(parameter.tensor) or (first_read[parameter.name] and not parameter.tensor.requires_grad)
    )


def can_train(tensor: Tensor) -> bool:
    """Whether a tensor may require a gradient: an integer one, as of quantized weights, may not."""
    return tensor.is_floating_point() or tensor.is_complex()


def _frozen_among_trainable(parameters: Sequence[Parameter], frozen: Collection[str]) -> set[str]:
    """Of the frozen parameters, those whose innermost module with several parameters trains some of these."""
    num_parameters, num_trainable = Counter[str](), Counter[str]()
    for parameter in parameters:
        if can_train(parameter.tensor):
            paths = list(_parent_paths(parameter.name))
            num_parameters.update(paths)
            num_trainable.update(paths if parameter.tensor.requires_grad else ())
    found = set()
    for name in frozen:
        innermost = next((path for path in _parent_paths(name) if num_parameters[path] > 1), None)
        if innermost is not None and num_trainable[innermost]:
            found.add(name)
    return found


def _parent_paths(name: str) -> Iterator[str]:
    """The paths of the modules that contain a parameter, from the innermost to the root."""
    while name:
        name = name.rpartition(".")[0]
        yield name
