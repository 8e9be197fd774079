"""`PRESETS`: the selectors of the rules and stages in `conf/`, and what to type where they do not fit the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A rule or a stage of one or more presets."""

    names: tuple[str, ...]
    """The presets that have it."""
    selectors: Mapping[str, tuple[str, ...]]
    """As in the presets."""
    remedy: str
    """What to type."""

    def __str__(self) -> str:
        return f"If it comes from the preset {' or '.join(self.names)}, type {self.remedy}."


def _set_params(key: str, part: str) -> str:
    return f"{key}.params=NAME with the name of your {part}"


_GRADUAL = ("gradual", "gradual_plateau")

PRESETS: Mapping[str, Preset] = {
    "groups.no_decay": Preset(
        names=("no_decay",),
        selectors={"kinds": ("bias", "norm", "no_weight_decay")},
        remedy="optimizer.groups.no_decay=null to leave it out",
    ),
    "groups.backbone": Preset(
        names=("backbone_head",),
        selectors={"params": ("backbone",)},
        remedy=_set_params("optimizer.groups.backbone", "backbone"),
    ),
    "groups.head": Preset(
        names=("backbone_head",),
        selectors={"params": ("head",)},
        remedy=_set_params("optimizer.groups.head", "head"),
    ),
    "groups.depth": Preset(
        names=("layer_decay",),
        selectors={"layers": ("auto",)},
        remedy="'optimizer.groups.depth.layers=\"PATH.{i}\"' with the path of your layers",
    ),
    "groups.hidden": Preset(
        names=tuple(f"{name}_hidden" for name in ("muon", "normuon", "adamuon", "soap", "shampoo")),
        selectors={"params": ("backbone",), "kinds": ("matrix",)},
        remedy=_set_params("optimizer.groups.hidden", "backbone"),
    ),
    "stages.head": Preset(
        names=("head_then_backbone", *_GRADUAL),
        selectors={"params": ("head",)},
        remedy=_set_params("unfreeze.stages.head", "head"),
    ),
    "stages.backbone": Preset(
        names=("head_then_backbone",),
        selectors={"params": ("backbone",)},
        remedy=_set_params("unfreeze.stages.backbone", "backbone"),
    ),
    "stages.top": Preset(
        names=_GRADUAL,
        selectors={"params": ("backbone",), "layers": ("auto",)},
        remedy="unfreeze.stages.top.params=NAME and unfreeze.stages.rest.params=NAME with the name of your backbone, "
        "or 'unfreeze.stages.top.layers=\"PATH.{i}\"' with the path of its layers",
    ),
    "stages.rest": Preset(
        names=_GRADUAL,
        selectors={"params": ("backbone",)},
        remedy=_set_params("unfreeze.stages.rest", "backbone"),
    ),
}
"""By config key, relative to the factory or the callback. The package reads no YAML at run time; a test compares."""


def find_preset(key: str, selectors: Mapping[str, tuple[str, ...]]) -> Preset | None:
    """The preset's rule or stage with this key and exactly these selectors."""
    preset = PRESETS.get(key)
    return preset if preset is not None and preset.selectors == selectors else None
