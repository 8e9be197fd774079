"""Freeze parameters, and keep the layers of a frozen part in evaluation mode."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from ..groups.parameters import read_parameters
from ..groups.wrappers import clean_named_modules


def set_trainable(tensors: Iterable[Tensor], trainable: bool) -> None:
    """Set `requires_grad` of each tensor; where it becomes False, drop the gradient."""
    for tensor in tensors:
        tensor.requires_grad_(trainable)
        if not trainable:
            tensor.grad = None


class EvalModeLock:
    """Keeps norm layers and dropouts of a frozen part in evaluation mode, whoever calls `train()` in the meantime.

    Args:
        norms: whether to lock norm layers with running statistics.
        dropouts: whether to lock dropouts.
    """

    def __init__(self, *, norms: bool, dropouts: bool) -> None:
        self._kinds = {"norms": norms, "dropouts": dropouts}
        self._locked: list[_LockedLayer] = []

    def lock(self, module: nn.Module, frozen: Collection[str], tensors: Iterable[Tensor] = ()) -> None:
        """Put the layers of the frozen part into evaluation mode, and restore the mode of all others.

        Args:
            module: the model.
            frozen: clean names of the frozen parameters.
            tensors: further frozen ones, whatever their names are by now.
        """
        layers = find_frozen_layers(module, frozen, tensors, **self._kinds)
        self.release()
        self._locked = [_LockedLayer(layer) for layer in layers]

    def release(self) -> None:
        """Restore the mode that each locked layer had before."""
        for locked in self._locked:
            locked.release()
        self._locked = []


class _LockedLayer:
    """A layer in evaluation mode; a hook before its `forward` restores that mode after a `train()`."""

    def __init__(self, layer: nn.Module) -> None:
        self._layer, self._mode_before = layer, layer.training
        layer.training = False
        self._hook = layer.register_forward_pre_hook(_EvalMode(layer))

    def release(self) -> None:
        self._hook.remove()
        self._layer.training = self._mode_before


class _EvalMode:
    """A hook before `forward` that puts one layer into evaluation mode, and not the copies that a user makes of it."""

    def __init__(self, layer: nn.Module | None = None) -> None:
        self._layer = None if layer is None else weakref.ref(layer)

    def __call__(self, layer: nn.Module, _: Any) -> None:
        if layer.training and self._layer is not None and self._layer() is layer:
            layer.training = False

    def __reduce__(self) -> tuple[type[_EvalMode], tuple[()]]:
        return type(self), ()


def find_frozen_layers(
    module: nn.Module, frozen: Collection[str], tensors: Iterable[Tensor] = (), *, norms: bool, dropouts: bool
) -> list[nn.Module]:
    """The norm layers with running statistics, and the dropouts, that are in a frozen part of a model.

    A layer is in a frozen part if the innermost module that contains it and has parameters has only frozen ones. It
    counts as containing itself.

    Attention layers count as dropouts, because they call dropout as a function. What a user's module does in `forward`
    depending on `self.training`, and the dropout between the layers of an RNN, cannot be found.

    Args:
        module: the model.
        frozen: clean names of the frozen parameters.
        tensors: further frozen ones: pruning renames a parameter, and a sharded module may show others than it has.
        norms: whether to find norm layers.
        dropouts: whether to find dropouts.
    """
    kinds = (*((_NormBase,) if norms else ()), *((_DropoutNd, nn.MultiheadAttention) if dropouts else ()))
    num_parameters: Counter[str] = Counter()
    num_thawed: Counter[str] = Counter()
    ids = set(map(id, tensors))
    for parameter in read_parameters(module):
        is_thawed = parameter.name not in frozen and id(parameter.tensor) not in ids
        for name in parameter.names:
            num_parameters.update(_parent_paths(name))
            num_thawed.update(_parent_paths(name) if is_thawed else ())

    def is_frozen(path: str) -> bool:
        innermost = next(parent for parent in (path, *_parent_paths(path)) if num_parameters[parent])
        return num_thawed[innermost] == 0

    return [layer for path, layer in clean_named_modules(module) if isinstance(layer, kinds) and is_frozen(path)]


def _parent_paths(name: str) -> Iterator[str]:
    """The paths of the modules that contain a name, from the innermost to the root."""
    while name:
        name = name.rpartition(".")[0]
        yield name
