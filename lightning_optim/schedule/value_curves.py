"""`ValueCurves`: the values that a schedule sets in param groups besides lr, each a function of the steps done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.errors import ConfigError
from .also import Also, find_ends, value_at
from .param_group_values import set_value

_BETAS = {"beta1": 0, "beta2": 1}


class ValueCurves:
    """The curves of `also` over the param groups of one optimizer.

    A curve is a function of a group's configured value and of the number of steps, so there is nothing to save: a
    resumed run computes the same values from the config.

    Args:
        also: resolved.
        groups: as the config builds them.

    Raises:
        ConfigError: no group has a value to drive; or the groups' values differ, and all would become the same.
    """

    def __init__(self, also: Also, groups: list[dict[str, Any]]) -> None:
        self.also = also
        self._configured: list[dict[str, float]] = []
        for group in groups:
            self.join(group)
        for key in also:
            self._check(key, groups)

    @property
    def group_keys(self) -> frozenset[str]:
        """The keys of a param group whose values it sets."""
        return frozenset("betas" if key in _BETAS else key for key in self.also)

    def join(self, group: Mapping[str, Any]) -> None:
        """Drive one more group, from the values it has in the config."""
        values = {key: read_configured(group, key) for key in self.also}
        self._configured.append({key: value for key, value in values.items() if value is not None})

    def apply(self, groups: list[dict[str, Any]], step: int) -> None:
        """Set the values of all groups.

        Args:
            groups: in the order in which they joined.
            step: the number of steps done.
        """
        for group, configured in zip(groups, self._configured, strict=False):
            for key, value in configured.items():
                new = value_at(self.also[key], value, step)
                if key in _BETAS:
                    betas = list(group["betas"])
                    betas[_BETAS[key]] = new
                    set_value(group, "betas", tuple(betas))
                else:
                    set_value(group, key, new)

    def _check(self, key: str, groups: list[dict[str, Any]]) -> None:
        driven = {
            str(group.get("name", f"group{index}")): configured[key]
            for index, (group, configured) in enumerate(zip(groups, self._configured, strict=True))
            if configured.get(key)
        }
        if not driven:
            raise ConfigError(_explain_nothing_to_drive(key, groups))
        curve = self.also[key]
        (first, value), *others = driven.items()
        other = next((name for name in dict(others) if driven[name] != value), None)
        absolute = next((end for end in ("final", "start") if curve[end] is not None), None)
        if other is not None and absolute is not None:
            raise ConfigError(
                f"also.{key}.{absolute}: {key} is {value:g} in {first!r} and {driven[other]:g} in {other!r}, and "
                f"{absolute}: {curve[absolute]:g} would be the same for both. Type also.{key}.{absolute}_scale: "
                f"{curve[absolute] / value:g}, a multiple of each group's value"
            )
        for name, value in driven.items():
            if key != "weight_decay" and max(find_ends(curve, value)) >= 1:
                raise ConfigError(
                    f"also.{key}: {max(find_ends(curve, value)):g} in group {name!r} is not below 1. Type "
                    f"also.{key}.final: 0.99, or a smaller scale"
                )


def read_configured(group: Mapping[str, Any], key: str) -> float | None:
    """A group's value in the config, where a factory has recorded it, else its current one; None where it has none.

    Args:
        group: a param group.
        key: of `also`.
    """
    return None if read_value(group, key) is None else read_value({**group, **group.get("configured", {})}, key)


def read_value(group: Mapping[str, Any], key: str) -> float | None:
    """A group's current value of a key of `also`; None where it has none."""
    value = group.get("betas" if key in _BETAS else key)
    if value is None:
        return None
    return float(value[_BETAS[key]] if key in _BETAS else value)


def with_configured(group: Mapping[str, Any], also: Also) -> dict[str, Any]:
    """A param group in which the values that are driven are those of the config, where a factory has recorded them."""
    keys = {"betas" if key in _BETAS else key for key in also}
    configured = group.get("configured", {})
    return {**group, **{key: configured[key] for key in keys if key in configured and key in group}}


def show_ends(values: Mapping[str, Any], also: Also) -> dict[str, tuple[Any, Any]]:
    """By hyperparameter that is driven in a group: its first and its last value.

    Args:
        values: the group's hyperparameters.
        also: what is driven.
    """
    shown: dict[str, tuple[Any, Any]] = {}
    for key, curve in also.items():
        configured = read_configured(values, key)
        if not configured:
            continue
        ends = find_ends(curve, configured)
        if key not in _BETAS:
            shown[key] = ends
            continue
        first, last = (list(pair) for pair in shown.get("betas", (values["betas"], values["betas"])))
        first[_BETAS[key]], last[_BETAS[key]] = ends
        shown["betas"] = tuple(first), tuple(last)
    return shown


def _explain_nothing_to_drive(key: str, groups: list[dict[str, Any]]) -> str:
    if any(read_configured(group, key) is not None for group in groups):
        return (
            f"also.{key}: {key} is 0 in every param group, and 0 stays 0. Type for example optimizer.{key}: "
            f"{0.04 if key == 'weight_decay' else 0.9}"
        )
    others = [other for other in ("momentum", "beta1") if any(read_configured(group, other) for group in groups)]
    hint = f" Type also.{others[0]}" if others and key != "weight_decay" else f" Remove also.{key}"
    return f"also.{key}: no param group has a {key}.{hint}"
