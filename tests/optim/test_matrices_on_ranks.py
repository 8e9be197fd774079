"""Sharded matrices on two ranks: uneven shards, kernels, stacks and a fused qkv are stepped as in one process.

And Newton-Schulz runs over each matrix on one of them.
"""

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

from lightning_optim import ConfigError, optim
from lightning_optim.optim import sharded_matrices
from lightning_optim.optim.members import matrix_member
from lightning_optim.optim.sharded_matrices import assign_owners

# Rank 1 has fewer rows, or nothing, of some.
GROUPS: list[dict[str, Any]] = [
    {"shapes": [(8, 12), (9, 6), (1, 5), (8, 12)]},
    {"shapes": [(5, 3, 2, 2)], "matrix": "flatten"},
    {"shapes": [(3, 8, 4)], "matrix": "batch"},
    {"shapes": [(9, 6)], "split": 3},
    {"shapes": [(9, 6), (9, 6)], "split": [5, 1, 3]},
]
CASES: list[tuple[str, dict[str, Any]]] = [
    ("Muon", {}),
    ("Muon", {"foreach": False}),
    ("NorMuon", {"nesterov": True}),
    ("AdaMuon", {}),
    ("SOAP", {"precondition_frequency": 2, "max_size": 8}),
    ("SOAP", {"precondition_frequency": 2, "foreach": False}),
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
    line, replicas, alone = (init_device_mesh("cpu", shape) for shape in ((2,), (1, 2), (2, 1)))
    both = [Replicate(), Shard(0)]
    for name, options in CASES:
        cls = getattr(optim, name)
        whole = train(cls, options, lambda value: value)
        for mesh, placements in ((line, [Shard(0)]), (line, [Shard(1)]), (replicas, both), (alone, both)):
            sharded = train(cls, options, lambda value, m=mesh, p=placements: distribute_tensor(value, m, p))
            for ours, expected in zip(sharded, whole, strict=True):
                assert torch.equal(ours.full_tensor(), expected), (name, options, placements, expected.shape)
    check_each_is_worked_on_once(rank, line)
    check_decompositions_are_shared(rank, line)
    dist.destroy_process_group()


def check_each_is_worked_on_once(rank: int, mesh: Any) -> None:
    """Of 5 equal matrices a rank has 3 and the other 2; experts stay where they are; many are exchanged in parts."""
    worked_on: list[int] = []

    def record(stack: Tensor, **options: Any) -> Tensor:
        worked_on.append(len(stack))
        return orthogonalize(stack, **options)

    orthogonalize = matrix_member.orthogonalize
    matrix_member.orthogonalize = record
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(9, 6, generator=generator) for _ in range(5)]
    experts = torch.randn(4, 6, 5, generator=generator)
    results = []
    for max_elements in (2**26, 60):
        sharded_matrices._MAX_ELEMENTS = max_elements
        worked_on.clear()
        params = [nn.Parameter(distribute_tensor(value, mesh, [Shard(0)])) for value in (*values, experts)]
        for param in params:
            param.grad = param.detach() * 2
        optim.Muon([{"params": params[:5]}, {"params": params[5:], "matrix": "batch"}], foreach=True).step()
        # In one exchange; or in three, of at most 2 times 60 elements each. Then two experts.
        assert worked_on == ([3 - rank, 2] if max_elements > 60 else [[1, 1, 1, 2], [1, 1, 2]][rank])
        results.append([param.detach().full_tensor() for param in params])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def check_decompositions_are_shared(rank: int, mesh: Any) -> None:
    """Of 3 equal matrices rank 0 decomposes 2, and both have the same; if one fails, both raise."""
    worked_on: list[int] = []
    eigh, qr = torch.linalg.eigh, torch.linalg.qr

    def record(function: Any) -> Any:
        def recorded(stack: Tensor) -> Any:
            worked_on.append(len(stack))
            return function(stack)

        return recorded

    torch.linalg.eigh, torch.linalg.qr = record(eigh), record(qr)
    for cls, options, expected in (
        (optim.SOAP, {"precondition_frequency": 1}, [2 - rank] * 4),
        (optim.Shampoo, {}, [2 - rank] * 4),
    ):
        worked_on.clear()
        generator = torch.Generator().manual_seed(0)
        values = [torch.randn(6, 9, generator=generator) for _ in range(3)]
        params = [nn.Parameter(distribute_tensor(value, mesh, [Shard(0)])) for value in values]
        optimizer = cls(params, **options)
        for _ in range(2):
            for param in params:
                param.grad = param.detach() * 2
            optimizer.step()
        assert worked_on == expected, (cls, worked_on)
        for state in optimizer.state.values():  # also where the rank of a factor is deficient
            for name in ("row_basis", "column_basis", "row_root", "column_root"):
                if name in state:
                    ours = state[name].to_local().contiguous()
                    of_ranks = [torch.empty_like(ours) for _ in range(2)]
                    dist.all_gather(of_ranks, ours)
                    assert torch.equal(*of_ranks)
    torch.linalg.eigh, torch.linalg.qr = eigh, qr
    params[2].grad = distribute_tensor(torch.full((6, 9), float("nan")), mesh, [Shard(0)])  # rank 1 decomposes it
    with pytest.raises(ConfigError, match=r"^skip_nonfinite: the gradient of params\[2\] is not finite"):
        optimizer.step()


def test_owners_share_the_work_by_its_cost() -> None:
    assert assign_owners([1] * 5, 2) == [0, 1, 0, 1, 0]
    assert assign_owners([1, 4, 2, 1, 3], 3) == [2, 0, 2, 1, 1]


@pytest.mark.slow
def test_sharded_matrices_are_stepped_as_in_one_process_bit_by_bit(tmp_path: Path) -> None:
    """Each rank asserts; one that fails ends this test too."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["torch.distributed.tensor", "lightning_optim"])
    mp.start_processes(run_rank, args=(str(tmp_path / "store"),), nprocs=2, start_method="forkserver")
