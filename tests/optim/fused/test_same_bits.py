"""A kernel gives each element the same bits wherever it stands, for any number of threads and any chunks."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from lightning_optim import optim, optimizer_info
from lightning_optim.optim.fused import cut, emit_c, tables
from tests.support.cases import every
from tests.support.fused_runs import train
from tests.support.optimizer_runs import KINDS, MEMBERS_WITH_SUMS, TRACED_MEMBERS

ELEMENTWISE = sorted(set(TRACED_MEMBERS) - MEMBERS_WITH_SUMS)
"""Members without sums over a tensor, whose order would depend on the chunks."""
ELEMENTWISE_KINDS = [*(name for name in KINDS if name in ELEMENTWISE), "diffgrad"]
KERNEL_KINDS = [name for name in KINDS if name in TRACED_MEMBERS and name != "adai"]
SHAPES = ((67, 600), (5,), (1, 3))


@pytest.fixture
def num_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def assert_same_bits(runs):
    first, *others = runs
    assert all(torch.equal(x, y) for other in others for x, y in zip(first, other, strict=True))


# Adai's mean over all parameters is torch's sum, which depends on the number of threads.
@pytest.mark.parametrize("name", every([*KERNEL_KINDS, "padam"], fast=["padam", "lamb"]))
def test_for_any_number_of_threads(name, num_threads):
    def run(threads):
        num_threads(threads)
        return train(name, 6, fused=True, shapes=SHAPES)

    assert_same_bits([run(threads) for threads in (1, 2, 4)])


@pytest.mark.parametrize("name", every(ELEMENTWISE_KINDS, fast=["adamw", "diffgrad"]))
def test_for_any_size_of_chunks(name, monkeypatch):
    def run(size):
        monkeypatch.setattr(tables, "CHUNK", size)
        return train(name, 6, fused=True, shapes=SHAPES)

    assert_same_bits([run(size) for size in (1 << 14, 1000, 37)])


@pytest.mark.parametrize("name", ["extra_sgd", "adamw"])
def test_past_the_caches_and_through_them(name, monkeypatch):
    def run(num_chunks):
        monkeypatch.setattr(emit_c, "_MANY_CHUNKS", num_chunks)
        # Rounded from masters, the parameters of AdamW are only written.
        options = {"dtype": torch.bfloat16, "master_weights": True} if name == "adamw" else {}
        return train(name, 6, fused=True, shapes=SHAPES, **options)

    assert_same_bits([run(num_chunks) for num_chunks in (0, 1000)])


def test_past_the_caches_into_memory_of_any_alignment(monkeypatch):
    monkeypatch.setattr(emit_c, "_MANY_CHUNKS", 0)
    runs = []
    for offset in (0, 1, 16):
        memory = torch.full((1100,), 7.0)
        param = torch.nn.Parameter(memory[offset : offset + 1000])
        optimizer = optim.ExtraSGD([param], lr=0.1, fused=True)
        for step in range(2):
            param.grad = torch.linspace(-1, 1, 1000) + step
            optimizer.step()
        runs.append([param])
        rest = torch.cat([memory[:offset], memory[offset + 1000 :]])
        assert torch.equal(rest, torch.full((100,), 7.0))
    assert_same_bits(runs)


def test_for_any_order_of_passes(monkeypatch):
    def run(num_elements):
        monkeypatch.setattr(cut, "_BATCH", num_elements)
        return train("adamp", 6, fused=True, shapes=SHAPES)

    assert_same_bits([run(num_elements) for num_elements in (1, 1000, 1 << 18)])


@pytest.mark.parametrize("name", every(ELEMENTWISE_KINDS, fast=["diffgrad"]))
def test_for_a_shard_and_the_whole(name):
    """Each piece of a tensor, of any length, has the bits that it has in the whole."""
    generator = torch.Generator().manual_seed(0)
    values, grads = torch.randn(40, generator=generator), torch.randn((6, 40), generator=generator)

    def run(pieces):
        params = [torch.nn.Parameter(values[piece].clone()) for piece in pieces]
        optimizer = optimizer_info(name).load(own=True)(params, fused=True)
        for grad in grads:
            for param, piece in zip(params, pieces, strict=True):
                param.grad = grad[piece].clone()
            optimizer.step()
        return [torch.cat([param.detach() for param in params])]

    cuts = ([0, 40], [0, 1, 40], [0, 13, 24, 31, 40])
    assert_same_bits([run([slice(*pair) for pair in pairwise(cut)]) for cut in cuts])
