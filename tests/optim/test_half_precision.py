"""16 bits: a parameter whose gradients have only been zero stays finite, or the optimizer is not built."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

from lightning_optim import ConfigError, OptimizerFactory, optim, optimizer_info
from tests.support.cases import every
from tests.support.optimizer_runs import (
    KINDS,
    MATRIX_MEMBERS,
    MEMBERS,
    SETTINGS,
    give_hessian,
    native_class,
    setting_id,
)

SHAPES = [(3, 4), (5,), ()]
MATRIX_SHAPES = [(3, 4), (5, 2)]
MODIFIERS: list[dict[str, Any]] = [
    {},
    {"cautious_update": True},
    {"adaptive_clip": 0.1},
    {"centralize_gradients": True},
]


def is_finite_after_zeros(name: str, dtype: torch.dtype, **options: Any) -> bool:
    """Whether parameters and state are finite after gradients of 0, others, and 0 again."""
    params = [
        nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in (MATRIX_SHAPES if name in MATRIX_MEMBERS else SHAPES)
    ]
    optimizer = native_class(name)(params, **options)
    give_hessian(optimizer, params)
    for value in (0.0, 0.0, 0.0, 0.5, 0.5, *[0.0] * 10):
        for param in params:
            param.grad = torch.full_like(param, value)
        optimizer.step()
    tensors = [*params, *(v for p in params for v in optimizer.state[p].values() if isinstance(v, torch.Tensor))]
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def check_finite_or_refused(name: str, options: dict[str, Any], **given: Any) -> None:
    """Each cure too; one that does not help is not named."""
    cures = [{}, {"master_weights": True}, {"eps": 1e-4}, {"eps": 1e-4, "master_weights": True}]
    for dtype, cure in product((torch.float16, torch.bfloat16), cures):
        if "eps" in cure and "eps" not in optimizer_info(name).hyperparameters:
            continue
        if cure and given and dtype == torch.bfloat16:  # which is never refused: the cures are tried without `given`
            continue
        error = None
        try:
            assert is_finite_after_zeros(name, dtype, **options, **given, **cure), (dtype, given, cure)
        except ConfigError as caught:
            error = str(caught)
        if error is not None:
            assert "in float16 the rule would divide by 0" in error
            assert dtype == torch.float16 and "master_weights" not in cure
            assert "eps" not in cure or "Type master_weights: true" in error


@pytest.mark.parametrize(
    ("name", "options"),
    every(SETTINGS, fast=["adamw", "adai", "adamod", "adopt,clip=False", "lion", "madgrad", "prodigy"], id=setting_id),
)
def test_zeros_leave_it_finite_or_it_is_not_built(name: str, options: dict[str, Any]) -> None:
    check_finite_or_refused(name, options)


@pytest.mark.parametrize(("name", "options"), [("adamod", {}), ("adopt", {"clip": False})])
def test_an_eps_whose_reciprocal_overflows_is_not_built(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"eps: got 1e-06, .* Type eps: 0.0001 or master_weights: true"):
        is_finite_after_zeros(name, torch.float16, **options, eps=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_zeros_leave_it_finite_in_every_decay_mode_and_with_modifiers(name: str) -> None:
    info = optimizer_info(name)
    modes = [{"weight_decay": 0.01, "weight_decay_mode": mode} for mode in info.decay_modes]
    for given in (*modes, *MODIFIERS):
        if not info.find_conflict({**info.defaults, **given}):
            check_finite_or_refused(name, {}, **given)


@pytest.mark.parametrize(
    "name",
    every(
        [n for n in MEMBERS if "eps" in optimizer_info(n).hyperparameters],
        fast=["adamw", "adai", "adopt", "prodigy", "soap"],
    ),
)
def test_the_message_names_what_works(name: str) -> None:
    try:
        native_class(name)([nn.Parameter(torch.ones(2, 1, dtype=torch.float16))])
    except ConfigError as error:
        advice = str(error).partition("Type ")[2]
        cures = [{"master_weights": True}] + [{"eps": 1e-4}] * ("eps: 0.0001" in advice)
        assert "master_weights: true" in advice
        assert all(is_finite_after_zeros(name, torch.float16, **cure) for cure in cures)


def test_it_is_refused_in_a_late_group_and_by_the_factory() -> None:
    half = nn.Parameter(torch.ones(2, dtype=torch.float16))
    optimizer = optim.AdamW([nn.Parameter(torch.ones(2))])
    with pytest.raises(ConfigError, match=r"param_groups\[1\]\.eps: got 1e-08, and in float16 .* Type eps: 0.0001 or"):
        optimizer.add_param_group({"params": half})
    optimizer.add_param_group({"params": half, "eps": 1e-4})
    with pytest.raises(ConfigError, match=r"eps: got 1e-08, and in float16"):
        OptimizerFactory("adan")(nn.Linear(2, 2).half())
    with pytest.raises(ConfigError, match=r"eps: got 0, .* Type eps: 0.0001, or train in bfloat16"):
        optim.AdamW([half], eps=0.0)
    with pytest.raises(ConfigError, match=r"Type eps: 0.0001 and master_weights: true"):
        optim.Prodigy([half], eps=0.0)


@pytest.mark.parametrize("name", ["adam", "adamax", "nadam", "radam", "rmsprop"])
@pytest.mark.parametrize("given", [{}, {"foreach": True}, {"eps": 1e-4, "foreach": True}], ids=str)
def test_torchs_classes_stay_finite_or_are_not_built(name: str, given: dict[str, Any]) -> None:
    net = nn.Linear(3, 2, bias=False).half()
    try:
        optimizer = OptimizerFactory(name, implementation="torch", **given)(net)
    except ConfigError as error:
        refusal = str(error)
    else:
        refusal = ""
        for _ in range(8):
            net.weight.grad = torch.zeros_like(net.weight)
            optimizer.step()
        assert net.weight.isfinite().all()
    assert bool(refusal) == (given != {"eps": 1e-4, "foreach": True} and (name != "adam" or "foreach" in given))
    assert not refusal or refusal.startswith("eps: got 1e-08, and in float16")


class InFloat32(optim.AdaptiveOptimizer):
    """A rule that computes in float32, and one by hooks: neither is refused."""

    def __init__(self, params: Any, lr: float = 0.1, eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "eps": eps})

    def buffers(self, group: Any) -> Any:
        return {"v": torch.float32}

    def coefficients(self, t: float, group: Any) -> dict[str, Any]:
        return {"eps": group["eps"], "lr": group["lr"]}

    @staticmethod
    def update(p: Any, g: Any, v: Any, *, eps: float, lr: float) -> optim.Update:
        return optim.Update(g, lr, over=v.addcmul_(g, g).sqrt().add_(eps))


def test_a_rule_that_computes_in_float32_is_not_refused() -> None:
    param = nn.Parameter(torch.ones(2, dtype=torch.float16))
    optimizer = InFloat32([param])
    param.grad = torch.zeros_like(param)
    optimizer.step()
    assert param.isfinite().all()


# MADGRAD without eps


@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.parametrize("foreach", [False, True], ids=["loop", "foreach"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_madgrad_without_eps_stays_where_it_has_had_no_gradient(momentum: float, foreach: bool, dtype: Any) -> None:
    param = nn.Parameter(torch.ones(3, dtype=dtype))
    optimizer = optim.MADGRAD([param], eps=0, momentum=momentum, foreach=foreach)
    for _ in range(3):
        param.grad = torch.tensor([0.0, 0.0, 1.0], dtype=dtype)
        optimizer.step()
    assert param[:2].tolist() == [1.0, 1.0]
    assert param[2] < 1
    param.grad = torch.ones(3, dtype=dtype)
    optimizer.step()
    assert (param < 1).all()
    assert param[0] == param[1]
