"""State dicts that load into our class or torch's class of the same rule, with the dtypes they were saved in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ..catalog.info import DECOUPLED_KEY, TORCH_ONLY_KEYS
from ..core.errors import ConfigError
from ..core.param_group_keys import EXECUTION_FLAGS, GROUP_METADATA
from ..groups.match_by_name import check_same_groups, remap_state_dict
from ..groups.state_copies import copy_state
from .bucket import scalar
from .extra_keys import EXTRA_GROUP_KEYS
from .real_view import real
from .state_keys import AVERAGE_NUMBERS, BASE, MASTER, MODIFIER_KEYS, MODIFIER_TENSORS

# What a checkpoint of torch's class does not have.
_ONLY_OURS = tuple(key for key in GROUP_METADATA if key not in ("params", "param_names"))


class AdaptedOptimizer(Protocol):
    """What the adapter needs of an optimizer; see `AdaptiveOptimizer`."""

    defaults: dict[str, Any]
    param_groups: list[dict[str, Any]]
    state: Any
    default_mode: ClassVar[str]
    _fixed: ClassVar[Mapping[str, Any]]
    _torch_keys: ClassVar[Sequence[str]]
    _torch_counts_steps: ClassVar[bool]
    _possible_buffers: ClassVar[Sequence[str]]

    def buffer_dtypes(self, group: Mapping[str, Any]) -> Mapping[str, torch.dtype | None]:
        """The buffers with their dtypes; None stands for the parameter's."""

    def shapes(self, group: Mapping[str, Any], param: Tensor) -> Mapping[str, Sequence[int]]:
        """Shapes of the buffers that do not have the parameter's."""

    def scalars(self, group: Mapping[str, Any]) -> Mapping[str, float]:
        """The numbers in a parameter's state."""


class TorchStateDictAdapter:
    """Adapts one save or one load of an optimizer."""

    def __init__(self, optimizer: AdaptedOptimizer) -> None:
        self.optimizer = optimizer
        self._loaded: dict[str, Any] = {}

    def to_torch(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Our state dict, with the keys for which torch's class would otherwise use a default."""
        for group in state_dict["param_groups"]:
            for key in self.optimizer._torch_keys:
                group[key] = key == DECOUPLED_KEY and group["weight_decay_mode"] == "decoupled"
        return state_dict

    def from_torch(self, optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        """A hook before a load: the state dict with param groups that have our keys, all of them.

        Raises:
            ConfigError: the state of a parameter belongs to another optimizer or has another shape; or both sides have
                names and they differ.
        """
        names, saved_names = (
            [g.get("param_names") for g in groups] for groups in (optimizer.param_groups, state_dict["param_groups"])
        )
        if all(names) and all(saved_names) and names != saved_names:
            state_dict = remap_state_dict(optimizer.param_groups, state_dict)
        check_same_groups(optimizer.param_groups, state_dict["param_groups"])
        states = dict(state_dict["state"])
        if not self.optimizer._torch_counts_steps:  # one that has a state has taken a step
            states = {
                key: {"step": scalar(1.0), **state} if isinstance(state, Mapping) and state else state
                for key, state in states.items()
            }
        groups = []
        for saved, current in zip(state_dict["param_groups"], optimizer.param_groups, strict=True):
            groups.append(group := self._convert_group(saved, current))
            self._check_state(group, current["params"], states)
            for index, param in zip(group["params"], current["params"], strict=True):
                if index in states:
                    states[index] = copy_state(states[index], param)
        self._loaded = {**state_dict, "param_groups": groups, "state": states}
        return self._loaded

    def restore_dtypes(self, _: torch.optim.Optimizer) -> None:
        """A hook after a load, in which torch has cast buffers to the parameter's dtype: restore their own dtypes."""
        optimizer = self.optimizer
        indices = chain.from_iterable(group["params"] for group in self._loaded["param_groups"])
        for group in optimizer.param_groups:
            for param in group["params"]:
                index = next(indices)
                if index not in self._loaded["state"]:
                    continue
                state, saved = optimizer.state[param], self._loaded["state"][index]
                # torch's fused and capturable classes had it on the device; old versions and hooks have a number.
                if optimizer.buffer_dtypes(group) or isinstance(saved["step"], Tensor):
                    state["step"] = scalar(float(saved["step"]))
                for name in (*optimizer.scalars(group), *(name for name in AVERAGE_NUMBERS if name in saved)):
                    state[name] = float(saved[name])
                for name, dtype in optimizer.buffer_dtypes(group).items():
                    if dtype is not None:
                        state[name] = saved[name].to(device=param.device, dtype=dtype)
                # With a master, everything else has its dtype; what hooks have stored keeps the dtype it was saved in.
                if MASTER in saved or not optimizer.buffer_dtypes(group):
                    tensors = {key: value for key, value in saved.items() if isinstance(value, Tensor)}
                    state.update({key: value.to(param.device) for key, value in tensors.items() if key != "step"})

    def _convert_group(self, saved: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, Any]:
        """A saved group of either class, with our keys and this run's execution flags."""
        group = {key: value for key, value in saved.items() if key not in TORCH_ONLY_KEYS}
        mode = self.optimizer.default_mode
        if DECOUPLED_KEY in saved and DECOUPLED_KEY in self.optimizer._torch_keys:
            mode = "decoupled" if saved[DECOUPLED_KEY] else "l2"
        group.setdefault("weight_decay_mode", mode)
        # A checkpoint of torch's class says nothing about options that torch's class lacks.
        for key in (*self.optimizer.defaults, *_ONLY_OURS, *current.get(EXTRA_GROUP_KEYS, ())):
            if key in current:
                group.setdefault(key, current[key])
        return group | {key: current[key] for key in EXECUTION_FLAGS} | dict(self.optimizer._fixed)

    def _check_state(self, group: Mapping[str, Any], params: Sequence[Tensor], states: Mapping[Any, Any]) -> None:
        buffers, scalars = self.optimizer.buffer_dtypes(group), self.optimizer.scalars(group)
        needed = ("step", *buffers, *scalars)
        known = (*needed, *MODIFIER_KEYS, *self.optimizer._possible_buffers)
        names = group.get("param_names") or [f"parameter {index}" for index in group["params"]]
        cls_name = type(self.optimizer).__name__
        cause = "it was saved by another optimizer, or with other options"
        for name, index, param in zip(names, group["params"], params, strict=True):
            state = states.get(index)
            if state is None:
                continue
            for key in needed:
                if key not in state:
                    raise ConfigError(f"the checkpoint's state of {name} has no {key}, which {cls_name} needs: {cause}")
            shapes = self.optimizer.shapes(group, real(param))
            expected = dict.fromkeys(MODIFIER_TENSORS, param.shape)
            expected |= {key: torch.Size(shapes.get(key, param.shape)) for key in buffers}
            for key in AVERAGE_NUMBERS if BASE in state else ():
                if not _is_sum(value := state.get(key)):
                    raise ConfigError(f"the checkpoint's {key} of {name} is {value!r}, not a number >= 0: {cause}")
            for key, value in state.items():
                # A class without buffers has hooks, which may store anything.
                if buffers and key not in known:
                    raise ConfigError(
                        f"the checkpoint's state of {name} has {key}, which {cls_name} does not know: {cause}"
                    )
                if key in expected and not isinstance(value, Tensor):
                    raise ConfigError(
                        f"the checkpoint's {key} of {name} is a value of type {type(value).__name__}, not a tensor"
                    )
                if key in expected and value.shape != expected[key]:
                    raise ConfigError(
                        f"the checkpoint's {key} of {name} has the shape {list(value.shape)}, the parameter "
                        f"{list(param.shape)}: it was saved for another model"
                        + (", or with another split" if key in shapes and "split" in group else "")
                    )


def _is_sum(value: Any) -> bool:
    """Whether a saved value is a finite number >= 0, as sums of weights and lrs are."""
    value = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value >= 0
