"""`KnownGroup`: what a step need not find out again about the tensors of a param group."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from itertools import chain, compress
from operator import attrgetter, is_
from types import NoneType
from typing import Any, NamedTuple

from torch import Tensor

from .fingerprint import Fingerprint, are_plain
from .state_keys import MASTER
from .step_counters import find_addresses

_device, _dtype, _grad = attrgetter("device"), attrgetter("dtype"), attrgetter("grad")
_FLAGS = ("lookahead", "schedule_free", "master_weights", "centralize_gradients", "adaptive_clip")
"""Keys of a param group by which it is decided what a state holds, and which gradients are refused."""
_MAX_SETS = 32
"""Sets of gradients of a group: if there are more, they do not come again soon."""


class GroupTensors(NamedTuple):
    """The parameters of a group that have a gradient."""

    params: Sequence[Tensor]
    grads: Sequence[Tensor]
    states: Sequence[dict[str, Any]]
    known: KnownGroup | None = None
    """What is known about them."""


class KnownGroups:
    """What steps have found out about the tensors of groups."""

    def __init__(self) -> None:
        self._known: dict[int, dict[Hashable, KnownGroup]] = defaultdict(dict)
        """By the `id` of a group's first parameter, and the set of gradients."""

    def recall(self, group: Mapping[str, Any], state: Mapping[Tensor, dict[str, Any]]) -> GroupTensors | None:
        """The tensors of a group, if what an earlier step has found out is still true of them.

        Args:
            group: the param group.
            state: of the optimizer.
        """
        first, key, params, grads = _read(group)
        if (known := self._known[first].get(key)) is None:
            return None
        if len(state) == len(params) and all(map(is_, state, params)):
            states = list(state.values())  # a third of the time
        else:
            states = [state[param] for param in params]
        return GroupTensors(params, grads, states, known) if known.holds_for(params, grads, states) else None

    def learn(self, group: Mapping[str, Any], state: Mapping[Tensor, dict[str, Any]]) -> GroupTensors:
        """The tensors of a group, and what is true of them now.

        Parameters without elements are left out: the mean of an empty tensor is NaN.

        Args:
            group: the param group.
            state: of the optimizer, in which that of each parameter is initialized.
        """
        first, key, params, grads = _read(group)
        filled = [bool(param.numel()) for param in params]
        params, grads = list(compress(params, filled)), list(compress(grads, filled))
        states = [state[param] for param in params]
        values = chain.from_iterable(map(dict.values, states))
        tensors = [*params, *grads, *(value for value in values if isinstance(value, Tensor))]
        if not params or not all(filled) or not are_plain(tensors):
            return GroupTensors(params, grads, states)
        sets = self._known[first]
        if len(sets) == _MAX_SETS:
            sets.clear()
        sets[key] = KnownGroup(params, grads, states)
        return GroupTensors(params, grads, states, sets[key])


def _read(group: Mapping[str, Any]) -> tuple[int, Hashable, Sequence[Tensor], Sequence[Tensor]]:
    """What identifies a group and its set of gradients, the parameters that have one, and the gradients."""
    params, grads = group["params"], list(map(_grad, group["params"]))
    has_grad: tuple[bool, ...] = ()
    if NoneType in set(map(type, grads)):
        has_grad = tuple([grad is not None for grad in grads])
        params, grads = list(compress(params, has_grad)), list(compress(grads, has_grad))
    first = id(group["params"][0]) if group["params"] else 0
    return first, (has_grad, *[bool(group[key]) for key in _FLAGS]), params, grads


class KnownGroup:
    """What is true of the parameters that are stepped, as long as `holds_for` says so.

    Args:
        params: with at least one element each.
        grads: theirs.
        states: theirs, initialized.
    """

    def __init__(self, params: Sequence[Tensor], grads: Sequence[Tensor], states: Sequence[dict[str, Any]]) -> None:
        self.kinds = find_kinds(params, grads, states)
        self._counter_addresses: array[int] | None = None
        self._keys = list(chain.from_iterable(states))
        values = list(chain.from_iterable(map(dict.values, states)))
        self._is_tensor = [isinstance(value, Tensor) for value in values]
        self._fingerprint = Fingerprint(grads, [*params, *compress(values, self._is_tensor)])

    def holds_for(self, params: Sequence[Tensor], grads: Sequence[Tensor], states: Sequence[dict[str, Any]]) -> bool:
        """Whether parameters and states are such tensors where these were, and gradients such tensors."""
        if list(chain.from_iterable(states)) != self._keys:
            return False
        values = chain.from_iterable(map(dict.values, states))
        return self._fingerprint.holds_for(grads, [*params, *compress(values, self._is_tensor)])

    def find_counters(self, counters: Sequence[Any]) -> array[int] | None:
        """Where its step counters are, as `find_addresses`; which depends on whether a kernel is loaded."""
        self._counter_addresses = self._counter_addresses or find_addresses(counters)
        return self._counter_addresses


def find_kinds(
    params: Sequence[Tensor], grads: Sequence[Tensor], states: Sequence[Mapping[str, Any]]
) -> list[list[Hashable]]:
    """What the parameters of a bucket must share: columns with a value for each, without those that all share."""
    kinds = (
        map(type, params),
        map(_device, params),
        map(_dtype, params),
        map(_dtype, grads),
        [MASTER in state for state in states],
    )
    columns = map(list[Hashable], kinds)
    return [column for column in columns if column and column.count(column[0]) < len(column)]
