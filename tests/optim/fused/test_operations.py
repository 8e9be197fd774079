"""Each operation of a kernel against torch's, with NaN, infinities, zeros of both signs and subnormal numbers."""

from __future__ import annotations

import math

import pytest
import torch

from tests.support.cases import every
from tests.support.kernel_operations import EXACT, NUMBER, TO_A_UNIT, by_kernel, values


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_bitwise_as_torch(dtype):
    x, y = values(dtype)
    for name, got in by_kernel(EXACT, x, y).items():
        expected = EXACT[name](x, y, NUMBER)
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_within_two_units_of_torch(dtype):
    """torch's own vector code is off by one in the last place; subnormal results by one of theirs."""
    x, y = values(dtype)
    info = torch.finfo(dtype)
    tolerances = {"rtol": 2 * info.eps, "atol": 2 * info.smallest_normal * info.eps, "equal_nan": True}
    for name, got in by_kernel(TO_A_UNIT, x, y).items():
        expected = TO_A_UNIT[name](x, y, NUMBER)
        torch.testing.assert_close(got, expected, **tolerances, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("exponent", every([1 / 3, 0.25, 0.3333, 0.125, 3.0, -0.7, 17.0], fast=["0.25", "-0.7"]))
def test_a_power_is_off_by_at_most_one_unit(exponent):
    """Over all float32 numbers > 0, one in 1999 of them, against float64."""
    x = torch.arange(1, 0x7F800000, 1999).to(torch.int32).view(torch.float32)
    got = by_kernel({"power": lambda x, y, k: x.pow(exponent)}, x, x)["power"]
    expected = x.double().pow(torch.tensor(exponent).double()).float()
    below, above = (torch.nextafter(expected, torch.tensor(limit)) for limit in (-math.inf, math.inf))
    assert torch.all((got == expected) | (got == below) | (got == above))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_16_bits_are_rounded_to_nearest_even(dtype):
    """Every 16-bit number is loaded exactly, and each product with one is rounded as torch rounds it."""
    numbers = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(dtype)
    for factor in (1.0, 1.00390625, 0.3333, 7e-6, 3e4):
        got = by_kernel({"product": lambda x, y, k: x * k}, numbers, numbers, k=factor)["product"]
        torch.testing.assert_close(got, (numbers.float() * factor).to(dtype), rtol=0, atol=0, equal_nan=True)


REDUCTIONS = {
    "sum": lambda x, y, k: x * y.sum(),
    "mean": lambda x, y, k: x * y.mean(),
    "norm": lambda x, y, k: x * y.norm(),
    "amax": lambda x, y, k: x * y.amax(),
    "two levels": lambda x, y, k: x / (x - y.mean()).norm(),
}


@pytest.mark.parametrize("shape", [(7, 6000), (5,), ()], ids=str)
def test_reductions(shape):
    torch.manual_seed(0)
    x, y = torch.randn(shape), torch.randn(shape)
    for name, got in by_kernel(REDUCTIONS, x, y).items():
        assert torch.allclose(got, REDUCTIONS[name](x, y, NUMBER), rtol=1e-5), name


def test_rows():
    torch.manual_seed(0)
    x, y = torch.randn(7, 3, 5), torch.randn(7, 3, 5)
    rows = {
        "mean": lambda x, y, k: y - y.mean(dim=list(range(1, y.ndim)), keepdim=True),
        "largest norm of a row": lambda x, y, k: x * y.flatten(1).norm(dim=1, keepdim=True).amax(),
        "two sums of a row": lambda x, y, k: centred_norm(y.flatten(1)).view_as(x),
    }
    for name, got in by_kernel(rows, x, y).items():
        assert torch.allclose(got, rows[name](x, y, NUMBER), rtol=1e-5, atol=1e-6), name


def centred_norm(rows):
    centred = rows - rows.mean(1, keepdim=True)
    return centred / centred.norm(dim=1, keepdim=True)


def test_a_reduction_keeps_nan():
    x, y = torch.ones(40), torch.ones(40)
    y[17] = math.nan
    assert all(got.isnan().all() for got in by_kernel(REDUCTIONS, x, y).values())
