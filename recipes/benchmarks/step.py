"""The arms `step-...`: a step of every native optimizer as a kernel, next to torch's and pytorch_optimizer's.

An arm for each list of shapes. All cases of an arm step the same parameters with the same gradients. Buffers of the
same name are shared too, since those of forty optimizers would not fit into memory: they hold values as in a real run,
an average of gradients or of their squares, whoever has written them last.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_optim import list_optimizers, optimizer_info

from .arm import Arm
from .measure import Case, Timing
from .step_costs import (
    Build,
    build_params,
    count_bytes,
    measure_compilation,
    measure_peak_memory,
    skip_first_steps,
    whole_step,
)

Shapes = Sequence[tuple[int, ...]]

MEMBERS = [
    name
    for name in list_optimizers()
    if optimizer_info(name).own and optimizer_info(name).is_built_in and not optimizer_info(name).matrices_only
]
WITH_POWERS = ("diffgrad", "madgrad", "storm")
"""Members with a power or an exponential of each element."""
WITH_REDUCTIONS = (
    *("adai", "adam_mini", "adamp", "ef_sgd", "lamb", "lars", "mars", "novograd", "prodigy", "stable_adamw"),
)
"""Members with sums over a tensor or over all."""

THEIRS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "adabelief": ("AdaBelief", {"rectify": True}),
    "adabound": ("AdaBound", {}),
    "adai": ("Adai", {}),
    "adamax": ("AdaMax", {}),
    "adamod": ("AdaMod", {}),
    "adamp": ("AdamP", {}),
    "adan": ("Adan", {}),
    "ademamix": ("AdEMAMix", {}),
    "adopt": ("ADOPT", {}),
    "diffgrad": ("DiffGrad", {}),
    "lamb": ("Lamb", {}),
    "laprop": ("LaProp", {}),
    "lars": ("LARS", {}),
    "lion": ("Lion", {}),
    "madgrad": ("MADGRAD", {}),
    "mars": ("MARS", {"optimize_1d": True}),
    "novograd": ("NovoGrad", {}),
    "padam": ("PAdam", {}),
    "prodigy": ("Prodigy", {}),
    "qhadam": ("QHAdam", {}),
    "radam": ("RAdam", {}),
    "signum": ("SignSGD", {}),
    "stable_adamw": ("StableAdamW", {}),
    "yogi": ("Yogi", {}),
}
"""pytorch_optimizer's classes of the same algorithms, and what they need to compute about the same. Its Adam, AdamW,
NAdam and RMSprop are torch's."""
SOME_OF_THEIRS = ("adabelief", "adan", "ademamix", "adopt", "lamb", "laprop", "lion", "madgrad", "radam", "yogi")
"""Those that are timed on the big lists, where all of them would take most of the time."""

TORCH: Mapping[str, Mapping[str, Any]] = {
    "fused": {"fused": True},
    "foreach": {"foreach": True},
    "loop": {"foreach": False, "fused": False},
}
OURS: Mapping[str, Mapping[str, Any]] = {
    "lists": {"foreach": True, "fused": False},
    "loop": {"foreach": False, "fused": False},
}
_LR = 1e-6  # so small that thousands of steps with the same gradients leave the parameters as they are
_KINDS = ("element-wise", "with a power or exponential", "with reductions")


# The lists


def bert(num_layers: int = 12, vocabulary: int = 30522) -> Shapes:
    """The shapes of a BERT-base: 109.5 M with all layers and the whole vocabulary."""
    width, hidden = 768, 3072
    norm = [(width,), (width,)]
    layer = [*[(width, width), (width,)] * 4, *norm, (hidden, width), (hidden,), (width, hidden), (width,), *norm]
    return [(vocabulary, width), (512, width), (2, width), *norm, *layer * num_layers, (width, width), (width,)]


def resnet() -> Shapes:
    """The shapes of a ResNet-50: 25.6 M in convolutions, norms and a classifier."""

    def conv(channels_in: int, channels_out: int, kernel: int) -> Shapes:
        return [(channels_out, channels_in, kernel, kernel), (channels_out,), (channels_out,)]

    shapes, channels = [*conv(3, 64, 7)], 64
    for width, num_blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(num_blocks):
            shapes += [*conv(channels, width, 1), *conv(width, width, 3), *conv(width, 4 * width, 1)]
            shapes += conv(channels, 4 * width, 1) if block == 0 else []
            channels = 4 * width
    return [*shapes, (1000, channels), (1000,)]


MATRICES: Shapes = [(4096, 2048)] * 4
MANY: Shapes = [(128, 128), (128, 128), (512,)] * 120


def bert_for(device: torch.device) -> Shapes:
    """On a CPU a quarter of the layers and of the vocabulary: time allows no more."""
    return bert() if device.type == "cuda" else bert(num_layers=3, vocabulary=7630)


# The optimizers


def build_torch(params: Sequence[Tensor], **flags: Any) -> Optimizer:
    """torch's AdamW."""
    return torch.optim.AdamW(params, lr=_LR, **flags)


def build_torch_sgd(params: Sequence[Tensor]) -> Optimizer:
    """torch's SGD without momentum as one kernel: what can be had where there is no state."""
    return torch.optim.SGD(params, lr=_LR, fused=True)


def build_ours(name: str, params: Sequence[Tensor], **flags: bool) -> Optimizer:
    """A member with its defaults."""
    cls: Any = optimizer_info(name).load(own=True)
    optimizer: Optimizer = cls(params, lr=_LR, **flags)
    return optimizer


def build_theirs(name: str, params: Sequence[Tensor]) -> Optimizer:
    """pytorch_optimizer's class of the same algorithm."""
    cls, options = THEIRS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer: Optimizer = getattr(import_module("pytorch_optimizer"), cls)(params, lr=_LR, **options)
    return optimizer


def kernel(name: str) -> Build:
    """A member as a kernel."""
    return partial(build_ours, name, fused=True)


@cache
def bytes_per_element(name: str, *, on_gpu: bool = False) -> float:
    """The bytes that a step of a member must move."""
    return count_bytes(partial(build_ours, name, **OURS["loop"]), fetches_before_write=not on_gpu)


# The cases


def torch_case(way: str) -> str:
    """The name of a case of torch's AdamW."""
    return f"torch AdamW, {way}"


def our_case(name: str, way: str = "kernel") -> str:
    """The name of a case of a member."""
    return f"{name}, {way}"


def their_case(name: str) -> str:
    """The name of a case of pytorch_optimizer, by our name of the algorithm."""
    return f"{name}, pytorch_optimizer"


COPY = "a copy of the parameters"
REFERENCE = torch_case("fused")
TORCH_SGD = "torch SGD, fused"


def make_cases(
    shapes: Shapes, device: torch.device, members: Sequence[str] = MEMBERS, theirs: Sequence[str] = tuple(THEIRS)
) -> list[Case]:
    """Steps that are past their first ones: state is there, kernels are compiled."""
    builds: dict[str, Build] = {
        **{torch_case(way): partial(build_torch, **flags) for way, flags in TORCH.items()},
        TORCH_SGD: build_torch_sgd,
        **{our_case("adamw", way): partial(build_ours, "adamw", **flags) for way, flags in OURS.items()},
        **{our_case(name): kernel(name) for name in members},
    }
    if find_spec("pytorch_optimizer"):
        builds |= {their_case(name): partial(build_theirs, name) for name in theirs}
    params = build_params(shapes, device)
    buffers: dict[tuple[int, str], Tensor] = {}
    cases = [Case(name=name, run=_prepare(build(params), buffers), prepare=_settle) for name, build in builds.items()]
    if device.type == "cuda":
        source = torch.cat([param.detach().flatten() for param in params])
        cases.append(Case(name=COPY, run=partial(torch.empty_like(source).copy_, source), prepare=_settle))
    return cases


def _prepare(optimizer: Optimizer, buffers: dict[tuple[int, str], Tensor]) -> Callable[[], object]:
    """A whole step of an optimizer, whose state is created and shared here.

    A rule with two gradients keeps its own: between the two it relies on them.
    """
    step = whole_step(optimizer)
    step()
    skip_first_steps(optimizer)
    if getattr(optimizer, "evaluations", 1) == 1:
        params = [param for group in optimizer.param_groups for param in group["params"]]
        for i, param in enumerate(params):
            state = optimizer.state[param]
            for name, value in state.items():
                if isinstance(value, Tensor) and value.shape == param.shape:
                    state[name] = buffers.setdefault((i, name), value)
    step()  # nothing refers to the state that was replaced any more
    return step


def _settle() -> None:
    """Wait until the threads of the last case sleep: kernels have another OpenMP runtime than torch, and both spin."""
    time.sleep(0.002)


# What comes of the times


def bytes_of(case: str, *, on_gpu: bool = False) -> float:
    """The bytes per element that a case must move: those of the algorithm, whoever runs it."""
    if case == COPY:
        return 8.0
    name, _, _ = case.partition(", ")
    return bytes_per_element({"torch AdamW": "adamw", "torch SGD": "sgd"}.get(name, name), on_gpu=on_gpu)


def make_columns(timings: Mapping[str, Timing]) -> dict[str, dict[str, float]]:
    """Bytes per element, and times per byte relative to the reference's; on a GPU, to a copy's."""
    columns = {
        "bytes": _bytes_of_all(timings),
        "ratio per byte": _ratios_per_byte(timings, REFERENCE),
    }
    if COPY in timings:
        columns["share of a copy's bandwidth"] = {c: 1 / x for c, x in _ratios_per_byte(timings, COPY).items()}
    return columns


def derive_findings(timings: Mapping[str, Timing]) -> dict[str, float]:
    """The comparisons of a list's cases, one number each."""
    medians = {case: timing.median_ms for case, timing in timings.items()}
    findings = {
        "our AdamW as a kernel / torch's fused": medians[our_case("adamw")] / medians[REFERENCE],
        "torch's foreach AdamW / our kernel": medians[torch_case("foreach")] / medians[our_case("adamw")],
    }
    if TORCH_SGD in medians and our_case("sgd") in medians:
        findings["our SGD as a kernel / torch's fused"] = medians[our_case("sgd")] / medians[TORCH_SGD]
    if shared := [name for name in THEIRS if their_case(name) in medians and our_case(name) in medians]:
        ratios = [medians[their_case(name)] / medians[our_case(name)] for name in shared]
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        findings[f"pytorch_optimizer / our kernel, geometric mean of {len(shared)} algorithms"] = mean
    per_byte = _ratios_per_byte(timings, REFERENCE)
    for kind in _KINDS:
        if names := [name for name in MEMBERS if our_case(name) in medians and kind_of(name) == kind]:
            worst = max(names, key=lambda name: per_byte[our_case(name)])
            findings[f"largest ratio per byte, kernels {kind} ({worst})"] = per_byte[our_case(worst)]
    if COPY in timings:
        ratios_to_copy = _ratios_per_byte(timings, COPY)
        kernels = [name for name in MEMBERS if our_case(name) in medians and kind_of(name) == _KINDS[0]]
        worst = max(kernels, key=lambda name: ratios_to_copy[our_case(name)])
        share = 1 / ratios_to_copy[our_case(worst)]
        findings[f"smallest share of a copy's bandwidth, kernels {_KINDS[0]} ({worst})"] = share
    return findings


def kind_of(name: str) -> str:
    """What limits a member's kernel."""
    return _KINDS[2 if name in WITH_REDUCTIONS else 1 if name in WITH_POWERS else 0]


def _ratios_per_byte(timings: Mapping[str, Timing], reference: str) -> dict[str, float]:
    num_bytes = _bytes_of_all(timings)
    rates = {case: timing.median_ms / num_bytes[case] for case, timing in timings.items()}
    return {case: rate / rates[reference] for case, rate in rates.items()}


def _bytes_of_all(timings: Mapping[str, Timing]) -> dict[str, float]:
    return {case: bytes_of(case, on_gpu=COPY in timings) for case in timings}  # only a GPU has that case


def measure_costs(device: torch.device) -> dict[str, float]:
    """The peak memory of a step with a whole BERT-base, and the time of compilation."""
    builds: dict[str, Build] = {
        **{torch_case(way): partial(build_torch, **flags) for way, flags in TORCH.items()},
        **{our_case("adamw", way): partial(build_ours, "adamw", **flags) for way, flags in OURS.items()},
        **{our_case(name): kernel(name) for name in ("adamw", *WITH_REDUCTIONS)},
    }
    peaks = measure_peak_memory(builds, bert(), device)
    compilation = measure_compilation({name: kernel(name) for name in MEMBERS}, device)
    return {**{f"peak memory of a step, 109.5 M, MiB: {case}": peak for case, peak in peaks.items()}, **compilation}


def _make_arm(title: str, shapes_for: Callable[[torch.device], Shapes], **options: Any) -> Arm:
    theirs = options.pop("theirs", SOME_OF_THEIRS)
    return Arm(
        title=f"A step of an optimizer, and the bytes per element that it must move: {title}",
        make_cases=lambda device: make_cases(shapes_for(device), device, theirs=theirs),
        reference=REFERENCE,
        uses_device=True,
        findings=derive_findings,
        columns=make_columns,
        **options,
    )


STEP: dict[str, Arm] = {
    "bert": _make_arm(
        "BERT-base-like, 109.5 M; on a CPU 28.1 M, a quarter of its layers and vocabulary",
        bert_for,
        measurements=measure_costs,
    ),
    "resnet": _make_arm("ResNet-50-like, 161 tensors, 25.6 M", lambda device: resnet()),
    "matrices": _make_arm("four matrices 4096 x 2048, 33.6 M", lambda device: MATRICES),
    "many": _make_arm("360 tensors, 4.0 M", lambda device: MANY, theirs=tuple(THEIRS)),
}
