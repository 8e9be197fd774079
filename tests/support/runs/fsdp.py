"""Trains under FSDP2 in two processes, and in each of them the whole model beside it.

`python -m tests.support.runs.fsdp FOLDER`: rank 0 writes, for each optimizer, execution and modifier, the largest
difference of a parameter from the whole model's, and from the run that a distributed checkpoint was taken from.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

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

from tests.support.optimizer_runs import MEMBERS, PAIRS, VALUES, class_of

NUM_STEPS = 8
SAVED_AT = 4
POISONED = 3
"""The step in which one element of one gradient is not a number, where such steps are skipped."""
TRIED = [(name, modifier) for name, modifier in PAIRS if modifier == "all" or name in ("adamw", "lion", "storm")]
"""All modifiers around every rule, and each one around some."""
OPTIONS = StateDictOptions(full_state_dict=True)


def model(*, sharded: bool, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 4)).to(dtype)
    if sharded:
        mesh = init_device_mesh("cpu", (2,))
        for unit in (net[0], net[2], net):
            fully_shard(unit, mesh=mesh)
    return net


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    inputs = torch.randn(4, 8, generator=torch.Generator().manual_seed(1)).to(next(net.parameters()).dtype)
    skips = optimizer.param_groups[0]["skip_nonfinite"]
    for step in steps:
        optimizer.zero_grad()
        net(inputs).square().mean().backward()
        if skips and step == POISONED:
            poison(next(net.parameters()).grad)
        optimizer.step()


def poison(grad: Tensor) -> None:
    """Of a sharded gradient, the last element of rank 1's part."""
    if not isinstance(grad, DTensor):
        grad[-1, -1] = torch.nan
    elif dist.get_rank() == 1:
        grad.to_local()[-1, -1] = torch.nan


def apart(first: nn.Module, second: nn.Module) -> float:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return max((whole(a) - whole(b)).abs().max().item() for a, b in pairs)


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def differences(name: str, foreach: bool, modifier: str | None = None) -> dict[str, float]:
    given = {"lr": 0.01, "weight_decay": 0.1, **VALUES.get(modifier, {})}
    dtype = torch.bfloat16 if modifier == "master_weights" else torch.double
    reference, net, resumed = (model(sharded=sharded, dtype=dtype) for sharded in (False, True, True))
    alone = class_of(name)(reference.parameters(), **given)
    optimizer, other = (class_of(name)(m.parameters(), foreach=foreach, **given) for m in (net, resumed))
    train(reference, alone, range(NUM_STEPS))
    train(net, optimizer, range(SAVED_AT))
    saved = get_optimizer_state_dict(net, optimizer, options=OPTIONS)
    before = [whole(p).clone() for p in resumed.parameters()]
    # On an optimizer without state this takes a step with lr = 0, which must change nothing.
    set_optimizer_state_dict(
        resumed, other, saved, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    )
    unchanged = all(torch.equal(whole(p), b) for p, b in zip(resumed.parameters(), before, strict=True))
    with torch.no_grad():
        for p, q in zip(resumed.parameters(), net.parameters(), strict=True):
            p.copy_(q)
    train(net, optimizer, range(SAVED_AT, NUM_STEPS))
    train(resumed, other, range(SAVED_AT, NUM_STEPS))
    skipped = sum(state.get("skipped", 0) for state in other.state.values())
    return {
        "alone": apart(reference, net),
        "resumed": apart(resumed, net),
        "moved": float(not unchanged),
        "skipped": float(skipped),
    }


def main(folder: Path) -> None:
    found = {f"{name} {foreach}": differences(name, foreach) for name in MEMBERS for foreach in (False, True)}
    found |= {f"{name} {modifier}": differences(name, True, modifier) for name, modifier in TRIED}
    if dist.get_rank() == 0:
        (folder / "differences.json").write_text(json.dumps(found), encoding="utf-8")


def start(rank: int, folder: str, store: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    main(Path(folder))
    dist.barrier()
    print(f"rank {rank} is done", flush=True)
    os._exit(0)  # gloo's threads now and then abort the interpreter's own exit: "terminate called without ..."


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as place:
        torch.multiprocessing.spawn(start, args=(sys.argv[1], f"{place}/store"), nprocs=2)
