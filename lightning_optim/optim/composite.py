"""Several algorithms in one optimizer: Muon for the hidden matrices, AdamW for the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..catalog.registry import optimizer_info
from ..core.errors import ConfigError, format_choices
from ..core.param_group_keys import ALGORITHM
from ..core.param_names import joining
from .base import AdaptiveOptimizer
from .checks import check_matrices
from .child_state import ChildState, find_other_keys, find_other_saved_keys
from .eager import run_step_eagerly
from .finite import should_skip, skips_nonfinite
from .fused.requested_sums import RequestedSums
from .schedule_free import show_evaluation_weights, show_training_weights
from .sharpness import SharpnessMixin, is_sharpened

_LOAD_FLAG = "differentiable"
Build = Callable[[list[dict[str, Any]]], Optimizer]
"""Builds a child over its initial param groups."""


class Composite(SharpnessMixin, Optimizer):
    """One `torch.optim.Optimizer` in which each param group is stepped by the algorithm it names.

    The children share its group dicts and its state, so everything that works on an optimizer works on it: schedulers,
    clipping, gradient accumulation, GradScaler, checkpoints, callbacks. `param_groups` is the single source of truth:
    edit it as with torch's optimizers, and the children follow. An algorithm that evaluates the model again within its
    step (LBFGS) cannot be a child.

    Args:
        param_groups: each with `algorithm`, one of the names in `build`.
        build: by name: builds the child over its groups, at least one.
        main: the child of later groups that name none.

    Raises:
        ConfigError: a group names an algorithm that is not in `build`.
    """

    _is_constructing = False

    def __init__(self, param_groups: Iterable[dict[str, Any]], build: Mapping[str, Build], main: str) -> None:
        self.children: dict[str, Optimizer] = {}
        self._main = main
        groups = list(param_groups)
        for name, build_child in build.items():
            if own := [group for group in groups if group.get(ALGORITHM) == name]:
                self.children[name] = build_child(own)
        self._without_load_flag = {n for n, child in self.children.items() if _LOAD_FLAG not in child.defaults}
        self._check_algorithms(groups)
        # torch's constructor must add the groups as the children have completed them, neither copied nor filled in.
        completed = {name: iter(child.param_groups) for name, child in self.children.items()}
        self._is_constructing = True
        super().__init__([next(completed[group[ALGORITHM]]) for group in groups], {})
        self._is_constructing = False
        # What every child has: torch's schedulers look here for what they can cycle in each group.
        shared = set.intersection(*(set(child.defaults) for child in self.children.values()))
        first = next(iter(self.children.values()))
        self.defaults.update({key: value for key, value in first.defaults.items() if key in shared})
        # A fused child could unscale gradients itself, but the others could not.
        self._step_supports_amp_scaling = False
        self._collect_states()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every child.

        Args:
            closure: evaluates the model again and returns the loss; called once, or twice with `sharpness`.

        Returns:
            What the closure returned the first time.
        """
        try:
            return self._evaluate_and_step(closure)
        finally:
            for child in self.children.values():
                if isinstance(child, AdaptiveOptimizer):
                    child._requested = None  # also of a child that was not stepped: what was asked for was this step

    def _evaluate_and_step(self, closure: Callable[[], Any] | None) -> Any:
        loss = None
        if is_sharpened(self.param_groups):  # one perturbation over the groups of all children
            loss = self._evaluate_sharpened(closure)
        elif closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._sync_children()
        skip, child_state = self._should_skip(), ChildState(self.children)
        for name, child in self.children.items():
            if child.param_groups and (isinstance(child, AdaptiveOptimizer) or not skip):
                with _skip_decision(child, skip), child_state.lent_to(name, self.state):
                    _step_once(child)
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a param group, at any time, to the child that it names under `algorithm`, by default to the main one.

        Where only the new group or only the other groups have names, the missing ones are those of the positions.

        Raises:
            ConfigError: there is no such child, or it refuses the group.
        """
        if self._is_constructing:
            super().add_param_group(param_group)
            return
        self._sync_children()
        with joining(param_group, self.param_groups) as group:
            name = group.setdefault(ALGORITHM, self._main)
            self._check_algorithms([group])
            self._check_params(group)
            child = self.children[name]
            child.add_param_group(group)
        group = child.param_groups[-1]
        if all("peak_lr" in other for other in self.param_groups):
            group.setdefault("peak_lr", float(group["lr"]))
        self.param_groups.append(group)

    def eval(self) -> None:
        """As a child of ours does it, for all of them: put the evaluation weights of `schedule_free` into the model."""
        show_evaluation_weights(self.param_groups, self.state)

    def train(self) -> None:
        """Put the training weights back."""
        show_training_weights(self.param_groups, self.state)

    def measure_step(self, requested: RequestedSums) -> list[Tensor]:
        """As a child of ours does it, for all of them; not for one whose own hooks may change what it has stepped."""
        own = (child for child in self.synced_children() if isinstance(child, AdaptiveOptimizer))
        return [p for child in own if not child._optimizer_step_post_hooks for p in child.measure_step(requested)]

    def state_dict(self) -> dict[str, Any]:
        """As torch's, over all groups; each child writes its own part."""
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        with self._separate_states():
            parts = {name: child.state_dict() for name, child in self.children.items()}
        state_dict = _join_state_dicts(parts, [group[ALGORITHM] for group in self.param_groups])
        # Under keys that are no parameter: what the children have, and what others have put there.
        state_dict["state"] |= {key: self.state[key] for key in find_other_keys(self.state)}
        for post_hook in self._optimizer_state_dict_post_hooks.values():
            replaced = post_hook(self, state_dict)
            state_dict = state_dict if replaced is None else replaced
        return state_dict

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load it; each child reads its own part.

        Raises:
            ConfigError: a group has another algorithm, or a child raises; then nothing has changed.
        """
        state_dict = dict(state_dict)
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            replaced = hook(self, state_dict)
            state_dict = state_dict if replaced is None else replaced
        order = [group[ALGORITHM] for group in self.param_groups]
        saved = [group.get(ALGORITHM) for group in state_dict["param_groups"]]
        if saved != order:
            raise ConfigError(
                f"the algorithms of the checkpoint's param groups are {saved}, those of this run {order}. "
                "Use the rules that it was saved with"
            )
        before = list(self.param_groups), self.state
        try:
            with self._separate_states():
                for name, child in self.children.items():
                    child.load_state_dict(_extract_state_dict(state_dict, name))
                groups = {name: iter(child.param_groups) for name, child in self.children.items()}
                self.param_groups = [next(groups[name]) for name in order]
                self._drop_load_flag()
                self._collect_states()
                others = {key: state_dict["state"][key] for key in find_other_saved_keys(state_dict)}
                self.state.update(deepcopy(others))
        except BaseException:
            self.param_groups, self.state = before
            self._sync_children()
            raise
        for post_hook in self._optimizer_load_state_dict_post_hooks.values():
            post_hook(self)

    def synced_children(self) -> list[Optimizer]:
        """The children, with the groups and the state as they are now."""
        self._sync_children()
        return list(self.children.values())

    def defaults_of(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """The defaults of the child that steps a group."""
        return self.children[group[ALGORITHM]].defaults

    def _patch_step_function(self) -> None:
        """torch's hook of the constructor and of unpickling, in which it puts the step hooks around `step`."""
        super()._patch_step_function()
        run_step_eagerly(type(self))

    def __getstate__(self) -> dict[str, Any]:
        own = {key: vars(self)[key] for key in ("children", "_main", "_without_load_flag")}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._step_supports_amp_scaling = False
        self._drop_load_flag()
        self._sync_children()

    def __repr__(self) -> str:
        return f"Composite({', '.join(map(repr, self.children.values()))})"

    def _should_skip(self) -> bool:
        """Whether the groups with `skip_nonfinite` skip this step, and with them torch's, which lack that option."""
        if not any(map(skips_nonfinite, self.param_groups)):
            return False
        ours = {name for name, child in self.children.items() if isinstance(child, AdaptiveOptimizer)}
        return should_skip(
            group for group in self.param_groups if skips_nonfinite(group) or group[ALGORITHM] not in ours
        )

    def _sync_children(self) -> None:
        """Give the children the groups and the state as they are now, whoever has edited them."""
        self._check_algorithms(self.param_groups)
        for name, child in self.children.items():
            child.param_groups = [group for group in self.param_groups if group[ALGORITHM] == name]
            child.state = self.state

    def _collect_states(self) -> None:
        """Make one state of the children's: some have one before the first step (Adagrad)."""
        self.state = defaultdict(dict)
        child_state = ChildState(self.children)
        for name, child in self.children.items():
            self.state.update({child_state.key_in_composite(name, key): value for key, value in child.state.items()})
        self._sync_children()

    @contextmanager
    def _separate_states(self) -> Iterator[None]:
        """Give each child only the state of its own parameters, for its `state_dict` and `load_state_dict`."""
        self._sync_children()
        for child in self.children.values():
            params = [param for group in child.param_groups for param in group["params"]]
            child.state = defaultdict(dict, {param: self.state[param] for param in params if param in self.state})
        try:
            yield
        finally:
            self._sync_children()

    def _drop_load_flag(self) -> None:
        """Drop what torch adds to defaults at a load or copy: groups that join later would have one key more."""
        for optimizer in (self, *(self.children[name] for name in self._without_load_flag)):
            if optimizer is not self or self._without_load_flag:
                optimizer.defaults.pop(_LOAD_FLAG, None)

    def _check_algorithms(self, groups: Sequence[Mapping[str, Any]]) -> None:
        for group in groups:
            if (name := group.get(ALGORITHM)) not in self.children:
                raise ConfigError(
                    f"param group {group.get('name', '?')!r}: {ALGORITHM}: there is no {name!r} in this optimizer."
                    f"{format_choices(str(name), self.children)}"
                )

    def _check_params(self, param_group: Mapping[str, Any]) -> None:
        """Check the parameters of a new group against all groups: the child sees only its own."""
        prefix = f"param group {param_group.get('name', '?')!r}"
        given = [param if isinstance(param, tuple) else ("?", param) for param in param_group["params"]]
        existing = {id(param) for group in self.param_groups for param in group["params"]}
        if any(id(tensor) in existing for _, tensor in given):
            raise ConfigError(f"{prefix}: some of its parameters are already in a group")
        child = self.children[param_group[ALGORITHM]]
        if optimizer_info(param_group[ALGORITHM]).matrices_only and not isinstance(child, AdaptiveOptimizer):
            check_matrices(param_group[ALGORITHM], given, prefix, "Put them in a group of another algorithm")


@contextmanager
def _skip_decision(child: Optimizer, skip: bool) -> Iterator[None]:
    """Pass the decision to skip to a child of ours: one non-finite gradient concerns all children."""
    if not isinstance(child, AdaptiveOptimizer):
        yield
        return
    child._skip_decision = skip
    try:
        yield
    finally:
        child._skip_decision = None


def _step_once(child: Optimizer) -> None:
    """Step a child without torch's wrapper: its global hooks and profiler range belong to the composite's step."""
    step: Any = type(child).step
    if child._optimizer_step_pre_hooks or child._optimizer_step_post_hooks:
        child.step()  # the child's own hooks need the wrapper
        return
    while getattr(step, "hooked", False):
        step = step.__wrapped__
    step(child)


def _join_state_dicts(parts: Mapping[str, dict[str, Any]], order: Sequence[str]) -> dict[str, Any]:
    """The children's state dicts as one, with the groups in this order and the parameters numbered through."""
    groups, state = [], {}
    remaining = {name: iter(part["param_groups"]) for name, part in parts.items()}
    start = 0
    for name in order:
        group = next(remaining[name])
        indices = range(start, start := start + len(group["params"]))
        for index, child_index in zip(indices, group["params"], strict=True):
            if child_index in parts[name]["state"]:
                state[index] = parts[name]["state"][child_index]
        groups.append({**group, "params": list(indices)})
    return {"state": state, "param_groups": groups}


def _extract_state_dict(state_dict: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One child's part of a state dict."""
    groups = [dict(group) for group in state_dict["param_groups"] if group[ALGORITHM] == name]
    indices = {index for group in groups for index in group["params"]}
    return {
        "state": {index: state for index, state in state_dict["state"].items() if index in indices},
        "param_groups": groups,
    }
