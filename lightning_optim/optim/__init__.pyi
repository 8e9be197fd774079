"""Written by `python -m lightning_optim._hydra.generate`: edit the catalog instead."""

from typing import Literal

from torch import Tensor

from .base import AdaptiveOptimizer as AdaptiveOptimizer
from .base import ParamsT
from .decay import WeightDecay as WeightDecay
from .members.member import Member
from .update import Update as Update

class AdaBelief(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        weight_decay: float | WeightDecay = 0.0,
        amsgrad: bool = False,
        rectify: bool = True,
        degenerate_to_sgd: bool = True,
        *,
        weight_decay_mode: Literal["l2", "l1", "decoupled", "absolute", "relative", "corrected"] = "decoupled",
        cautious_decay: bool = False,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None: ...

class AdaBound(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        final_lr: float = 0.1,
        gamma: float = 0.001,
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.0,
        amsbound: bool = False,
        *,
        weight_decay_mode: Literal["l2", "l1", "decoupled", "absolute", "relative", "corrected"] = "l2",
        cautious_decay: bool = False,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None: ...

class AdaBoundW(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        final_lr: float = 0.1,
        gamma: float = 0.001,
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.0,
        amsbound: bool = False,
        *,
        weight_decay_mode: Literal["l2", "l1", "decoupled", "absolute", "relative", "corrected"] = "absolute",
        cautious_decay: bool = False,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None: ...

class Adadelta(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-06,
        weight_decay: float | WeightDecay = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        fused: bool | None = None,
        weight_decay_mode: Literal["l2", "l1", "decoupled", "absolute", "relative", "corrected"] = "l2",
        cautious_decay: bool = False,
    ) -> None: ...

class Adagrad(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.01,
        lr_decay: float = 0.0,
        weight_decay: float | WeightDecay = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        fused: bool | None = None,
        weight_decay_mode: Literal["l2", "l1", "decoupled", "absolute", "relative", "corrected"] = "l2",
        cautious_decay: bool = False,
    ) -> None: ...

class Adam(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        fused: bool | None = None,
        optimized_update: bool = False,
        weight_decay_mode: Literal["l2", "l1", "decoupled", "absolute", "relative", "corrected"] | None = None,
        cautious_decay: bool = False,
    ) -> None: ...

class Adamax(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        fused: bool | None = None,
        weight_decay_mode: Literal["l2", "l1", "decoupled", "absolute", "relative", "corrected"] = "l2",
        cautious_decay: bool = False,
    ) -> None: ...

class AdamW(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.01,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        optimized_update: bool = False,
        weight_decay_mode: Literal["l2", "l1", "decoupled", "absolute", "relative", "corrected"] = "decoupled",
        cautious_decay: bool = False,
    ) -> None: ...

class AMSBound(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        final_lr: float = 0.1,
        gamma: float = 0.001,
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.0,
        *,
        weight_decay_mode: Literal["l2", "l1", "decoupled", "absolute", "relative", "corrected"] = "l2",
        cautious_decay: bool = False,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None: ...

class AMSGrad(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.0,
        optimized_update: bool = False,
        *,
        weight_decay_mode: Literal["l2", "l1", "decoupled", "absolute", "relative", "corrected"] = "l2",
        cautious_decay: bool = False,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None: ...

class LAMB(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-06,
        weight_decay: float | WeightDecay = 0.0,
        *,
        weight_decay_mode: Literal["l2", "l1", "decoupled", "absolute", "relative", "corrected", "update"] = "update",
        cautious_decay: bool = False,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None: ...

class Lion(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.0001,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float | WeightDecay = 0.0,
        *,
        weight_decay_mode: Literal["l2", "l1", "decoupled", "absolute", "relative", "corrected"] = "decoupled",
        cautious_decay: bool = False,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None: ...

class NAdam(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.0,
        momentum_decay: float = 0.004,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        fused: bool | None = None,
        weight_decay_mode: Literal["l2", "l1", "decoupled", "absolute", "relative", "corrected"] | None = None,
        cautious_decay: bool = False,
    ) -> None: ...

class NAdamW(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.01,
        momentum_decay: float = 0.004,
        *,
        weight_decay_mode: Literal["l2", "l1", "decoupled", "absolute", "relative", "corrected"] = "decoupled",
        cautious_decay: bool = False,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None: ...

class RAdam(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        amsgrad: bool = False,
        degenerate_to_sgd: bool = True,
        optimized_update: bool = True,
        fused: bool | None = None,
        weight_decay_mode: Literal["l2", "l1", "decoupled", "absolute", "relative", "corrected"] | None = None,
        cautious_decay: bool = False,
    ) -> None: ...

class RMSprop(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        fused: bool | None = None,
        weight_decay_mode: Literal["l2", "l1", "decoupled", "absolute", "relative", "corrected"] = "l2",
        cautious_decay: bool = False,
    ) -> None: ...
