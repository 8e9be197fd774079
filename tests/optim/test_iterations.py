"""The iterations of Newton-Schulz: batched, and by a kernel where the CPU has its instructions, as one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_optim import optim
from lightning_optim.optim import iterations
from lightning_optim.optim.fused.newton_schulz_kernel import find_kernel
from lightning_optim.optim.iterations import find_iterations, iterate_one_by_one, iterate_stack
from lightning_optim.optim.members import matrix_member

POLYNOMIALS = [(3.4445, -4.7750, 2.0315)] * 4 + [(1.8913, -1.2680, 0.3768)]
# Sides that are blocks of 32; that oneDNN cuts into equal parts, of 20, 24, 28 and 30; that leave a rest; large ones.
SHAPES = [(64, 64), (40, 48), (56, 300), (33, 65), (96, 300)]


def random_stack(number: int, rows: int, columns: int, *, is_transposed: bool = False) -> Tensor:
    stack = torch.randn(number, rows, columns, generator=torch.Generator().manual_seed(0))
    stack = (stack / (rows * columns) ** 0.5).bfloat16()
    return stack.mT.contiguous().mT if is_transposed else stack


@pytest.fixture
def kernel():
    if (found := find_kernel()) is None:
        pytest.skip("needs a C compiler, and a processor that multiplies bfloat16")
    return found


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("is_transposed", [False, True], ids=["rows", "transposed"])
def test_the_kernel_has_the_bits_of_one_by_one(kernel, is_transposed, two_threads):
    for rows, columns in SHAPES:
        stack = random_stack(5, rows, columns, is_transposed=is_transposed)
        result = kernel(stack.clone(), POLYNOMIALS)
        assert torch.equal(result, iterate_one_by_one(stack, POLYNOMIALS)), (rows, columns)
        assert result.stride() == stack.stride()  # later sums are added in the order of the memory


@pytest.mark.slow
def test_the_kernel_of_avx_512_has_the_bits_of_one_by_one(kernel, run_python):
    """Of a processor without AMX, which oneDNN can be told to be."""
    code = """
import torch
from lightning_optim.optim.fused import newton_schulz_kernel
from tests.optim.test_iterations import POLYNOMIALS, SHAPES, iterate_one_by_one, random_stack

load = newton_schulz_kernel.load_function
newton_schulz_kernel.load_function = lambda source, name: load(source.replace("__AMX_BF16__", "ABSENT"), name)
for shape in SHAPES:
    stack = random_stack(4, *shape)
    result = newton_schulz_kernel.find_kernel()(stack.clone(), POLYNOMIALS)
    print(torch.equal(result, iterate_one_by_one(stack, POLYNOMIALS)))
"""
    assert set(run_python(code, ONEDNN_MAX_CPU_ISA="AVX512_CORE_BF16").split()) == {"True"}


def test_what_is_not_finite_stays_in_its_matrix(kernel):
    stack = random_stack(3, 40, 64)
    expected = iterate_one_by_one(stack, POLYNOMIALS)
    stack[1, 3, 5] = torch.nan
    result = kernel(stack, POLYNOMIALS)
    assert not expected.isnan().any()
    assert torch.equal(result[::2], expected[::2])
    assert result[1].isnan().all()


def test_a_way_that_rounds_otherwise_is_not_taken(monkeypatch):
    def off_by_a_bit(stack: Tensor, polynomials: object) -> Tensor:
        result = iterate_one_by_one(stack, polynomials)
        result[-1, -1, -1] *= 1.01
        return result

    stack = random_stack(4, 24, 40)
    monkeypatch.setattr(iterations, "find_kernel", lambda: iterate_one_by_one)
    iterations._find_exact.cache_clear()
    assert find_iterations(stack, by_kernel=True) is iterate_one_by_one
    monkeypatch.setattr(iterations, "find_kernel", lambda: off_by_a_bit)
    iterations._find_exact.cache_clear()
    assert find_iterations(stack, by_kernel=True) is not off_by_a_bit
    iterations._find_exact.cache_clear()


@pytest.mark.parametrize("is_transposed", [False, True], ids=["rows", "transposed"])
def test_batched_products_have_the_bits_of_one_by_one_wherever_they_are_taken(is_transposed, two_threads):
    """oneDNN may add otherwise with two threads, or where the columns of a matrix are stored, one after the other."""
    for rows, columns in [(64, 64), (33, 65), (24, 1024)]:
        stack = random_stack(6, rows, columns, is_transposed=is_transposed)
        iterate = find_iterations(stack, by_kernel=False)
        assert torch.equal(iterate(stack.clone(), POLYNOMIALS), iterate_one_by_one(stack, POLYNOMIALS)), (rows, columns)


def test_stacks_of_tall_matrices_are_stepped_as_one_by_one():
    results = []
    for foreach in (False, None):
        generator = torch.Generator().manual_seed(0)
        params = [nn.Parameter(torch.randn(128, 48, generator=generator)) for _ in range(3)]
        for param in params:
            param.grad = torch.randn(param.shape, generator=generator)
        optim.Muon(params, lr=0.02, foreach=foreach).step()
        results.append(torch.stack(params))
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("flags", "asks"), [({}, True), ({"fused": False}, False), ({"foreach": True}, False), ({"foreach": False}, False)]
)
def test_a_kernel_is_asked_for_where_the_execution_is_ours_to_choose_and_it_pays(monkeypatch, flags, asks):
    asked = []

    def record(stack: Tensor, *, by_kernel: bool, **options: object) -> Tensor:
        asked.append(by_kernel)
        return orthogonalize(stack, by_kernel=by_kernel, **options)

    orthogonalize = matrix_member.orthogonalize
    monkeypatch.setattr(matrix_member, "orthogonalize", record)
    for side, expected in ((32, False), (1024, asks)):
        param = nn.Parameter(torch.zeros(side, side))
        param.grad = torch.zeros(side, side)
        optim.Muon([param], lr=0.02, ns_steps=1, **flags).step()
        assert asked.pop() is expected


def test_a_gpu_takes_batched_products():
    assert find_iterations(torch.empty(2, 64, 64, device="meta"), by_kernel=True) is iterate_stack
