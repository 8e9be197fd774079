"""One run of the study: fine-tune as a config says, and evaluate one split."""

from __future__ import annotations

import functools
import logging
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig

from ..classifier import Classifier
from ..finetune import finetune, pretrain, silence_warnings
from .peak_memory import peak_since, reset_peak
from .records import Measured, Run

_CONF = str(Path(__file__).parents[1] / "conf")


class FitClock(Callback):
    """Times the fit."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start."""
        self._start = time.perf_counter(), time.process_time()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop."""
        wall, cpu = self._start
        self.wall_s, self.cpu_s = time.perf_counter() - wall, time.process_time() - cpu


def prepare_worker() -> None:
    """Call once in each process: one thread, and no messages of Lightning."""
    torch.set_num_threads(1)
    silence_warnings()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")


def measure(run: Run) -> Measured:
    """Carry out a run in this process."""
    config = _compose([*run.overrides, "+callbacks.fit_clock._target_=recipes.studies.run.FitClock"])
    pretrained = (
        _pretrain(tuple(part for part in run.overrides if _is_of_pretraining(part))) if config.pretrain else None
    )
    start = reset_peak()
    trainer, module, data = finetune(config, None, pretrained)
    (clock,) = (callback for callback in trainer.callbacks if isinstance(callback, FitClock))  # type: ignore[attr-defined]
    peak_mb = peak_since(start)
    evaluate: Any = trainer.test if run.split == "test" else trainer.validate
    (result,) = evaluate(module, data, verbose=False)
    return Measured(float(result[f"{run.split}/accuracy"]), clock.wall_s, clock.cpu_s, peak_mb)


def _is_of_pretraining(override: str) -> bool:
    return override.lstrip("+~").startswith(("task", "seed=", "pretrain", "trainer.", "model."))


@functools.lru_cache(maxsize=64)
def _pretrain(overrides: tuple[str, ...]) -> Classifier:
    """The network of the first phase, which all runs of a seed start from."""
    return pretrain(_compose(overrides), None)


def _compose(overrides: Sequence[str]) -> DictConfig:
    with initialize_config_dir(_CONF, version_base="1.3"):
        return compose("finetune", list(overrides))
