"""`check_plan`: whether each algorithm of a plan takes its groups and parameters."""

from __future__ import annotations

from ..catalog.info import OptimizerInfo
from ..catalog.registry import optimizer_info
from ..core.errors import ConfigError
from ..groups.plan import Plan
from ..optim.checks import check_matrices


def check_plan(plan: Plan) -> None:
    """Check that each algorithm of a plan takes its groups and parameters.

    Raises:
        ConfigError: an algorithm takes one group and gets several, or takes matrices only and gets other tensors.
    """
    for name in dict.fromkeys(group.algorithm for group in plan.groups):
        _check_algorithm(optimizer_info(name), plan)


def _check_algorithm(info: OptimizerInfo, plan: Plan) -> None:
    if info.single_group and len(plan.groups) > 1:
        names = ", ".join(group.name for group in plan.groups)
        raise ConfigError(
            f"groups: {info.name} takes one param group, the rules make {len(plan.groups)}: {names}. "
            "Remove them with groups: null"
        )
    if not info.matrices_only:
        return
    for group in plan.groups:
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
