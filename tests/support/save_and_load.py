"""A state dict as `torch.load` gives it back."""

from __future__ import annotations

import io
from typing import Any

import torch


def save_and_load(state: Any) -> Any:
    """What `torch.load(weights_only=True)` gives for a saved state."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)
