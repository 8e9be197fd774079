"""`attach`: what the factory adds to an optimizer's instance, whose class stays torch's or the family's own."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from ..groups.optimizer_table import format_optimizer
from ..groups.rules_by_group import mark_rules_by_group
from .blueprint import Blueprint
from .first_step import attach_checks
from .fused_layouts import FusedLayouts
from .joining import join
from .load_by_name import remap_before_load

# BaseFinetuning derives the lr of a group that it adds from the lr of this step, and has no way to say so.
_GIVE_CURRENT_LR = ("lightning.pytorch.callbacks.finetuning", "pytorch_lightning.callbacks.finetuning")


def attach(optimizer: Optimizer, blueprint: Blueprint, names: Mapping[Tensor, str]) -> Optimizer:
    """Make an optimizer load by name, complete the groups that join it, and check what it gives to fused kernels.

    A copy of it, and one that was pickled, does the same. They know the names of their own parameters only.

    Args:
        optimizer: a new one.
        blueprint: of the optimizer.
        names: of the model's parameters, in the optimizer or not.
    """
    this = weakref.ref(optimizer)  # torch's optimizers are freed without the garbage collector, so no cycle

    def add_param_group(param_group: dict[str, Any]) -> None:
        """Add a param group, at any time; parameters without names get those of the model, or names by position."""
        caller = sys._getframe(1).f_globals.get("__name__")
        join(_alive(this), blueprint, names, param_group, at_current_lr=caller in _GIVE_CURRENT_LR)

    def reduce(protocol: Any) -> tuple[Any, ...]:
        """How `pickle` and `copy.deepcopy` make another one: as of its class, with the same attachments."""
        optimizer = _alive(this)
        reduced = type(optimizer).__reduce_ex__(optimizer, protocol)
        return _rebuild, (blueprint, *reduced[:3])

    def show() -> str:
        """How a notebook shows it: a table of its groups, where torch's classes print all keys of each."""
        return format_optimizer(_alive(this))

    mark_rules_by_group(optimizer, blueprint.rules)
    optimizer._repr_html_ = show  # type: ignore[attr-defined]
    optimizer.add_param_group = add_param_group  # type: ignore[method-assign]
    optimizer.__reduce_ex__ = reduce  # type: ignore[method-assign]
    optimizer.register_load_state_dict_pre_hook(partial(remap_before_load, blueprint))
    attach_checks(optimizer)
    if blueprint.may_fuse:
        layouts = FusedLayouts()
        optimizer.register_step_pre_hook(layouts.before_step)
        optimizer.register_step_post_hook(layouts.after_step)
        optimizer.register_state_dict_pre_hook(layouts.after_step)
    return optimizer


def _rebuild(blueprint: Blueprint, create: Callable[..., Any], arguments: tuple[Any, ...], state: Any) -> Optimizer:
    optimizer = create(*arguments)
    optimizer.__setstate__(state)
    return attach(optimizer, blueprint, {})


def _alive(reference: Callable[[], Optimizer | None]) -> Optimizer:
    optimizer = reference()
    assert optimizer is not None, "its method is called after it is gone"
    return optimizer
