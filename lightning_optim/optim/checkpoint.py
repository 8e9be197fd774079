"""State dicts that cross over between a member and torch's class of the same rule, and keep their dtypes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from ..errors import ConfigError

if TYPE_CHECKING:
    from .base import AdaptiveOptimizer

# What torch's groups have and ours do not: flags that ours refuse, and its name for one decay mode.
NEVER = ("capturable", "differentiable")
DECOUPLED = "decoupled_weight_decay"
# How a step runs belongs to the run, not to the checkpoint; the others a checkpoint of torch's lacks.
_OF_THIS_RUN = ("foreach", "fused")
_KEPT = ("name", "peak_lr")


class Crossing:
    """One save or load of an optimizer."""

    def __init__(self, optimizer: AdaptiveOptimizer) -> None:
        self.optimizer = optimizer
        self._saved: dict[str, Any] = {}

    def to_torch(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """A state dict of ours with the keys that torch's class would take a default for, if they were missing."""
        for group in state_dict["param_groups"]:
            for key in self.optimizer.torch_keys:
                group[key] = key == DECOUPLED and group["weight_decay_mode"] == "decoupled"
        return state_dict

    def from_torch(self, optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        """For torch's hook before a load: groups in our words, each with every key.

        Raises:
            ConfigError: the state of a parameter lacks a buffer that its group needs.
        """
        groups = [
            self._group(saved, now)
            for saved, now in zip(state_dict["param_groups"], optimizer.param_groups, strict=False)
        ]
        if len(groups) == len(state_dict["param_groups"]):  # else torch says so
            for group in groups:
                self._check_buffers(group, state_dict["state"])
            state_dict = {**state_dict, "param_groups": groups}
        self._saved = state_dict
        return state_dict

    def restore(self) -> None:
        """After a load by torch, which casts buffers to the parameter's dtype: the declared ones, from the source."""
        optimizer = self.optimizer
        indices = chain.from_iterable(group["params"] for group in self._saved["param_groups"])
        for group in optimizer.param_groups:
            for param in group["params"]:
                index = next(indices)
                if index not in self._saved["state"]:
                    continue
                state, saved = optimizer.state[param], self._saved["state"][index]
                # On the CPU: it is read at every step. A fused or capturable optimizer of torch's had it on the device.
                state["step"] = torch.tensor(float(saved["step"]), device="cpu")
                for name in optimizer.scalars(group):
                    state[name] = float(saved[name])
                for name, dtype in optimizer.dtypes(group).items():
                    if dtype is not None:
                        state[name] = saved[name].to(device=param.device, dtype=dtype)

    def _group(self, saved: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
        group = {key: value for key, value in saved.items() if key not in (*NEVER, DECOUPLED)}
        if DECOUPLED in saved:
            group.setdefault("weight_decay_mode", "decoupled" if saved[DECOUPLED] else "l2")
        else:
            group.setdefault("weight_decay_mode", self.optimizer.default_mode)
        # What torch's class does not know, it did as ours does by default.
        missing = {**now, **self.optimizer.torch_values}
        for key in (*self.optimizer.defaults, *_KEPT):
            if key in missing:
                group.setdefault(key, missing[key])
        return group | {key: now[key] for key in _OF_THIS_RUN} | dict(self.optimizer.fixed)

    def _check_buffers(self, group: Mapping[str, Any], states: Mapping[Any, Any]) -> None:
        needed = ("step", *self.optimizer.dtypes(group), *self.optimizer.scalars(group))
        for place, index in enumerate(group["params"]):
            missing = [name for name in needed if name not in states.get(index, needed)]
            if missing:
                names = group.get("param_names") or [f"parameter {i}" for i in group["params"]]
                raise ConfigError(
                    f"the checkpoint's state of {names[place]} has no {missing[0]}, which "
                    f"{type(self.optimizer).__name__} needs: it was saved by another optimizer, or under other options"
                )
