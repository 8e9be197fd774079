"""When a stage thaws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, choices, not_yet
from ..hyperparameters import Number

_LATER = ("fraction", "plateau", "any", "each")
_COUNT = Number(default=1, low=0, integer=True)


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Where a run stands at the start of a batch."""

    epoch: int
    """From 0."""
    step: int
    """Optimizer steps done."""


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """Due from an epoch or an optimizer step on: reached late, it still fires. With neither, due from the start."""

    epoch: int | None = None
    step: int | None = None

    @classmethod
    def parse(cls, given: Any, key: str) -> Trigger:
        """The trigger in a stage's `at`.

        Raises:
            ConfigError: it is no trigger.
        """
        if given is None:
            return cls()
        known = ("epoch", "step")
        # `at.epoch=null +at.step=500` changes the trigger of a preset.
        set_ones = {k: v for k, v in given.items() if v is not None} if isinstance(given, Mapping) else {}
        if len(set_ones) != 1:
            raise ConfigError(
                f"{key}: got {given!r}. A trigger is one of {', '.join(known)}, for example at: {{epoch: 1}}; "
                "from the start is at: null"
            )
        (name, value), *_ = set_ones.items()
        if name in _LATER:
            raise ConfigError(not_yet(f"{key}.{name}", str(name)))
        if name not in known:
            raise ConfigError(f"{key}.{name}: there is no trigger {name!r}.{choices(str(name), known)}")
        return cls(**{name: _COUNT.check(value, f"{key}.{name}")})

    @property
    def from_start(self) -> bool:
        """Whether the stage is trained from the first step."""
        return not self.epoch and not self.step

    def due(self, clock: Clock) -> bool:
        """Whether it has been reached."""
        return (
            self.from_start
            or (self.epoch is not None and clock.epoch >= self.epoch)
            or (self.step is not None and clock.step >= self.step)
        )

    def __str__(self) -> str:
        if self.from_start:
            return "from the start"
        return f"epoch {self.epoch}" if self.epoch is not None else f"step {self.step}"
