"""What StagedUnfreeze has in a checkpoint, and how a run continues from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from ..core.errors import ConfigError, format_names, prefix_errors
from ..core.later_release import refuse_unknown
from ..stages.freezing import set_trainable
from ..stages.staged import StagedOptimizer
from ..stages.stages import Stage
from ..stages.timetable import Timetable
from .load_checkpoint_hook import LoadCheckpointHook
from .plateau_tracker import PlateauTracker
from .resumed_epoch import ResumedEpochCallback
from .saved_callback import refuse_wrong_state
from .saved_stages import check_scheduler_groups, check_stages_state, read_unstaged_groups
from .stage_settings import StageSettings
from .thaw_log import ThawLog

_STATE_KEYS = ("plateaus", "thawed", "thaw_times", "stage_plateaus", "thaw_log", "optimizers")


class StageState(StageSettings, ResumedEpochCallback):
    """The state of a staged run, saved and restored; `StagedUnfreeze` runs it."""

    def __init__(self, stages: Mapping[str, Any], **modes: Any) -> None:
        super().__init__(stages, **modes)
        self._timetable = Timetable(self.stages)
        self._staged: list[StagedOptimizer] = []
        """Once the optimizers of a fit are split."""
        self._plateaus = PlateauTracker()
        self._thaw_log = ThawLog()
        self._trainer: Trainer | None = None
        self._is_tuning = False
        """Whether Lightning saves and loads a checkpoint around the steps of a tuner."""
        self._loaded_state: dict[str, Any] | None = None
        self._unstaged: list[list[dict[str, Any]]] = []
        """The param groups of the optimizers in a checkpoint of a run without stages."""
        self._load_hook: LoadCheckpointHook | None = None
        """For strategies that load the optimizers after setup: FSDP2's."""

    def state_dict(self) -> dict[str, Any]:
        """The thawed stages, the groups that the schedulers drive, and what the plateaus wait for."""
        if not self._staged:
            return {}  # the optimizers are not split yet
        self._sync_groups()  # the module may have stepped a scheduler by hand; Lightning saves the optimizers next
        return {
            "plateaus": self._plateaus.state_dict(self._trainer),  # first, since it may mark plateaus of stages
            **self._timetable.state_dict(),
            "thaw_log": list(self._thaw_log.rows),
            "optimizers": [staged.state_dict() for staged in self._staged],
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """If something waits for a metric, let Lightning run the end of the epoch that it would skip."""
        if self._is_tuning:
            return
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        state = checkpoint["callbacks"].get(self.state_key)
        with refuse_wrong_state("StagedUnfreeze"):
            check_stages_state({} if state is None else state)
        if state:
            with refuse_wrong_state("StagedUnfreeze"):
                self._plateaus.on_load_checkpoint(checkpoint, state["plateaus"])
        elif checkpoint["global_step"] == 0:
            checkpoint["optimizer_states"] = []  # saved before the optimizers were split; they have no state yet
        elif trainer.state.fn == "fit" and any(checkpoint.get("optimizer_states", ())):
            self._refuse_unstaged()
            self._unstaged = read_unstaged_groups(checkpoint["optimizer_states"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Store the state until the optimizers are built; under FSDP2, `_load_sharded` gets it first."""
        if self._load_hook is None and not self._is_tuning:
            self._loaded_state = state_dict

    def _refuse_unstaged(self) -> None:
        """Raises if a stage waits: the checkpoint of a run without stages has already trained its parameters."""
        if waiting := [stage.name for stage in self._parsed_stages if not stage.trigger.from_start]:
            raise ConfigError(
                "stages: the checkpoint was saved by a run without StagedUnfreeze, which trained the stages that are "
                f"frozen here: {format_names(waiting)}. Resume it without stages (unfreeze=none), or start a new run "
                "from its weights"
            )

    @contextmanager
    def _load_sharded(self, state: dict[str, Any] | None) -> Iterator[None]:
        """Restore the stage first, since the checkpoint is loaded into the groups that it has; pause step hooks."""
        if self._is_tuning:
            yield
            return
        if state is None:
            self._refuse_unstaged()
        self._loaded_state = state
        self._restore([])
        for staged in self._staged:
            staged.ignore_steps = True
        with ExitStack() as stack:
            for staged in self._staged:
                stack.enter_context(staged.around_sharded_load())
            yield
        for staged in self._staged:
            staged.ignore_steps = False

    def _restore(self, previous: Sequence[StagedOptimizer]) -> None:
        """Restore a loaded state; without one, continue from the optimizers of the last fit, if there was one."""
        state, self._loaded_state = self._loaded_state, None
        unstaged, self._unstaged = self._unstaged, []
        if state is not None:
            with refuse_wrong_state("StagedUnfreeze"), prefix_errors("callbacks.StagedUnfreeze"):
                check_stages_state(state)
                refuse_unknown(state, _STATE_KEYS, "state")
                self._timetable.load_state_dict(state)
                self._thaw_log = ThawLog(state.get("thaw_log", ()))
                self._plateaus.load_state_dict(state["plateaus"])
        for staged in self._staged:
            staged.activate_stages(self._timetable.thawed)
        for stage in self.stages:
            self._set_trainable(stage, stage.name in self._timetable.thawed)
        if state is not None:
            with refuse_wrong_state("StagedUnfreeze"):
                self._load_optimizers(state["optimizers"])
        elif unstaged:
            for staged, groups in zip(self._staged, unstaged, strict=False):
                staged.load_unstaged(groups)
        elif previous:
            for staged, last in zip(self._staged, previous, strict=True):
                staged.resume_from(last)

    def _load_optimizers(self, saved: Sequence[dict[str, Any]]) -> None:
        if len(saved) != len(self._staged):
            raise ConfigError(
                f"stages: the checkpoint holds {len(saved)} optimizers, this run {len(self._staged)}. Use the "
                "optimizers the checkpoint was saved with"
            )
        for index, (staged, own) in enumerate(zip(self._staged, saved, strict=True)):
            check_scheduler_groups(staged.proxy, own["scheduler_groups"], f"optimizers[{index}].scheduler_groups")
            staged.load_state_dict(own)

    def _sync_groups(self) -> None:
        for staged in self._staged:
            staged.sync()

    def _set_trainable(self, stage: Stage, trainable: bool) -> None:
        for staged in self._staged:
            set_trainable(staged.tensors(stage.name), trainable)
