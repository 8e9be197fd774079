"""`Group`: a param group as planned, with the config keys that set each of its values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .layers import Layer

ALL = "all"
"""The name of what is over all groups, so that no group has it."""
DEFAULT = "default"
"""The name of the group whose parameters no rule matches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """A row of the group table, a param group, a curve in TensorBoard and a key in the checkpoint."""

    name: str
    """Valid as a segment of a tag in every logger."""
    params: tuple[str, ...]
    """Clean names, in the model's order."""
    algorithm: str
    """The optimizer's registry name, or its class's name where it is not registered."""
    hyperparameters: Mapping[str, Any]
    """Every hyperparameter, with the rules applied; `lr` is the peak."""
    made_by: tuple[str, ...] = ()
    """The names of the rules that match its parameters, sorted."""
    layers: Mapping[str, Layer] = field(default_factory=dict, compare=False)
    """By rule that has `layers`: the layer that its parameters are in; empty for a plan that no factory made."""
    schedule: Mapping[str, Any] | None = None
    """Its schedule override: the `schedule:` of a rule."""
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)
    """By field: the config keys that set or scaled its value, those of its stage included; empty for a default."""
    stage: str | None = None
    """The stage that thaws it, where the plan is split by stages."""
    lr_scale: float = 1.0
    """Multiplies the lr of its parent group."""
    warmup_steps: int = 0
    """Optimizer steps after the thaw over which its lr rises to the scaled lr of its parent."""
    parent: str | None = None
    """The configured group that it is a part of and follows, where the plan is split by stages."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """The hyperparameters that its stage sets."""
    execution: str | None = field(default=None, compare=False)
    """By whose code it is stepped, and how, such as `torch, fused`; None where that is not known."""

    @property
    def layer(self) -> str | None:
        """The label of its layer: its number, or `stem`, after the name of its tower where there are several."""
        return ", ".join(dict.fromkeys(layer.label for layer in self.layers.values())) or None
