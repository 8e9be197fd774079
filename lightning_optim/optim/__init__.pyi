"""Written by `python -m lightning_optim._hydra.generate`: edit the catalog instead."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from torch import Tensor
from typing_extensions import TypedDict, Unpack

from .base import AdaptiveOptimizer as AdaptiveOptimizer
from .base import ParamsT
from .decay import WeightDecay as WeightDecay
from .members.member import Member
from .update import Update as Update

_DecayMode: TypeAlias = Literal["l2", "l1", "decoupled", "absolute", "relative", "corrected"]
_DecayModeOrUpdate: TypeAlias = _DecayMode | Literal["update"]

class _Options(TypedDict, total=False):
    """Options that every class accepts; by default they are False or None."""

    cautious_decay: bool
    """decay only where the update does not oppose it (arXiv:2510.12402); not with l2, l1, update"""

    skip_nonfinite: bool
    """skip a step with a gradient that is not finite; the state counts skipped steps"""

    centralize_gradients: bool
    """subtract each row's mean from the gradient (arXiv:2004.01461)"""

    adaptive_clip: float | None
    """clip each row's gradient to this fraction of the row's norm (arXiv:2102.06171)"""

    cautious_update: bool
    """apply the update only where its sign agrees with the gradient's (arXiv:2411.16085)"""

    lookahead: Mapping[str, float] | None
    """every k steps slow ← slow + α (p - slow), p ← slow (arXiv:1907.08610)"""

    schedule_free: Mapping[str, float] | None
    """z ← z - step, x ← (1 - c) x + c z; train at y, evaluate at x; needs EvalWeights (arXiv:2405.15682)"""

    master_weights: bool
    """update float32 copies of 16-bit parameters"""

    sharpness: Mapping[str, float] | None
    """take the gradient at p + ρ g / ‖g‖, by a second pass of the closure (SAM, arXiv:2010.01412)"""

    maximize: bool
    """ascend instead of descend"""

    foreach: bool | None
    """run over lists of tensors; None: where that is faster"""

    fused: bool | None
    """one kernel for the whole step; None: where there is one"""

    extra_group_keys: Sequence[str]
    """keys of other libraries in param groups: stored, saved and not used"""

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
        weight_decay_mode: _DecayMode = "decoupled",
        **options: Unpack[_Options],
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
        weight_decay_mode: _DecayMode = "l2",
        **options: Unpack[_Options],
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
        weight_decay_mode: _DecayMode = "absolute",
        **options: Unpack[_Options],
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
        weight_decay_mode: _DecayMode = "l2",
        **options: Unpack[_Options],
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
        weight_decay_mode: _DecayMode = "l2",
        **options: Unpack[_Options],
    ) -> None: ...

class Adai(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.1, 0.99),
        eps: float = 0.001,
        weight_decay: float | WeightDecay = 0.0,
        *,
        weight_decay_mode: _DecayMode = "l2",
        **options: Unpack[_Options],
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
        optimized_update: bool = False,
        weight_decay_mode: _DecayMode | None = None,
        **options: Unpack[_Options],
    ) -> None: ...

class AdamMini(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.0,
        num_blocks: float | None = 1,
        *,
        weight_decay_mode: _DecayMode = "decoupled",
        **options: Unpack[_Options],
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
        weight_decay_mode: _DecayMode = "l2",
        **options: Unpack[_Options],
    ) -> None: ...

class AdaMod(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        beta3: float = 0.999,
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.0,
        *,
        weight_decay_mode: _DecayMode = "decoupled",
        **options: Unpack[_Options],
    ) -> None: ...

class AdamP(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.0,
        delta: float = 0.1,
        wd_ratio: float = 0.1,
        nesterov: bool = False,
        *,
        weight_decay_mode: _DecayMode = "decoupled",
        **options: Unpack[_Options],
    ) -> None: ...

class AdaMuon(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.95, 0.95),
        nesterov: bool = False,
        sign: bool = True,
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.0,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        ns_steps: float = 5,
        coefficients: Literal["jordan", "polar_express"] = "jordan",
        ns_dtype: Literal["bfloat16", "parameter"] = "bfloat16",
        matrix: Literal["flatten", "batch"] | None = None,
        split: int | Sequence[int] = 1,
        *,
        weight_decay_mode: _DecayMode = "decoupled",
        **options: Unpack[_Options],
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
        optimized_update: bool = False,
        weight_decay_mode: _DecayMode = "decoupled",
        **options: Unpack[_Options],
    ) -> None: ...

class Adan(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.0,
        *,
        weight_decay_mode: _DecayMode = "decoupled",
        **options: Unpack[_Options],
    ) -> None: ...

class AdEMAMix(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        alpha: float = 2.0,
        alpha_warmup: float | None = None,
        beta3_warmup: float | None = None,
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.0,
        *,
        weight_decay_mode: _DecayMode = "decoupled",
        **options: Unpack[_Options],
    ) -> None: ...

class ADOPT(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.9999),
        eps: float = 1e-06,
        weight_decay: float | WeightDecay = 0.0,
        clip: bool = True,
        *,
        weight_decay_mode: _DecayMode = "l2",
        **options: Unpack[_Options],
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
        weight_decay_mode: _DecayMode = "l2",
        **options: Unpack[_Options],
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
        weight_decay_mode: _DecayMode = "l2",
        **options: Unpack[_Options],
    ) -> None: ...

class DiffGrad(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.0,
        *,
        weight_decay_mode: _DecayMode = "l2",
        **options: Unpack[_Options],
    ) -> None: ...

class EFSGD(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        momentum: float = 0.0,
        weight_decay: float | WeightDecay = 0.0,
        comp: Literal["scaled_sign", "sign"] = "scaled_sign",
        memory: bool = True,
        *,
        weight_decay_mode: _DecayMode = "l2",
        **options: Unpack[_Options],
    ) -> None: ...

class ExtraAdam(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.0,
        amsgrad: bool = False,
        optimized_update: bool = False,
        *,
        weight_decay_mode: _DecayMode = "l2",
        **options: Unpack[_Options],
    ) -> None: ...

class ExtraSGD(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        momentum: float = 0.0,
        weight_decay: float | WeightDecay = 0.0,
        nesterov: bool = False,
        *,
        weight_decay_mode: _DecayMode = "l2",
        **options: Unpack[_Options],
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
        weight_decay_mode: _DecayModeOrUpdate = "update",
        **options: Unpack[_Options],
    ) -> None: ...

class LaProp(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.0004,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-15,
        weight_decay: float | WeightDecay = 0.0,
        *,
        weight_decay_mode: _DecayMode = "decoupled",
        **options: Unpack[_Options],
    ) -> None: ...

class LARS(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1.0,
        momentum: float = 0.9,
        trust_coefficient: float = 0.001,
        weight_decay: float | WeightDecay = 0.0,
        *,
        weight_decay_mode: _DecayModeOrUpdate = "update",
        **options: Unpack[_Options],
    ) -> None: ...

class Lion(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.0001,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float | WeightDecay = 0.0,
        *,
        weight_decay_mode: _DecayMode = "decoupled",
        **options: Unpack[_Options],
    ) -> None: ...

class MADGRAD(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.01,
        momentum: float = 0.9,
        weight_decay: float | WeightDecay = 0.0,
        eps: float = 1e-06,
        *,
        weight_decay_mode: _DecayMode = "l2",
        **options: Unpack[_Options],
    ) -> None: ...

class MARS(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.003,
        betas: tuple[float, float] = (0.95, 0.99),
        gamma: float = 0.025,
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.0,
        *,
        weight_decay_mode: _DecayMode = "decoupled",
        **options: Unpack[_Options],
    ) -> None: ...

class Muon(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        weight_decay: float | WeightDecay = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-07,
        ns_steps: float = 5,
        adjust_lr_fn: Literal["original", "match_rms_adamw", "spectral_unclamped"] | None = None,
        coefficients: Literal["jordan", "polar_express"] = "jordan",
        ns_dtype: Literal["bfloat16", "parameter"] = "bfloat16",
        matrix: Literal["flatten", "batch"] | None = None,
        split: int | Sequence[int] = 1,
        *,
        weight_decay_mode: _DecayMode = "decoupled",
        **options: Unpack[_Options],
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
        weight_decay_mode: _DecayMode | None = None,
        **options: Unpack[_Options],
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
        weight_decay_mode: _DecayMode = "decoupled",
        **options: Unpack[_Options],
    ) -> None: ...

class NorMuon(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        momentum: float = 0.95,
        beta2: float = 0.95,
        nesterov: bool = False,
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.0,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        ns_steps: float = 5,
        adjust_lr_fn: Literal["original", "match_rms_adamw"] = "match_rms_adamw",
        coefficients: Literal["jordan", "polar_express"] = "jordan",
        ns_dtype: Literal["bfloat16", "parameter"] = "bfloat16",
        matrix: Literal["flatten", "batch"] | None = None,
        split: int | Sequence[int] = 1,
        *,
        weight_decay_mode: _DecayMode = "decoupled",
        **options: Unpack[_Options],
    ) -> None: ...

class NovoGrad(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.95, 0.98),
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.0,
        grad_averaging: bool = False,
        *,
        weight_decay_mode: _DecayModeOrUpdate = "update",
        **options: Unpack[_Options],
    ) -> None: ...

class OMD(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        weight_decay: float | WeightDecay = 0.0,
        *,
        weight_decay_mode: _DecayMode = "l2",
        **options: Unpack[_Options],
    ) -> None: ...

class OptimisticAdam(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.0,
        amsgrad: bool = False,
        *,
        weight_decay_mode: _DecayMode = "l2",
        **options: Unpack[_Options],
    ) -> None: ...

class Padam(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.1,
        betas: tuple[float, float] = (0.9, 0.999),
        partial: float = 0.25,
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.0,
        amsgrad: bool = True,
        *,
        weight_decay_mode: _DecayMode = "l2",
        **options: Unpack[_Options],
    ) -> None: ...

class Prodigy(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
        beta3: float | None = None,
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.0,
        d0: float = 1e-06,
        d_coef: float = 1.0,
        growth_rate: float | None = None,
        bias_correction: bool = False,
        safeguard_warmup: bool = False,
        *,
        weight_decay_mode: _DecayMode = "decoupled",
        **options: Unpack[_Options],
    ) -> None: ...

class QHAdam(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        nus: tuple[float, float] = (1.0, 1.0),
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.0,
        *,
        weight_decay_mode: _DecayMode = "l2",
        **options: Unpack[_Options],
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
        amsgrad: bool = False,
        degenerate_to_sgd: bool = True,
        optimized_update: bool = True,
        weight_decay_mode: _DecayMode | None = None,
        **options: Unpack[_Options],
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
        weight_decay_mode: _DecayMode = "l2",
        **options: Unpack[_Options],
    ) -> None: ...

class SGD(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float | WeightDecay = 0.0,
        nesterov: bool = False,
        *,
        weight_decay_mode: _DecayMode = "l2",
        **options: Unpack[_Options],
    ) -> None: ...

class Shampoo(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.01,
        momentum: float = 0.0,
        beta2: float | None = None,
        eps: float = 1e-06,
        weight_decay: float | WeightDecay = 0.0,
        precondition_frequency: float = 1,
        matrix: Literal["flatten", "batch"] | None = None,
        split: int | Sequence[int] = 1,
        *,
        weight_decay_mode: _DecayMode = "l2",
        **options: Unpack[_Options],
    ) -> None: ...

class Signum(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.0001,
        momentum: float = 0.9,
        weight_decay: float | WeightDecay = 0.0,
        *,
        weight_decay_mode: _DecayMode = "decoupled",
        **options: Unpack[_Options],
    ) -> None: ...

class SOAP(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.003,
        betas: tuple[float, float] = (0.95, 0.95),
        shampoo_beta: float | None = None,
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.01,
        precondition_frequency: float = 10,
        max_size: float = 10000,
        matrix: Literal["flatten", "batch"] | None = None,
        split: int | Sequence[int] = 1,
        *,
        weight_decay_mode: _DecayMode = "decoupled",
        **options: Unpack[_Options],
    ) -> None: ...

class SophiaG(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.0001,
        betas: tuple[float, float] = (0.965, 0.99),
        rho: float = 0.04,
        eps: float = 1e-15,
        weight_decay: float | WeightDecay = 0.1,
        *,
        weight_decay_mode: _DecayMode = "decoupled",
        **options: Unpack[_Options],
    ) -> None: ...
    def update_hessian(self, num_samples: float, grads: Mapping[Tensor, Tensor] | None = None) -> None: ...

class StableAdamW(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.002,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-08,
        weight_decay: float | WeightDecay = 0.2,
        *,
        weight_decay_mode: _DecayMode = "decoupled",
        **options: Unpack[_Options],
    ) -> None: ...

class STORM(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1.0,
        w: float = 10.0,
        c: float = 100.0,
        weight_decay: float | WeightDecay = 0.0,
        *,
        weight_decay_mode: _DecayMode = "l2",
        **options: Unpack[_Options],
    ) -> None: ...

class Yogi(Member):
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 0.001,
        weight_decay: float | WeightDecay = 0.0,
        initial_accumulator_value: float = 1e-06,
        *,
        weight_decay_mode: _DecayMode = "l2",
        **options: Unpack[_Options],
    ) -> None: ...
