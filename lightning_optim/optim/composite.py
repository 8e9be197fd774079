"""Several algorithms in one optimizer: Muon for the hidden matrices, AdamW for the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..catalog.registry import optimizer_info
from ..core.errors import ConfigError, choices
from ..core.param_group_keys import ALGORITHM
from .base import AdaptiveOptimizer
from .checks import check_matrices
from .finite import should_skip, skips_nonfinite

Build = Callable[[list[dict[str, Any]]], Optimizer]
"""Makes a child over its first param groups."""


class Composite(Optimizer):
    """One `torch.optim.Optimizer` whose param groups are stepped each by the algorithm it names.

    The children share its group dicts and its state, so whatever works on an optimizer works on it: schedulers,
    clipping, gradient accumulation, GradScaler, checkpoints, callbacks. `param_groups` is the one truth: it may be
    edited as torch's, and the children follow. An algorithm that evaluates the model again within its step (LBFGS)
    cannot be a child.

    Args:
        param_groups: each with `algorithm`, one of the names in `build`.
        build: by name: makes the child over its groups, of which there must be some.
        main: the child of later groups that name none.

    Raises:
        ConfigError: a group names an algorithm that is not there.
    """

    def __init__(self, param_groups: Iterable[dict[str, Any]], build: Mapping[str, Build], main: str) -> None:
        self.children: dict[str, Optimizer] = {}
        self._main = main
        groups = list(param_groups)
        for name, make in build.items():
            if own := [group for group in groups if group.get(ALGORITHM) == name]:
                self.children[name] = make(own)
                # torch does so at a load: without, a group that joins after one would have a key more.
                self.children[name].defaults.setdefault("differentiable", False)
        self._check_known(groups)
        # torch's adds the groups as the children have completed them; it may neither copy nor fill them in.
        waiting = {name: iter(child.param_groups) for name, child in self.children.items()}
        self._making = True
        super().__init__([next(waiting[group[ALGORITHM]]) for group in groups], {})
        self._making = False
        # What every child has: torch's schedulers look here for what they may cycle in each group.
        shared = set.intersection(*(set(child.defaults) for child in self.children.values()))
        self.defaults.update(
            {key: value for key, value in self.children[next(iter(self.children))].defaults.items() if key in shared}
        )
        # A fused child could unscale gradients itself, the others could not.
        self._step_supports_amp_scaling = False
        self._gather()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """A step of every child.

        Args:
            closure: evaluates the model again, once, and returns the loss.

        Returns:
            What the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._link()
        skipped = self._skips()
        for child in self.children.values():
            if child.param_groups and (isinstance(child, AdaptiveOptimizer) or not skipped):
                with _told(child, skipped):
                    _own_step(child)
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a param group to the child that it names under `algorithm`; without, to the main one.

        Raises:
            ConfigError: there is no such child, or it refuses the group.
        """
        if self._making:
            super().add_param_group(param_group)
            return
        param_group = dict(param_group)
        params = param_group["params"]
        param_group["params"] = [params] if isinstance(params, Tensor) else list(params)
        name = param_group.setdefault(ALGORITHM, self._main)
        self._check_known([param_group])
        self._check_new(param_group)
        self._link()
        child = self.children[name]
        child.add_param_group(param_group)
        self.param_groups.append(child.param_groups[-1])

    def state_dict(self) -> dict[str, Any]:
        """torch's, over all groups; each child writes its own part."""
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        with self._apart():
            parts = {name: child.state_dict() for name, child in self.children.items()}
        state_dict = _joined(parts, [group[ALGORITHM] for group in self.param_groups])
        for post_hook in self._optimizer_state_dict_post_hooks.values():
            state_dict = _or(post_hook(self, state_dict), state_dict)
        return state_dict

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back; each child reads its own part.

        Raises:
            ConfigError: a group is of another algorithm, or what a child raises; then nothing has changed.
        """
        state_dict = dict(state_dict)
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = _or(hook(self, state_dict), state_dict)
        order = [group[ALGORITHM] for group in self.param_groups]
        saved = [group.get(ALGORITHM) for group in state_dict["param_groups"]]
        if saved != order:
            raise ConfigError(
                f"the checkpoint's param groups go by {saved}, this run's by {order}. "
                "Give the rules that it was saved under"
            )
        before = list(self.param_groups), self.state
        try:
            with self._apart():
                for name, child in self.children.items():
                    child.load_state_dict(_part(state_dict, name))
                groups = {name: iter(child.param_groups) for name, child in self.children.items()}
                self.param_groups = [next(groups[name]) for name in order]
                self._gather()
        except BaseException:
            self.param_groups, self.state = before
            self._link()
            raise
        for post_hook in self._optimizer_load_state_dict_post_hooks.values():
            post_hook(self)

    def linked(self) -> list[Optimizer]:
        """The children, with their groups as they are now."""
        self._link()
        return list(self.children.values())

    def defaults_of(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """The defaults of the child that steps a group."""
        return self.children[group[ALGORITHM]].defaults

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "children": self.children, "_main": self._main, "_making": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._step_supports_amp_scaling = False
        self._link()

    def __repr__(self) -> str:
        return f"Composite({', '.join(map(repr, self.children.values()))})"

    def _skips(self) -> bool:
        """Whether the groups that leave out what is not finite do: with them those of torch's, which cannot ask."""
        if not any(map(skips_nonfinite, self.param_groups)):
            return False
        ours = {name for name, child in self.children.items() if isinstance(child, AdaptiveOptimizer)}
        return should_skip(
            group for group in self.param_groups if skips_nonfinite(group) or group[ALGORITHM] not in ours
        )

    def _link(self) -> None:
        """Let the children see the groups and the state as they are now, whoever has edited them."""
        self._check_known(self.param_groups)
        for name, child in self.children.items():
            child.param_groups = [group for group in self.param_groups if group[ALGORITHM] == name]
            child.state = self.state

    def _gather(self) -> None:
        """Take the children's states together: some have one from the start (Adagrad)."""
        self.state = defaultdict(dict)
        for child in self.children.values():
            self.state.update(child.state)
        self._link()

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """Give each child a state of its own, as it saves and loads it."""
        self._link()
        for child in self.children.values():
            held = [param for group in child.param_groups for param in group["params"]]
            child.state = defaultdict(dict, {param: self.state[param] for param in held if param in self.state})
        try:
            yield
        finally:
            self._link()

    def _check_known(self, groups: Sequence[Mapping[str, Any]]) -> None:
        for group in groups:
            if (name := group.get(ALGORITHM)) not in self.children:
                raise ConfigError(
                    f"param group {group.get('name', '?')!r}: {ALGORITHM}: there is no {name!r} in this optimizer."
                    f"{choices(str(name), self.children)}"
                )

    def _check_new(self, param_group: Mapping[str, Any]) -> None:
        """Whether another child has one of these parameters: each child sees its own only."""
        where = f"param group {param_group.get('name', '?')!r}"
        given = [param if isinstance(param, tuple) else ("?", param) for param in param_group["params"]]
        held = {id(param) for group in self.param_groups for param in group["params"]}
        if any(id(tensor) in held for _, tensor in given):
            raise ConfigError(f"{where}: some of its parameters are in a group already")
        if optimizer_info(param_group[ALGORITHM]).matrices_only:
            check_matrices(param_group[ALGORITHM], given, where, "Give them a group of another algorithm")


@contextmanager
def _told(child: Optimizer, skipped: bool) -> Iterator[None]:
    """Tell a child of ours whether the step is skipped: one gradient that is not finite is everybody's affair."""
    if not isinstance(child, AdaptiveOptimizer):
        yield
        return
    child._skipped = skipped
    try:
        yield
    finally:
        child._skipped = None


def _own_step(child: Optimizer) -> None:
    """A step without what torch puts around it: hooks on all optimizers and profiler ranges have the composite's."""
    step = type(child).step
    if child._optimizer_step_pre_hooks or child._optimizer_step_post_hooks:
        child.step()  # they are its own
        return
    (step.__wrapped__ if getattr(step, "hooked", False) else step)(child)  # type: ignore[attr-defined]


def _joined(parts: Mapping[str, dict[str, Any]], order: Sequence[str]) -> dict[str, Any]:
    """The children's state dicts as one, its groups in this order and its parameters counted through."""
    groups, state = [], {}
    waiting = {name: iter(part["param_groups"]) for name, part in parts.items()}
    start = 0
    for name in order:
        group = next(waiting[name])
        numbers = range(start, start := start + len(group["params"]))
        for number, own in zip(numbers, group["params"], strict=True):
            if own in parts[name]["state"]:
                state[number] = parts[name]["state"][own]
        groups.append({**group, "params": list(numbers)})
    return {"state": state, "param_groups": groups}


def _part(state_dict: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One child's part of a state dict."""
    groups = [dict(group) for group in state_dict["param_groups"] if group[ALGORITHM] == name]
    held = {number for group in groups for number in group["params"]}
    return {
        "state": {number: state for number, state in state_dict["state"].items() if number in held},
        "param_groups": groups,
    }


def _or(made: dict[str, Any] | None, otherwise: dict[str, Any]) -> dict[str, Any]:
    return otherwise if made is None else made
