"""`explain --plot`: each group's lr over a run of a user's Hydra config, drawn without running it."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from .draw import draw
from .planned_run import PlannedRun
from .simulate import simulate


def plot(run: PlannedRun, module: nn.Module, path: Path) -> None:
    """Draw each group's lr over the run, without training.

    Args:
        run: from `find_run`.
        module: the model.
        path: the file to write; checked by `check_drawable`.

    Raises:
        ConfigError: a part of the run does not fit another, or the file cannot be written.
    """
    key = run.scheduler_key or run.key
    simulation = simulate(module, run.factory, run.scheduler, run.stages, length=run.length, key=key)
    draw(simulation, path, [run.title])
