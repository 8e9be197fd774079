"""`check_plan`: whether each algorithm of a plan takes its groups and parameters."""

from __future__ import annotations

from ..catalog.info import OptimizerInfo
from ..catalog.registry import optimizer_info
from ..core.errors import ConfigError
from ..groups.plan import Plan
from ..optim.checks import check_matrices
from .number_checks import check_numbers


def check_plan(plan: Plan) -> None:
    """Check that each algorithm of a plan takes its groups and parameters.

    Raises:
        ConfigError: an algorithm takes one group and gets several, takes matrices only and gets other tensors, or
            calculates with numbers that the dtype of its parameters does not hold.
    """
    for name in dict.fromkeys(group.algorithm for group in plan.groups):
        _check_algorithm(optimizer_info(name), plan)
    check_numbers(plan)


def _check_algorithm(info: OptimizerInfo, plan: Plan) -> None:
    if info.single_group and len(plan.groups) > 1:
        names = ", ".join(group.name for group in plan.groups)
        raise ConfigError(
            f"groups: {info.name} takes one param group, the rules make {len(plan.groups)}: {names}. "
            "Remove them with groups: null"
        )
    if info.name == "lbfgs":
        _check_no_integers(plan)
    if info.name == "adafactor":
        _check_not_empty(plan)
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


def _check_no_integers(plan: Plan) -> None:
    """L-BFGS treats all parameters as one vector, those without a gradient too."""
    for name, tensor in plan.tensors.items():
        if not (tensor.is_floating_point() or tensor.is_complex()):
            raise ConfigError(
                f"name: lbfgs updates all parameters as one vector of numbers with a fraction, and {name} is "
                f"{tensor.dtype}. Make it a buffer, or type name: adamw"
            )


def _check_not_empty(plan: Plan) -> None:
    """Adafactor divides by the number of a parameter's elements."""
    for group in plan.groups:
        for name in group.params if group.algorithm == "adafactor" else ():
            if not plan.tensors[name].numel():
                key = (group.sources.get("optimizer") or ("name",))[0]
                raise ConfigError(
                    f"{key}: adafactor divides by the number of elements, and {name} has the shape "
                    f"{list(plan.tensors[name].shape)}. Freeze it by a rule with frozen: true, or type name: adamw"
                )
