"""Reductions of tensors are right whatever the tensors are, in a number of calls that does not grow with them."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing._internal.two_tensor import TwoTensor

from lightning_optim.telemetry import reductions, tensor_batch
from lightning_optim.telemetry.reductions import Reduce, Reductions
from lightning_optim.telemetry.tensor_batch import TensorBatch
from tests.support.dispatched_ops import OpCounter

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64]
SHAPES = [(), (0,), (7,), (65_537,), (300, 301), (257, 1031), (100, 3, 33, 11)]


def reduce(tensors, *kinds) -> list[float]:
    reduced = Reductions()
    reduced.add(tensors, *kinds)
    reduced.start_copy()
    assert reduced.is_ready
    return reduced.results()


def random_tensor(shape, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_equal_a_float64_computation(shape, dtype) -> None:
    tensor = random_tensor(shape, dtype)
    exact = tensor.to(torch.complex128).abs()
    assert reduce([tensor, tensor.mT if tensor.ndim > 1 else tensor], Reduce.SQUARES) == pytest.approx(
        [float(exact.square().sum())] * 2, rel=1e-5
    )
    if not dtype.is_complex:
        assert reduce([tensor.abs()], Reduce.NON_NEGATIVE_SUM) == pytest.approx([float(exact.sum())], rel=1e-5)
        signed = float(tensor.double().sum())
        assert reduce([tensor], Reduce.SUM) == pytest.approx([signed], abs=1e-5 * float(exact.sum()))


def test_a_large_tensor_is_not_summed_into_one_float32() -> None:
    """A single float32 sum is off by 2e-4 in the squares, by 1e-3 in the absolute values."""
    tensor = random_tensor(2_000_003).square_()
    squares, absolutes = reduce([tensor], Reduce.SQUARES, Reduce.NON_NEGATIVE_SUM)
    assert squares == pytest.approx(float(tensor.double().square().sum()), rel=1e-5)
    assert absolutes == pytest.approx(float(tensor.double().sum()), rel=1e-6)


def test_small_tensors_of_many_shapes_and_dtypes_keep_their_own_sums() -> None:
    """Those of one shape are stacked, the others listed."""
    shapes = [
        *((3,), (2, 3), (3,), (), (0, 5), (3, 2), (90, 100), ()),
        *((0, 5), (2, 3), (3,), (90, 100), (90, 91), (128, 128), (128, 129), (1, 16_384)),
    ]
    tensors = [n * random_tensor(shape, dtype) for n, shape in enumerate(shapes, start=1) for dtype in DTYPES]
    channels_last = random_tensor((2, 8, 4, 3)).to(memory_format=torch.channels_last)
    tensors += [channels_last, random_tensor((2, 8, 4, 3)), random_tensor((9, 4)).t()]
    exact = [tensor.to(torch.complex128).abs() for tensor in tensors]
    assert reduce(tensors, Reduce.SQUARES) == pytest.approx([float(one.square().sum()) for one in exact], rel=1e-5)
    absolutes = [one.float() for one in exact]
    sums = [float(one.sum()) for one in exact]
    assert reduce(absolutes, Reduce.NON_NEGATIVE_SUM, Reduce.SUM) == pytest.approx(sums + sums, rel=1e-5)


def test_a_complex_second_moment_is_the_sum_of_its_parts() -> None:
    """torch stores the mean square of the real parts, and that of the imaginary parts."""
    for size in (3, 1 << 17):
        tensor = torch.complex(torch.full((size,), 3.0), torch.full((size,), 4.0))
        assert reduce([tensor, tensor], Reduce.NON_NEGATIVE_SUM) == [7.0 * size, 7.0 * size]


@pytest.mark.parametrize(
    "tensor",
    [
        random_tensor((512, 256)).t(),
        random_tensor((8, 16, 33, 32)).to(memory_format=torch.channels_last),
        random_tensor((600, 600))[:, ::2],
    ],
    ids=["transposed", "channels last", "with gaps"],
)
def test_a_large_tensor_may_have_any_memory_layout(tensor) -> None:
    assert tensor.numel() > 1 << 16 and not tensor.is_contiguous()
    expected = [float(tensor.double().square().sum()), float(tensor.double().abs().sum())]
    found = reduce([tensor], Reduce.SQUARES) + reduce([tensor.abs()], Reduce.NON_NEGATIVE_SUM)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("size", [8, 1 << 20])
def test_a_negative_view_counts_with_its_sign(size) -> None:
    tensor = random_tensor(size)
    assert reduce([torch._neg_view(tensor), tensor], Reduce.SUM) == pytest.approx(
        [-float(tensor.double().sum()), float(tensor.double().sum())], rel=1e-4
    )


@pytest.mark.parametrize(
    "build", [lambda x: TwoTensor(x, x), lambda x: x.to("meta")], ids=["two tensors in a wrapper", "meta"]
)
def test_no_compiled_kernel_reads_a_tensor_without_memory_of_its_own(build) -> None:
    """Its address is 0. A plain tensor in the same batch is read by a kernel."""
    plain = random_tensor(1 << 20)
    compiled = [part.compiled for part in TensorBatch([build(plain), plain, plain]).partitions]
    assert [len(tensors) for tensors in compiled] == [0, 2]


def test_results_come_in_the_order_in_which_tensors_were_added() -> None:
    reduced = Reductions()
    full = [torch.full((4,), 1.0), torch.full((1 << 17,), 2.0), torch.full((4,), 3.0, dtype=torch.float64)]
    reduced.add([torch.tensor(7)], Reduce.VALUE)
    reduced.add(full, Reduce.SQUARES, Reduce.NON_NEGATIVE_SUM)
    reduced.add([], Reduce.SUM)
    reduced.add([-full[0], torch.full((3,), 0.5, dtype=torch.bfloat16)], Reduce.SUM)
    reduced.add([torch.tensor(8.5, dtype=torch.float64)], Reduce.VALUE)
    reduced.start_copy()
    assert reduced.results() == pytest.approx([7, 4, 4 << 17, 36, 4, 2 << 17, 12, -4, 1.5, 8.5], rel=1e-6)


def test_integers_that_float32_would_round_are_exact() -> None:
    count = (1 << 24) + 1
    reduced = Reductions()
    reduced.add([torch.tensor(count), torch.tensor(0.1)], Reduce.VALUE)
    reduced.add([torch.ones(3)], Reduce.SQUARES)
    reduced.add([torch.tensor(count)] * 2, Reduce.VALUE)
    reduced.start_copy()
    values = reduced.results()
    assert [*values[:1], *values[3:]] == [count] * 3
    assert values[1:3] == pytest.approx([0.1, 3.0])


def test_large_tensors_keep_their_own_sums() -> None:
    large = [torch.full((n << 17,), float(n)) for n in (1, 5, 2)]
    assert reduce(large, Reduce.SQUARES, Reduce.NON_NEGATIVE_SUM) == pytest.approx(
        [n**3 * 2**17 for n in (1, 5, 2)] + [n**2 * 2**17 for n in (1, 5, 2)]
    )


def test_tensors_may_change_after_they_are_added() -> None:
    tensor = torch.ones(5)
    reduced = Reductions()
    reduced.add([tensor], Reduce.SQUARES)
    tensor.zero_()
    reduced.start_copy()
    assert reduced.results() == pytest.approx([5.0])


def test_no_tensors_give_no_results() -> None:
    assert reduce([], Reduce.SQUARES) == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_nonfinite_value_affects_only_its_own_tensor(value) -> None:
    bad, good = torch.tensor([1.0, value]), torch.ones(2)
    found = reduce([good, bad, good], Reduce.SQUARES)
    assert [math.isfinite(number) for number in found] == [True, False, True]


def test_sums_of_squares_reach_the_limits_of_float32() -> None:
    """Norms are computed in float32, and squared in float64."""
    assert reduce([torch.full((100,), 1e15)], Reduce.SQUARES) == pytest.approx([1e32], rel=1e-5)
    assert reduce([torch.full((100,), 1e18)] * 2, Reduce.SQUARES) == pytest.approx([1e38, 1e38], rel=1e-5)


def test_a_thousand_tensors_take_as_many_calls_as_ten() -> None:
    calls = []
    for count in (10, 1000):
        tensors = [torch.ones(3, requires_grad=True) for _ in range(count)]
        with OpCounter() as ops:
            reduce(tensors, Reduce.SQUARES, Reduce.NON_NEGATIVE_SUM)
        calls.append(ops.calls)
    assert calls[0] == calls[1]
    assert calls[0].total() < 12
    assert "_local_scalar_dense" not in calls[0]


@pytest.mark.parametrize("kind", [Reduce.SQUARES, Reduce.NON_NEGATIVE_SUM, Reduce.VALUE])
def test_a_list_of_any_length_takes_as_many_calls(kind) -> None:
    """On a GPU, all tensors are reduced as a list."""
    calls = []
    for count in (10, 1000):
        tensors = [torch.tensor(float(n)) for n in range(count)]
        with OpCounter() as ops:
            reductions._reduce_list(tensors, kind)
        calls.append(ops.calls)
    assert calls[0] == calls[1]


def test_rows_of_a_large_tensor_are_even_where_its_size_has_a_suitable_divisor() -> None:
    for size in (1 << 17, 307_200, 2_359_296, 38_597_376):
        num_rows, length, num_remainders = tensor_batch._split_into_rows(size)
        assert num_rows * length == size and length <= 1 << 15 and not num_remainders
    assert tensor_batch._split_into_rows(10_000_019) == (305, 1 << 15, 1)  # a prime
