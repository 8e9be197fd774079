"""How a plan's parameters are read as matrices, and by whose class, where the config leaves it open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..core.errors import ConfigError
from ..groups.group import Group
from ..groups.parameters import Parameter
from ..groups.plan import Plan
from ..groups.rules import AlgorithmSpec


def resolve_matrices(plan: Plan, parameters: Iterable[Parameter], implementation: str) -> Plan:
    """The plan with `matrix` for each group that has other than 2-D parameters, and our class where torch's cannot run.

    Args:
        plan: with its algorithms under `specs`.
        parameters: of the model, with their modules.
        implementation: the config's.

    Raises:
        ConfigError: a group has both kernels and stacks of matrices; or `split` would cut a weight along its inputs.
    """
    specs = {name: _choose_class(plan, spec, implementation) for name, spec in plan.specs.items()}
    owners = {p.name: [o.owner for o in p.occurrences if o.owner is not None] for p in parameters}
    groups = tuple(
        _resolve_layout(plan, group, owners) if _runs_matrices(specs[group.algorithm]) else group
        for group in plan.groups
    )
    return replace(plan, groups=groups, specs=specs)


def _runs_matrices(spec: AlgorithmSpec) -> bool:
    return spec.info.matrices_only and spec.uses_own_class


def _choose_class(plan: Plan, spec: AlgorithmSpec, implementation: str) -> AlgorithmSpec:
    if not spec.info.matrices_only or spec.uses_own_class or not spec.info.own or implementation != "auto":
        return spec
    groups = [group for group in plan.groups if group.algorithm == spec.algorithm]
    fits = all(_torch_takes(plan.tensors[name], group) for group in groups for name in group.params)
    return spec if fits else replace(spec, uses_own_class=True)


def _torch_takes(tensor: Tensor, group: Group) -> bool:
    """Whether torch's Muon steps a parameter as it should."""
    # In bfloat16 without Nesterov, torch 2.13 and 2.14 divide the momentum buffer itself by its norm.
    overwrites = tensor.dtype == torch.bfloat16 and not group.hyperparameters.get("nesterov", True)
    # Of sharded matrices it makes distributed products, whose sums are other ones than those of one process.
    return tensor.ndim == 2 and not isinstance(tensor, DTensor) and not overwrites


def _resolve_layout(plan: Plan, group: Group, owners: Mapping[str, list[nn.Module]]) -> Group:
    """The group with what its parameters of three or more dimensions are, by the classes of their modules."""
    if group.hyperparameters["split"] != 1:
        _check_rows_are_outputs(group, owners)
    if group.hyperparameters["matrix"] is not None:
        return group
    found: dict[str, str] = {}
    for name in group.params:
        if plan.tensors[name].ndim > 2 and owners.get(name):
            found.setdefault("flatten" if _is_kernel(owners[name]) else "batch", name)
    if len(found) > 1:
        raise ConfigError(
            f"{_prefix(group)}matrix: {found['flatten']} is the kernel of a convolution, and "
            f"{found['batch']} would be a stack of matrices. Give them rules of their own, with matrix: flatten and "
            "matrix: batch"
        )
    return replace(group, hyperparameters={**group.hyperparameters, "matrix": next(iter(found))}) if found else group


def _check_rows_are_outputs(group: Group, owners: Mapping[str, list[nn.Module]]) -> None:
    """Raises a ConfigError if `split` would cut the weight of GPT-2's `Conv1D`, of the shape (in, out), by inputs."""
    for name in group.params:
        if any(type(owner).__name__ == "Conv1D" for owner in owners.get(name, ())):
            raise ConfigError(
                f"{_prefix(group)}split: {name} belongs to a Conv1D of transformers, whose weight has the shape (in, "
                "out): the rows that would be cut are its inputs. Remove split, or give it a rule of its own without"
            )


def _prefix(group: Group) -> str:
    source = (group.sources.get("optimizer") or ("name",))[0].rpartition(".")[0]
    return f"{source}." if source else ""


def _is_kernel(owners: Iterable[nn.Module]) -> bool:
    return any(isinstance(o, nn.modules.conv._ConvNd) or "Conv" in type(o).__name__ for o in owners)
