"""The arm `unfreeze`: the cost of StagedUnfreeze in a step without a thaw, and of a plan over a large model."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_optim import OptimizerFactory, StagedUnfreeze

from .arm import Arm
from .measure import Case, Timing
from .rules import transformer

NUM_STEPS = 1000
NUM_PARAMETERS = 10_000
_STAGES: Mapping[str, Any] = {
    "head": {"params": "head"},
    "top": {"params": "backbone.1", "at": {"step": 1}, "lr_scale": 0.1, "warmup_steps": 10},
    "rest": {"params": "backbone", "at": {"step": 2}, "lr_scale": 0.1},
}
_NEVER_DUE = {"params": "backbone", "at": {"step": 10**9}}
_NO_DECAY = {"no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0}}


class _Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        self.head = nn.Linear(4, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss: Tensor = self.head(self.backbone(batch)).square().mean()
        return loss

    def configure_optimizers(self) -> Any:
        return OptimizerFactory("adamw", groups=_NO_DECAY)(self)

    def train_dataloader(self) -> Any:
        return DataLoader(torch.ones(6, 4), batch_size=2)  # type: ignore[arg-type]


class _NoTeardown(StagedUnfreeze):
    """Keeps its state when the fit is over."""

    def teardown(self, *_: Any, **__: Any) -> None:
        """Do nothing."""


def make_cases() -> Iterator[Case]:
    """The hooks of callbacks that a real fit has set up, and a plan over a model on the meta device."""
    idle = _fit(Callback())
    yield Case(name=f"{NUM_STEPS:,} steps, a callback that does nothing", run=_hook_calls(*idle))
    yield Case(name=f"{NUM_STEPS:,} steps, all thawed", run=_hook_calls(*_fit(_NoTeardown(_STAGES))))
    stages_with_one_waiting = {**_STAGES, "rest": _NEVER_DUE}
    yield Case(name=f"{NUM_STEPS:,} steps, a stage waits", run=_hook_calls(*_fit(_NoTeardown(stages_with_one_waiting))))
    model, factory = transformer(NUM_PARAMETERS), OptimizerFactory("adamw", groups=_NO_DECAY)
    layers = {"params": "backbone", "layers": "*.layer.{i}", "at": {"epoch": 1}, "each": {"epochs": 1}}
    stages = {"head": {"params": "head"}, "top": layers, "rest": {"params": "backbone", "at": {"epoch": 99}}}
    yield Case(name=f"a plan over {NUM_PARAMETERS:,}", run=partial(StagedUnfreeze(stages).explain, model, factory))


def _fit(callback: Callback) -> tuple[Callback, Trainer, LightningModule]:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    module = _Net()
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=3,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[callback],
        )
        trainer.fit(module)
    return callback, trainer, module


def _hook_calls(callback: Callback, trainer: Trainer, module: LightningModule) -> Callable[[], None]:
    """What a callback does in `NUM_STEPS` steps, without the training: its batch hooks and its optimizer hooks."""
    optimizer = trainer.optimizers[0]
    pre_hooks = list(optimizer._optimizer_step_pre_hooks.values())
    post_hooks = list(optimizer._optimizer_step_post_hooks.values())
    start, end = callback.on_train_batch_start, callback.on_train_batch_end

    def run() -> None:
        for index in range(NUM_STEPS):
            start(trainer, module, None, index)
            for hook in pre_hooks:
                hook(optimizer, (), {})
            for hook in post_hooks:
                hook(optimizer, (), {})
            end(trainer, module, None, None, index)

    return run


def _derive_findings(timings: Mapping[str, Timing]) -> dict[str, float]:
    """Microseconds per step, without those of the loop itself."""
    idle, thawed, waiting, _ = (timing.median_ms for timing in timings.values())
    per_step = 1e3 / NUM_STEPS
    return {
        "an idle step, all thawed, µs": (thawed - idle) * per_step,
        "an idle step, a stage waits, µs": (waiting - idle) * per_step,
    }


UNFREEZE = Arm(
    title="StagedUnfreeze: steps in which nothing thaws, and a plan",
    make_cases=lambda device: list(make_cases()),
    reference=f"{NUM_STEPS:,} steps, all thawed",
    uses_device=False,
    findings=_derive_findings,
)
