"""A network with a backbone and a head, its batches, and the ways to distribute it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

BATCHES, EPOCHS = 4, 2
_SEED = 0

BRANCH = "a layer that only the first rank uses, and only in every second step"
BUFFERS = "buffers that differ between ranks"
BY_HAND = "manual optimization"

Distribute = Callable[["Net", DeviceMesh], None]


class Batches:
    """This rank's rows of four batches, in an order that depends only on the epoch; resumes within an epoch.

    Args:
        rank: among those that get different rows.
        num_ranks: that get different rows.
    """

    def __init__(self, rank: int, num_ranks: int) -> None:
        generator = torch.Generator().manual_seed(_SEED)
        self.inputs = torch.randn(BATCHES, 8, 4, generator=generator)[:, rank::num_ranks]
        self.targets = torch.randint(0, 3, (BATCHES, 8), generator=generator)[:, rank::num_ranks]
        self.epoch = self.position = 0
        self.batch_sampler = SimpleNamespace(sampler=self)  # where Lightning looks for set_epoch

    def __len__(self) -> int:
        return BATCHES

    def set_epoch(self, epoch: int) -> None:
        """What Lightning calls at the start of an epoch."""
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.position >= BATCHES:
            self.epoch, self.position = self.epoch + 1, 0
        order = torch.randperm(BATCHES, generator=torch.Generator().manual_seed(self.epoch))
        for index in order[self.position :]:
            self.position += 1
            yield self.inputs[index], self.targets[index]

    def state_dict(self) -> dict[str, int]:
        """For Lightning's checkpoints."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """From Lightning's checkpoints."""
        self.epoch, self.position = state["epoch"], state["position"]


class Backbone(nn.Module):
    """Its two matrices can be split over ranks by columns and by rows."""

    def __init__(self, *, has_branch: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.up = nn.Linear(4, 8)
        self.down = nn.Linear(8, 8)
        self.branch = nn.Linear(4, 8) if has_branch else None

    def forward(self, inputs: Tensor, *, uses_branch: bool) -> Tensor:
        hidden: Tensor = self.down(torch.relu(self.up(self.norm(inputs))))
        return hidden + self.branch(inputs) if uses_branch and self.branch is not None else hidden


class Net(LightningModule):
    """The network; its weights are the same each time.

    Args:
        configure: its `configure_optimizers`; can be pickled.
        distribute: over the strategy's mesh of devices, where the strategy leaves that to the module.
        variant: empty, or one of the names above.
    """

    def __init__(
        self, configure: Callable[[Net], Any], distribute: Distribute | None = None, variant: str = ""
    ) -> None:
        super().__init__()
        torch.manual_seed(_SEED)
        self.backbone = Backbone(has_branch=variant == BRANCH)
        head = nn.Linear(8, 3)
        self.head: nn.Module = nn.Sequential(nn.BatchNorm1d(8), head) if variant == BUFFERS else head
        self.automatic_optimization = variant != BY_HAND
        self.num_steps = 0
        self._configure, self._distribute = configure, distribute

    def forward(self, inputs: Tensor) -> Tensor:
        uses_branch = self.backbone.branch is not None and self.num_steps % 2 and torch.distributed.get_rank() == 0
        logits: Tensor = self.head(self.backbone(inputs, uses_branch=bool(uses_branch)))
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.num_steps = self.trainer.global_step
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        if not self.automatic_optimization:
            self._step(loss)
        return loss

    def _step(self, loss: Tensor) -> None:
        optimizer: Any = self.optimizers()
        scheduler: Any = self.lr_schedulers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        scheduler.step()

    def train_dataloader(self) -> Batches:
        sampler = self.trainer.distributed_sampler_kwargs or {"rank": 0, "num_replicas": 1}
        return Batches(sampler["rank"], sampler["num_replicas"])

    def configure_model(self) -> None:
        if self._distribute is not None:
            assert self.device_mesh is not None
            self._distribute(self, self.device_mesh)

    def configure_optimizers(self) -> Any:
        return self._configure(self)


def shard(module: Net, mesh: DeviceMesh) -> None:
    """FSDP2: the backbone, the head and the module around them are units."""
    for unit in (module.backbone, module.head, module):
        fully_shard(unit, mesh=mesh["data_parallel"])


def shard_without_root(module: Net, mesh: DeviceMesh) -> None:
    """FSDP2: the backbone and the head are units."""
    for unit in (module.backbone, module.head):
        fully_shard(unit, mesh=mesh["data_parallel"])


def split_tensors(module: Net, mesh: DeviceMesh) -> None:
    """Tensor parallelism: the backbone's matrices are split, its norm and the head are plain tensors on every rank."""
    parallelize_module(
        module, mesh["tensor_parallel"], {"backbone.up": ColwiseParallel(), "backbone.down": RowwiseParallel()}
    )


def split_and_shard(module: Net, mesh: DeviceMesh) -> None:
    """Tensor parallelism inside FSDP2, on a mesh of two dimensions."""
    split_tensors(module, mesh)
    shard(module, mesh)


def shard_and_replicate(module: Net, mesh: DeviceMesh) -> None:
    """HSDP: sharded over one dimension of the mesh, replicated over the other."""
    for unit in (module.backbone, module.head, module):
        fully_shard(unit, mesh=mesh)
