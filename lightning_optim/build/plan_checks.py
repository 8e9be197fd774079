"""`check_plan`: whether each algorithm of a plan takes its groups and parameters."""

from __future__ import annotations

from torch import Tensor

from ..catalog.info import OptimizerInfo
from ..catalog.registry import optimizer_info
from ..core.errors import ConfigError
from ..groups.group import Group
from ..groups.plan import Plan
from ..optim.matrices import find_shape_problem
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
    if info.matrices_only:
        _check_matrices(info, plan)


def _check_matrices(info: OptimizerInfo, plan: Plan) -> None:
    own = plan.specs[info.name].uses_own_class
    for group in (group for group in plan.groups if group.algorithm == info.name):
        source = group.sources.get("optimizer", ("name",))[0]
        rule = source.rpartition(".")[0]
        for name in group.params:
            key, text = _find_matrix_problem(info, name, plan.tensors[name], group, own=own) or ("", "")
            if key == "params":
                advice = (
                    f"Narrow {rule} by kinds: [matrix]{'' if own else ' and classes: [Linear]'}"
                    if rule
                    else f"Type name: adamw, and optimizer: {info.name} in a rule for the backbone's matrices, as in "
                    "optimizer=muon_adamw"
                )
                raise ConfigError(f"{source}: {info.name} {text} {advice}")
            if key:
                where = (group.sources.get(key) or (f"{rule}.{key}" if rule else key,))[0]
                raise ConfigError(f"{where}: {text}")


def _find_matrix_problem(
    info: OptimizerInfo, name: str, tensor: Tensor, group: Group, *, own: bool
) -> tuple[str, str] | None:
    if own or tensor.ndim < 2:
        return find_shape_problem(name, tensor, group.hyperparameters)
    if tensor.ndim > 2:
        cure = " Type implementation: auto, or narrow what it gets" if info.own else ""
        shape = list(tensor.shape)
        return "params", f"of torch takes 2-D parameters only; {name} has the shape {shape}.{cure}."
    return ("params", f"of torch takes no complex parameters; {name} is one.") if tensor.is_complex() else None


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
