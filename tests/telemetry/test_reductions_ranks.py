"""Reductions of tensors that two processes share: each tensor counts once, whichever rank holds it."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from lightning_optim.telemetry.reductions import Reduce, Reductions

# Rank 1 holds nothing of the second shape; the last two are large, and the last has a remainder row.
SHAPES = [(7, 3), (1, 5), (7, 3), (4,), (300, 301), (2, 65_537)]


def full_tensor(shape: tuple[int, ...]) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


def distributed_tensors() -> list[Tensor]:
    """Each tensor as one rank may hold it: sharded, plain, replicated, both, and as a partial sum."""
    line, replicas, shards = (init_device_mesh("cpu", shape) for shape in ((2,), (2, 1), (1, 2)))
    tensors: list[Tensor] = []
    for tensor in map(full_tensor, SHAPES):
        tensors += [
            distribute_tensor(tensor, line, [Shard(0)]),
            tensor,
            distribute_tensor(tensor, line, [Replicate()]),
            distribute_tensor(tensor, replicas, [Replicate(), Shard(0)]),
            distribute_tensor(tensor, shards, [Replicate(), Shard(0)]),
            DTensor.from_local(tensor / 2, line, [Partial()]),
        ]
    return tensors


def check_reductions(rank: int, store: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    tensors = distributed_tensors()
    reductions = Reductions()
    reductions.add(tensors, Reduce.SQUARES, Reduce.NON_NEGATIVE_SUM)
    reductions.add([torch.tensor(3.0 + rank)], Reduce.VALUE)
    reductions.add([full_tensor((4,))], Reduce.SUM)
    reductions.start_copy()
    full = [full_tensor(shape).double() for shape in SHAPES for _ in range(len(tensors) // len(SHAPES))]
    expected = [float(tensor.square().sum()) for tensor in full] + [float(tensor.sum()) for tensor in full]
    expected += [3.0 + rank, float(full_tensor((4,)).sum())]
    assert reductions.results() == pytest.approx(expected, rel=1e-5)
    dist.destroy_process_group()


def test_each_tensor_counts_once_however_it_is_distributed(tmp_path: Path) -> None:
    # Both ranks are forks of one process that has imported torch.
    preload = ["pytest", "torch.distributed.tensor", "lightning_optim.telemetry.reductions"]
    multiprocessing.get_context("forkserver").set_forkserver_preload(preload)
    mp.start_processes(check_reductions, (str(tmp_path / "store"),), nprocs=2, start_method="forkserver")
