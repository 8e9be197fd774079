"""The arm `monitor`: what a step's telemetry takes, against the optimizer's step itself and what others log."""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
import warnings
import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer import call
from lightning.pytorch.utilities import grad_norm
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from lightning_optim import OptimizerFactory, OptimizerMonitor

from .arm import Arm
from .measure import Case, Timing


@dataclass(frozen=True)
class Size:
    """How large the encoder is."""

    layers: int
    width: int
    heads: int
    hidden: int

    @property
    def parameters(self) -> int:
        """The elements of all parameters: attention, feed-forward, two norms."""
        attention = 4 * self.width * (self.width + 1)
        forward = 2 * self.width * self.hidden + self.width + self.hidden
        return self.layers * (attention + forward + 4 * self.width)

    def __str__(self) -> str:
        return f"{self.parameters / 1e6:.3g} M"


LARGE = Size(12, 768, 12, 3072)
"""The trunk of a BERT-base."""
SMALL = Size(9, 320, 8, 1280)
NUM_STEPS = 1000
_NEVER = 10**9
_NO_DECAY = {"no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0}}


class _Trunk(LightningModule):
    """Logs its gradients' norms as Lightning's documentation says."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        layers = (nn.TransformerEncoderLayer(size.width, size.heads, size.hidden) for _ in range(size.layers))
        self.trunk = nn.Sequential(*layers)
        self.width = size.width

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss: Tensor = self.trunk(batch).square().mean()
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.log_dict(grad_norm(self.trunk, norm_type=2))

    def configure_optimizers(self) -> Any:
        return OptimizerFactory("adamw", groups=_NO_DECAY, fused=True)(self)

    def train_dataloader(self) -> Any:
        return DataLoader(torch.ones(2, 2, self.width), batch_size=1)  # type: ignore[arg-type]


class _Kept(OptimizerMonitor):
    """Stays as it is when the fit is over."""

    def teardown(self, *_: Any, **__: Any) -> None:
        """Lets nothing go."""


class _NaiveNorms(Callback):
    """Each group's norms in the plainest way: one tensor after the other, each brought to the host at once."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        squares: dict[str, float] = defaultdict(float)
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    state = {key: held for key, held in optimizer.state[parameter].items() if held.ndim}
                    for signal, tensor in {"grad": parameter.grad, "param": parameter, **state}.items():
                        squares[f"{signal}/{group['name']}"] += tensor.norm().item() ** 2
        metrics = {name: math.sqrt(square) for name, square in squares.items()}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.fit_loop.epoch_loop._batches_that_stepped)


class _ModuleHook(Callback):
    """Nothing itself, but what Lightning's training loop does around the module's own hook and for its `log_dict`."""

    def on_train_batch_start(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        trainer._logger_connector.on_batch_start(None)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        call._call_lightning_module_hook(trainer, "on_before_optimizer_step", optimizer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        trainer._logger_connector.on_batch_end()
        trainer._logger_connector.update_train_step_metrics()


class Fit:
    """A fit of one step, left as if the next one were under way: all callbacks ready, state and gradients there.

    Args:
        size: of the encoder.
        device: where it and the optimizer's state are.
    """

    def __init__(self, size: Size, device: torch.device) -> None:
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self.monitor, self.rates = _Kept(), LearningRateMonitor()
        self.module = _Trunk(size)
        folder = tempfile.mkdtemp()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.trainer = Trainer(
                accelerator=device.type,
                devices=1,
                max_steps=1,
                logger=TensorBoardLogger(folder),
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                default_root_dir=folder,
                callbacks=[self.monitor, self.rates],
            )
            self.trainer.fit(self.module)
        weakref.finalize(self.trainer, shutil.rmtree, folder, ignore_errors=True)
        self.trainer.training = True  # else Lightning takes every step for one that is logged
        self.optimizer = self.trainer.optimizers[0]
        self._back_to(device)
        # The monitor's; apart, so that the optimizer's step is timed without them.
        self._before = list(self.optimizer._optimizer_step_pre_hooks.values())
        self._after = list(self.optimizer._optimizer_step_post_hooks.values())
        self.optimizer._optimizer_step_pre_hooks.clear()
        self.optimizer._optimizer_step_post_hooks.clear()

    def steps(self, callback: Callback, *, num_steps: int = 1, every: int = 1) -> Callable[[], None]:
        """What a callback does in so many steps of which each n-th is logged, without the training."""
        trainer, module, optimizer = self.trainer, self.module, self.optimizer
        loop = trainer.fit_loop.epoch_loop
        before, after = (self._before, self._after) if callback is self.monitor else ([], [])

        def run() -> None:
            trainer.log_every_n_steps = every  # type: ignore[attr-defined]
            for index in range(num_steps):
                callback.on_train_batch_start(trainer, module, None, index)
                for hook in before:
                    hook(optimizer, (), {})
                callback.on_before_optimizer_step(trainer, module, optimizer)
                for hook in after:
                    hook(optimizer, (), {})
                callback.on_train_batch_end(trainer, module, None, None, index)
                loop._batches_that_stepped += 1
            callback.on_validation_start(trainer, module)  # where the monitor writes what was still on its way

        return run

    def _back_to(self, device: torch.device) -> None:
        """Lightning leaves everything on the CPU when a fit is over."""
        self.module.to(device)
        self.optimizer.load_state_dict(self.optimizer.state_dict())
        for parameter in self.module.parameters():
            parameter.grad = torch.randn_like(parameter)


def make_cases(device: torch.device, large: Size = LARGE, small: Size = SMALL) -> list[Case]:
    """All cases over one fit, and the two that count over a smaller one.

    A logged step's time is that of taking its numbers and of writing them, and on a GPU of waiting for them in between:
    a real fit does not wait, as its next step is under way meanwhile.
    """
    fit, smaller = Fit(large, device), Fit(small, device)
    runs: dict[str, Callable[[], object]] = {
        _step_of(large): fit.optimizer.step,
        _logged(large): fit.steps(fit.monitor),
        _UNLOGGED: fit.steps(fit.monitor, num_steps=NUM_STEPS, every=_NEVER),
        "LearningRateMonitor, a logged step: lr": fit.steps(fit.rates),
        "naive norms, a logged step": fit.steps(_NaiveNorms()),
        "grad_norm + log_dict, a logged step": fit.steps(_ModuleHook()),
        _step_of(small): smaller.optimizer.step,
        _logged(small): smaller.steps(smaller.monitor),
    }

    def settle() -> None:
        """TensorBoard's writers have threads of their own, which may still be at work."""
        for each in (fit, smaller):
            each.trainer.logger.experiment.flush()  # type: ignore[union-attr]

    return [Case(name=name, run=run, settle=settle) for name, run in runs.items()]


_UNLOGGED = f"OptimizerMonitor, {NUM_STEPS:,} steps that are not logged"


def _step_of(size: Size) -> str:
    return f"one fused AdamW step, {size}"


def _logged(size: Size) -> str:
    return f"OptimizerMonitor, a logged step, {size}"


def _found(timings: Mapping[str, Timing]) -> dict[str, float]:
    """The telemetry in units of the step it is about, and microseconds where there is none."""
    found = {
        f"a logged step's telemetry to a fused AdamW step, {size} parameters": timings[_logged(size)].median_ms
        / timings[_step_of(size)].median_ms
        for size in (LARGE, SMALL)
    }
    return {**found, "a step that is not logged, µs": 1e3 / NUM_STEPS * timings[_UNLOGGED].median_ms}


MONITOR = Arm(
    title="OptimizerMonitor: a step's default telemetry, beside the step and others' (million parameters)",
    make_cases=make_cases,
    reference=_step_of(LARGE),
    uses_device=True,
    findings=_found,
)
