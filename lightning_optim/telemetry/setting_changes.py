"""`SettingChanges`: hyperparameters are logged when they change, and not as flat lines."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass


@dataclass
class _Logged:
    """What has been logged of a setting."""

    value: float
    step: int
    seen: int
    """The last step that has had this value."""


class SettingChanges:
    """Leaves out the settings that are as they were logged last.

    A setting has a point at its first step, and two where it changes: the last step with the old value and the first
    one with the new, so that its curve is a step and not a ramp.
    """

    def __init__(self) -> None:
        self._logged: dict[str, _Logged] = {}

    def select(self, values: Mapping[str, float], step: int, settings: Container[str]) -> dict[int, dict[str, float]]:
        """What to log.

        Args:
            values: of a step, by tag.
            step: of the logger; later than those of all calls before.
            settings: the tags of settings; all others are logged always.

        Returns:
            The values by step, in the order of steps.
        """
        earlier: dict[int, dict[str, float]] = {}
        current: dict[str, float] = {}
        for tag, value in values.items():
            if tag not in settings:
                current[tag] = value
                continue
            logged = self._logged.get(tag)
            if logged is not None and logged.value == value:
                logged.seen = step
                continue
            if logged is not None and logged.seen != logged.step:
                earlier.setdefault(logged.seen, {})[tag] = logged.value
            current[tag] = value
            self._logged[tag] = _Logged(value, step, step)
        return {**dict(sorted(earlier.items())), step: current}
