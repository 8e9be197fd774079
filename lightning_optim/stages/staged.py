"""An optimizer whose groups join stage by stage, each on the curve its configured group has always followed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ..core.errors import ConfigError, format_names
from ..core.param_group_keys import GROUP_METADATA
from ..groups.group import Group
from ..groups.loading import check_saved
from ..groups.plan import Plan
from ..schedule.curves import warmup
from ..schedule.param_group_values import assign, copied
from .scheduler_proxy import SchedulerProxy
from .split import split
from .stages import Stage

# What schedulers cycle besides lr.
_COPIED = ("momentum", "betas")
# A unit of FSDP2 may have its first gradient and no other.
_GUARDED_STEPS = 2


@dataclass
class _Part:
    """A group of the split plan and its parent in the proxy."""

    group: Group
    parent: dict[str, Any]
    tensors: list[Tensor]
    allow_unused: bool
    steps: int = 0
    """How often it has been stepped."""
    lr: Any = None
    """What `follow` has set."""
    parent_lr: Any = None
    """What it has set it from; None until the warm-up is over."""
    copied: tuple[str, ...] = ()
    """What else it takes from its parent."""

    def follow(self, group: dict[str, Any]) -> None:
        """Bring a live group to where its parent is; at most steps, nothing has changed."""
        parent = self.parent
        lr = parent["lr"]
        # A tensor may be the same and hold another value.
        if lr is not self.parent_lr or isinstance(lr, Tensor):
            climbing = self.steps < self.group.warmup_steps
            factor = self.group.lr_scale * warmup(self.steps, self.group.warmup_steps)
            self.lr = lr if factor == 1.0 else lr * factor
            self.parent_lr = None if climbing else lr
            assign(group, "lr", self.lr)
        for key in self.copied:
            group[key] = parent[key]


class StagedOptimizer:
    """Splits an optimizer's groups by stage, takes the later stages out, and adds them back when they thaw.

    Args:
        optimizer: built over the whole model, its schedulers too; it keeps its identity.
        module: where the parameters' names come from.
        stages: with their claims.
        schedulers: those that drive this optimizer; they drive the proxy from now on.

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
        self.plan = split(configured, stages)
        self.proxy = SchedulerProxy(optimizer)
        for scheduler in schedulers:
            self.proxy.retarget(scheduler, optimizer)
        parents = dict(zip((g.name for g in configured.groups), self.proxy.param_groups, strict=True))
        unused = {stage.name for stage in stages if stage.allow_unused}
        self._parts = [
            _Part(
                group=group,
                parent=parents[str(group.parent)],
                tensors=[configured.tensors[name] for name in group.params],
                allow_unused=group.stage in unused,
                copied=tuple(k for k in _COPIED if k in parents[str(group.parent)] and k not in group.overrides),
            )
            for group in self.plan.groups
        ]
        _check_all_claimed(configured, self.plan)
        self._live: list[_Part] = []
        self.paused = False
        """Whether steps are none of the training: loading a sharded state takes one, with lrs of 0, to make a state."""

    def tensors(self, stage: str) -> list[Tensor]:
        """A stage's parameters, as the optimizer holds them: a sharded module's own may be others for a while."""
        return [tensor for part in self._parts if part.group.stage == stage for tensor in part.tensors]

    def activate_stages(self, stages: Sequence[str]) -> None:
        """Leave just these stages in the optimizer, in the order in which they thawed; drop other stages' state."""
        self._live = [part for stage in stages for part in self._parts if part.group.stage == stage]
        self.optimizer.param_groups[:] = [self._param_group(part) for part in self._live]
        for part in self._parts:
            if part not in self._live:
                for tensor in part.tensors:
                    self.optimizer.state.pop(tensor, None)
        self.follow(reset=True)

    def thaw(self, stage: str) -> list[Group]:
        """Add a stage's groups to the optimizer, on their curves from the first step; returns them."""
        joined = [part for part in self._parts if part.group.stage == stage]
        for part in joined:
            group = self._param_group(part)
            names = group.pop("param_names", None)
            if names is not None:
                group["params"] = list(zip(names, part.tensors, strict=True))
            # Optimizers of ours refuse keys that they do not know, and any scheduler may have put its own there.
            defaults_of = getattr(self.optimizer, "defaults_of", lambda group: self.optimizer.defaults)
            self.optimizer.add_param_group(
                {key: group[key] for key in group if key in (*defaults_of(group), *GROUP_METADATA)}
            )
            self.optimizer.param_groups[-1].update({key: group[key] for key in group if key != "params"})
        self._live += joined
        self.follow(reset=True)
        return [part.group for part in joined]

    def follow(self, *, reset: bool = False) -> None:
        """Bring every live group to its parent's lr × `lr_scale` × warm-up, and to its momentum and betas.

        Args:
            reset: whether the groups are other ones than at the last time, as after a load.
        """
        for part, group in zip(self._live, self.optimizer.param_groups, strict=True):
            if reset:
                part.parent_lr = None
                if "configured" not in group:  # loading by name goes by what was configured; torch by the checkpoint
                    group.update(part.group.overrides)
            part.follow(group)

    def before_step(self, *_: Any) -> None:
        """For torch's hook before a step: follow once more, whoever has stepped a scheduler since.

        Raises:
            ConfigError: something else has set a live group's lr: following would undo it.
        """
        if self.paused:
            return
        for part, group in zip(self._live, self.optimizer.param_groups, strict=True):
            lr = group["lr"]
            # Not for a tensor lr: to look at it would make the host wait for the device.
            if lr is not part.lr and not isinstance(lr, Tensor) and lr != part.lr:
                raise ConfigError(
                    f"stages.{part.group.stage}: something other than a scheduler has set the lr of group "
                    f"'{part.group.name}' to {float(lr):g}, where its curve has {float(part.lr):g}, and "
                    "following the curve would undo it. Put it into a scheduler, or leave the unfreeze out"
                )
        self.follow()

    def after_step(self, *_: Any) -> None:
        """For torch's hook after a step: warm-ups go on, and a stage that has just thawed shows its gradients.

        Raises:
            ConfigError: a parameter had none in one of its stage's first two steps, so it does not train.
        """
        if self.paused:
            return
        for part in self._live:
            part.steps += 1
            if part.steps <= _GUARDED_STEPS and not part.allow_unused:
                _check_gradients(part)

    def state_dict(self) -> dict[str, Any]:
        """The proxy, how far each group is, and what is in it, in types that `weights_only` accepts."""
        return {
            "scheduler_groups": self.proxy.state_dict(),
            "steps": {part.group.name: part.steps for part in self._parts},
            "live": [{"name": part.group.name, "param_names": list(part.group.params)} for part in self._live],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back, through edited rules too: a group has as many steps behind it as its first parameter.

        Raises:
            ConfigError: other parameters are live in it, or other groups where a state is loaded by place.
        """
        if not all("configured" in group for group in self.proxy.param_groups):
            # No factory built it, so its state is loaded by place.
            live_groups = [{"name": part.group.name, "param_names": part.group.params} for part in self._live]
            check_saved(live_groups, state["live"])
        before = {name: saved["name"] for saved in state["live"] for name in saved["param_names"]}
        live = [name for part in self._live for name in part.group.params]
        if odd := sorted(before.keys() ^ set(live)):
            raise ConfigError(
                f"stages: {len(odd)} parameters are live in the checkpoint or in this run, and not in both: "
                f"{format_names(odd, 3)}. Give the stages that the checkpoint was saved under"
            )
        self.proxy.load_state_dict(state["scheduler_groups"])
        for part in self._parts:
            part.steps = int(state["steps"].get(before.get(part.group.params[0], part.group.name), 0))
        self.follow(reset=True)

    def resume_from(self, last: StagedOptimizer) -> None:
        """Take over how often the groups of another fit's optimizer were stepped."""
        steps = {part.group.name: part.steps for part in last._parts}
        for part in self._parts:
            part.steps = steps.get(part.group.name, 0)
        self.follow(reset=True)

    def _param_group(self, part: _Part) -> dict[str, Any]:
        """A param group as its parent is now, with its own name and parameters."""
        group = copied(part.parent) | {"params": list(part.tensors), "name": part.group.name}
        if "param_names" in group:
            group["param_names"] = list(part.group.params)
        if "peak_lr" in group:
            group["peak_lr"] = part.parent["peak_lr"] * part.group.lr_scale
        group |= part.group.overrides
        if "configured" in group:
            group["configured"] = {**group["configured"], **part.group.overrides}
        return group


def _check_all_claimed(configured: Plan, split: Plan) -> None:
    """Whether each parameter of the optimizer has a stage: of the module's own, others have seen to that."""
    claimed = {name for group in split.groups for name in group.params}
    left = [name for group in configured.groups for name in group.params if name not in claimed]
    if left:
        raise ConfigError(
            f"stages: the optimizer holds {len(left)} parameters that belong to no stage: "
            f"{format_names(left, 3)}. A stage "
            "claims parameters of the module by name: make these some of its own, or leave them out of this optimizer"
        )


def _check_gradients(part: _Part) -> None:
    without = [name for name, tensor in zip(part.group.params, part.tensors, strict=True) if tensor.grad is None]
    if without:
        stage = f"stages.{part.group.stage}"
        raise ConfigError(
            f"{stage}: {len(without)} of its parameters had no gradient in step {part.steps} after the thaw: "
            f"{format_names(without, 3)}. If they may go unused, type {stage}.allow_unused: true"
        )
