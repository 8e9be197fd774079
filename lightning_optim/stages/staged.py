"""An optimizer to which stages are added as they thaw, each on the lr curve of the group it was configured in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ..core.errors import ConfigError, format_names
from ..core.param_group_keys import GROUP_METADATA
from ..groups.group import Group
from ..groups.match_by_name import check_same_groups
from ..groups.plan import Plan
from ..groups.rules_by_group import mark_rules_by_group
from ..schedule.curves import warmup
from ..schedule.optimizer_marks import driven_values
from ..schedule.param_group_values import copy_group, set_value
from .scheduler_proxy import SchedulerProxy
from .split import split_by_stage
from .stages import Stage

# Besides lr, what schedulers change in a group; and what `also` of a SchedulerFactory says.
_CYCLED_KEYS = ("momentum", "betas")
# The steps after a thaw in which gradients are checked. One is too few: a unit of FSDP2 may have a gradient in its
# first step and none afterwards.
_NUM_CHECKED_STEPS = 2


@dataclass
class _StagedGroup:
    """A group of the plan split by stage, and its parent: the group of the proxy it was split from."""

    group: Group
    parent: dict[str, Any]
    tensors: list[Tensor]
    allow_unused: bool
    copied_keys: tuple[str, ...] = ()
    """What it copies from its parent besides lr."""
    num_steps: int = 0
    """Number of optimizer steps since the thaw."""
    lr: Any = None
    """The lr that `sync` has set."""
    parent_lr: Any = None
    """The parent's lr that it was computed from; None to compute it at each step: during the warm-up, and from a
    tensor, which may have another value then."""

    def sync(self, group: dict[str, Any]) -> None:
        """Update the live group from its parent. At most steps nothing has changed, so this is cheap."""
        parent = self.parent
        lr = parent["lr"]
        if lr is not self.parent_lr:
            in_warmup = self.num_steps < self.group.warmup_steps
            factor = self.group.lr_scale * warmup(self.num_steps, self.group.warmup_steps)
            self.lr = lr if factor == 1.0 else lr * factor
            self.parent_lr = None if in_warmup or isinstance(lr, Tensor) else lr
            set_value(group, "lr", self.lr)
        for key in self.copied_keys:
            group[key] = parent[key]


class StagedOptimizer:
    """Splits an optimizer's groups by stage, removes the later stages, and adds each back when it thaws.

    Args:
        optimizer: built over the whole model, as are its schedulers; it stays the same object.
        module: gives the parameters their names.
        stages: with the parameters they claim.
        schedulers: those that drive this optimizer; from now on they drive the proxy.

    Raises:
        ConfigError: a parameter of the optimizer belongs to no stage, or the optimizer takes one param group only.
    """

    def __init__(
        self, optimizer: Optimizer, module: nn.Module, stages: Sequence[Stage], schedulers: Iterable[Any] = ()
    ) -> None:
        if "max_iter" in optimizer.defaults and "history_size" in optimizer.defaults:
            raise ConfigError(
                "stages: lbfgs takes one param group, so no stage can be added. Use another optimizer, for example "
                "name: adamw"
            )
        configured = Plan.from_optimizer(optimizer, module)
        self.optimizer = optimizer
        self.plan = split_by_stage(configured, stages)
        mark_rules_by_group(optimizer, {group.name: group.made_by for group in self.plan.groups})
        self.proxy = SchedulerProxy(optimizer)
        for scheduler in schedulers:
            self.proxy.retarget(scheduler, optimizer)
        parents = dict(zip((g.name for g in configured.groups), self.proxy.param_groups, strict=True))
        unused = {stage.name for stage in stages if stage.allow_unused}
        values = driven_values(optimizer)
        driven = frozenset() if values is None else values.group_keys
        _check_not_driven(self.plan.groups, driven)
        self._groups = [
            _StagedGroup(
                group=group,
                parent=parents[str(group.parent)],
                tensors=[configured.tensors[name] for name in group.params],
                allow_unused=group.stage in unused,
                copied_keys=tuple(
                    key
                    for key in dict.fromkeys((*_CYCLED_KEYS, *sorted(driven)))
                    if key in parents[str(group.parent)] and key not in group.overrides
                ),
            )
            for group in self.plan.groups
        ]
        _check_no_unclaimed(configured, self.plan)
        self._live: list[_StagedGroup] = []
        self.num_steps = 0
        """Number of its steps, without those for which `training_step` gave no loss."""
        self.by_hand = False
        """Whether the module steps it (manual optimization), so that every step has a purpose."""
        self.has_stepped = False
        """Whether it has stepped since this was last set to False."""
        self.ignore_steps = False
        """Whether the step hooks do nothing: loading a sharded state takes a step with lr 0 to create the state."""

    @property
    def has_groups(self) -> bool:
        """Whether one of its stages has thawed."""
        return bool(self._live)

    @property
    def is_accumulating(self) -> bool:
        """Whether it has gradients although it has not stepped lately; of use if the module steps it by hand."""
        return not self.has_stepped and self._has_gradient()

    def _has_gradient(self) -> bool:
        for staged in self._live:  # a loop, as this is done at every step: nearly always the first tensor has one
            for tensor in staged.tensors:
                if tensor.grad is not None:
                    return True
        return False

    def tensors(self, stage: str) -> list[Tensor]:
        """The parameters of a stage as the optimizer has them; a sharded module may have others for a while."""
        return [tensor for staged in self._groups if staged.group.stage == stage for tensor in staged.tensors]

    def activate_stages(self, stages: Sequence[str]) -> None:
        """Keep only these stages in the optimizer, in the order in which they thawed; drop the others' state."""
        self._live = [staged for stage in stages for staged in self._groups if staged.group.stage == stage]
        self.optimizer.param_groups[:] = [self._build_param_group(staged) for staged in self._live]
        for staged in self._groups:
            if staged not in self._live:
                for tensor in staged.tensors:
                    self.optimizer.state.pop(tensor, None)
        self.sync(reset=True)

    def thaw(self, stage: str) -> list[Group]:
        """Add the groups of a stage to the optimizer, each on its lr curve from its first step; returns them."""
        added = [staged for staged in self._groups if staged.group.stage == stage]
        for staged in added:
            for tensor in staged.tensors:
                # Whatever made a waiting stage trainable has left a gradient of earlier batches here.
                tensor.grad = None
            group = self._build_param_group(staged)
            names = group.pop("param_names", None)
            if names is not None:
                group["params"] = list(zip(names, staged.tensors, strict=True))
            # Our optimizers refuse unknown keys, and any scheduler may have stored its own in the group.
            defaults_of = getattr(self.optimizer, "defaults_of", lambda group: self.optimizer.defaults)
            self.optimizer.add_param_group(
                {key: group[key] for key in group if key in (*defaults_of(group), *GROUP_METADATA)}
            )
            self.optimizer.param_groups[-1].update({key: group[key] for key in group if key != "params"})
        self._live += added
        self.sync(reset=True)
        return [staged.group for staged in added]

    def sync(self, *, reset: bool = False) -> None:
        """Set each live group to its parent's lr × `lr_scale` × warm-up, and to its parent's momentum and betas.

        Args:
            reset: whether the groups may have changed since the last call, as after a load.

        Raises:
            ConfigError: something else has added or removed a group.
        """
        for staged, group in self._pairs():
            if reset:
                staged.parent_lr = None
                if "configured" not in group:  # torch took these from the checkpoint; a load by name has merged them
                    group.update(staged.group.overrides)
            staged.sync(group)

    def before_step(self, *_: Any) -> None:
        """For torch's hook before a step: sync again, in case a scheduler was stepped since.

        Raises:
            ConfigError: something else has set the lr of a live group, which the sync would overwrite; or has added or
                removed a group.
        """
        if self.ignore_steps:
            return
        for staged, group in self._pairs():
            lr = group["lr"]
            # A tensor lr is not compared: reading its value would make the host wait for the device.
            if lr is not staged.lr and not isinstance(lr, Tensor) and lr != staged.lr:
                raise ConfigError(
                    f"stages.{staged.group.stage}: something other than a scheduler has set the lr of group "
                    f"'{staged.group.name}' to {float(lr):g}, but its curve gives {float(staged.lr):g} and would "
                    "overwrite it. Change the lr with a scheduler, or train without stages"
                )
            staged.sync(group)

    def after_step(self, *_: Any) -> None:
        """For torch's hook after a step: advance the warm-ups, and check the gradients of stages that just thawed.

        Raises:
            ConfigError: a parameter had no gradient in one of its stage's first two steps, so it does not train.
        """
        if self.ignore_steps:
            return
        self.has_stepped = True
        # Lightning steps even if `training_step` has returned None: then nothing is trained.
        if self._live and not self.by_hand and not self._has_gradient():
            return
        self.num_steps += 1
        for staged in self._live:
            staged.num_steps += 1
            if staged.num_steps <= _NUM_CHECKED_STEPS and not staged.allow_unused:
                _check_gradients(staged)

    def state_dict(self) -> dict[str, Any]:
        """The groups of the proxy, the steps of each group, and the live groups, in types `weights_only` accepts."""
        return {
            "scheduler_groups": self.proxy.state_dict(),
            "num_steps": {staged.group.name: staged.num_steps for staged in self._groups},
            "num_optimizer_steps": self.num_steps,
            "live_groups": [{"name": s.group.name, "param_names": list(s.group.params)} for s in self._live],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it, also under edited rules: a group takes the number of steps of its first parameter.

        Raises:
            ConfigError: other parameters were live; or other groups, where the optimizer loads by position.
        """
        if not all("configured" in group for group in self.proxy.param_groups):
            # The optimizer was not built by a factory, so its state is loaded by position.
            live_groups = [{"name": staged.group.name, "param_names": staged.group.params} for staged in self._live]
            check_same_groups(live_groups, state["live_groups"])
        saved_group = {name: group["name"] for group in state["live_groups"] for name in group["param_names"]}
        live = [name for staged in self._live for name in staged.group.params]
        if different := sorted(saved_group.keys() ^ set(live)):
            raise ConfigError(
                f"stages: {len(different)} parameters have thawed either in the checkpoint or in this run, but not in "
                f"both: {format_names(different, 3)}. Use the stages that the checkpoint was saved with"
            )
        self.proxy.load_state_dict(state["scheduler_groups"])
        for staged in self._groups:
            name = saved_group.get(staged.group.params[0], staged.group.name)
            staged.num_steps = int(state["num_steps"].get(name, 0))
        # A checkpoint of an earlier version lacks it; a group that is trained from the start has done every step.
        self.num_steps = int(state.get("num_optimizer_steps", max(state["num_steps"].values(), default=0)))
        self.sync(reset=True)

    @contextmanager
    def around_sharded_load(self) -> Iterator[None]:
        """For a load of a sharded state by torch: only groups that have stepped have a state that can be loaded.

        The checkpoint has none for a group that has thawed and not stepped. If no group had stepped, torch has made up
        a state of one step to save, and here it is dropped.
        """
        live = list(self._pairs())
        stepped = [group for staged, group in live if staged.num_steps]
        self.optimizer.param_groups[:] = stepped or [group for _, group in live]
        try:
            yield
        finally:
            # A load may have replaced the groups that took part in it.
            loaded = iter(self.optimizer.param_groups[:])
            self.optimizer.param_groups[:] = [
                next(loaded) if staged.num_steps or not stepped else group for staged, group in live
            ]
            for staged in self._live if not stepped else ():
                for tensor in staged.tensors:
                    self.optimizer.state.pop(tensor, None)

    def load_unstaged(self, groups: Sequence[dict[str, Any]]) -> None:
        """Take over the lrs of a run without stages: its schedule continues from them."""
        self.proxy.load_state_dict(groups)
        self.sync(reset=True)

    def resume_from(self, previous: StagedOptimizer) -> None:
        """Take over the number of steps, also of each group, from the optimizer of a previous fit."""
        self.num_steps = previous.num_steps
        num_steps = {staged.group.name: staged.num_steps for staged in previous._groups}
        for staged in self._groups:
            staged.num_steps = num_steps.get(staged.group.name, 0)
        self.sync(reset=True)

    def _pairs(self) -> Iterator[tuple[_StagedGroup, dict[str, Any]]]:
        """Each live group with its param group.

        Raises:
            ConfigError: something else has added or removed one.
        """
        groups = self.optimizer.param_groups
        if len(groups) != len(self._live):
            raise ConfigError(
                f"stages: something else has added or removed a param group: the optimizer has {len(groups)}, the "
                f"stages that have thawed have {len(self._live)}. Build the optimizer over the whole model, and add a "
                "stage for the parameters that join later"
            )
        return zip(self._live, groups, strict=True)

    def _build_param_group(self, staged: _StagedGroup) -> dict[str, Any]:
        """A param group with the current values of its parent, and its own name and parameters."""
        group = copy_group(staged.parent) | {"params": list(staged.tensors), "name": staged.group.name}
        if "param_names" in group:
            group["param_names"] = list(staged.group.params)
        if "peak_lr" in group:
            group["peak_lr"] = staged.parent["peak_lr"] * staged.group.lr_scale
        group |= staged.group.overrides
        if "configured" in group:
            group["configured"] = {**group["configured"], **staged.group.overrides}
        return group


def _check_not_driven(groups: Iterable[Group], driven: frozenset[str]) -> None:
    """Check that no stage sets a value that the scheduler drives; 0 stays 0."""
    for group in groups:
        for key in sorted(driven & group.overrides.keys()):
            if group.overrides[key]:
                raise ConfigError(
                    f"stages.{group.stage}.{key}: the scheduler drives it over time (scheduler.also), so a stage "
                    f"cannot set it. Set it in a rule, optimizer.groups, or type {key}: 0 where that is a value"
                )


def _check_no_unclaimed(configured: Plan, split: Plan) -> None:
    """Check that each parameter of the optimizer has a stage; for the module's own, `check_all_claimed` has."""
    claimed = {*split.fixed, *(name for group in split.groups for name in group.params)}
    missing = [name for group in configured.groups for name in group.params if name not in claimed]
    if not missing:
        return
    prefix = (
        f"stages: the optimizer holds {len(missing)} parameters that belong to no stage: {format_names(missing, 3)}"
    )
    if any(configured.tensors[name].requires_grad for name in missing):
        raise ConfigError(
            f"{prefix}. A stage claims parameters of the module by name: register these in the module, or leave them "
            "out of this optimizer"
        )
    raise ConfigError(
        f"{prefix}. They require no gradient: leave them out of the optimizer with a rule, "
        "optimizer.groups.base: {kinds: [frozen], frozen: true}, or add a stage for them"
    )


def _check_gradients(staged: _StagedGroup) -> None:
    missing = [name for name, tensor in zip(staged.group.params, staged.tensors, strict=True) if tensor.grad is None]
    if missing:
        stage = f"stages.{staged.group.stage}"
        raise ConfigError(
            f"{stage}: {len(missing)} of its parameters had no gradient in step {staged.num_steps} after the thaw: "
            f"{format_names(missing, 3)}. If they may have none, type {stage}.allow_unused: true"
        )
