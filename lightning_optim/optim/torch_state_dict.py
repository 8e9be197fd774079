"""State dicts that cross over between a member and torch's class of the same rule, and keep their dtypes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ..catalog.info import DECOUPLED_KEY, TORCH_ONLY
from ..core.errors import ConfigError
from ..core.param_group_keys import EXECUTION_FLAGS, GROUP_METADATA
from ..groups.loading import remap
from .bucket import real, scalar
from .state_keys import AROUND, MASTER

# What a checkpoint of torch's own class lacks.
_OF_OURS = tuple(key for key in GROUP_METADATA if key not in ("params", "param_names"))


class AdaptedOptimizer(Protocol):
    """What is asked of an optimizer; `AdaptiveOptimizer` says what each is."""

    defaults: dict[str, Any]
    param_groups: list[dict[str, Any]]
    state: Any
    default_mode: ClassVar[str]
    _fixed: ClassVar[Mapping[str, Any]]
    _torch_keys: ClassVar[Sequence[str]]
    _possible_buffers: ClassVar[Sequence[str]]

    def dtypes(self, group: Mapping[str, Any]) -> Mapping[str, torch.dtype | None]:
        """The buffers."""

    def shapes(self, group: Mapping[str, Any], param: Tensor) -> Mapping[str, Sequence[int]]:
        """Those of the buffers that have not the parameter's."""

    def scalars(self, group: Mapping[str, Any]) -> Mapping[str, float]:
        """The numbers."""


class TorchStateDictAdapter:
    """One save or load of an optimizer."""

    def __init__(self, optimizer: AdaptedOptimizer) -> None:
        self.optimizer = optimizer
        self._saved: dict[str, Any] = {}

    def to_torch(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """A state dict of ours with the keys that torch's class would take a default for, if they were missing."""
        for group in state_dict["param_groups"]:
            for key in self.optimizer._torch_keys:
                group[key] = key == DECOUPLED_KEY and group["weight_decay_mode"] == "decoupled"
        return state_dict

    def from_torch(self, optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        """For torch's hook before a load: groups in our words, each with every key.

        Raises:
            ConfigError: the state of a parameter is another optimizer's, or of another shape; or the names that both
                sides have are not the same.
        """
        names, saved = (
            [g.get("param_names") for g in groups] for groups in (optimizer.param_groups, state_dict["param_groups"])
        )
        if all(names) and all(saved) and names != saved:
            state_dict = remap(optimizer.param_groups, state_dict)
        groups = [
            self._group(saved, now)
            for saved, now in zip(state_dict["param_groups"], optimizer.param_groups, strict=False)
        ]
        if len(groups) == len(state_dict["param_groups"]):  # else torch says so
            for group, now in zip(groups, optimizer.param_groups, strict=True):
                self._check_state(group, now["params"], state_dict["state"])
            state_dict = {**state_dict, "param_groups": groups}
        self._saved = state_dict
        return state_dict

    def restore(self, _: torch.optim.Optimizer) -> None:
        """For torch's hook after a load, which has cast buffers to the parameter's dtype: their own dtypes again."""
        optimizer = self.optimizer
        indices = chain.from_iterable(group["params"] for group in self._saved["param_groups"])
        for group in optimizer.param_groups:
            for param in group["params"]:
                index = next(indices)
                if index not in self._saved["state"]:
                    continue
                state, saved = optimizer.state[param], self._saved["state"][index]
                # A fused or capturable optimizer of torch's had it on the device; old ones had a number, as hooks may.
                if optimizer.dtypes(group) or isinstance(saved["step"], Tensor):
                    state["step"] = scalar(float(saved["step"]))
                for name in optimizer.scalars(group):
                    state[name] = float(saved[name])
                for name, dtype in optimizer.dtypes(group).items():
                    if dtype is not None:
                        state[name] = saved[name].to(device=param.device, dtype=dtype)
                # All else has the master's type; and of what hooks keep nobody knows better.
                if MASTER in saved or not optimizer.dtypes(group):
                    tensors = {key: value for key, value in saved.items() if isinstance(value, Tensor)}
                    state.update({key: value.to(param.device) for key, value in tensors.items() if key != "step"})

    def _group(self, saved: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
        group = {key: value for key, value in saved.items() if key not in TORCH_ONLY}
        mode = self.optimizer.default_mode
        if DECOUPLED_KEY in saved and DECOUPLED_KEY in self.optimizer._torch_keys:
            mode = "decoupled" if saved[DECOUPLED_KEY] else "l2"
        group.setdefault("weight_decay_mode", mode)
        # Of what torch's class does not know, its checkpoint says nothing.
        for key in (*self.optimizer.defaults, *_OF_OURS):
            if key in now:
                group.setdefault(key, now[key])
        return group | {key: now[key] for key in EXECUTION_FLAGS} | dict(self.optimizer._fixed)

    def _check_state(self, group: Mapping[str, Any], params: Sequence[Tensor], states: Mapping[Any, Any]) -> None:
        buffers, scalars = self.optimizer.dtypes(group), self.optimizer.scalars(group)
        needed = ("step", *buffers, *scalars)
        known = (*needed, *AROUND, *self.optimizer._possible_buffers)
        names = group.get("param_names") or [f"parameter {index}" for index in group["params"]]
        for name, index, param in zip(names, group["params"], params, strict=False):  # torch says if there are others
            state = states.get(index)
            if state is None:
                continue
            who, advice = type(self.optimizer).__name__, "it was saved by another optimizer, or under other options"
            for key in needed:
                if key not in state:
                    raise ConfigError(f"the checkpoint's state of {name} has no {key}, which {who} needs: {advice}")
            shapes = self.optimizer.shapes(group, real(param))
            for key, value in state.items():
                # A rule of hooks alone keeps whatever it likes.
                if buffers and key not in known:
                    raise ConfigError(
                        f"the checkpoint's state of {name} has {key}, which {who} does not know: {advice}"
                    )
                if key in buffers and value.shape != torch.Size(shapes.get(key, param.shape)):
                    raise ConfigError(
                        f"the checkpoint's {key} of {name} has the shape {list(value.shape)}, the parameter "
                        f"{list(param.shape)}: it was saved for another model"
                    )
