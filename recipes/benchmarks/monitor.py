"""The arm `monitor`: the time of a step's telemetry next to the optimizer's step and to other ways to log norms."""

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
from functools import partial
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
    """The size of the encoder."""

    layers: int
    width: int
    heads: int
    hidden: int

    @property
    def parameters(self) -> int:
        """The number of elements of all parameters: attention, feed-forward, two norms."""
        attention = 4 * self.width * (self.width + 1)
        forward = 2 * self.width * self.hidden + self.width + self.hidden
        return self.layers * (attention + forward + 4 * self.width)

    def __str__(self) -> str:
        return f"{self.parameters / 1e6:.3g} M"


LARGE = Size(12, 768, 12, 3072)
"""The trunk of a BERT-base."""
SMALL = Size(9, 320, 8, 1280)
MANY_GROUPS = Size(8, 320, 8, 1280)
"""With two groups for each layer."""
NUM_STEPS = 1000
NUM_LOGGED = 20
_NEVER = 10**9
_UNLOGGED_CASE = f"OptimizerMonitor, {NUM_STEPS:,} steps that are not logged"
_NO_DECAY = {"no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0}}
_BY_LAYER = {"layers": {"layers": "trunk.{i}", "layer_decay": 0.8}, **_NO_DECAY}
_LAYOUTS = {False: "all groups in one run of TensorBoard", True: "each group a run of TensorBoard"}


class _Encoder(LightningModule):
    """Logs the norms of its gradients as Lightning's documentation recommends."""

    def __init__(self, size: Size, implementation: str, groups: Mapping[str, Any]) -> None:
        super().__init__()
        self.implementation, self.groups = implementation, groups
        layers = (nn.TransformerEncoderLayer(size.width, size.heads, size.hidden) for _ in range(size.layers))
        self.trunk = nn.Sequential(*layers)
        self.width = size.width

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss: Tensor = self.trunk(batch).square().mean()
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.log_dict(grad_norm(self.trunk, norm_type=2))

    def configure_optimizers(self) -> Any:
        return OptimizerFactory("adamw", groups=self.groups, fused=True, implementation=self.implementation)(self)

    def train_dataloader(self) -> Any:
        return DataLoader(torch.ones(2, 2, self.width), batch_size=1)  # type: ignore[arg-type]


class _NoTeardown(OptimizerMonitor):
    """Keeps its state when the fit is over."""

    def teardown(self, *_: Any, **__: Any) -> None:
        """Do nothing."""


class _NaiveNorms(Callback):
    """The norms of each group in the simplest way: one tensor after the other, each copied to the host at once."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        squares: dict[str, float] = defaultdict(float)
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    state = {key: tensor for key, tensor in optimizer.state[parameter].items() if tensor.ndim}
                    for signal, tensor in {"grad": parameter.grad, "param": parameter, **state}.items():
                        squares[f"{signal}/{group['name']}"] += tensor.norm().item() ** 2
        metrics = {name: math.sqrt(square) for name, square in squares.items()}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.fit_loop.epoch_loop._batches_that_stepped)


class _ModuleHook(Callback):
    """What Lightning's training loop does around the module's own hook and for its `log_dict`."""

    def on_train_batch_start(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        trainer._logger_connector.on_batch_start(None)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        call._call_lightning_module_hook(trainer, "on_before_optimizer_step", optimizer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        trainer._logger_connector.on_batch_end()
        trainer._logger_connector.update_train_step_metrics()


class Fit:
    """A fit of one step, prepared so that a second step can be timed: callbacks set up, state and gradients present.

    Args:
        size: of the encoder.
        device: of the encoder and the optimizer's state.
        implementation: of the optimizer: `torch` or `own`.
        groups: its rules.
        overlay: of the monitor.
    """

    def __init__(
        self,
        size: Size,
        device: torch.device,
        implementation: str = "torch",
        *,
        groups: Mapping[str, Any] = _NO_DECAY,
        overlay: bool = True,
    ) -> None:
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self.monitor, self.lr_monitor = _NoTeardown(overlay=overlay), LearningRateMonitor()
        self.module = _Encoder(size, implementation, groups)
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
                callbacks=[self.monitor, self.lr_monitor],
            )
            self.trainer.fit(self.module)
        weakref.finalize(self.trainer, shutil.rmtree, folder, ignore_errors=True)
        self.trainer.training = True  # otherwise Lightning logs every step
        self.optimizer = self.trainer.optimizers[0]
        self._move_to(device)
        # The monitor's hooks are removed, so that the optimizer's step is timed without them.
        self._monitor_pre_hooks = list(self.optimizer._optimizer_step_pre_hooks.values())
        self._monitor_post_hooks = list(self.optimizer._optimizer_step_post_hooks.values())
        self.optimizer._optimizer_step_pre_hooks.clear()
        self.optimizer._optimizer_step_post_hooks.clear()

    def hook_calls(
        self, callback: Callback, *, num_steps: int = 1, log_every: int = 1, takes_steps: bool = False
    ) -> Callable[[], None]:
        """What a callback does in `num_steps` steps of which every `log_every`-th is logged.

        Args:
            callback: whose hooks to call.
            num_steps: how often.
            log_every: the trainer's `log_every_n_steps`.
            takes_steps: whether the optimizer also takes the steps; a kernel adds up in them what the monitor logs.
        """
        trainer, module, optimizer = self.trainer, self.module, self.optimizer
        loop = trainer.fit_loop.epoch_loop
        pre_hooks, post_hooks = [], []
        if callback is self.monitor:
            pre_hooks, post_hooks = self._monitor_pre_hooks, self._monitor_post_hooks

        def run() -> None:
            trainer.log_every_n_steps = log_every  # type: ignore[attr-defined]
            for index in range(num_steps):
                callback.on_train_batch_start(trainer, module, None, index)
                for hook in pre_hooks:
                    hook(optimizer, (), {})
                callback.on_before_optimizer_step(trainer, module, optimizer)
                if takes_steps:
                    optimizer.step()
                for hook in post_hooks:
                    hook(optimizer, (), {})
                callback.on_train_batch_end(trainer, module, None, None, index)
                loop._batches_that_stepped += 1
            callback.on_validation_start(trainer, module)  # where the monitor writes what is still pending

        return run

    def flush(self) -> None:
        """Wait for the threads that write for TensorBoard."""
        self.trainer.logger.experiment.flush()  # type: ignore[union-attr]
        if self.monitor._runs:
            self.monitor._runs.flush()

    def _move_to(self, device: torch.device) -> None:
        """Move model and state: Lightning leaves both on the CPU when a fit is over."""
        self.module.to(device)
        self.optimizer.load_state_dict(self.optimizer.state_dict())
        for parameter in self.module.parameters():
            parameter.grad = torch.randn_like(parameter)


def make_cases(device: torch.device, large: Size = LARGE, small: Size = SMALL, many: Size = MANY_GROUPS) -> list[Case]:
    """All cases on a large encoder, and those that the findings need on a small one.

    The time of a logged step includes computing and writing the numbers, and on a GPU waiting for them in between. A
    real fit does not wait: it runs the next step meanwhile.
    """
    large_fit, small_fit = Fit(large, device), Fit(small, device)
    own_fits = {size: Fit(size, device, "own") for size in (large, small)}
    runs: dict[str, Callable[[], object]] = {
        _step_case(large): large_fit.optimizer.step,
        _telemetry_case(large): large_fit.hook_calls(large_fit.monitor),
        _UNLOGGED_CASE: large_fit.hook_calls(large_fit.monitor, num_steps=NUM_STEPS, log_every=_NEVER),
        "LearningRateMonitor, a logged step: lr": large_fit.hook_calls(large_fit.lr_monitor),
        "naive norms, a logged step": large_fit.hook_calls(_NaiveNorms()),
        "grad_norm + log_dict, a logged step": large_fit.hook_calls(_ModuleHook()),
        _step_case(small): small_fit.optimizer.step,
        _telemetry_case(small): small_fit.hook_calls(small_fit.monitor),
    }
    for size, fit in own_fits.items():
        runs[_own_step_case(size)] = fit.optimizer.step
        runs[_logged_own_step_case(size)] = fit.hook_calls(fit.monitor, takes_steps=True)

    layouts = {overlay: Fit(many, device, groups=_BY_LAYER, overlay=overlay) for overlay in _LAYOUTS}
    for overlay, fit in layouts.items():
        runs[_layout_case(overlay)] = fit.hook_calls(fit.monitor)
        runs[_on_disk_case(overlay)] = partial(_log_to_disk, fit, fit.hook_calls(fit.monitor, num_steps=NUM_LOGGED))

    def prepare() -> None:
        """Wait for the threads that write for TensorBoard."""
        for fit in (large_fit, small_fit, *own_fits.values(), *layouts.values()):
            fit.flush()

    return [Case(name=name, run=run, prepare=prepare) for name, run in runs.items()]


def _step_case(size: Size) -> str:
    return f"a step of torch's fused AdamW, {size}"


def _own_step_case(size: Size) -> str:
    return f"a step of our AdamW as a kernel, {size}"


def _logged_own_step_case(size: Size) -> str:
    return f"the same step, logged by OptimizerMonitor, {size}"


def _telemetry_case(size: Size) -> str:
    return f"OptimizerMonitor, a logged step, {size}"


def _layout_case(overlay: bool) -> str:
    return f"OptimizerMonitor, a logged step, {2 * MANY_GROUPS.layers} groups, {_LAYOUTS[overlay]}"


def _on_disk_case(overlay: bool) -> str:
    return f"the same, {NUM_LOGGED} steps until they are on disk, {_LAYOUTS[overlay]}"


def _log_to_disk(fit: Fit, log: Callable[[], None]) -> None:
    log()
    fit.flush()


def _derive_findings(timings: Mapping[str, Timing]) -> dict[str, float]:
    """The telemetry of a logged step relative to the step, and the microseconds of a step that is not logged."""
    relative = {}
    for size in (LARGE, SMALL):
        step, telemetry = timings[_step_case(size)].median_ms, timings[_telemetry_case(size)].median_ms
        relative[f"a logged step's telemetry / a step of torch's fused AdamW, {size}"] = telemetry / step
        step, logged = timings[_own_step_case(size)].median_ms, timings[_logged_own_step_case(size)].median_ms
        relative[f"a logged step's telemetry / a step of our AdamW as a kernel, {size}"] = (logged - step) / step
    for name, case in {"a logged step": _layout_case, "logged steps until they are on disk": _on_disk_case}.items():
        of_runs, of_one = (timings[case(overlay)].median_ms for overlay in (True, False))
        relative[f"{name}, {2 * MANY_GROUPS.layers} groups: a run for each / all in one run"] = of_runs / of_one
    return {**relative, "a step that is not logged, µs": 1e3 / NUM_STEPS * timings[_UNLOGGED_CASE].median_ms}


MONITOR = Arm(
    title="OptimizerMonitor: a step's default telemetry, beside the step and others' (million parameters)",
    make_cases=make_cases,
    reference=_step_case(LARGE),
    uses_device=True,
    findings=_derive_findings,
)
