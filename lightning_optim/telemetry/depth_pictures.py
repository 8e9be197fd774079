"""`DepthPictures`: collects the signals of each layer in the course of a run, and draws them from time to time."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from torch import nn

from ..groups.plan import Plan
from .depth_history import DepthHistory
from .depth_picture import draw_depth
from .depth_rows import DepthRows, find_depth_rows
from .stores.store import find_stores

_LOG = logging.getLogger(__name__)
_MAX_SHARE = 0.01
"""Of the time since the first step: a picture that would take more waits for the next logged step."""


class DepthPictures:
    """Pictures of one optimizer's layers, as `<root>/depth/layers`.

    Args:
        rows: the layers.
        root: of the tags.
        every: the least number of logged steps from one picture to the next.
    """

    def __init__(self, rows: DepthRows, root: str, every: int) -> None:
        self._tag, self._every = f"{root}/depth/layers", every
        self._history = DepthHistory(rows)
        self._since_last = 0
        """Logged steps since the last picture."""
        self._started = time.monotonic()
        self.drawing_s = 0.0
        """The time that all pictures have taken, in seconds."""

    @classmethod
    def find(
        cls, loggers: Sequence[Any], plan: Plan, module: nn.Module, root: str, every: int | None
    ) -> DepthPictures | None:
        """For an optimizer whose groups are layers, where a logger shows pictures; else None.

        Args:
            loggers: of the trainer.
            plan: all groups, those too that are still frozen.
            module: the model.
            root: of the tags.
            every: the least number of logged steps from one picture to the next; None: no pictures.
        """
        if every is None or not any(find_stores(loggers)) or not (rows := find_depth_rows(plan, module)):
            return None
        if find_spec("matplotlib") is None:
            _LOG.info('no pictures of depth: matplotlib is not installed. Type pip install "lightning-optim[plot]"')
            return None
        return cls(rows, root, every)

    def add(self, loggers: Sequence[Any], values: Mapping[tuple[str, str], float], step: int) -> None:
        """Add the values of a step, by signal and group, and draw if it is time."""
        self._history.add(values, step)
        self._since_last += 1
        if self._since_last >= self._every and self.drawing_s <= _MAX_SHARE * (time.monotonic() - self._started):
            self._write(loggers)

    def finish(self, loggers: Sequence[Any]) -> None:
        """Draw the whole run, if there have been two steps since the last picture."""
        if self._since_last > 1:
            self._write(loggers)

    def _write(self, loggers: Sequence[Any]) -> None:
        started = time.monotonic()
        picture = draw_depth(self._history)
        for store in find_stores(loggers):
            store.write_picture(self._tag, picture, self._history.last_step)
        self._since_last = 0
        self.drawing_s += time.monotonic() - started
