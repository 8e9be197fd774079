"""A fault or two per family, planted in the code, that its cells must notice: the comparisons are real."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from lightning.pytorch.plugins.io import async_plugin
from torch.optim import Optimizer

from lightning_optim import optim
from lightning_optim.build import attachments, load_by_name
from lightning_optim.callbacks import rng, verify_checkpoint
from lightning_optim.callbacks.plateau_tracker import PlateauTracker
from lightning_optim.callbacks.resumed_epoch import ResumedEpochCallback
from lightning_optim.groups import merge_values, plan
from lightning_optim.optim import base, torch_state_dict
from lightning_optim.schedule.resume import Resume
from lightning_optim.stages.freezing import EvalModeLock
from recipes.checkpoints import AtomicCheckpointIO
from tests.reliability.scoreboard.fits import AverageEachStep
from tests.reliability.scoreboard.outcome import Cell, Verdict
from tests.reliability.scoreboard.registry import all_cells
from tests.reliability.scoreboard.running import run_cell

MAX_CELLS = 80
"""How many cells may be tried: a flipped bit need not change a value."""


@dataclass(frozen=True)
class Plant:
    """A fault in the code, and cells of its family that must become silently wrong."""

    family: str
    fault: str
    cells: str
    """What their names contain."""
    plant: Callable[[], AbstractContextManager[Any]]


def is_noticed(plant: Plant) -> tuple[bool, str]:
    """Whether a cell that ends as it must becomes silently wrong under the plant; and which, or what happened."""
    last = "there is no such cell"
    for cell in islice(_cells_of(plant), MAX_CELLS):
        before = run_cell(cell)
        if before.verdict not in cell.allowed:
            return False, f"{cell.name} is {before.verdict.value} without the fault: {before.detail}"
        with plant.plant():
            outcome = run_cell(cell)
        if outcome.verdict is Verdict.SILENT_WRONG:
            return True, f"{cell.name}: {outcome.detail}"
        last = f"{cell.name} is {outcome.verdict.value}: {outcome.detail}"
    return False, last


def _cells_of(plant: Plant) -> Any:
    return (cell for cell in all_cells(0, only=[plant.family]) if _is_of(plant, cell))


def _is_of(plant: Plant, cell: Cell) -> bool:
    return all(part in cell.name for part in plant.cells.split(" & "))


def _replaced(owner: Any, name: str, value: Any) -> Callable[[], AbstractContextManager[Any]]:
    return lambda: mock.patch.object(owner, name, value)


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _wrapped(owner: Any, name: str, wrap: Callable[[Any], Any]) -> Callable[[], AbstractContextManager[Any]]:
    return lambda: mock.patch.object(owner, name, wrap(getattr(owner, name)))


def _dropping_momentum(load: Any) -> Any:
    def load_state_dict(self: Optimizer, state_dict: Any) -> None:
        load(self, state_dict)
        for state in self.state.values():
            if "exp_avg" in state:
                state["exp_avg"].zero_()

    return load_state_dict


def _saving_the_last_one(save: Any) -> Any:
    """Where writing fails, the checkpoint before it is put there under the new name."""

    def save_checkpoint(self: Any, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        try:
            save(self, checkpoint, path, storage_options)
        except OSError:
            earlier = max(Path(path).parent.glob("*.ckpt"), key=lambda file: file.stat().st_mtime)
            earlier.rename(path)
            raise

    return save_checkpoint


def _swapping_states(remap: Any) -> Any:
    """Two parameters of one shape get each other's state."""

    def remap_before_load(*args: Any) -> Any:
        state_dict = remap(*args)
        states = dict(state_dict["state"])
        shapes: dict[Any, Any] = {}
        for key, state in states.items():
            buffers = sorted(
                name for name, value in state.items() if name != "step" and isinstance(value, torch.Tensor)
            )
            shape = (tuple(buffers), tuple(state[buffers[0]].shape)) if buffers else None
            if shape in shapes and shape is not None:
                states[key], states[shapes[shape]] = states[shapes[shape]], states[key]
                return {**state_dict, "state": states}
            shapes[shape] = key
        return state_dict

    return remap_before_load


def _taking_all_saved(merge: Any) -> Any:
    """An edited value is lost: everything comes from the checkpoint."""

    def merge_all(current: Any, sources: Any) -> Any:
        return {**merge(current, sources), **{key: sources[0][key] for key in ("lr", "weight_decay") if sources}}

    return merge_all


def _counting_overflows(step: Any) -> Any:
    def counting_step(self: Any, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        result = step(self, optimizer, *args, **kwargs)
        found = self._per_optimizer_states[id(optimizer)]["found_inf_per_device"].values()
        if any(float(value) for value in found):
            for state in optimizer.state.values():
                state["step"] += 1
        return result

    return counting_step


def _moving_without_gradient(step: Any) -> Any:
    def moving_step(self: Optimizer, closure: Any = None) -> Any:
        with torch.no_grad():
            for group in self.param_groups:
                for param in group["params"]:
                    if param.grad is None:
                        param.mul_(0.999)
        return step(self, closure)

    return moving_step


def _without_merging() -> AbstractContextManager[Any]:
    stack = ExitStack()
    for module in (load_by_name, merge_values):
        stack.enter_context(mock.patch.object(module, "merge_values", _taking_all_saved(merge_values.merge_values)))
    return stack


def _without_counting() -> AbstractContextManager[Any]:
    stack = ExitStack()
    for hook in ("on_train_start", "on_load_checkpoint"):
        stack.enter_context(mock.patch.object(ResumedEpochCallback, hook, _nothing))
    return stack


PLANTS = (
    Plant(
        "F1",
        "the random generators are not restored",
        "step 12 | adamw, torch",
        _replaced(rng, "_restore_generators", _nothing),
    ),
    Plant("F1b", "the schedule is not restored", "one_cycle", _replaced(Resume, "load", _nothing)),
    Plant("F1b", "the epoch after a resume is not counted", "EvalWeights", _without_counting),
    Plant(
        "F2",
        "a buffer is dropped on load",
        "after 5 writes & adamw, ours",
        _wrapped(Optimizer, "load_state_dict", _dropping_momentum),
    ),
    Plant(
        "F3",
        "a failed write leaves an older state under the new name",
        "too large & recipe",
        _wrapped(AtomicCheckpointIO, "save_checkpoint", _saving_the_last_one),
    ),
    Plant(
        "F4",
        "a pending step of a scheduler is lost",
        "SIGTERM in on_train_epoch_end",
        _replaced(PlateauTracker, "stop", _nothing),
    ),
    Plant(
        "F5",
        "what remains of the epoch is not saved",
        "an exception in on_train_epoch_end & epoch 2",
        _replaced(PlateauTracker, "stop", _nothing),
    ),
    Plant(
        "F6", "frozen layers are not locked", "at thaw 4 | StagedUnfreeze |", _replaced(EvalModeLock, "lock", _nothing)
    ),
    Plant(
        "F7", "checksums are not checked", "flipped bit & resume", _replaced(verify_checkpoint, "check_file", _nothing)
    ),
    Plant(
        "F8",
        "two parameters get each other's state",
        "renamed | own adamw",
        _wrapped(attachments, "remap_before_load", _swapping_states),
    ),
    Plant(
        "F9",
        "step counts are off by one on load",
        "0.1.0 | adamw_own",
        _wrapped(torch_state_dict, "scalar", lambda scalar: lambda value: scalar(value + 1)),
    ),
    Plant("F10", "an edited value is lost", "lr edited", _without_merging),
    Plant(
        "F11",
        "a step with a NaN is taken",
        "one element, 1 steps | adamw, lists",
        _replaced(base, "should_skip", lambda groups: False),
    ),
    Plant(
        "F12",
        "an overflow counts as a step",
        "(3,) | adamw |",
        _wrapped(torch.amp.GradScaler, "step", _counting_overflows),
    ),
    Plant(
        "F13",
        "parameters without gradient decay",
        "None & adamw, lists",
        _wrapped(optim.AdamW, "step", _moving_without_gradient),
    ),
    Plant("F14", "a rule may match nothing", "matches nothing | adamw", _replaced(plan, "check_matched", _nothing)),
    Plant(
        "F15", "the random generators are not restored", "of step 8", _replaced(rng, "_restore_generators", _nothing)
    ),
    Plant(
        "F16",
        "a rank's random generators are not restored",
        "SIGKILL of rank 1 & adamw & DDP",
        _replaced(rng, "_restore_generators", _nothing),
    ),
    Plant(
        "F17",
        "the average replaces the training weights",
        "SIGKILL & epoch 4 & WeightAveraging",
        _replaced(AverageEachStep, "on_load_checkpoint", _nothing),
    ),
    Plant(
        "F18",
        "tensors change while they are written",
        "12 saves & adamw",
        _replaced(async_plugin, "_clone_tensor", lambda tensor: tensor),
    ),
)
