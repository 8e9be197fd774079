"""The length of a warm-up: in steps, as a share of the run, or in epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.errors import ConfigError
from ..core.hyperparameters import Number

WARMUP_SPECS = {
    "warmup_steps": Number(default=0, low=0, integer=True),
    "warmup_fraction": Number(default=None, low=0, high=1, open_high=True, optional=True),
    "warmup_epochs": Number(default=None, low=0, optional=True),
}
"""By key: what the value may be. At most one of them says how long the warm-up is."""


def check_warmup(given: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of the three keys, converted; a length of 0 is no warm-up.

    Args:
        given: by key; the others have their defaults.
        prefix: of the keys in errors.

    Raises:
        ConfigError: a value is wrong, or two of them give a length.
    """
    steps = given.get("warmup_steps")
    if isinstance(steps, float) and 0 < steps < 1:
        raise ConfigError(
            f"{prefix}warmup_steps: got {steps!r}, which is not an integer >= 0. Type warmup_fraction: {steps!r} for a "
            "fraction of the run"
        )
    checked = {
        key: spec.check(given[key], prefix + key) if key in given else spec.default
        for key, spec in WARMUP_SPECS.items()
    }
    lengths = [key for key, value in checked.items() if value]
    if len(lengths) > 1:
        first, second = lengths[:2]
        none = 0 if first == "warmup_steps" else "null"
        raise ConfigError(
            f"{prefix}{second}: {first}: {checked[first]:g} sets the length of the warm-up already. Type {first}: "
            f"{none}, or {second}: null"
        )
    return checked


def resolve_warmup(
    given: Mapping[str, Any], interval: str, total_steps: int | None, steps_per_epoch: int | None
) -> int:
    """The length of the warm-up in steps of the interval; at least one step where it is not 0.

    Args:
        given: the checked values by key.
        interval: of the schedule: `step` or `epoch`.
        total_steps: length of the run, which a fraction needs.
        steps_per_epoch: optimizer steps of an epoch, which `warmup_epochs` needs where the interval is `step`.

    Raises:
        ConfigError: the length of an epoch is needed and unknown; or the interval is `epoch`, and the warm-up is no
            whole number of them.
    """
    fraction: float | None = given["warmup_fraction"]
    epochs: float | None = given["warmup_epochs"]
    if fraction:
        assert total_steps is not None  # `needs_total_steps` has been checked
        return max(1, round(fraction * total_steps))
    if not epochs:
        return int(given["warmup_steps"])
    if interval == "epoch":
        if epochs != int(epochs):
            raise ConfigError(
                f"warmup_epochs: {epochs:g} is no whole number of epochs, and with interval: epoch the lr changes once "
                f"an epoch. Type warmup_epochs: {max(1, round(epochs))}, or interval: step"
            )
        return int(epochs)
    if steps_per_epoch is None:
        raise ConfigError(
            "warmup_epochs: the number of optimizer steps in an epoch is not known here. Type for example "
            "warmup_steps: 500, or build the scheduler with lightning_optim.configure_optimizers, which asks the "
            "trainer"
        )
    return max(1, round(epochs * steps_per_epoch))
