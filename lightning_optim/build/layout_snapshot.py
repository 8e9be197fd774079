"""`LayoutSnapshot`: the tensors of a step and their memory layouts, to compare with those of the next step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter, is_, itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

FUSED_BUFFERS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "sum")
"""The state that torch's fused kernels take, besides the step count."""

_PLAIN = frozenset({Tensor, torch.nn.Parameter})
_States = Mapping[Tensor, dict[str, Any]]
_grad_of = attrgetter("grad")
_shard_of = attrgetter("_local_tensor")


@dataclass(frozen=True)
class LayoutSnapshot:
    """Parameters, gradients and states of a step, all of which a fused kernel could take.

    The comparison runs in every step, so it calls no Python function per tensor. A replaced state is found by its
    identity, a tensor that has changed in place by its layout.
    """

    is_sharded: bool
    """Whether the parameters are DTensors, whose kernels take this rank's shards."""
    params: Sequence[Tensor]
    states: Sequence[dict[str, Any]]
    """All states of the optimizer."""
    known: Sequence[dict[str, Any]]
    """The states of `params`."""
    num_entries: int
    """Of `known`, all together."""
    readers: Sequence[tuple[Callable[[dict[str, Any]], Tensor], Sequence[dict[str, Any]]]]
    """For each buffer: how to read it from a state, and the states that have it."""
    buffers: Sequence[Tensor]
    is_contiguous: bool
    """Whether all tensors are, which is quicker to find out than their strides."""
    numels: Sequence[int]
    """By parameter."""
    strides: Sequence[tuple[int, ...]]
    """By parameter."""
    grad_strides: Sequence[tuple[int, ...]]
    """By parameter: those of its gradient, or that a gradient would have."""
    buffer_numels: Sequence[int]
    buffer_strides: Sequence[tuple[int, ...]]

    @classmethod
    def take(cls, params: Sequence[Tensor], states: _States) -> LayoutSnapshot | None:
        """The snapshot of a step; None for parameters of other types, so that every step is checked in full."""
        is_sharded = _are_sharded(params)
        if is_sharded is None:
            return None
        known = [state for state in map(states.get, params) if state]
        owners = {name: [state for state in known if state.get(name) is not None] for name in FUSED_BUFFERS}
        readers = [(itemgetter(name), having) for name, having in owners.items() if having]
        buffers = _read(readers)
        # A gradient that is not there yet has to have the parameter's layout.
        grads = [param if param.grad is None else param.grad for param in params]
        shards, grad_shards, buffer_shards = (_shards(tensors, is_sharded) for tensors in (params, grads, buffers))
        return cls(
            is_sharded=is_sharded,
            params=params,
            states=list(states.values()),
            known=known,
            num_entries=sum(map(len, known)),
            readers=readers,
            buffers=buffers,
            is_contiguous=all(map(Tensor.is_contiguous, chain(shards, grad_shards, buffer_shards))),
            numels=list(map(Tensor.numel, shards)),
            strides=list(map(Tensor.stride, shards)),
            grad_strides=list(map(Tensor.stride, grad_shards)),
            buffer_numels=list(map(Tensor.numel, buffer_shards)),
            buffer_strides=list(map(Tensor.stride, buffer_shards)),
        )

    def still_holds(self, params: Sequence[Tensor], states: _States) -> bool:
        """Whether a step has the same parameters and states in the same layouts, and gradients that go with them."""
        if not (_are_same(params, self.params) and _are_same(list(states.values()), self.states)):
            return False
        grads: Sequence[Tensor] = [grad for grad in map(_grad_of, params) if grad is not None]
        numels, grad_strides = self.numels, self.grad_strides
        if len(grads) != len(params):
            with_grad = [index for index, param in enumerate(params) if param.grad is not None]
            numels = [numels[index] for index in with_grad]
            grad_strides = [grad_strides[index] for index in with_grad]
        try:
            buffers: Sequence[Tensor] = _read(self.readers)
            if _are_sharded(params) is not self.is_sharded or not _are_same(buffers, self.buffers):
                return False
            params, grads, buffers = (_shards(tensors, self.is_sharded) for tensors in (params, grads, buffers))
            if (
                sum(map(len, self.known)) != self.num_entries
                or list(map(Tensor.numel, params)) != self.numels
                or list(map(Tensor.numel, grads)) != numels
                or list(map(Tensor.numel, buffers)) != self.buffer_numels
            ):
                return False
            if self.is_contiguous:
                return all(map(Tensor.is_contiguous, chain(params, grads, buffers)))
            return (
                list(map(Tensor.stride, params)) == self.strides
                and list(map(Tensor.stride, grads)) == grad_strides
                and list(map(Tensor.stride, buffers)) == self.buffer_strides
            )
        except (KeyError, AttributeError, RuntimeError):  # a buffer was removed; a gradient is no shard, or is sparse
            return False


def _read(readers: Sequence[tuple[Callable[[dict[str, Any]], Tensor], Sequence[dict[str, Any]]]]) -> list[Tensor]:
    return list(chain.from_iterable([map(read, having) for read, having in readers]))


def _are_sharded(params: Sequence[Tensor]) -> bool | None:
    """Whether all are DTensors; False where all are plain tensors, None otherwise."""
    types = set(map(type, params))
    return False if types <= _PLAIN else True if types == {DTensor} else None


def _shards(tensors: Sequence[Tensor], is_sharded: bool) -> Sequence[Tensor]:
    return list(map(_shard_of, tensors)) if is_sharded else tensors


def _are_same(objects: Sequence[Any], others: Sequence[Any]) -> bool:
    return len(objects) == len(others) and all(map(is_, objects, others))
