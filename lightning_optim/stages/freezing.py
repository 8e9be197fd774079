"""Freezing parameters and the modules that hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from ..groups.names import clean_modules, read_parameters


def set_trainable(tensors: Iterable[Tensor], trainable: bool) -> None:
    """Switch gradients on, or off and drop those there are."""
    for tensor in tensors:
        tensor.requires_grad_(trainable)
        if not trainable:
            tensor.grad = None


class HeldLayers:
    """Norm layers and dropouts of a frozen part, held in evaluation mode.

    Args:
        norms: whether norm layers with running statistics are held.
        dropouts: whether dropouts are.
    """

    def __init__(self, *, norms: bool, dropouts: bool) -> None:
        self._which = {"norms": norms, "dropouts": dropouts}
        self._held: list[tuple[nn.Module, bool]] = []

    def hold(self, module: nn.Module, frozen: Collection[str]) -> None:
        """Hold those in the part that these parameters, by clean name, are; let go of the others."""
        layers = frozen_modules(module, frozen, **self._which)
        self.close()
        self._held = [(layer, layer.training) for layer in layers]
        for layer in layers:
            layer.training = False

    def close(self) -> None:
        """Put all back into the mode in which they were."""
        for layer, training in self._held:
            layer.training = training
        self._held = []


def frozen_modules(module: nn.Module, frozen: Collection[str], *, norms: bool, dropouts: bool) -> list[nn.Module]:
    """The norm layers with running statistics, and the dropouts, that lie in a frozen part of a model.

    Attention layers count as dropouts, since theirs is a function. What a module of the user's own does in its
    `forward` by `self.training`, and the dropout between the layers of an RNN, cannot be found.

    A layer lies in it when the nearest module around it that holds parameters holds frozen ones only.

    Args:
        module: the model.
        frozen: clean names of the frozen parameters.
        norms: whether norm layers are asked for.
        dropouts: whether dropouts are.
    """
    kinds = (*((_NormBase,) if norms else ()), *((_DropoutNd, nn.MultiheadAttention) if dropouts else ()))
    below: Counter[str] = Counter()
    thawed_below: Counter[str] = Counter()
    for parameter in read_parameters(module):
        for name in parameter.names:
            below.update(_paths_around(name))
            thawed_below.update(_paths_around(name) if parameter.name not in frozen else ())

    def is_frozen(path: str) -> bool:
        around = next(place for place in (path, *_paths_around(path)) if below[place])
        return thawed_below[around] == 0

    return [part for path, part in clean_modules(module) if isinstance(part, kinds) and is_frozen(path)]


def _paths_around(name: str) -> Iterator[str]:
    """The paths of the modules around a name, from the innermost out to the root."""
    while name:
        name = name.rpartition(".")[0]
        yield name
