"""What steps each group: whose class, and in which of its executions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from torch import Tensor
from torch.optim import Optimizer

from ..core.errors import ConfigError
from ..core.param_group_keys import ALGORITHM
from ..groups.plan import Plan
from ..optim.base import AdaptiveOptimizer
from ..optim.bucket import prefers_lists
from ..optim.composite import Composite
from .fused_layouts import can_fuse
from .implementation import constructor_arguments


def plan_executions(plan: Plan) -> Plan:
    """A factory's plan, with the execution of each group on the device where its parameters are now."""
    executions: list[str | None] = []
    for group in plan.groups:
        spec = plan.specs[group.algorithm]
        tensors = [plan.tensors[name] for name in group.params]
        values = constructor_arguments(spec.uses_own_class, spec.info, spec.hyperparameters)
        cls, fused, foreach = spec.info.load(own=spec.uses_own_class), values.get("fused"), values.get("foreach")
        if not spec.uses_own_class and spec.info.fused and fused is None and foreach is None:
            fused = can_fuse(cls, tensors)
        if tensors and not spec.info.is_built_in and issubclass(cls, AdaptiveOptimizer):
            with suppress(ConfigError):  # which the factory reports
                optimizer = cls(tensors, **values)
                executions.append(f"ours, {optimizer.name_execution(optimizer.param_groups[0])}")
                continue
        executions.append(_name_execution(cls, tensors, fused, foreach))
    return _with_executions(plan, executions)


def read_executions(plan: Plan, optimizer: Optimizer) -> Plan:
    """The plan of an optimizer, with the execution of each group."""
    executions: list[str | None] = []
    for group in optimizer.param_groups:
        stepped_by = optimizer.children[group[ALGORITHM]] if isinstance(optimizer, Composite) else optimizer
        if group["params"] and isinstance(stepped_by, AdaptiveOptimizer):
            executions.append(f"ours, {stepped_by.name_execution(group)}")
            continue
        flags = group.get("fused"), group.get("foreach")
        executions.append(_name_execution(type(stepped_by), group["params"], *flags))
    return _with_executions(plan, executions)


def _with_executions(plan: Plan, executions: Iterable[str | None]) -> Plan:
    pairs = zip(plan.groups, executions, strict=True)
    return replace(plan, groups=tuple(replace(group, execution=execution) for group, execution in pairs))


def _name_execution(
    cls: type[Optimizer], params: Sequence[Tensor], fused: bool | None, foreach: bool | None
) -> str | None:
    """How a class steps parameters; None for none of them, or a class that is neither torch's nor ours."""
    if not params:
        return None
    if issubclass(cls, AdaptiveOptimizer):
        return f"ours, {cls.execution_of(params, fused=fused, foreach=foreach)}"
    if not cls.__module__.startswith("torch."):
        return None
    lists = prefers_lists(params[0]) if foreach is None else foreach
    return f"torch, {'fused' if fused else 'lists' if lists else 'loop'}"
