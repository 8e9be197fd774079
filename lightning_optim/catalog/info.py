"""`OptimizerInfo`: everything the registry knows about one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..core.hyperparameters import Choice, Hyperparameter
from .common import SHARED_OPTIONS
from .decay import DECAY_MODES
from .modifiers import find_average_conflict, find_evaluations_conflict, find_kernel_conflict

if TYPE_CHECKING:
    import torch

UNSUPPORTED_FLAGS = ("capturable", "differentiable")
"""Flags of torch's classes that native classes refuse."""
DECOUPLED_KEY = "decoupled_weight_decay"
"""A flag of torch's classes that native classes translate to `weight_decay_mode`."""
TORCH_ONLY_KEYS = (*UNSUPPORTED_FLAGS, DECOUPLED_KEY)

_FindConflict = Callable[[Mapping[str, Any]], str | None]


def _no_conflict(values: Mapping[str, Any]) -> None:
    del values


@dataclass(frozen=True, kw_only=True)
class OptimizerInfo:
    """Everything the registry knows about one optimizer.

    An optimizer may have a torch class (`path`), a native class of this package (`own`), or both with the same update
    rule. Where there is only a native class, `path` and `own` are the same.
    """

    name: str
    """Its name in configs: `name: adamw`."""
    summary: str
    """What it does, in one line."""
    path: str
    """The class, as `package.module:Class`; imported when it is first needed."""
    own: str = ""
    """The native class with the same update rule, if there is one."""
    paper: str
    """The source of the algorithm."""
    equations: tuple[str, ...]
    """The update rule in plain text, a line each; `weight_decay_mode` says where weight decay comes in."""
    hyperparameters: Mapping[str, Hyperparameter]
    """Every key a config may set, in the order of the class's signature."""
    own_only: frozenset[str] = frozenset()
    """The keys that only the native class accepts; at their defaults, torch's class computes the same."""
    buffers: Mapping[str, str]
    """The state tensors by their key in `optimizer.state[p]`, each with the hyperparameter that must be set for it to
    exist, or '' where it always does. They have the parameter's shape, except for those in `reduced`."""
    reduced: frozenset[str] = frozenset()
    """The buffers that do not have the parameter's shape: one number for the tensor or for each block of it, or
    `factors`."""
    factors: frozenset[str] = frozenset()
    """The buffers that are square matrices, of the size of a side of the parameter."""
    first_moment: str = ""
    """The buffer that does not exist where `schedule_free` averages in its place: with `betas: [0, ...]`."""
    decay: str = "l2"
    """What `weight_decay` means by default: a mode of `WeightDecay`, or `none` where there is no weight decay."""
    fused: bool = False
    """Whether the class has a fused kernel."""
    factored: bool = False
    """Whether the buffers are a factored second moment, smaller than the parameter."""
    evaluations: int = 1
    """The number of gradients that a step takes, and so of calls of its closure."""
    single_group: bool = False
    """Whether it accepts only one param group."""
    matrices_only: bool = False
    """Whether its steps are products of matrices: it takes parameters of two or more dimensions, torch's class of two,
    and no kernel is made of it."""
    conflict: _FindConflict = _no_conflict
    """Returns what is wrong with a combination of values that are each allowed, or None."""
    own_conflict: _FindConflict = _no_conflict
    """The same, for what only the native class refuses."""
    cls: type[torch.optim.Optimizer] | None = None
    """The class itself, where a user registered one."""

    # Which classes there are

    def load(self, *, own: bool = False) -> type[torch.optim.Optimizer]:
        """The optimizer class: the native one with `own`, else the one at `path`."""
        if self.cls is not None:
            return self.cls
        module, _, name = (self.own if own else self.path).partition(":")
        cls: type[torch.optim.Optimizer] = getattr(import_module(module), name)
        return cls

    @property
    def is_built_in(self) -> bool:
        """Whether it belongs to this package's catalog; False where a user registered it."""
        return self.cls is None

    @property
    def is_native_only(self) -> bool:
        """Whether the native class is the only one."""
        return self.own == self.path

    @property
    def has_torch_class(self) -> bool:
        """Whether torch has a class for it."""
        return self.path.startswith("torch.")

    @property
    def is_exclusive(self) -> bool:
        """Whether a step evaluates the model again, so that no other optimizer can be used together with it."""
        return self.single_group or self.evaluations > 1

    # What they accept

    @property
    def defaults(self) -> dict[str, Any]:
        """The default of every hyperparameter."""
        return {key: spec.default for key, spec in self.hyperparameters.items()}

    @property
    def torch_only(self) -> frozenset[str]:
        """The keys that only torch's class accepts; not `decoupled_weight_decay`, which the native class translates."""
        return frozenset(UNSUPPORTED_FLAGS) & set(self.hyperparameters) if self.own else frozenset()

    def signature(self, *, own: bool) -> dict[str, Any]:
        """The names and defaults that the constructor of the native class, or else of torch's class, takes.

        What the installed torch does not take yet is left out.
        """
        excluded = TORCH_ONLY_KEYS if own else self.own_only if not self.is_native_only else ()
        return {
            key: spec.default for key, spec in self.hyperparameters.items() if key not in excluded and spec.is_available
        }

    def positional_names(self) -> list[str]:
        """The arguments that the native class also takes by position, as torch's does: those before any option."""
        names = list(self.signature(own=True))
        return names[: min(names.index(option) for option in SHARED_OPTIONS)]

    def find_conflict(self, values: Mapping[str, Any]) -> str | None:
        """What is wrong with a combination of values that are each allowed, or None."""
        return (
            find_evaluations_conflict(values, self.name, self.evaluations)
            or find_average_conflict(values)
            or (find_kernel_conflict(values, self.name) if self.matrices_only else None)
            or self.own_conflict(values)
            or self.conflict(values)
        )

    # Weight decay

    @property
    def decay_modes(self) -> tuple[str, ...]:
        """The modes of weight decay that a config may choose from."""
        mode = self.hyperparameters.get("weight_decay_mode")
        if isinstance(mode, Choice):
            return mode.options
        return (self.decay,) if self.decay in DECAY_MODES else ()

    def resolve_decay_mode(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values with a null `weight_decay_mode` replaced by what `decoupled_weight_decay` makes of it."""
        if "weight_decay_mode" not in values or DECOUPLED_KEY not in values:
            return dict(values)
        mode = values["weight_decay_mode"] or ("decoupled" if values[DECOUPLED_KEY] else self.decay)
        return {**values, "weight_decay_mode": mode}

    # State

    def active_buffers(self, values: Mapping[str, Any]) -> list[str]:
        """The buffers that exist with these hyperparameters."""
        names = [name for name, condition in self.buffers.items() if not condition or values.get(condition)]
        if self.first_moment and values.get("schedule_free") and values["betas"][0] == 0:
            names.remove(self.first_moment)
        return names

    def state_bytes(self, values: Mapping[str, Any]) -> int | None:
        """Bytes of state per float32 parameter with these hyperparameters; None where it depends on shapes."""
        if self.factored or self.single_group or self.factors:
            return None
        return 4 * sum(name not in self.reduced for name in self.active_buffers(values))
