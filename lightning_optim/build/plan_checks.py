"""Whether each algorithm of a plan takes the groups and parameters that the rules gave it."""

from __future__ import annotations

from ..catalog.info import OptimizerInfo
from ..catalog.registry import optimizer_info
from ..core.errors import ConfigError
from ..groups.plan import Plan
from ..optim.checks import check_matrices


def check_takes(plan: Plan) -> None:
    """Whether each algorithm of a plan takes its groups and parameters.

    Raises:
        ConfigError: one does not.
    """
    for name in dict.fromkeys(group.algorithm for group in plan.groups):
        _check_takes(optimizer_info(name), plan)


def _check_takes(info: OptimizerInfo, plan: Plan) -> None:
    if info.single_group and len(plan.groups) > 1:
        names = ", ".join(group.name for group in plan.groups)
        raise ConfigError(
            f"groups: {info.name} takes one param group, the rules make {len(plan.groups)}: {names}. "
            "Remove them with groups: null"
        )
    for group in plan.groups if info.matrices_only else ():
        if group.algorithm != info.name:
            continue
        key = group.sources.get("optimizer", ("name",))[0]
        rule = key.rpartition(".")[0]
        advice = (
            f"Narrow {rule} by kinds: [matrix] and classes: [Linear]"
            if rule
            else "Type name: adamw, or optimizer=muon_adamw, which gives muon the backbone's matrices"
        )
        check_matrices(info.name, [(name, plan.tensors[name]) for name in group.params], key, advice)
