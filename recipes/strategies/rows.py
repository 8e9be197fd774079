"""`ROWS`: the strategies that are tried, each with the number of its ranks and what is special about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MethodType
from typing import Any

import torch
from lightning.pytorch.overrides.distributed import _register_ddp_comm_hook
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.strategies.xla import XLAStrategy
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.parallel import DistributedDataParallel

from . import model
from .model import BRANCH, BUFFERS, BY_HAND, Distribute

DDP, SHARDED, FSDP1 = "DDP", "FSDP2 or tensor parallel", "FSDP1"


class FSDPOnCPU(FSDPStrategy):
    """FSDP1 on the CPU, where Lightning and torch refuse it by default: by its exact type, and without a device."""

    def _setup_model(self, model: nn.Module) -> nn.Module:
        return FullyShardedDataParallel(model, device_id=torch.device("cpu"), use_orig_params=True)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A strategy as a user types it.

    Raises whatever Lightning raises when `build` is called.
    """

    build: Callable[[], Any]
    """The Trainer's `strategy`."""
    kind: str = DDP
    ranks: int = 2
    launcher: str = ""
    """How Lightning starts the processes from inside the Trainer; empty where they run before it is built."""
    is_joint: bool = False
    """Whether rules, monitor and stages are tried in one run, where each run takes long to start."""
    distribute: Distribute | None = None
    wrapper: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of torch's DistributedDataParallel in the hand-written reference."""
    comm_hook: Callable[..., Any] | None = None
    accumulate: int = 1
    by_name: bool = False
    """Whether the rules select by name and class only, and give no other algorithm."""
    variant: str = ""
    """Of the network."""
    comm_state: Callable[[], Any] | None = None
    """What the hook keeps between steps."""
    mesh: tuple[int, int] | None = None
    """The size of the data-parallel and of the tensor-parallel dimension."""


def _ddp_with_hook(hook: Callable[..., Any], state: Any = None) -> DDPStrategy:
    """Lightning registers hooks on GPUs only."""
    strategy = DDPStrategy(ddp_comm_hook=hook, ddp_comm_state=state)

    def register(self: DDPStrategy) -> None:
        assert isinstance(self.model, DistributedDataParallel)
        _register_ddp_comm_hook(self.model, self._ddp_comm_state, self._ddp_comm_hook, self._ddp_comm_wrapper)

    strategy._register_ddp_hooks = MethodType(register, strategy)  # type: ignore[method-assign]
    return strategy


class _DeepSpeedStandIn(DDPStrategy):
    """Lightning's class cannot be built without DeepSpeed; this one has its name and its parent."""


# As in the messages of a user.
FSDPOnCPU.__name__, _DeepSpeedStandIn.__name__ = "FSDPStrategy", "DeepSpeedStrategy"


def _fsdp1() -> FSDPOnCPU:
    # A full state dict ends torch with a segmentation fault on the CPU.
    return FSDPOnCPU(state_dict_type="sharded")


def _power_sgd() -> PowerSGDState:
    return PowerSGDState(None, 1, start_powerSGD_iter=2, min_compression_rate=0.5)


def _mesh(data: int, tensor: int, distribute: Distribute, **arguments: Any) -> Row:
    """A row of ModelParallelStrategy."""
    return Row(
        build=lambda: ModelParallelStrategy(data, tensor, **arguments),
        kind=SHARDED, ranks=data * tensor, mesh=(data, tensor), distribute=distribute,
    )  # fmt: skip


def _ddp(**wrapper: Any) -> Callable[..., Row]:
    """A row of DDPStrategy with these arguments of torch's wrapper."""
    return partial(Row, build=lambda: DDPStrategy(**wrapper), wrapper=wrapper)


_FULL = {"save_distributed_checkpoint": False}

ROWS: Mapping[str, Row] = {
    "ddp": Row(build=lambda: "ddp"),
    "ddp, accumulation": Row(build=lambda: "ddp", accumulate=2),
    "ddp_find_unused_parameters_true": Row(
        build=lambda: "ddp_find_unused_parameters_true", wrapper={"find_unused_parameters": True}, variant=BRANCH
    ),
    "DDPStrategy(static_graph=True)": _ddp(static_graph=True)(),
    "DDPStrategy(static_graph=True), accumulation": _ddp(static_graph=True)(accumulate=2),
    "DDPStrategy(static_graph=True), manual optimization": _ddp(static_graph=True)(variant=BY_HAND),
    "DDPStrategy(gradient_as_bucket_view=True)": _ddp(gradient_as_bucket_view=True)(),
    "DDPStrategy(forward_sync_buffers=False)": _ddp(forward_sync_buffers=False)(variant=BUFFERS),
    "DDPStrategy(ddp_comm_hook=fp16_compress_hook)": Row(
        build=lambda: _ddp_with_hook(fp16_compress_hook), comm_hook=fp16_compress_hook
    ),
    "DDPStrategy(ddp_comm_hook=powerSGD_hook)": Row(
        build=lambda: _ddp_with_hook(powerSGD_hook, _power_sgd()), comm_hook=powerSGD_hook, comm_state=_power_sgd
    ),
    "ddp_fork": Row(build=lambda: "ddp_fork", launcher="fork"),
    "ddp_notebook": Row(build=lambda: "ddp_notebook", launcher="fork"),
    "ddp_spawn": Row(build=lambda: "ddp_spawn", launcher="spawn", is_joint=True),
    "ModelParallelStrategy(2, 1): FSDP2": _mesh(2, 1, model.shard),
    "ModelParallelStrategy(2, 1): FSDP2, full checkpoints": _mesh(2, 1, model.shard, **_FULL),
    "ModelParallelStrategy(2, 1): FSDP2 without a root": _mesh(2, 1, model.shard_without_root),
    "ModelParallelStrategy(1, 2): tensor parallel": _mesh(1, 2, model.split_tensors),
    "ModelParallelStrategy(1, 2): tensor parallel, full checkpoints": _mesh(1, 2, model.split_tensors, **_FULL),
    "ModelParallelStrategy(2, 2): FSDP2 and tensor parallel": _mesh(2, 2, model.split_and_shard),
    "ModelParallelStrategy(2, 2): HSDP": _mesh(2, 2, model.shard_and_replicate),
    "FSDPStrategy(): FSDP1": Row(build=_fsdp1, kind=FSDP1),
    "FSDPStrategy(): FSDP1, rules by name": Row(build=_fsdp1, kind=FSDP1, by_name=True),
    "DeepSpeedStrategy(): a stand-in": Row(build=_DeepSpeedStandIn),
    "xla": Row(build=XLAStrategy),
}
