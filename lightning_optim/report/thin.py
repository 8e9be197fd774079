"""Fewer points of a curve, such that its drawing stays the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .curves import Curve


def thin(curve: Curve, num_bins: int = 300) -> Curve:
    """A curve with at most about four points for each bin: its first, lowest, highest and last, so that spikes stay.

    Args:
        curve: of any length. A NaN stays as the lowest or highest of its bin.
        num_bins: about one for each pixel or two of the drawing.
    """
    if len(curve.steps) <= 4 * num_bins:
        return curve
    kept = [_indices(part, curve.values) for part in np.array_split(np.arange(len(curve.steps)), num_bins)]
    indices = np.unique(np.concatenate(kept))
    return Curve(curve.steps[indices], curve.values[indices])


def _indices(part: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.int64]:
    inside = values[part]  # argmin and argmax give the first NaN, if there is one
    return part[[0, int(inside.argmin()), int(inside.argmax()), -1]]
