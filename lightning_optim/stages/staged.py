"""An optimizer whose groups join stage by stage, each on the curve its configured group has always followed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import ConfigError
from ..groups.plan import Group, Plan
from ..schedule.curves import warmup
from ..schedule.ledger import Ledger, assign
from .stages import Stage

# What schedulers cycle besides lr.
_COPIED = ("momentum", "betas")


@dataclass
class _Part:
    """A group of the split plan, its parent in the ledger, and how often it has been stepped."""

    group: Group
    parent: dict[str, Any]
    tensors: list[Tensor]
    steps: int = 0


class StagedOptimizer:
    """Splits an optimizer's groups by stage, takes the later stages out, and adds them back when they thaw.

    Args:
        optimizer: built over the whole model, its schedulers too; it keeps its identity.
        module: where the parameters' names come from.
        stages: with their claims.
        schedulers: those that drive this optimizer; they drive the ledger from now on.

    Raises:
        ConfigError: a parameter of the optimizer belongs to no stage, or the optimizer takes one group only.
    """

    def __init__(
        self, optimizer: Optimizer, module: nn.Module, stages: Sequence[Stage], schedulers: Iterable[Any] = ()
    ) -> None:
        if "max_iter" in optimizer.defaults and "history_size" in optimizer.defaults:
            raise ConfigError("stages: lbfgs takes one param group for ever, so no stage can join it. Take name: adamw")
        configured = Plan.of(optimizer, module)
        self.optimizer = optimizer
        self.plan = configured.split(stages)
        self.ledger = Ledger(optimizer)
        for scheduler in schedulers:
            self.ledger.retarget(scheduler, optimizer)
        parents = dict(zip((g.name for g in configured.groups), self.ledger.param_groups, strict=True))
        self._parts = [
            _Part(group=group, parent=parents[str(group.parent)], tensors=[configured.tensors[n] for n in group.params])
            for group in self.plan.groups
        ]
        self._live: list[_Part] = []

    def show_only(self, stages: Sequence[str]) -> None:
        """Leave just these stages in the optimizer, in the order in which they thawed; drop other stages' state."""
        self._live = [part for stage in stages for part in self._parts if part.group.stage == stage]
        self.optimizer.param_groups[:] = [self._param_group(part) for part in self._live]
        for part in self._parts:
            if part not in self._live:
                for tensor in part.tensors:
                    self.optimizer.state.pop(tensor, None)
        self.follow()

    def thaw(self, stage: str) -> list[Group]:
        """Add a stage's groups to the optimizer, on their curves from the first step; returns them."""
        joined = [part for part in self._parts if part.group.stage == stage]
        for part in joined:
            group = self._param_group(part)
            names = group.pop("param_names", None)
            if names is not None:
                group["params"] = list(zip(names, part.tensors, strict=True))
            self.optimizer.add_param_group(group)
        self._live += joined
        self.follow()
        return [part.group for part in joined]

    def follow(self) -> None:
        """Bring every live group to its parent's lr × `lr_scale` × warm-up, and to its momentum and betas."""
        for part, group in zip(self._live, self.optimizer.param_groups, strict=True):
            factor = part.group.lr_scale * warmup(part.steps, part.group.warmup_steps)
            assign(group, "lr", part.parent["lr"] if factor == 1.0 else part.parent["lr"] * factor)
            for key in _COPIED:
                if key in part.parent:
                    group[key] = part.parent[key]

    def count_step(self) -> None:
        """Note that the optimizer has stepped: warm-ups go on."""
        for part in self._live:
            part.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """What schedulers made of the ledger, and how far each group's warm-up is, in types `weights_only` accepts."""
        return {"ledger": self.ledger.state_dict(), "steps": {part.group.name: part.steps for part in self._parts}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back.

        Raises:
            ConfigError: it is of other groups.
        """
        self.ledger.load_state_dict(state["ledger"])
        for part in self._parts:
            part.steps = int(state["steps"].get(part.group.name, 0))
        self.follow()

    def _param_group(self, part: _Part) -> dict[str, Any]:
        """A param group as its parent is now, with its own name and parameters."""
        group = {key: value.clone() if isinstance(value, Tensor) else value for key, value in part.parent.items()}
        group |= {"params": list(part.tensors), "name": part.group.name}
        if "param_names" in group:
            group["param_names"] = list(part.group.params)
        if "peak_lr" in group:
            group["peak_lr"] = part.parent["peak_lr"] * part.group.lr_scale
        return group
