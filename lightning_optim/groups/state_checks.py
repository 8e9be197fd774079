"""Checks that a saved state fits the algorithm and the parameter it is loaded into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..catalog.built_in import BUILT_IN
from ..catalog.info import OptimizerInfo
from ..core.errors import ConfigError, format_names
from .merge_values import ParamGroup

# Names of one rule with the same state: a run may continue under the other name.
_SAME_STATE = (
    {"adam", "adamw", "amsgrad"},
    {"nadam", "nadamw"},
    {"adabound", "adaboundw", "amsbound"},
)
# Of torch's classes, those that count no steps.
_WITHOUT_STEP = ("lbfgs", "muon", "sgd")
# Buffers of the parameter's shape. For optimizers that users register, no shapes are known.
_FULL_SIZE_BUFFERS = frozenset(buffer for info in BUILT_IN.values() for buffer in info.buffers.keys() - info.reduced)


def check_saved_algorithm(
    info: OptimizerInfo, names: Mapping[Any, str], sources: Sequence[ParamGroup], states: Mapping[Any, Any]
) -> None:
    """Check that states were saved by an algorithm, where the checkpoint says by which: buffers may share names.

    Args:
        info: the algorithm.
        names: of the parameters, by their keys in `states`.
        sources: the saved groups that they were in.
        states: the state dict's `state`.

    Raises:
        ConfigError: another algorithm saved them.
    """
    for source in sources:
        saved = source.get("configured", {}).get("algorithm", info.name)
        with_state = [names[key] for key in source["params"] if key in names and states.get(key)]
        if with_state and saved != info.name and not any({saved, info.name} <= family for family in _SAME_STATE):
            raise ConfigError(
                f"the checkpoint's state of {format_names(with_state, 3)} was saved by {saved}, and this "
                f"run uses {info.name} for them. Use the algorithm that it was saved with"
            )


def check_buffers(info: OptimizerInfo, group: ParamGroup, names: Sequence[str], states: Mapping[Any, Any]) -> None:
    """Check that the states of a group have an algorithm's buffers: torch's classes would step with others, or crash.

    Args:
        info: the algorithm.
        group: a param group of a state dict.
        names: of its parameters, for the error.
        states: the state dict's `state`.

    Raises:
        ConfigError: a buffer is missing, or all buffers are another algorithm's.
    """
    if info.single_group:
        return
    # A factored second moment is saved as rows and columns for some parameters, in full for others.
    needed = [] if info.factored else info.active_buffers(group)
    for name, key in zip(names, group["params"], strict=True):
        state = states.get(key) or {}
        if state and "step" not in state and info.name not in _WITHOUT_STEP:
            raise ConfigError(f"the checkpoint's state of {name} has no step. Use the checkpoint as it was saved")
        buffers = [buffer for buffer, value in state.items() if buffer != "step" and value is not None]
        missing = [buffer for buffer in needed if state.get(buffer) is None]
        is_foreign = not needed and buffers and not info.buffers.keys() & set(buffers)
        if state and (missing or is_foreign):
            found = f"no {missing[0]}" if missing else buffers[0]
            raise ConfigError(
                f"the checkpoint's state of {name} has {found}, which does not fit {info.name}: it was saved by "
                "another optimizer or with other options. Use those that it was saved with"
            )


def check_shapes(name: str, param: Any, state: Mapping[str, Any]) -> None:
    """Check that the buffers have the parameter's shape: torch would fail at the next step, or not at all.

    Raises:
        ConfigError: one has another shape, or is no tensor of floating-point numbers.
    """
    for buffer in _FULL_SIZE_BUFFERS & state.keys():
        value = state[buffer]
        if value is None or not isinstance(param, Tensor):
            continue
        if not isinstance(value, Tensor):
            raise ConfigError(f"the checkpoint's {buffer} of {name} is a {type(value).__name__}, not a tensor")
        if not (value.is_floating_point() or value.is_complex()):
            raise ConfigError(
                f"the checkpoint's {buffer} of {name} is a tensor of {str(value.dtype).removeprefix('torch.')}, and "
                "buffers are floating-point"
            )
        if value.shape != _buffer_shape(buffer, param.shape):
            raise ConfigError(
                f"the checkpoint's {buffer} of {name} has the shape {list(value.shape)}, the parameter "
                f"{list(param.shape)}: it was saved for another model"
            )


def check_flat_state(group: ParamGroup, state: Mapping[str, Any]) -> None:
    """Check the vectors of LBFGS, which have an element for each of all parameters.

    Args:
        group: the optimizer's only param group.
        state: the saved state of its first parameter.

    Raises:
        ConfigError: one has another length.
    """
    size = sum(param.numel() for param in group["params"])
    for key in ("d", "prev_flat_grad", "old_dirs", "old_stps"):
        value = state.get(key)
        for vector in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(vector, Tensor) and vector.numel() != size:
                raise ConfigError(
                    f"the checkpoint's {key} has {vector.numel()} elements, the parameters {size}: it was saved for "
                    "another model"
                )


def _buffer_shape(buffer: str, shape: torch.Size) -> torch.Size:
    """The parameter's shape, or that of the rows or columns of a factored second moment (arXiv:1804.04235)."""
    if buffer == "row_var":
        return torch.Size((*shape[:-1], 1))
    return torch.Size((*shape[:-2], 1, *shape[-1:])) if buffer == "col_var" else shape
