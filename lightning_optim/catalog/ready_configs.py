"""The configs of the group `optimizer` that are named for a use and not for an algorithm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .modifiers import SCHEDULE_FREE


@dataclass(frozen=True, kw_only=True)
class ReadyConfig:
    """A config `optimizer/NAME.yaml`."""

    algorithm: str
    summary: str
    rules: tuple[str, ...] = ()
    """Its configs of the group `optimizer/groups`."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Values that differ from the algorithm's defaults."""


SCHEDULE_FREE_DEFAULTS = {key: spec.default for key, spec in SCHEDULE_FREE.items.items()}

_MATRIX_OPTIMIZERS = {
    "muon": "Muon", "normuon": "NorMuon", "adamuon": "AdaMuon", "soap": "SOAP", "shampoo": "Shampoo",
}  # fmt: skip

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
    **{
        f"{name}_adamw": ReadyConfig(
            algorithm="adamw",
            summary=f"{title} for the backbone's matrices, AdamW for the rest.",
            rules=("no_decay", f"{name}_hidden"),
        )
        for name, title in _MATRIX_OPTIMIZERS.items()
    },
    "ranger": ReadyConfig(
        algorithm="radam",
        summary="RAdam with lookahead, known as Ranger.",
        values={"lookahead": {"k": 6, "alpha": 0.5}},
    ),
    "schedule_free_adamw": ReadyConfig(
        algorithm="adamw",
        summary="AdamW without a schedule: you evaluate an average of its weights (arXiv:2405.15682).",
        values={"lr": 2.5e-3, "betas": [0.0, 0.999], "weight_decay": 0.0, "schedule_free": SCHEDULE_FREE_DEFAULTS},
    ),
    "schedule_free_radam": ReadyConfig(
        algorithm="radam",
        summary="RAdam without a schedule and without a warm-up (arXiv:2405.15682).",
        values={
            "lr": 2.5e-3,
            "betas": [0.0, 0.999],
            "degenerate_to_sgd": False,
            "optimized_update": False,
            "weight_decay_mode": "decoupled",
            "schedule_free": SCHEDULE_FREE_DEFAULTS,
        },
    ),
    "schedule_free_sgd": ReadyConfig(
        algorithm="sgd",
        summary="SGD without a schedule: you evaluate an average of its weights (arXiv:2405.15682).",
        values={"lr": 1.0, "schedule_free": SCHEDULE_FREE_DEFAULTS},
    ),
}
"""By name."""
