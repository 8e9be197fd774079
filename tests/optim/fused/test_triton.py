"""Triton's kernels compute what C's do: on CPU tensors under Triton's interpreter, or on a GPU where there is one."""

from __future__ import annotations

import pytest
import torch

from lightning_optim.optim.fused import kernels
from tests.support.cases import every
from tests.support.fused_runs import relative_error, train
from tests.support.kernel_operations import EXACT, TO_A_UNIT, by_kernel, values
from tests.support.modifier_cases import MODIFIER_VALUES
from tests.support.optimizer_runs import KINDS, TRACED_SETTINGS

pytest.importorskip("triton")
pytestmark = pytest.mark.slow
HAS_GPU = torch.cuda.is_available()
SHAPES = ((3, 5), (4,), (2, 3, 4), ())
TOLERANCE = 1e-6


@pytest.fixture
def on_cpu(monkeypatch):
    """Calls a function with Triton's kernels for CPU tensors."""
    if HAS_GPU:
        pytest.skip("the interpreter is for machines without a GPU")

    def call(function, *args, **kwargs):
        with monkeypatch.context() as patch:
            patch.setitem(kernels.BUILDERS, "cpu", kernels.build_triton)
            return function(*args, **kwargs)

    return call


def variant_id(case):
    name, options = case
    return f"{name}-{[own for other, own in TRACED_SETTINGS if other == name].index(options)}"


@pytest.mark.parametrize(
    ("name", "options"),
    every(
        [(name, options) for name, options in TRACED_SETTINGS if name in KINDS],
        fast=("lamb-0", "adam_mini-1", "madgrad-0"),
        id=variant_id,
    ),
)
def test_each_member(name, options, on_cpu):
    triton = on_cpu(train, name, 3, fused=True, shapes=SHAPES, **options)
    assert relative_error(triton, train(name, 3, fused=True, shapes=SHAPES, **options)) <= TOLERANCE


@pytest.mark.parametrize("name", every(("adamw", "lamb", "adam_mini", "prodigy"), fast=("prodigy",)))
def test_float64(name, on_cpu):
    options = {"shapes": SHAPES, "dtype": torch.float64}
    triton = on_cpu(train, name, 3, fused=True, **options)
    assert relative_error(triton, train(name, 3, fused=True, **options)) <= 1e-12  # sums in another order


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("modifier", ["all", "adaptive_clip"])
def test_16_bit_parameters_with_modifiers(dtype, modifier, on_cpu):
    options = {"shapes": SHAPES, "dtype": dtype, "eps": 2**-13, **MODIFIER_VALUES[modifier]}
    triton = on_cpu(train, "adamw", 6, fused=True, **options)
    assert relative_error(triton, train("adamw", 6, fused=True, **options)) <= TOLERANCE


# NumPy, which the interpreter computes with, warns where an infinity or NaN comes up.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_each_operation(on_cpu):
    x, y = values(torch.float32)
    operations = {**EXACT, **TO_A_UNIT}
    triton, c = on_cpu(by_kernel, operations, x, y), by_kernel(operations, x, y)
    for name in operations:
        tolerances = {"rtol": 2 * torch.finfo(torch.float32).eps, "atol": 1e-44, "equal_nan": True}
        torch.testing.assert_close(triton[name], c[name], **tolerances, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.skipif(not HAS_GPU, reason="there is no GPU")
@pytest.mark.parametrize(
    ("name", "options"), every(TRACED_SETTINGS, fast=("adamw-0", "lamb-0", "adamp-0"), id=variant_id)
)
def test_each_member_on_a_gpu(name, options):
    gpu = [param.cpu() for param in train(name, 20, fused=True, device="cuda", **options)]
    assert relative_error(gpu, train(name, 20, fused=False, **options)) <= TOLERANCE
