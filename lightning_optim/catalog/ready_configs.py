"""The configs of the group `optimizer` that are named for a use and not for an algorithm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ReadyConfig:
    """A config `optimizer/NAME.yaml`."""

    algorithm: str
    summary: str
    rules: tuple[str, ...] = ()
    """Its configs of the group `optimizer/groups`."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Values that differ from the algorithm's defaults."""


READY_CONFIGS: Mapping[str, ReadyConfig] = {
    "adamw_groups": ReadyConfig(
        algorithm="adamw",
        summary="Adam with decoupled weight decay, and rules for param groups.",
        rules=("no_decay",),
    ),
    "adamw_llrd": ReadyConfig(
        algorithm="adamw",
        summary=(
            "AdamW with layer-wise lr decay: the closer a layer is to the input, the smaller its lr (arXiv:1801.06146)."
        ),
        rules=("no_decay", "layer_decay"),
    ),
    "muon_adamw": ReadyConfig(
        algorithm="adamw",
        summary="Muon for the backbone's matrices, AdamW for the rest.",
        rules=("no_decay", "muon_hidden"),
    ),
    "ranger": ReadyConfig(
        algorithm="radam",
        summary="RAdam with lookahead, known as Ranger.",
        values={"lookahead": {"k": 6, "alpha": 0.5}},
    ),
}
"""By name."""
