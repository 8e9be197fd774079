"""Lightning runs of 48 steps that the scoreboard interrupts: each mechanism, and what must be equal at their end."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers.logger import DummyLogger

from lightning_optim import (
    EvalWeights,
    OptimizerFactory,
    OptimizerMonitor,
    RNGState,
    SchedulerFactory,
    SophiaHessian,
    StagedUnfreeze,
    configure_optimizers,
)
from lightning_optim.telemetry.tags import is_setting, split_tag
from tests.reliability.scoreboard.outcome import Outcome, Verdict, compare
from tests.support.runs.common import to_full
from tests.support.staged_plans import DeepNet, layers, on_plateau
from tests.support.training import BATCHES, Net, fit

EPOCHS = 12
NUM_STEPS = EPOCHS * BATCHES
"""48."""
SAVE_EVERY = 5
"""Optimizer steps between two checkpoints: so many are taken again at most."""
NO_DECAY = {"no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0}}
MUON = {"hidden": {"params": "backbone", "kinds": ["matrix"], "optimizer": "muon", "lr": 0.02}}
STAGES = {
    "head": {"params": "head"},
    "top": layers(at={"any": [{"step": 7}, on_plateau("val/loss")]}, each={"steps": 6}, lr_scale=0.5, warmup_steps=3),
    "rest": {"params": "backbone", "at": {"step": 30}, "lr_scale": 0.25},
}
COSINE = SchedulerFactory("warmup_cosine", warmup_steps=6)


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """What a run trains with, besides RNGState."""

    optimizer: OptimizerFactory
    scheduler: SchedulerFactory | None = COSINE
    callbacks: Callable[[], list[Callback]] = list
    dtype: torch.dtype = torch.float32
    trainer: Mapping[str, Any] = field(default_factory=dict)

    def build_module(self) -> Net:
        """A network with BatchNorm, dropout and a validation."""
        module = DeepNet()
        module.configure = lambda module: configure_optimizers(module, self.optimizer, self.scheduler)
        return module.to(self.dtype) if self.dtype is torch.float32 else _HalfNet(module, self.dtype)


def _HalfNet(module: Net, dtype: torch.dtype) -> Net:  # noqa: N802
    """The network with parameters of another dtype, which are given batches of it."""

    class HalfNet(type(module)):  # type: ignore[misc]
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs.to(dtype)).float()

    module.__class__ = HalfNet
    return module.to(dtype)


class AverageEachStep(WeightAveraging):
    """Averages the weights of every step."""

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None


def _monitor() -> list[Callback]:
    return [OptimizerMonitor(1, update_norm=True, cosine=True, per_parameter=True)]


MECHANISMS: dict[str, Mechanism] = {
    "adamw, torch's, rules": Mechanism(optimizer=OptimizerFactory("adamw", lr=0.02, groups=NO_DECAY)),
    "adamw, ours, one_cycle": Mechanism(
        optimizer=OptimizerFactory("adamw", lr=0.02, implementation="own"), scheduler=SchedulerFactory("one_cycle")
    ),
    "sgd with momentum": Mechanism(optimizer=OptimizerFactory("sgd", lr=0.05, momentum=0.9)),
    "lion": Mechanism(optimizer=OptimizerFactory("lion", lr=0.005, weight_decay=0.1)),
    "muon + adamw": Mechanism(optimizer=OptimizerFactory("adamw", lr=0.02, groups={**MUON, **NO_DECAY})),
    "sophia_g, SophiaHessian": Mechanism(
        optimizer=OptimizerFactory("sophia_g", lr=0.02), callbacks=lambda: [SophiaHessian(3)]
    ),
    "prodigy": Mechanism(optimizer=OptimizerFactory("prodigy"), scheduler=None),
    "reduce_on_plateau": Mechanism(
        optimizer=OptimizerFactory("adamw", lr=0.05),
        scheduler=SchedulerFactory("reduce_on_plateau", monitor="val/loss", interval="epoch", patience=0, factor=0.75),
    ),
    "all modifiers": Mechanism(
        optimizer=OptimizerFactory(
            "adamw",
            lr=0.02,
            skip_nonfinite=True,
            lookahead={"k": 4},
            cautious_update=True,
            adaptive_clip=0.1,
            centralize_gradients=True,
        )
    ),
    "master_weights, bfloat16": Mechanism(
        optimizer=OptimizerFactory("adamw", lr=0.02, master_weights=True), dtype=torch.bfloat16
    ),
    "StagedUnfreeze": Mechanism(
        optimizer=OptimizerFactory("adamw", lr=0.02, groups=NO_DECAY), callbacks=lambda: [StagedUnfreeze(STAGES)]
    ),
    "StagedUnfreeze, muon + adamw": Mechanism(
        optimizer=OptimizerFactory("adamw", lr=0.02, groups=MUON), callbacks=lambda: [StagedUnfreeze(STAGES)]
    ),
    "OptimizerMonitor": Mechanism(optimizer=OptimizerFactory("adamw", lr=0.02, groups=NO_DECAY), callbacks=_monitor),
    "OptimizerMonitor, StagedUnfreeze": Mechanism(
        optimizer=OptimizerFactory("adamw", lr=0.02), callbacks=lambda: [StagedUnfreeze(STAGES), *_monitor()]
    ),
    "WeightAveraging, StagedUnfreeze": Mechanism(
        optimizer=OptimizerFactory("adamw", lr=0.02), callbacks=lambda: [StagedUnfreeze(STAGES), AverageEachStep()]
    ),
    "accumulating 4 batches": Mechanism(
        optimizer=OptimizerFactory("adamw", lr=0.02), trainer={"accumulate_grad_batches": 4}
    ),
    "schedule_free, EvalWeights, StagedUnfreeze": Mechanism(
        optimizer=OptimizerFactory("adamw", lr=0.02, schedule_free={"warmup_steps": 6}),
        scheduler=None,
        callbacks=lambda: [StagedUnfreeze(STAGES), EvalWeights()],
    ),
}
"""By name."""
STAGED = [name for name, it in MECHANISMS.items() if any(isinstance(c, StagedUnfreeze) for c in it.callbacks())]


class Rows(DummyLogger):
    """Records the rows of the monitor."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        own = {tag: value for tag, value in metrics.items() if tag.startswith("optim")}
        if own:
            self.rows.append((step, own))


class Trace(Callback):
    """After each batch: the number of optimizer steps, the loss, and each group's values."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        keys = ("name", "lr", "weight_decay", "betas", "momentum", "param_names")
        groups = [{key: copy.copy(g[key]) for key in keys if key in g} for g in trainer.optimizers[0].param_groups]
        self.rows.append((trainer.global_step, outputs["loss"].detach().clone(), groups))


def train(
    mechanism: Mechanism,
    folder: Path,
    *callbacks: Callback,
    ckpt_path: Path | None = None,
    every_n_steps: int = SAVE_EVERY,
    **arguments: Any,
) -> dict[str, Any]:
    """Train to the end; returns the rows of the steps taken here, the monitor's, and the state at the end.

    Args:
        mechanism: to train with.
        folder: gets the checkpoints `step=<n>.ckpt`.
        callbacks: besides those of the mechanism.
        ckpt_path: to resume from: with other initial weights and another seed, so that what is not restored shows.
        every_n_steps: between two checkpoints.
        arguments: of the Trainer, besides those of the mechanism.
    """
    torch.manual_seed(0 if ckpt_path is None else 100)
    module, trace, rows = mechanism.build_module(), Trace(), Rows()
    saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=every_n_steps, save_top_k=-1)
    own = mechanism.callbacks()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = fit(
            module, folder, *own, RNGState(), *callbacks, trace, saving, epochs=EPOCHS, ckpt_path=ckpt_path,
            seed=1 if ckpt_path is None else 2,
            **{"enable_checkpointing": True, "logger": rows, "log_every_n_steps": 1, **mechanism.trainer, **arguments},
        )  # fmt: skip
    return {"trace": trace.rows, "monitor": _with_settings(rows.rows), "end": read_end(trainer, module)}


def read_end(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """Everything that a run is left with."""
    optimizer = trainer.optimizers[0]
    names = {id(param): name for name, param in module.named_parameters()}
    end = {
        "weights": {name: to_full(value) for name, value in module.state_dict().items()},
        "states": {
            names[id(p)]: {key: to_full(value) for key, value in optimizer.state[p].items()}
            for group in optimizer.param_groups for p in group["params"]
        },
        "groups": [{key: value for key, value in g.items() if key != "params"} for g in optimizer.param_groups],
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "trainable": [name for name, param in module.named_parameters() if param.requires_grad],
    }  # fmt: skip
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, StagedUnfreeze) and trainer.world_size == 1:
            end["stages"] = callback.state_dict()
        if isinstance(callback, WeightAveraging):
            end["average"] = callback._average_model.state_dict()  # type: ignore[union-attr]
    return copy.deepcopy(end)


_REFERENCES: dict[str, dict[str, Any]] = {}


def reference(name: str) -> dict[str, Any]:
    """The uninterrupted run of a mechanism."""
    if name not in _REFERENCES:
        with tempfile.TemporaryDirectory() as folder:
            _REFERENCES[name] = train(MECHANISMS[name], Path(folder))
    return _REFERENCES[name]


def find_newest(folder: Path) -> Path | None:
    """The checkpoint of the most steps; None where there is none."""
    return max(folder.glob("*.ckpt"), key=step_of, default=None)


def step_of(path: Path) -> int:
    """The number of optimizer steps in a checkpoint's name."""
    return int(path.stem.split("=")[1].split("-")[0])


def resume_and_compare(name: str, folder: Path, ckpt_path: Path | None) -> Outcome:
    """Train the rest from a checkpoint, or all from the start, and compare it with the uninterrupted run."""
    resumed = train(MECHANISMS[name], folder / "resumed", ckpt_path=ckpt_path)
    if ckpt_path is not None:
        step = torch.load(ckpt_path, weights_only=True)["global_step"]
        if step != step_of(ckpt_path):
            return Outcome(Verdict.SILENT_WRONG, f"{ckpt_path.name} holds step {step}")
    return compare(rest_of(reference(name), ckpt_path), resumed)


def rest_of(full: Mapping[str, Any], ckpt_path: Path | None) -> dict[str, Any]:
    """What a run that resumes from this checkpoint must do: the rows after it, and the end."""
    saved = 0 if ckpt_path is None else step_of(ckpt_path)
    rows = [(step, row) for step, row in full["monitor"] if step is None or step >= saved]
    return {**full, "trace": full["trace"][_num_batches(ckpt_path) :], "monitor": rows}


def _num_batches(ckpt_path: Path | None) -> int:
    """The trained batches of a checkpoint: it may have been saved between those that one step accumulates."""
    if ckpt_path is None:
        return 0
    loops = torch.load(ckpt_path, weights_only=True)["loops"]["fit_loop"]
    return int(loops["epoch_loop.batch_progress"]["total"]["processed"])


def _with_settings(rows: list[tuple[int | None, dict[str, float]]]) -> list[tuple[int | None, dict[str, float]]]:
    """The rows, each with all settings: the monitor logs one at the start of a run and where it has changed."""
    settings: dict[str, float] = {}
    filled = []
    for step, row in rows:
        parts = {tag: split_tag(tag) for tag in row}
        settings |= {tag: row[tag] for tag, part in parts.items() if part and is_setting(part[1])}
        filled.append((step, {**settings, **row}))
    return filled
