"""Norms in few kernels, whatever the tensors are."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_optim.telemetry.norms import Sample, by_group, cosine, norms

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_each_norm_is_that_of_a_float64_computation(dtype) -> None:
    tensors = [torch.randn(1000, generator=torch.Generator().manual_seed(seed)).to(dtype) for seed in range(3)]
    samples = [Sample("norm/x", "g", f"p{n}", tensor) for n, tensor in enumerate(tensors)]
    expected = [float(torch.linalg.vector_norm(tensor.to(torch.complex128))) for tensor in tensors]
    assert norms(samples) == pytest.approx(expected, rel=1e-6)


def test_kinds_may_be_mixed_and_keep_their_order() -> None:
    tensors = [torch.full((4,), 1.0), torch.full((4,), 2.0, dtype=torch.float64), torch.full((4,), 3.0)]
    samples = [Sample("norm/x", "g", str(n), tensor) for n, tensor in enumerate(tensors)]
    assert norms(samples) == [2.0, 4.0, 6.0]


def test_no_samples() -> None:
    assert norms([]) == []


def test_groups_and_all() -> None:
    samples = [Sample("norm/x", group, "p", torch.empty(0)) for group in ("a", "a", "b")]
    assert by_group(samples, [3.0, 4.0, 12.0]) == {("norm/x", "a"): 5.0, ("norm/x", "b"): 12.0, ("norm/x", "all"): 13.0}


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [([1.0, 0.0], [1.0, 1.0], math.sqrt(0.5)), ([0.0, 0.0], [1.0, 1.0], 0.0), ([1.0, 2.0], [-1.0, -2.0], -1.0)],
    ids=["45 degrees", "one is zero", "opposite"],
)
def test_cosine_takes_the_lists_as_one_vector(a, b, expected) -> None:
    pairs = [(torch.tensor([x]), torch.tensor([y])) for x, y in zip(a, b, strict=True)]
    assert cosine(pairs) == pytest.approx(expected)
