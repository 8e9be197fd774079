"""The stages of StagedUnfreeze as configured, and the plan that they make of a model, without a trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback
from torch import nn
from torch.optim import Optimizer

from ..core.config_values import to_plain
from ..core.errors import ConfigError, format_choices
from ..core.hyperparameters import Flag
from ..core.short_repr import format_call, settings_html
from ..groups.parameter_settings import ParameterSettings
from ..groups.plan import Plan
from ..groups.table import Table
from ..stages.stages import Stage, parse_stages
from .stage_plan import plan_stages
from .verify_checkpoint import OPTION

if TYPE_CHECKING:
    from ..build.factory import OptimizerFactory

_MODES = ("eval", "train")
_DEFAULTS = {"frozen_norm": "eval", "frozen_dropout": "train", OPTION: True}


class StageSettings(Callback):
    """The arguments of `StagedUnfreeze`, checked; what they would do with a model, and how they are shown."""

    def __init__(
        self, stages: Mapping[str, Any], *, frozen_norm: str, frozen_dropout: str, verify_checkpoints: bool
    ) -> None:
        for key, mode in (("frozen_norm", frozen_norm), ("frozen_dropout", frozen_dropout)):
            if to_plain(mode, key) not in _MODES:
                raise ConfigError(f"{key}: there is no mode {mode!r}.{format_choices(str(mode), _MODES)}")
        self._config = to_plain(stages, "stages")
        self._parsed_stages = parse_stages(self._config)
        self.stages = self._parsed_stages
        """With the parameters they claim, once a fit has started."""
        self.frozen_norm = frozen_norm
        self.frozen_dropout = frozen_dropout
        self.verify_checkpoints: bool = Flag(default=True).check(verify_checkpoints, OPTION)

    def __repr__(self) -> str:
        modes = self._modes()
        return format_call(self, self._config, **{key: mode for key, mode in modes.items() if mode != _DEFAULTS[key]})

    def _repr_html_(self) -> str:
        stages = {f"stages.{name}": stage for name, stage in self._config.items()}
        return settings_html(type(self).__name__, {**stages, **self._modes()})

    def _modes(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in _DEFAULTS}

    def explain(self, module: nn.Module, optimizer: OptimizerFactory | Optimizer | None = None) -> Table:
        """The plan for a model: what thaws when, and with which peak lr; changes nothing.

        Args:
            module: the model.
            optimizer: a factory or a built optimizer, which gives the groups; without it, each stage is one group.

        Raises:
            ConfigError: the plan does not fit the model.
        """
        plan, thaw_times = self._plan(module, optimizer)
        return plan.table(thaw_times)

    def settings_of(
        self, parameter: str, module: nn.Module, optimizer: OptimizerFactory | Optimizer
    ) -> ParameterSettings:
        """Every setting of one parameter from its thaw on, with its stage and the config keys that set each value.

        Args:
            parameter: any of its clean names.
            module: the model.
            optimizer: a factory or a built optimizer; only a factory knows which rule set what.

        Raises:
            ConfigError: there is no such parameter, or the plan does not fit the model.
        """
        plan, thaw_times = self._plan(module, optimizer)
        return plan.settings_of(parameter, thaw_times)

    def _plan(
        self, module: nn.Module, optimizer: OptimizerFactory | Optimizer | None
    ) -> tuple[Plan, tuple[tuple[str, str], ...]]:
        """The groups split by stage, and `(stage, when it thaws)`."""
        plan, stages = plan_stages(self._parsed_stages, module, optimizer)
        return plan, thaw_times(stages)


def thaw_times(stages: Sequence[Stage]) -> tuple[tuple[str, str], ...]:
    """`(name, when it thaws)` of each stage."""
    return tuple((stage.name, str(stage.trigger)) for stage in stages)
