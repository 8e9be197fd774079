"""What the registry holds of one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..core.hyperparameters import Choice, Hyperparameter
from .common import OPTIONS
from .decay import DECAYS
from .modifiers import evaluations_conflict

if TYPE_CHECKING:
    import torch

# What ours cannot do, and what they say by another word.
REFUSED_BY_OURS = ("capturable", "differentiable")
DECOUPLED_KEY = "decoupled_weight_decay"
TORCH_ONLY = (*REFUSED_BY_OURS, DECOUPLED_KEY)


@dataclass(frozen=True, kw_only=True)
class OptimizerInfo:
    """What the registry knows of one optimizer."""

    name: str
    """What a config writes: `name: adamw`."""
    summary: str
    """One line: what it does."""
    path: str
    """Where the class is, `package.module:Class`; imported when it is first needed."""
    own: str = ""
    """Where our own class of the same rule is, if there is one."""
    paper: str
    """Where the algorithm comes from."""
    equations: tuple[str, ...]
    """The step in plain text, a line each; `weight_decay_mode` says where the decay stands."""
    hyperparameters: Mapping[str, Hyperparameter]
    """Every key the config may set, in the order of the class's signature."""
    own_only: frozenset[str] = frozenset()
    """Those that our own class alone takes; at their default, torch's does the same."""
    buffers: Mapping[str, str]
    """State tensors of the parameter's shape, by their key in `optimizer.state[p]`, each with the hyperparameter that
    must be set for it to be there; '' where it always is."""
    reduced: frozenset[str] = frozenset()
    """Those of them that are smaller than the parameter: a number for each tensor, or for each block of it."""
    decay: str = "l2"
    """What `weight_decay` means by default: a mode of `WeightDecay`, or `none` where there is none."""
    fused: bool = False
    """Whether the class has a fused kernel."""
    factored: bool = False
    """Whether the buffers are smaller than the parameter."""
    evaluations: int = 1
    """How many gradients a step takes: so often it calls its closure."""
    single_group: bool = False
    """Whether it takes one param group only."""
    matrices_only: bool = False
    """Whether it takes 2-D parameters only."""
    conflict: Callable[[Mapping[str, Any]], str | None] = lambda values: None
    """What is wrong with a combination of values that are each allowed, or None."""
    own_conflict: Callable[[Mapping[str, Any]], str | None] = lambda values: None
    """The same, of what our own class refuses too."""
    cls: type[torch.optim.Optimizer] | None = None
    """A class that was registered as it is."""

    def load(self, *, own: bool = False) -> type[torch.optim.Optimizer]:
        """The class itself; our own one if asked."""
        if self.cls is not None:
            return self.cls
        module, _, name = (self.own if own else self.path).partition(":")
        cls: type[torch.optim.Optimizer] = getattr(import_module(module), name)
        return cls

    @property
    def defaults(self) -> dict[str, Any]:
        """Every hyperparameter's default."""
        return {key: spec.default for key, spec in self.hyperparameters.items()}

    @property
    def is_ours(self) -> bool:
        """Whether there is our own class only."""
        return self.own == self.path

    @property
    def is_built_in(self) -> bool:
        """Whether it is of this package's catalog, and not registered by somebody else."""
        return self.cls is None

    @property
    def is_torchs(self) -> bool:
        """Whether torch has a class of it."""
        return self.path.startswith("torch.")

    @property
    def stands_alone(self) -> bool:
        """Whether a step evaluates the model again, so that no other optimizer can stand beside it."""
        return self.single_group or self.evaluations > 1

    @property
    def torch_only(self) -> frozenset[str]:
        """The hyperparameters that torch's class alone takes; `decoupled_weight_decay` is a mode of ours."""
        return frozenset(REFUSED_BY_OURS) & set(self.hyperparameters) if self.own else frozenset()

    @property
    def decay_modes(self) -> tuple[str, ...]:
        """What `weight_decay` can mean."""
        mode = self.hyperparameters.get("weight_decay_mode")
        if isinstance(mode, Choice):
            return mode.options
        return (self.decay,) if self.decay in DECAYS else ()

    def find_conflict(self, values: Mapping[str, Any]) -> str | None:
        """What is wrong with values that are each allowed, or None."""
        return (
            evaluations_conflict(values, self.name, self.evaluations)
            or self.own_conflict(values)
            or self.conflict(values)
        )

    def signature(self, *, own: bool) -> dict[str, Any]:
        """Names and defaults that our class, or else torch's, takes."""
        other = TORCH_ONLY if own else self.own_only if not self.is_ours else ()
        return {key: default for key, default in self.defaults.items() if key not in other}

    def positional_names(self) -> list[str]:
        """What our class takes by place as well, as torch's does: the hyperparameters that come before every option."""
        names = list(self.signature(own=True))
        return names[: min(names.index(option) for option in OPTIONS)]

    def with_decay_mode(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """These values with the weight decay's mode in force, where it is left to `decoupled_weight_decay`."""
        if "weight_decay_mode" not in values or DECOUPLED_KEY not in values:
            return dict(values)
        mode = values["weight_decay_mode"] or ("decoupled" if values[DECOUPLED_KEY] else self.decay)
        return {**values, "weight_decay_mode": mode}

    def buffers_under(self, values: Mapping[str, Any]) -> list[str]:
        """The buffers there are under these hyperparameters."""
        return [name for name, needed in self.buffers.items() if not needed or values.get(needed)]

    def state_bytes(self, values: Mapping[str, Any]) -> int | None:
        """Bytes of state for each float32 parameter under these hyperparameters; None where it depends on shapes."""
        whole = [name for name in self.buffers_under(values) if name not in self.reduced]
        return None if self.factored or self.single_group else 4 * len(whole)
