"""Sharded matrices on two ranks: uneven shards, kernels, stacks and a fused qkv are stepped as in one process."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from lightning_optim import optim

# Rank 1 has fewer rows, or nothing, of some.
GROUPS: list[dict[str, Any]] = [
    {"shapes": [(8, 12), (9, 6), (1, 5), (8, 12)]},
    {"shapes": [(5, 3, 2, 2)], "matrix": "flatten"},
    {"shapes": [(3, 8, 4)], "matrix": "batch"},
    {"shapes": [(9, 6)], "split": 3},
]
CASES: list[tuple[str, dict[str, Any]]] = [
    ("Muon", {}),
    ("Muon", {"foreach": False}),
    ("NorMuon", {"nesterov": True}),
    ("AdaMuon", {}),
    ("SOAP", {"precondition_frequency": 2, "max_size": 8}),
    ("Shampoo", {"momentum": 0.5}),
]


def train(cls: Any, options: dict[str, Any], shard: Any) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    groups = []
    for group in GROUPS:
        values = [torch.randn(shape, generator=generator) for shape in group["shapes"]]
        others = {key: value for key, value in group.items() if key != "shapes"}
        groups.append({"params": [nn.Parameter(shard(value)) for value in values], **others})
    params = [param for group in groups for param in group["params"]]
    optimizer = cls(groups, lr=0.05, weight_decay=0.1, **options)
    for _ in range(4):
        for param in params:
            param.grad = shard(torch.randn(param.shape, generator=generator))
        optimizer.step()
    return [param.detach() for param in params]


def run_rank(rank: int, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    line, two_ways = init_device_mesh("cpu", (2,)), init_device_mesh("cpu", (2, 1))
    for name, options in CASES:
        cls = getattr(optim, name)
        whole = train(cls, options, lambda value: value)
        for mesh, placements in ((line, [Shard(0)]), (two_ways, [Replicate(), Shard(0)])):
            sharded = train(cls, options, lambda value, m=mesh, p=placements: distribute_tensor(value, m, p))
            for ours, expected in zip(sharded, whole, strict=True):
                assert torch.equal(ours.full_tensor(), expected), (name, options, placements, expected.shape)
    dist.destroy_process_group()


@pytest.mark.slow
def test_sharded_matrices_are_stepped_as_in_one_process_bit_by_bit(tmp_path: Path) -> None:
    """Each rank asserts; one that fails ends this test too."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["torch.distributed.tensor", "lightning_optim"])
    mp.start_processes(run_rank, args=(str(tmp_path / "store"),), nprocs=2, start_method="forkserver")
