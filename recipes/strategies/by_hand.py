"""The same training as `parts`, by hand: its own wrapper, loop, optimizers of torch, lrs and stages."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.distributed.fsdp._common_utils import clean_tensor_name
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR

from lightning_optim import optim

from .fits import Step, gather, read_values
from .model import EPOCHS, Batches, Net
from .parts import DECAY, FACTORY, HIDDEN_LR, LR, SLOWER, STAGES, STEPS, THAW
from .rows import DDP, FSDP1, Row

_MATRICES = ("backbone.up.weight", "backbone.down.weight")
_MUON_DECAY = 0.1


def train(row: Row, part: str, *, fused: bool) -> list[Step]:
    """What each step leaves, as `fits.Trace` writes it, with the norms of tensors instead of the monitor's metrics.

    Args:
        row: the strategy.
        part: one of `REFERENCES`.
        fused: whether torch's AdamW is.
    """
    rules, stages = part != FACTORY, part == STAGES
    net = Net(lambda module: None, row.distribute, row.variant)
    mesh = init_device_mesh("cpu", row.mesh, mesh_dim_names=("data_parallel", "tensor_parallel")) if row.mesh else None
    if row.distribute is not None and mesh is not None:
        row.distribute(net, mesh)
    batches = _batches(row, mesh)
    if stages:
        net.backbone.requires_grad_(False)
    wrapped = _wrap(row, net, is_first=True)
    optimizers = _Optimizers(
        net, rules=rules, muon=rules and not row.by_name, fused=fused, scale=SLOWER if stages else 1.0
    )
    optimizers.add("head")
    if not stages:
        optimizers.add("backbone")
    steps: list[Step] = []
    position = 0
    for epoch in range(EPOCHS * row.accumulate):
        batches.set_epoch(epoch)
        for batch in batches:
            is_first, is_last = position % row.accumulate == 0, (position + 1) % row.accumulate == 0
            position += 1
            _reshard(net)
            if stages and is_first and len(steps) == THAW:
                net.backbone.requires_grad_(True)
                wrapped = _wrap(row, net, is_first=False)
                optimizers.add("backbone")
            if is_first:
                net.zero_grad()
            net.num_steps = len(steps)
            with nullcontext() if is_last or not hasattr(wrapped, "no_sync") else wrapped.no_sync():
                loss = nn.functional.cross_entropy(wrapped(batch[0]), batch[1])
                torch.autograd.backward(loss / row.accumulate)
            _reshard(net)
            if is_last:
                steps.append(optimizers.step(net, wrapped))
    return steps


def _batches(row: Row, mesh: DeviceMesh | None) -> Batches:
    if mesh is None:
        return Batches(torch.distributed.get_rank(), row.ranks)
    return Batches(mesh["data_parallel"].get_local_rank(), mesh["data_parallel"].size())


def _wrap(row: Row, net: nn.Module, *, is_first: bool) -> Any:
    if row.kind == DDP:
        wrapped = DistributedDataParallel(net, init_sync=is_first, **row.wrapper)
        if row.comm_hook is not None:
            wrapped.register_comm_hook(row.comm_state() if row.comm_state else None, row.comm_hook)
        return wrapped
    return (
        FullyShardedDataParallel(net, device_id=torch.device("cpu"), use_orig_params=True) if row.kind == FSDP1 else net
    )


def _reshard(net: nn.Module) -> None:
    """A frozen unit without a root stays gathered otherwise."""
    for unit in net.modules():
        if isinstance(unit, FSDPModule):
            unit.reshard()


class _Optimizers:
    """AdamW and Muon, each group on its own cosine, which has run from the first step.

    Args:
        net: the network.
        rules: whether groups differ.
        muon: whether Muon steps the backbone's matrices.
        fused: whether AdamW is.
        scale: of the backbone's lrs.
    """

    def __init__(self, net: nn.Module, *, rules: bool, muon: bool, fused: bool, scale: float) -> None:
        self._net, self._rules, self._fused, self._scale = net, rules, fused, scale
        self._matrices = _MATRICES if muon else ()
        self._optimizers: dict[str, Any] = {}
        self._groups: list[tuple[dict[str, Any], int, float]] = []
        self._bases = [LR, LR * SLOWER, HIDDEN_LR]
        # Moves lrs and nothing else.
        self._clock = SGD([{"params": [nn.Parameter(torch.zeros(()))], "lr": lr} for lr in self._bases])
        self._schedule = CosineAnnealingLR(self._clock, STEPS)

    def add(self, part: str) -> None:
        """Train the parameters of a part of the network from now on."""
        for name, parameter in self._net.named_parameters():
            if not name.startswith(part):
                continue
            algorithm, base, decay = "adamw", LR, DECAY
            if self._rules:
                is_exempt = name.endswith("bias") or "norm" in name or name.startswith("head.0")
                algorithm = "muon" if name in self._matrices else "adamw"
                base = LR * SLOWER if part == "head" else HIDDEN_LR if algorithm == "muon" else LR
                decay = _MUON_DECAY if algorithm == "muon" else 0.0 if is_exempt else DECAY
            group = {"params": [parameter], "lr": base, "weight_decay": decay}
            if algorithm in self._optimizers:
                self._optimizers[algorithm].add_param_group(group)
            elif algorithm == "muon":
                # torch's Muon multiplies shards in another order: it has no bits for them to agree with.
                muon = optim.Muon if isinstance(parameter, DTensor) else torch.optim.Muon
                self._optimizers[algorithm] = muon([group])
            else:
                self._optimizers[algorithm] = torch.optim.AdamW([group], fused=self._fused or None)
            live = self._optimizers[algorithm].param_groups[-1]
            self._groups.append((live, self._bases.index(base), self._scale if part == "backbone" else 1.0))

    def step(self, net: nn.Module, wrapped: Any) -> Step:
        """Take a step; returns what it leaves."""
        for group, base, scale in self._groups:
            group["lr"] = self._clock.param_groups[base]["lr"] * scale
        lrs = {id(group["params"][0]): group["lr"] for group, *_ in self._groups}
        named = dict(net.named_parameters())
        before = read_values(net, wrapped)
        grads = {name: None if p.grad is None else gather(p.grad) for name, p in named.items()}
        for optimizer in self._optimizers.values():
            optimizer.step()
        self._clock.step()
        self._schedule.step()
        after = read_values(net, wrapped)
        clean = {clean_tensor_name(name): p for name, p in named.items()}
        return Step(
            values=after,
            lrs={name: lrs.get(id(p)) for name, p in clean.items()},
            norms=self._norms(clean, before, after, grads),
        )

    def _norms(
        self,
        named: dict[str, nn.Parameter],
        before: dict[str, Tensor],
        after: dict[str, Tensor],
        grads: dict[str, Tensor | None],
    ) -> dict[str, float]:
        """By signal and parameter, as the monitor's tags name them."""
        norms: dict[str, Tensor] = {}
        for name, grad in grads.items():
            if grad is not None:
                norms[f"grad/{name}"] = grad
        live = {id(parameter) for group, *_ in self._groups for parameter in group["params"]}
        for name, p in named.items():
            if id(p) not in live:
                continue
            norms[f"param/{name}"] = after[name]
            norms[f"update/{name}"] = after[name] - before[name]
            for optimizer in self._optimizers.values():
                for key, value in optimizer.state.get(p, {}).items():
                    if key in ("exp_avg", "exp_avg_sq", "momentum_buffer"):
                        norms[f"{key}/{name}"] = gather(value)
        return {key: float(tensor.double().norm()) for key, tensor in norms.items()}
