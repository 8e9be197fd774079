"""Numbers of tensors that two processes share: each counts once, whoever holds it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from lightning_optim.telemetry.reductions import Reduce, Reductions

# Rank 1 has nothing of the second; the last two are large, one of them with a row that is left over.
SHAPES = [(7, 3), (1, 5), (7, 3), (4,), (300, 301), (2, 65_537)]


def whole(shape: tuple[int, ...]) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


def share() -> list[Tensor]:
    """As one rank holds them: cut, whole on each, summed over them, and not of a mesh at all."""
    line, replicas, shards = (init_device_mesh("cpu", shape) for shape in ((2,), (2, 1), (1, 2)))
    found: list[Tensor] = []
    for tensor in map(whole, SHAPES):
        found += [
            distribute_tensor(tensor, line, [Shard(0)]),
            tensor,
            distribute_tensor(tensor, line, [Replicate()]),
            distribute_tensor(tensor, replicas, [Replicate(), Shard(0)]),
            distribute_tensor(tensor, shards, [Replicate(), Shard(0)]),
            DTensor.from_local(tensor / 2, line, [Partial()]),
        ]
    return found


def check(rank: int, store: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    tensors = share()
    reductions = Reductions()
    reductions.add(tensors, Reduce.SQUARES, Reduce.SIZES)
    reductions.add([torch.tensor(3.0 + rank)], Reduce.VALUE)
    reductions.add([whole((4,))], Reduce.SUM)
    reductions.send()
    alike = [whole(shape).double() for shape in SHAPES for _ in range(len(tensors) // len(SHAPES))]
    expected = [float(each.square().sum()) for each in alike] + [float(each.sum()) for each in alike]
    expected += [3.0 + rank, float(whole((4,)).sum())]
    assert reductions.numbers() == pytest.approx(expected, rel=1e-5)
    dist.destroy_process_group()


def test_each_counts_once(tmp_path: Path) -> None:
    mp.spawn(check, (str(tmp_path / "store"),), nprocs=2)  # type: ignore[no-untyped-call]
