"""The jobs that other people's callbacks and ours are both given: the callback differs, never the job.

Nearly all of them train one small network, whose head and backbone `tools` has the plans for. A job gives back what
happened; what is right or wrong about it, the tests say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_optim import OptimizerFactory, SchedulerFactory, configure_optimizers
from tests.support.other_tools import LR, Tool
from tests.support.processes import run_module
from tests.support.training import BATCHES, Net, Witness, fit

EPOCHS = 6

Configure = Callable[[Any], Any]
MakeScheduler = Callable[[Optimizer], Any]


class Network(Net):
    """Without BatchNorm, of which each callback has a view of its own."""

    def __init__(self, configure: Configure) -> None:
        super().__init__(configure)
        self.backbone[1] = nn.LayerNorm(8)


def sgd(module: nn.Module) -> Optimizer:
    """As Lightning and finetuning-scheduler want it written: no frozen parameter in the optimizer."""
    return torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=LR, momentum=0.9)


def scheduled(make_scheduler: MakeScheduler, interval: str = "step") -> Configure:
    """The same with a scheduler made by hand."""

    def configure(module: nn.Module) -> Any:
        optimizer = sgd(module)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": make_scheduler(optimizer), "interval": interval}}

    return configure


def from_config(scheduler: SchedulerFactory | None = None) -> Configure:
    """The same by our factories."""
    factory = OptimizerFactory("sgd", lr=LR, momentum=0.9)
    return lambda module: configure_optimizers(module, factory, scheduler)


def curve(make_scheduler: MakeScheduler, num_steps: int = EPOCHS * BATCHES) -> list[float]:
    """The lr of each step on torch's own scheduler, where the only group has been there from the start."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=LR, momentum=0.9)
    scheduler = make_scheduler(optimizer)
    lrs = []
    for _ in range(num_steps):
        lrs.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return lrs


class Run(NamedTuple):
    """What came of a fit."""

    trainer: Trainer
    module: Any
    seen: list[Any]
    """What `look` saw after each optimizer step: by default the lr of each parameter that the optimizer holds."""

    @property
    def outcome(self) -> dict[str, Any]:
        """All that a resumed run has to have in common with one that was never interrupted, bit by bit."""
        (optimizer,) = self.trainer.optimizers
        return {
            "weights": self.module.state_dict(),
            "state": {name: optimizer.state.get(p) for name, p in self.module.named_parameters()},
            "lrs": lrs_in(optimizer, self.module),
            "schedulers": [config.scheduler.state_dict() for config in self.trainer.lr_scheduler_configs],
        }

    def trained(self) -> list[str]:
        """What requires a gradient at the end."""
        return [name for name, p in self.module.named_parameters() if p.requires_grad]


def lrs_in(optimizer: Optimizer, module: nn.Module) -> dict[str, float]:
    names = {id(p): name for name, p in module.named_parameters()}
    return {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}


def look_at_lrs(trainer: Trainer, module: LightningModule) -> dict[str, float]:
    return lrs_in(trainer.optimizers[0], module)


def seeded(make: Callable[[], Any], seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return make()


def train(
    tool: Tool,
    folder: Path,
    configure: Configure = sgd,
    *,
    module: Any = None,
    look: Callable[[Trainer, LightningModule], Any] = look_at_lrs,
    before: Iterable[Callback] = (),
    after: Iterable[Callback] = (),
    save: str | None = None,
    **arguments: Any,
) -> Run:
    """One fit; with `save`, there is a checkpoint for each `step`, or for each `epoch`."""
    if module is None:
        # Other weights where a checkpoint follows: what is not restored shows.
        module = seeded(lambda: Network(configure), seed=0 if arguments.get("ckpt_path") is None else 1)
    witness = Witness(look)
    saving = []
    if save is not None:
        when = {"every_n_train_steps": 1} if save == "step" else {"save_on_train_epoch_end": True}
        saving = [tool.checkpoint(folder, f"{{{save}}}", save_top_k=-1, **when)]
    arguments = {"epochs": EPOCHS, "enable_checkpointing": bool(saving), **arguments}
    return Run(
        fit(module, folder, *before, tool.callback(), witness, *after, *saving, **arguments), module, witness.seen
    )


# T1, T7, T12, F2, F3


def resume(
    tool: Tool,
    folder: Path,
    stop: str,
    configure: Configure = sgd,
    *,
    until_then: Tool | None = None,
    tell: bool = False,
) -> tuple[Run, Run]:
    """A run that is never interrupted, and one that goes on from a checkpoint of it.

    Args:
        tool: the callback.
        folder: for the checkpoints.
        stop: which, for example `epoch=1`, which is the end of epoch 1.
        configure: for `configure_optimizers`.
        until_then: the callback of the first run, if it had another plan.
        tell: set `trainer.ckpt_path` too, as one may before `fit`.
    """
    full = train(until_then or tool, folder, configure, save=stop.partition("=")[0])
    path = folder / f"{stop}.ckpt"
    before = [_Tells(path)] if tell else []
    return full, train(tool, folder / "again", configure, before=before, ckpt_path=path)


class _Tells(Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        trainer.ckpt_path = self.path


# T2, F4, F5


def follow_a_schedule(tool: Tool, folder: Path, make_scheduler: MakeScheduler) -> tuple[list[float], list[float]]:
    """The lrs of the head and of the last layer of the backbone, step by step, for as long as that one is trained."""
    seen = train(tool, folder, scheduled(make_scheduler)).seen
    late = [lrs["backbone.3.weight"] for lrs in seen if "backbone.3.weight" in lrs]
    return [lrs["head.weight"] for lrs in seen], late


# T3


class Twins(Network):
    """A backbone of two blocks with a LayerNorm each."""

    def __init__(self) -> None:
        super().__init__(sgd)
        blocks = [nn.Sequential(nn.Linear(width, 8), nn.LayerNorm(8), nn.ReLU()) for width in (4, 8)]
        self.backbone = nn.Sequential(*blocks)


def thaw_two_fresh_blocks(tool: Tool, folder: Path) -> tuple[Run, list[str]]:
    """At once, each at an lr of its own; also what requires a gradient then and is in no param group."""
    run = train(tool, folder, module=seeded(Twins), epochs=2)
    return run, [name for name in run.trained() if name not in run.seen[-1]]


# T4


def give_the_whole_model(tool: Tool, folder: Path) -> list[dict[str, float]]:
    """`configure_optimizers` says `self.parameters()`; the lrs of each epoch."""
    return train(tool, folder, lambda module: torch.optim.SGD(list(module.parameters()), lr=LR)).seen[::BATCHES]


# T5, T9, F1


def run_two_processes(strategy: str, name: str, folder: Path, *ckpt_path: Path) -> list[list[dict[str, Any]]]:
    """For each rank: the weights, what is trained and the lrs after each optimizer step."""
    folder.mkdir(exist_ok=True)
    run_module("tests.support.runs.other_tools", strategy, name, folder, *ckpt_path, timeout_s=120)
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


def steps_apart(replicas: list[list[dict[str, Any]]]) -> list[int]:
    """After which optimizer steps the two replicas have different weights."""
    pairs = zip(*([step["weights"] for step in replica] for replica in replicas), strict=True)
    return [step for step, (a, b) in enumerate(pairs) if not all(torch.equal(a[name], b[name]) for name in a)]


# T6


class Normed(NamedTuple):
    """What a BatchNorm did in a training step."""

    by_running_statistics: bool
    moved_statistics: bool
    moved_weights: bool
    lr: float | None
    """At which its weights are trained."""


def keep_a_batchnorm_frozen(tool: Tool, folder: Path) -> list[Normed]:
    """One epoch, in which all of the backbone is frozen."""
    module = seeded(lambda: Net(sgd))
    norm: Any = module.backbone[1]
    usual: list[bool] = []

    def now() -> list[Tensor]:
        return [t.detach().clone() for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)]

    def compare(layer: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        expected = nn.functional.batch_norm(inputs[0], *now(), training=False, eps=layer.eps)
        usual.append(torch.equal(output, expected))

    def look(trainer: Trainer, module: LightningModule) -> Normed:
        nonlocal was
        moved = [not torch.equal(a, b) for a, b in zip(was, now(), strict=True)]
        was = now()
        lr = look_at_lrs(trainer, module).get("backbone.1.weight")
        return Normed(usual[-1], any(moved[:2]), any(moved[2:]), lr)

    was = now()
    norm.register_forward_hook(compare)
    return train(tool, folder, module=module, look=look, epochs=1).seen


# T8


class TwoHeads(Network):
    """The first optimizer has a head and what of the backbone is trained, the second another head."""

    automatic_optimization = False

    def __init__(self) -> None:
        super().__init__(lambda module: None)
        self.other = nn.Linear(8, 3)

    def configure_optimizers(self) -> Any:
        first = [p for p in (*self.head.parameters(), *self.backbone.parameters()) if p.requires_grad]
        return [torch.optim.SGD(first, lr=LR), torch.optim.SGD(self.other.parameters(), lr=LR)]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        optimizers: Any = self.optimizers()
        features = self.backbone(batch[0])
        losses = [nn.functional.cross_entropy(head(features), batch[1]) for head in (self.head, self.other)]
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(losses[0] + losses[1])
        for optimizer in optimizers:
            optimizer.step()


def thaw_under_two_optimizers(tool: Tool, folder: Path) -> list[list[dict[str, float]]]:
    """The lrs in each of the optimizers, epoch by epoch."""

    def look(trainer: Trainer, module: LightningModule) -> list[dict[str, float]]:
        return [lrs_in(optimizer, module) for optimizer in trainer.optimizers]

    return train(tool, folder, module=seeded(TwoHeads), look=look, epochs=4).seen[::BATCHES]


# T10


def log_the_lrs(tool: Tool, folder: Path) -> list[set[str]]:
    """Under which tags LearningRateMonitor logs in each of three epochs."""

    class Tags(CSVLogger):
        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            if lrs := {tag for tag in metrics if tag.startswith("lr-")}:
                tags.append(lrs)

    tags: list[set[str]] = []
    configure = scheduled(lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9), "epoch")
    monitor = LearningRateMonitor(logging_interval="epoch")
    train(tool, folder, configure, after=[monitor], epochs=3, logger=Tags(folder), log_every_n_steps=100)
    return tags


# T11


class Borrower(Network):
    """Trains a temperature that belongs to somebody else: it is in the optimizer, and no parameter of the module."""

    def __init__(self) -> None:
        super().__init__(sgd)
        self.borrowed = [nn.Parameter(torch.ones(()))]

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) / self.borrowed[0]

    def configure_optimizers(self) -> Any:
        optimizer = sgd(self)
        optimizer.add_param_group({"params": self.borrowed})
        return optimizer


def train_what_the_module_does_not_have(tool: Tool, folder: Path) -> list[float]:
    """The temperature after each step."""
    return train(tool, folder, module=seeded(Borrower), look=lambda _, module: module.borrowed[0].item()).seen


# F6


class Deep(Network):
    """A backbone of eleven layers: the number of one begins like that of another."""

    def __init__(self) -> None:
        super().__init__(sgd)
        self.backbone = nn.Sequential(nn.Linear(4, 8), *(nn.Linear(8, 8) for _ in range(10)))


def thaw_one_of_eleven_layers(tool: Tool, folder: Path) -> list[str]:
    """What of the backbone is trained, in the second epoch of two, once layer 1 has thawed."""
    (trained,) = {tuple(lrs) for lrs in train(tool, folder, module=seeded(Deep), epochs=2).seen[BATCHES:]}
    return [name for name in trained if name.startswith("backbone")]
