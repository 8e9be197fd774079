"""Numbers of tensors: right whatever the tensors are, in a number of calls that does not grow with them."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_optim.telemetry import bundle, reductions
from lightning_optim.telemetry.reductions import Reduce, Reductions
from tests.support.dispatched_ops import Ops

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64]
SHAPES = [(), (0,), (7,), (65_537,), (300, 301), (257, 1031), (100, 3, 33, 11)]


def numbers(tensors, *hows) -> list[float]:
    reduced = Reductions()
    reduced.add(tensors, *hows)
    reduced.send()
    assert reduced.arrived
    return reduced.numbers()


def random(shape, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_equal_a_float64_computation(shape, dtype) -> None:
    tensor = random(shape, dtype)
    exact = tensor.to(torch.complex128).abs()
    assert numbers([tensor, tensor.mT if tensor.ndim > 1 else tensor], Reduce.SQUARES) == pytest.approx(
        [float(exact.square().sum())] * 2, rel=1e-5
    )
    if not dtype.is_complex:
        assert numbers([tensor.abs()], Reduce.SIZES) == pytest.approx([float(exact.sum())], rel=1e-5)
        signed = float(tensor.double().sum())
        assert numbers([tensor], Reduce.SUM) == pytest.approx([signed], abs=1e-5 * float(exact.sum()))


def test_a_large_tensor_is_not_summed_in_one_float32() -> None:
    """One sum is off by 4e-4 in the squares, by 6e-3 in the absolute values."""
    tensor = random(10_000_019).square_()
    squares, sizes = numbers([tensor], Reduce.SQUARES, Reduce.SIZES)
    assert squares == pytest.approx(float(tensor.double().square().sum()), rel=1e-5)
    assert sizes == pytest.approx(float(tensor.double().sum()), rel=1e-6)


def test_small_tensors_of_many_shapes_and_types() -> None:
    """Those of one shape are stacked, the others listed: each keeps its own number."""
    shapes = [
        (3,),
        (2, 3),
        (3,),
        (),
        (0, 5),
        (3, 2),
        (90, 100),
        (),
        (0, 5),
        (2, 3),
        (3,),
        (90, 100),
        (90, 91),
        (128, 128),
        (128, 129),
        (1, 16_384),
    ]
    tensors = [n * random(shape, dtype) for n, shape in enumerate(shapes, start=1) for dtype in DTYPES]
    tensors += [random((2, 8, 4, 3)).to(memory_format=torch.channels_last), random((2, 8, 4, 3)), random((9, 4)).t()]
    exact = [tensor.to(torch.complex128).abs() for tensor in tensors]
    assert numbers(tensors, Reduce.SQUARES) == pytest.approx([float(one.square().sum()) for one in exact], rel=1e-5)
    positive = [one.float() for one in exact]
    sums = [float(one.sum()) for one in exact]
    assert numbers(positive, Reduce.SIZES, Reduce.SUM) == pytest.approx(sums + sums, rel=1e-5)


def test_second_moments_of_a_complex_parameter_are_those_of_its_parts() -> None:
    """As torch keeps them: the mean square of the real part, and of the imaginary one."""
    for size in (3, 1 << 17):
        tensor = torch.complex(torch.full((size,), 3.0), torch.full((size,), 4.0))
        assert numbers([tensor, tensor], Reduce.SIZES) == [7.0 * size, 7.0 * size]


@pytest.mark.parametrize(
    "tensor",
    [random((512, 256)).t(), random((8, 16, 33, 32)).to(memory_format=torch.channels_last), random((600, 600))[:, ::2]],
    ids=["transposed", "channels last", "with gaps"],
)
def test_any_layout_of_a_large_tensor(tensor) -> None:
    assert tensor.numel() > 1 << 16 and not tensor.is_contiguous()
    expected = [float(tensor.double().square().sum()), float(tensor.double().abs().sum())]
    assert numbers([tensor], Reduce.SQUARES) + numbers([tensor.abs()], Reduce.SIZES) == pytest.approx(
        expected, rel=1e-5
    )


def test_they_come_in_the_order_in_which_they_were_added() -> None:
    reduced = Reductions()
    full = [torch.full((4,), 1.0), torch.full((1 << 17,), 2.0), torch.full((4,), 3.0, dtype=torch.float64)]
    reduced.add([torch.tensor(7)], Reduce.VALUE)
    reduced.add(full, Reduce.SQUARES, Reduce.SIZES)
    reduced.add([], Reduce.SUM)
    reduced.add([-full[0], torch.full((3,), 0.5, dtype=torch.bfloat16)], Reduce.SUM)
    reduced.add([torch.tensor(8.5, dtype=torch.float64)], Reduce.VALUE)
    reduced.send()
    assert reduced.numbers() == pytest.approx([7, 4, 4 << 17, 36, 4, 2 << 17, 12, -4, 1.5, 8.5], rel=1e-6)


def test_counts_that_float32_does_not_have() -> None:
    count = (1 << 24) + 1
    reduced = Reductions()
    reduced.add([torch.tensor(count), torch.tensor(0.1)], Reduce.VALUE)
    reduced.add([torch.ones(3)], Reduce.SQUARES)
    reduced.add([torch.tensor(count)] * 2, Reduce.VALUE)
    reduced.send()
    values = reduced.numbers()
    assert [*values[:1], *values[3:]] == [count] * 3
    assert values[1:3] == pytest.approx([0.1, 3.0])


def test_large_tensors_keep_their_own_sums() -> None:
    large = [torch.full((n << 17,), float(n)) for n in (1, 5, 2)]
    assert numbers(large, Reduce.SQUARES, Reduce.SIZES) == pytest.approx(
        [n**3 * 2**17 for n in (1, 5, 2)] + [n**2 * 2**17 for n in (1, 5, 2)]
    )


def test_tensors_may_change_once_they_are_added() -> None:
    tensor = torch.ones(5)
    reduced = Reductions()
    reduced.add([tensor], Reduce.SQUARES)
    tensor.zero_()
    reduced.send()
    assert reduced.numbers() == pytest.approx([5.0])


def test_no_tensors() -> None:
    assert numbers([], Reduce.SQUARES) == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_stays_at_its_tensor(value) -> None:
    bad, good = torch.tensor([1.0, value]), torch.ones(2)
    found = numbers([good, bad, good], Reduce.SQUARES)
    assert [math.isfinite(number) for number in found] == [True, False, True]


def test_norms_beyond_the_squares_of_float32() -> None:
    """The squares of 1e15 fit, and their sum's square root does; its square in float32 would not."""
    assert numbers([torch.full((100,), 1e15)], Reduce.SQUARES) == pytest.approx([1e32], rel=1e-5)
    assert numbers([torch.full((100,), 1e18), torch.full((100,), 1e18)], Reduce.SQUARES) == pytest.approx(
        [1e38, 1e38], rel=1e-5
    )


def test_as_many_calls_for_ten_tensors_as_for_a_thousand() -> None:
    calls = []
    for count in (10, 1000):
        tensors = [torch.ones(3, requires_grad=True) for _ in range(count)]
        with Ops() as ops:
            numbers(tensors, Reduce.SQUARES, Reduce.SIZES)
        calls.append(ops.calls)
    assert calls[0] == calls[1]
    assert calls[0].total() < 12
    assert "_local_scalar_dense" not in calls[0]


@pytest.mark.parametrize("how", [Reduce.SQUARES, Reduce.SIZES, Reduce.VALUE])
def test_as_many_where_one_call_takes_a_whole_list(how) -> None:
    """As for all tensors on a GPU."""
    calls = []
    for count in (10, 1000):
        with Ops() as ops:
            reductions._of_list([torch.tensor(float(n)) for n in range(count)], how)
        calls.append({name: number for name, number in ops.calls.items() if name != "lift_fresh"})
    assert calls[0] == calls[1]


def test_rows_of_a_large_tensor_are_even() -> None:
    for size in (1 << 17, 307_200, 2_359_296, 38_597_376):
        rows, length, rest = bundle._rows(size)
        assert rows * length == size and length <= 1 << 15 and not rest
    assert bundle._rows(10_000_019) == (305, 1 << 15, 1)  # a prime
