"""Trains under FSDP2 in two processes, and in each of them the unsharded model next to it.

`python -m tests.support.runs.fsdp FOLDER`: rank 0 writes, for each case, the largest difference of a parameter from the
unsharded model's and from the run that a distributed checkpoint was taken from.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from tests.support.modifier_cases import MEMBER_MODIFIER_PAIRS, MODIFIER_VALUES
from tests.support.optimizer_runs import KINDS, MATRIX_MEMBERS, MEMBERS, TRACED_MEMBERS, native_class

NUM_STEPS = 4
SAVED_AT = 2
POISONED_STEP = 1
"""In this step one element of one gradient is NaN, where such steps are skipped."""
WITH_EACH_MODIFIER = ("adamw", "storm")
ALL_AROUND = ("adamw", "adai", "lamb", "muon", "nadam", "sophia_g")
IN_EACH_EXECUTION = {*KINDS, "novograd", "mars", "stable_adamw"}
"""One member of each kind, and all that sum over shards; the others are element by element, as those of their kind."""
CASES = [
    *((name, "foreach") for name in MEMBERS if name in IN_EACH_EXECUTION),
    *((name, "loop") for name in ("adamw", "lamb", "muon", "prodigy")),
    *((name, "fused") for name in TRACED_MEMBERS if name in IN_EACH_EXECUTION),
    *(
        (name, modifier)
        for name, modifier in MEMBER_MODIFIER_PAIRS
        if name in (ALL_AROUND if modifier == "all" else WITH_EACH_MODIFIER)
    ),
]
"""One member of each kind, by lists and fused; some in a loop and with all modifiers; each modifier of two."""


def new_model(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    # Two shapes: DTensor's dispatch caches by shape, and is most of the work.
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8)).to(dtype)


@cache
def sharded_models(dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """Two models that all cases of a dtype share: sharding one takes longer than training it."""
    mesh = init_device_mesh("cpu", (2,))
    first, second = new_model(dtype), new_model(dtype)
    for model in (first, second):
        fully_shard(model, mesh=mesh)
    return first, second


@torch.no_grad()
def copy_parameters(target: nn.Module, source: nn.Module) -> None:
    """Set the parameters, and drop the gradients."""
    for param, value in zip(target.parameters(), source.parameters(), strict=True):
        if isinstance(param, DTensor) and not isinstance(value, DTensor):
            rows = slice(dist.get_rank() * len(param.to_local()), None)
            param.to_local().copy_(value[rows][: len(param.to_local())])
        else:
            param.copy_(value)
        param.grad = None


def stepped_by(name: str, model: nn.Module) -> list[nn.Parameter]:
    """The parameters that a member takes."""
    return [param for param in model.parameters() if param.ndim > 1 or name not in MATRIX_MEMBERS]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    inputs = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)).to(next(model.parameters()).dtype)
    skips = optimizer.param_groups[0]["skip_nonfinite"]
    for step in steps:
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        if skips and step == POISONED_STEP:
            poison(next(model.parameters()).grad)
        optimizer.step()


def poison(grad: Tensor) -> None:
    """Set one element to NaN; of a sharded gradient, the last element of rank 1's shard."""
    if not isinstance(grad, DTensor):
        grad[-1, -1] = torch.nan
    elif dist.get_rank() == 1:
        grad.to_local()[-1, -1] = torch.nan


def max_difference(first: nn.Module, second: nn.Module) -> float:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return max((full(a) - full(b)).abs().max().item() for a, b in pairs)


def full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def run_case(name: str, case: str) -> dict[str, float]:
    options: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.1, **MODIFIER_VALUES.get(case, {})}
    if name == "sgd":  # without momentum torch finds no state that it could send to the other ranks
        options["momentum"] = 0.9
    dtype = torch.bfloat16 if case == "master_weights" else torch.double
    unsharded = new_model(dtype)
    model, resumed = sharded_models(dtype)
    for sharded in (model, resumed):
        copy_parameters(sharded, unsharded)
    execution = {"fused": True} if case == "fused" else {"foreach": case != "loop"}
    reference = native_class(name)(stepped_by(name, unsharded), fused=case == "fused", **options)
    optimizer, other = (native_class(name)(stepped_by(name, m), **execution, **options) for m in (model, resumed))
    train(unsharded, reference, range(NUM_STEPS))
    train(model, optimizer, range(SAVED_AT))
    saved = get_optimizer_state_dict(model, optimizer, options=StateDictOptions(full_state_dict=True))
    before = [full(p).clone() for p in resumed.parameters()]
    # With an optimizer that has no state, this takes a step with lr = 0, which must change nothing.
    set_optimizer_state_dict(
        resumed, other, saved, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    )
    unchanged = all(torch.equal(full(p), b) for p, b in zip(resumed.parameters(), before, strict=True))
    copy_parameters(resumed, model)
    train(model, optimizer, range(SAVED_AT, NUM_STEPS))
    train(resumed, other, range(SAVED_AT, NUM_STEPS))
    return {
        "from_unsharded": max_difference(unsharded, model),
        "from_uninterrupted": max_difference(resumed, model),
        "moved_by_loading": float(not unchanged),
        "num_skipped": float(sum(state.get("skipped", 0) for state in other.state.values())),
    }


def run_rank(rank: int, folder: str, store: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    results = {f"{name} {case}": run_case(name, case) for name, case in CASES}
    if rank == 0:
        (Path(folder) / "differences.json").write_text(json.dumps(results), encoding="utf-8")
    dist.barrier()
    print(f"rank {rank} is done", flush=True)
    os._exit(0)  # gloo's threads sometimes abort the interpreter's own exit: "terminate called without ..."


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as store_folder:
        # Forks, so that torch is imported once: no process group and no thread runs yet.
        torch.multiprocessing.start_processes(
            run_rank, args=(sys.argv[1], f"{store_folder}/store"), nprocs=2, start_method="fork"
        )
