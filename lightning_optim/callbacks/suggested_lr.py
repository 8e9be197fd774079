"""The lr that Lightning's LearningRateFinder suggests, applied to a whole optimizer in proportion.

Lightning writes the suggestion into every param group: groups that a config keeps apart would train alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.optim import Optimizer

from ..core.errors import ConfigError
from .lightning_internals import has_tuned_lr, tuned_lr

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

_SUGGESTED: WeakKeyDictionary[LightningModule, tuple[str, float]] = WeakKeyDictionary()
"""By module: the attribute that Lightning has set, and the lr."""
_REFERENCE: WeakKeyDictionary[Optimizer, float] = WeakKeyDictionary()
"""By optimizer that a factory has built: its config's lr, to which its groups' are relative."""


def remember_suggestion(module: LightningModule, finder: Any) -> float | None:
    """Store what a finder has suggested and written into an attribute of the module; returns the lr."""
    found = tuned_lr(module, finder)
    if found is None:
        return None
    _SUGGESTED[module] = found
    return found[1]


def apply_suggestion(module: LightningModule, optimizer: Optimizer, lr: float) -> None:
    """Scale the lrs of a factory's optimizer, as built, so that `lr` becomes what was suggested for this module.

    A module that gives the suggestion to its factory itself gets what it asks for.

    Args:
        module: whose attribute holds the suggestion.
        optimizer: without a scheduler.
        lr: the factory's own.
    """
    _REFERENCE[optimizer] = lr
    attribute, suggested = _SUGGESTED.get(module, ("", lr))
    if suggested == lr or not lr or not has_tuned_lr(module, attribute, suggested):
        return
    _scale(optimizer, suggested / lr)
    _REFERENCE[optimizer] = suggested
    rank_zero_info(
        f"optimizer.lr: {suggested:.6g}, as LearningRateFinder suggests, instead of {lr:.6g}; every group in proportion"
    )


def restore_proportions(optimizer: Optimizer, ratios: list[float], lr: float) -> None:
    """Set each group's lr to its part of `lr`, after Lightning has set them all to it."""
    for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
        group["lr"] = lr * ratio


def is_from_factory(optimizer: Optimizer) -> bool:
    """Whether an OptimizerFactory has built it."""
    return optimizer in _REFERENCE


def find_peaks(optimizer: Optimizer, lr_scales: Mapping[str, float] = MappingProxyType({})) -> list[float]:
    """The peak lr of each param group.

    Args:
        optimizer: before or during a run.
        lr_scales: by group: the factor of its stage.
    """
    return [_peak(group, lr_scales) for group in optimizer.param_groups]


def find_ratios(optimizer: Optimizer, lr_scales: Mapping[str, float]) -> list[float]:
    """The peak lr of each param group relative to the optimizer's own lr; for a hand-made one, to the largest."""
    peaks = find_peaks(optimizer, lr_scales)
    reference = _REFERENCE.get(optimizer) or max(peaks, default=0.0)
    return [peak / reference if reference else 1.0 for peak in peaks]


def use_suggestion(trainer: Trainer, lr: float, peaks: list[list[float]]) -> None:
    """Apply a suggestion to hand-made optimizers that were built anew, and take no notice of it.

    Args:
        trainer: with the new optimizers.
        lr: the suggestion.
        peaks: of the groups of each optimizer before the suggestion.

    Raises:
        ConfigError: a schedule starts from another lr.
    """
    for optimizer, old in zip(trainer.optimizers, peaks, strict=True):
        if is_from_factory(optimizer) or find_peaks(optimizer) != old or lr in old:
            continue
        if trainer.lr_scheduler_configs:
            raise ConfigError(
                f"LearningRateFinder: it suggests lr {lr:.6g}, but configure_optimizers of the module does not use the "
                "attribute that it sets, and the schedule would overwrite the lr. Type lr=self.lr there, or "
                "LearningRateFinder(update_attr=False)"
            )
        restore_proportions(optimizer, find_ratios(optimizer, {}), lr)


@contextmanager
def in_proportion(optimizer: Optimizer, ratios: list[float]) -> Iterator[None]:
    """Let each group step with its part of the lr that a range test writes into all of them."""
    written: list[Any] = []

    def before(*_: Any) -> None:
        written[:] = [group["lr"] for group in optimizer.param_groups]
        for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
            group["lr"] = group["lr"] * ratio

    def after(*_: Any) -> None:
        for group, lr in zip(optimizer.param_groups, written, strict=True):
            group["lr"] = lr

    hooks = [optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _peak(group: Mapping[str, Any], lr_scales: Mapping[str, float]) -> float:
    if "peak_lr" in group:  # which has the factor of its stage
        return float(group["peak_lr"])
    return float(group.get("initial_lr", group["lr"])) * lr_scales.get(str(group.get("name")), 1.0)


def _scale(optimizer: Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        for key in ("lr", "peak_lr"):
            group[key] *= factor
