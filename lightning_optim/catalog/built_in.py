"""The catalog: every optimizer that this package ships, by name."""

from __future__ import annotations

from collections.abc import Mapping

from .adam_averages import ADAM_AVERAGES
from .adam_steps import ADAM_STEPS
from .game_optimizers import GAME_OPTIMIZERS
from .info import OptimizerInfo
from .matrices import MATRICES
from .momentum import MOMENTUM
from .norms_and_signs import NORMS_AND_SIGNS
from .torch_and_native import TORCH_AND_NATIVE
from .torch_only import TORCH

_NATIVE = (*ADAM_AVERAGES, *ADAM_STEPS, *NORMS_AND_SIGNS, *MOMENTUM, *GAME_OPTIMIZERS)

BUILT_IN: Mapping[str, OptimizerInfo] = {info.name: info for info in (*TORCH, *TORCH_AND_NATIVE, *MATRICES, *_NATIVE)}
