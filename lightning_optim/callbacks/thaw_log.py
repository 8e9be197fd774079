"""`ThawLog`: the unfreeze plan and the thaws of a run, as the log and the loggers show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from ..core.errors import format_names
from ..stages.staged import StagedOptimizer
from ..telemetry.loggers import write_table
from ..telemetry.stores.table import LoggedTable
from ..telemetry.tags import tag_roots
from .lightning_internals import logger_step

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class ThawLog:
    """Writes the plan and each thaw; remembers the thaws, since the last table that a logger shows is of all of them.

    Args:
        rows: the thaws so far, from `rows` of the run that is resumed.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.rows: list[dict[str, Any]] = [dict(row) for row in rows]
        """`step` (the loggers'), `epoch`, `stage` and `groups` of each thaw."""

    def write_plan(
        self, trainer: Trainer, staged: Sequence[StagedOptimizer], thaw_times: tuple[tuple[str, str], ...]
    ) -> None:
        """Log what thaws when, as `optim/plan`; `thaw_times` are `(stage, when it thaws)`."""
        for own, root in zip(staged, tag_roots([own.optimizer for own in staged]), strict=True):
            plan = LoggedTable.from_groups(own.plan.table(thaw_times))
            write_table(trainer.loggers, f"{root}/plan", plan, logger_step(trainer))

    def write_thaw(self, trainer: Trainer, stage: str, groups: Sequence[str]) -> None:
        """Log a thaw, as `optim/thaw`."""
        epoch, step = trainer.current_epoch, logger_step(trainer)
        text = f"epoch {epoch}, step {trainer.global_step}: '{stage}' thaws ({format_names(groups)})"
        rank_zero_info(f"StagedUnfreeze: {text}")
        self.rows.append({"step": step, "epoch": epoch, "stage": stage, "groups": ", ".join(groups)})
        table = LoggedTable.from_rows(self.rows, markdown=text, num_logged=len(self.rows) - 1)
        write_table(trainer.loggers, "optim/thaw", table, step)
