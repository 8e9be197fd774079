"""Whether an override such as `monitor=val/loss` chooses a config in a group of ours or sets a key of the app's config.

Hydra decides by whether any source has a group `monitor`. Without us none has, and the override sets the key, so our
source must not have the group either. Hydra does not tell a source which override it is reading; that is taken from
the frame of the function that asks, `Overrides.__init__`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

_DEFAULTS_LIST = "hydra._internal.defaults_list"
# The modules between `Overrides.__init__` and here.
_BETWEEN = ("hydra._internal.config_repository", __name__, __name__.replace("_override_keys", "_fallback_source"))


def chooses_config(group: str, is_config: Callable[[str], bool]) -> bool:
    """Whether the override that Hydra is reading chooses a config in `group`; True if it is reading none.

    `+group=name` does if there is a config of this name, other overrides if the app's defaults list has the group.

    Args:
        group: a config group of ours.
        is_config: whether we have a config, given its path.
    """
    frame = _frame_of_overrides()
    if frame is None:
        return True
    override = frame.f_locals["override"]
    if override.package is not None or "/" in group:  # no key of a config looks like that
        return True
    if override.is_add():
        value = override.value()
        names = value if isinstance(value, list) else [value]
        return all(isinstance(name, str) and is_config(f"{group}/{name}") for name in names)
    return _is_in_defaults_list(group, frame)


def _frame_of_overrides() -> FrameType | None:
    """The frame of `Overrides.__init__`, if that is what asks whether a group exists."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") in _BETWEEN:
        frame = frame.f_back
    module = sys.modules.get(_DEFAULTS_LIST)
    asks = frame is not None and module is not None and frame.f_code is module.Overrides.__init__.__code__
    return frame if asks else None


def _is_in_defaults_list(group: str, frame: FrameType) -> bool:
    """Whether the app's defaults list has `group`: tried out, by taking the overrides as choices of configs."""
    module = sys.modules[_DEFAULTS_LIST]
    caller = frame.f_back
    if caller is None or caller.f_code is not module.create_defaults_list.__code__:
        return True  # this is the try
    arguments = caller.f_locals
    overrides = [override for override in arguments["overrides_list"] if _may_choose(override)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Hydra is about to give the same ones
        try:
            choices = module.Overrides(arguments["repo"], overrides)
            module._create_defaults_list(
                arguments["repo"], arguments["config_name"], choices, arguments["prepend_hydra"], skip_missing=True
            )
        except Exception:  # Hydra is about to raise the same one
            return True
    return group in choices.known_choices_per_group


def _may_choose(override: Any) -> bool:
    """Whether an override can be a choice of configs at all: Hydra raises for others, such as `group=null`."""
    return override.is_delete() or (isinstance(override.value(), str | list) and not override.is_force_add())
