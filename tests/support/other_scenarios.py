"""The jobs that other tools' callbacks and ours are both given: only the callback differs.

Nearly all of them train one small network whose head and backbone the plans of `other_tools` name. A job returns what
happened; the tests say what is right or wrong about it.
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
from tests.support.training import BATCHES, Net, StepTrace, fit

EPOCHS = 6

Configure = Callable[[Any], Any]
MakeScheduler = Callable[[Optimizer], Any]


class LayerNormNet(Net):
    """Without BatchNorm, which each callback handles differently."""

    def __init__(self, configure: Configure) -> None:
        super().__init__(configure)
        self.backbone[1] = nn.LayerNorm(8)


def make_sgd(module: nn.Module) -> Optimizer:
    """As Lightning and finetuning-scheduler document it: no frozen parameter in the optimizer."""
    return torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=LR, momentum=0.9)


def sgd_with(make_scheduler: MakeScheduler, interval: str = "step") -> Configure:
    """The same with a scheduler."""

    def configure(module: nn.Module) -> Any:
        optimizer = make_sgd(module)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": make_scheduler(optimizer), "interval": interval}}

    return configure


def sgd_from_config(scheduler: SchedulerFactory | None = None) -> Configure:
    """The same from our factories."""
    factory = OptimizerFactory("sgd", lr=LR, momentum=0.9)
    return lambda module: configure_optimizers(module, factory, scheduler)


def expected_lrs(make_scheduler: MakeScheduler, num_steps: int = EPOCHS * BATCHES) -> list[float]:
    """The lr of each step under torch's own scheduler, for a single group that is there from the start."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=LR, momentum=0.9)
    scheduler = make_scheduler(optimizer)
    lrs = []
    for _ in range(num_steps):
        lrs.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return lrs


class Run(NamedTuple):
    """The result of a fit."""

    trainer: Trainer
    module: Any
    records: list[Any]
    """What `record` returned after each optimizer step: by default the lr of each parameter in the optimizer."""

    @property
    def final_state(self) -> dict[str, Any]:
        """All that must be equal, bit by bit, in a resumed run and in one that was never interrupted."""
        (optimizer,) = self.trainer.optimizers
        return {
            "weights": self.module.state_dict(),
            "state": {name: optimizer.state.get(p) for name, p in self.module.named_parameters()},
            "lrs": lrs_by_name(optimizer, self.module),
            "schedulers": [config.scheduler.state_dict() for config in self.trainer.lr_scheduler_configs],
        }

    def trainable_names(self) -> list[str]:
        """The parameters that require a gradient at the end."""
        return [name for name, p in self.module.named_parameters() if p.requires_grad]


def lrs_by_name(optimizer: Optimizer, module: nn.Module) -> dict[str, float]:
    names = {id(p): name for name, p in module.named_parameters()}
    return {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}


def record_lrs(trainer: Trainer, module: LightningModule) -> dict[str, float]:
    return lrs_by_name(trainer.optimizers[0], module)


def build_seeded(build: Callable[[], Any], seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return build()


def train(
    tool: Tool,
    folder: Path,
    configure: Configure = make_sgd,
    *,
    module: Any = None,
    record: Callable[[Trainer, LightningModule], Any] = record_lrs,
    callbacks_before: Iterable[Callback] = (),
    callbacks_after: Iterable[Callback] = (),
    save: str | None = None,
    **arguments: Any,
) -> Run:
    """One fit. `save` may be `step` or `epoch`: there is then a checkpoint for each of them."""
    if module is None:
        # Other initial weights if a checkpoint is loaded: this shows what is not restored.
        module = build_seeded(lambda: LayerNormNet(configure), seed=0 if arguments.get("ckpt_path") is None else 1)
    trace = StepTrace(record)
    checkpoints = []
    if save is not None:
        when = {"every_n_train_steps": 1} if save == "step" else {"save_on_train_epoch_end": True}
        checkpoints = [tool.checkpoint_class(folder, f"{{{save}}}", save_top_k=-1, **when)]
    arguments = {"epochs": EPOCHS, "enable_checkpointing": bool(checkpoints), **arguments}
    callbacks = [*callbacks_before, tool.make_callback(), trace, *callbacks_after, *checkpoints]
    return Run(fit(module, folder, *callbacks, **arguments), module, trace.steps)


# T1, T7, T12, F2, F3


def resume(
    tool: Tool,
    folder: Path,
    stop: str,
    configure: Configure = make_sgd,
    *,
    first_tool: Tool | None = None,
    set_ckpt_path: bool = False,
) -> tuple[Run, Run]:
    """A run that is never interrupted, and one that resumes from a checkpoint of it.

    Args:
        tool: the callback.
        folder: for the checkpoints.
        stop: the checkpoint to resume from, for example `epoch=1`, which is the end of epoch 1.
        configure: for `configure_optimizers`.
        first_tool: the callback of the first run, if it had another plan.
        set_ckpt_path: set `trainer.ckpt_path` too, as users may do before `fit`.
    """
    full = train(first_tool or tool, folder, configure, save=stop.partition("=")[0])
    path = folder / f"{stop}.ckpt"
    callbacks = [_SetCkptPath(path)] if set_ckpt_path else []
    return full, train(tool, folder / "resumed", configure, callbacks_before=callbacks, ckpt_path=path)


class _SetCkptPath(Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        trainer.ckpt_path = self.path


# T2, F4, F5


def train_with_scheduler(tool: Tool, folder: Path, make_scheduler: MakeScheduler) -> tuple[list[float], list[float]]:
    """The lrs of the head, and those of the last layer of the backbone from its thaw on, step by step."""
    records = train(tool, folder, sgd_with(make_scheduler)).records
    thawed = [lrs["backbone.3.weight"] for lrs in records if "backbone.3.weight" in lrs]
    return [lrs["head.weight"] for lrs in records], thawed


# T3


class TwoBlocks(LayerNormNet):
    """A backbone of two blocks with a LayerNorm each."""

    def __init__(self) -> None:
        super().__init__(make_sgd)
        blocks = [nn.Sequential(nn.Linear(width, 8), nn.LayerNorm(8), nn.ReLU()) for width in (4, 8)]
        self.backbone = nn.Sequential(*blocks)


def thaw_two_untrained_blocks(tool: Tool, folder: Path) -> tuple[Run, list[str]]:
    """At once, each with its own lr; also returns the parameters that then require a gradient but have no group."""
    run = train(tool, folder, module=build_seeded(TwoBlocks), epochs=2)
    return run, [name for name in run.trainable_names() if name not in run.records[-1]]


# T4


def train_with_all_parameters_in_the_optimizer(tool: Tool, folder: Path) -> list[dict[str, float]]:
    """`configure_optimizers` passes `self.parameters()`; returns the lrs of each epoch."""
    run = train(tool, folder, lambda module: torch.optim.SGD(list(module.parameters()), lr=LR))
    return run.records[::BATCHES]


# T5, T9, F1


Replicas = list[list[dict[str, Any]]]
"""For each rank: the weights, the trained parameters and the lrs after each optimizer step."""


def run_two_processes(strategy: str, tool: str, folder: Path) -> Replicas:
    run_module("tests.support.runs.other_tools", strategy, tool, folder, timeout_s=120)
    return _load_replicas(folder)


def resume_two_processes(strategy: str, tool: str, folder: Path, stop: str) -> tuple[Replicas, Replicas]:
    """A run that is never interrupted, and one that resumes from the checkpoint `stop` of it."""
    run_module("tests.support.runs.other_tools", strategy, tool, folder, stop, timeout_s=120)
    return _load_replicas(folder), _load_replicas(folder / "resumed")


def _load_replicas(folder: Path) -> Replicas:
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


def diverged_steps(replicas: Replicas) -> list[int]:
    """The optimizer steps after which the two replicas have different weights."""
    pairs = zip(*([step["weights"] for step in replica] for replica in replicas), strict=True)
    return [step for step, (a, b) in enumerate(pairs) if not all(torch.equal(a[name], b[name]) for name in a)]


# T6


class BatchNormStep(NamedTuple):
    """What a BatchNorm did in a training step."""

    used_running_statistics: bool
    changed_statistics: bool
    changed_weights: bool
    lr: float | None
    """The lr of its weights in the optimizer."""


def train_with_frozen_batchnorm(tool: Tool, folder: Path) -> list[BatchNormStep]:
    """One epoch in which the whole backbone is frozen."""
    module = build_seeded(lambda: Net(make_sgd))
    norm: Any = module.backbone[1]
    used_running_statistics: list[bool] = []

    def snapshot() -> list[Tensor]:
        return [t.detach().clone() for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)]

    def compare(layer: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        expected = nn.functional.batch_norm(inputs[0], *snapshot(), training=False, eps=layer.eps)
        used_running_statistics.append(torch.equal(output, expected))

    def record(trainer: Trainer, module: LightningModule) -> BatchNormStep:
        nonlocal previous
        changed = [not torch.equal(a, b) for a, b in zip(previous, snapshot(), strict=True)]
        previous = snapshot()
        lr = record_lrs(trainer, module).get("backbone.1.weight")
        return BatchNormStep(used_running_statistics[-1], any(changed[:2]), any(changed[2:]), lr)

    previous = snapshot()
    norm.register_forward_hook(compare)
    return train(tool, folder, module=module, record=record, epochs=1).records


# T8


class TwoHeads(LayerNormNet):
    """The first optimizer has one head and the trainable part of the backbone, the second another head."""

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


def thaw_with_two_optimizers(tool: Tool, folder: Path) -> list[list[dict[str, float]]]:
    """The lrs in each of the optimizers, epoch by epoch."""

    def record(trainer: Trainer, module: LightningModule) -> list[dict[str, float]]:
        return [lrs_by_name(optimizer, module) for optimizer in trainer.optimizers]

    return train(tool, folder, module=build_seeded(TwoHeads), record=record, epochs=4).records[::BATCHES]


# T10


def log_lrs(tool: Tool, folder: Path) -> list[set[str]]:
    """The tags that LearningRateMonitor logs in each of three epochs."""

    class TagLogger(CSVLogger):
        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            if lr_tags := {tag for tag in metrics if tag.startswith("lr-")}:
                tags.append(lr_tags)

    tags: list[set[str]] = []
    configure = sgd_with(lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9), "epoch")
    monitor = LearningRateMonitor(logging_interval="epoch")
    logging = {"logger": TagLogger(folder), "log_every_n_steps": 100}
    train(tool, folder, configure, callbacks_after=[monitor], epochs=3, **logging)
    return tags


# T11


class ExternalTemperature(LayerNormNet):
    """Trains a temperature that belongs to another object: the optimizer has it, the module does not."""

    def __init__(self) -> None:
        super().__init__(make_sgd)
        self.external = [nn.Parameter(torch.ones(()))]

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) / self.external[0]

    def configure_optimizers(self) -> Any:
        optimizer = make_sgd(self)
        optimizer.add_param_group({"params": self.external})
        return optimizer


def train_parameter_outside_the_module(tool: Tool, folder: Path) -> list[float]:
    """The temperature after each step."""
    module = build_seeded(ExternalTemperature)
    return train(tool, folder, module=module, record=lambda _, module: module.external[0].item()).records


# F6


class ElevenLayers(LayerNormNet):
    """A backbone of eleven layers: the number of one is a prefix of the number of another."""

    def __init__(self) -> None:
        super().__init__(make_sgd)
        self.backbone = nn.Sequential(nn.Linear(4, 8), *(nn.Linear(8, 8) for _ in range(10)))


def thaw_layer_1_of_eleven(tool: Tool, folder: Path) -> list[str]:
    """The parameters of the backbone that are trained in the second of two epochs, after the thaw."""
    run = train(tool, folder, module=build_seeded(ElevenLayers), epochs=2)
    (trained,) = {tuple(lrs) for lrs in run.records[BATCHES:]}
    return [name for name in trained if name.startswith("backbone")]
