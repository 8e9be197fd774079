"""Handwritten checkpoints to inspect, in which every number is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def param_group(name: str | None, params: list[int], names: list[str] | None, **hyperparameters: Any) -> dict[str, Any]:
    """A param group as torch saves it."""
    own_name = {"name": name} if name else {}
    param_names = {"param_names": names} if names else {}
    return {**hyperparameters, **own_name, **param_names, "params": params}


def momentum_state(*values: float, step: float = 1.0) -> dict[str, torch.Tensor]:
    """The state of a parameter with one buffer."""
    return {"step": torch.tensor(step), "exp_avg": torch.tensor(values)}


def state_dict() -> dict[str, Any]:
    """Two groups: `default` with a matrix and a bias, `head` with a weight that was never stepped and a vector."""
    return {
        "state": {
            0: {
                "step": torch.tensor(7.0),
                "exp_avg": torch.tensor([[3.0, 0.0], [0.0, 4.0]]),
                "exp_avg_sq": torch.full((2, 2), 0.5, dtype=torch.bfloat16),
            },
            1: momentum_state(12.0, step=9.0),
            3: momentum_state(0.0, 2.0),
        },
        "param_groups": [
            param_group("default", [0, 1], ["net.weight", "net.bias"], lr=0.1, weight_decay=0.01, betas=(0.9, 0.999)),
            param_group("head", [2, 3], ["head.weight", "head.bias"], lr=torch.tensor(0.5), weight_decay=0),
        ],
    }


def save(folder: Path, content: Any, name: str = "model.ckpt") -> Path:
    """A file written by `torch.save`."""
    torch.save(content, folder / name)
    return folder / name
