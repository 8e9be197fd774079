"""The `optimizer:` of a stage: a rule for the parameters that the stage claims."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from typing import Any

from ..core.errors import ConfigError, format_names
from ..groups.group import Group
from ..groups.plan import Plan
from ..stages.stages import Stage
from .factory import OptimizerFactory, Params


def plan_with_stages(factory: OptimizerFactory, stages: Iterable[Stage], params: Params) -> Plan:
    """The plan of a factory with a rule for each stage that names an optimizer; its hyperparameters are the rule's.

    Args:
        factory: as configured.
        stages: with the parameters they claim.
        params: of the model.

    Raises:
        ConfigError: the factory has a rule of the same name, or refuses what the stage sets.
    """
    rules: dict[str, dict[str, Any]] = {}
    for stage in stages:
        if stage.optimizer is not None and stage.params:
            name = stage.key.rpartition(".")[2]
            if name in factory.groups:
                raise ConfigError(
                    f"{stage.key}.optimizer: the optimizer's config has a rule {name} too. Type "
                    f"groups.{name}.optimizer: {stage.optimizer} there, or rename the stage"
                )
            rule = rules.setdefault(name, {"params": [], "optimizer": stage.optimizer, **stage.hyperparameters})
            rule["params"] += map(glob.escape, sorted(stage.params))
    if not rules:
        return factory.plan(params)
    try:
        return _with_rules(factory, rules).plan(params)
    except ConfigError as error:
        message = str(error)
        for name in rules:
            message = message.replace(f"groups.{name}", f"stages.{name}")
        raise ConfigError(message) from None


def check_stage_optimizers(groups: Iterable[Group], stages: Iterable[Stage]) -> None:
    """Check that the stages' optimizers are those that were built.

    Args:
        groups: of the plan, split by stage.
        stages: of the run.

    Raises:
        ConfigError: a group has another algorithm than its stage asks for.
    """
    wanted = {stage.name: stage for stage in stages if stage.optimizer is not None}
    for group in groups:
        stage = wanted.get(str(group.stage))
        if stage is not None and group.algorithm != stage.optimizer:
            raise ConfigError(
                f"{stage.key}.optimizer: {stage.optimizer}, but the module's configure_optimizers has built "
                f"{group.algorithm} for {format_names(group.params, 3)}. Build it with "
                "lightning_optim.configure_optimizers(self, ...), or add the callback OptimizerOverride"
            )


def _with_rules(factory: OptimizerFactory, rules: dict[str, Any]) -> OptimizerFactory:
    return OptimizerFactory(
        factory.name,
        groups={**factory.groups, **rules},
        implementation=factory.implementation,
        **factory.hyperparameters,
    )
