"""One group of a plan: a param group that is to be, with the config keys that made each of its values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DEFAULT = "default"
"""The name of a group that no rule or stage names."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """A row of the table, a param group, a curve in TensorBoard, a key in the checkpoint."""

    name: str
    """Legal as a segment of a tag in every logger."""
    params: tuple[str, ...]
    """Clean names, in the model's order."""
    algorithm: str
    """The optimizer's name in the registry, or its class's where it is in none."""
    hyperparameters: Mapping[str, Any]
    """Every effect applied; `lr` is the peak."""
    made_by: tuple[str, ...] = ()
    """The rules, sorted."""
    schedule: Mapping[str, Any] | None = None
    """How its schedule differs from the run's."""
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)
    """By hyperparameter: the keys of the config that made its value; none where it is the algorithm's default."""
    stage: str | None = None
    """The stage that thaws it, if a plan has stages."""
    lr_scale: float = 1.0
    """On its parent group's curve."""
    warmup_steps: int = 0
    """Optimizer steps after the thaw in which its lr climbs to the curve."""
    parent: str | None = None
    """The group as configured that it follows, once a plan is split by stages."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """What its stage has set of the hyperparameters."""
