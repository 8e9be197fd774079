"""From config to optimizer: where registry, plan and classes meet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .errors import ConfigError, choices, left_over, refuse_leftover_partial
from .groups.plan import Group, Plan, check_saved
from .groups.rules import Spec, parse_rules
from .groups.table import Table
from .hyperparameters import plain
from .implementation import check_crossing, in_words_of, takes_own
from .optim.checkpoint import OF_OURS, OF_THIS_RUN
from .optim.decay import WeightDecay
from .registry import OptimizerInfo, algorithms_with, optimizer_info

Params = nn.Module | Iterable[Tensor] | Iterable[tuple[str, Tensor]]
"""A module; `(name, parameter)` pairs; the generator `module.parameters()` or one over it; bare tensors."""


class OptimizerFactory:
    """An optimizer as a config describes it, checked when made; call it with parameters to build it.

    It holds str, number, bool, list and dict only and learns nothing when called: so it pickles, loads under
    `torch.load(weights_only=True)`, and may be a hyperparameter of a LightningModule.

    Args:
        name: an optimizer of the registry, see `list_optimizers()`.
        groups: rules by name, each with selectors (`params`, `classes`, `kinds`) and effects (hyperparameters,
            `lr_scale`, `weight_decay_scale`, `frozen`). All rules that match a parameter apply, field by field.
        implementation: `torch`: torch's class; `own`: ours; `auto`: torch's where it can do what is asked, else ours.
        **hyperparameters: the algorithm's, see `optimizer_info(name).hyperparameters`.

    Raises:
        ConfigError: something of this is wrong in itself. What needs the model is found when the factory is called.

    Example:
        >>> from torch import nn
        >>> factory = OptimizerFactory("adamw", lr=3e-4, groups={"no_decay": {"kinds": ["bias"], "weight_decay": 0}})
        >>> [group["name"] for group in factory(nn.Linear(3, 2)).param_groups]
        ['default', 'no_decay']
    """

    @refuse_leftover_partial
    def __init__(
        self,
        name: str,
        *,
        groups: Mapping[str, Any] | None = None,
        implementation: str = "auto",
        **hyperparameters: Any,
    ) -> None:
        self.name = name
        self.groups: dict[str, Any] = plain(_in_words(groups)) if groups is not None else {}
        self.implementation = implementation
        self.hyperparameters: dict[str, Any] = plain(_in_words(hyperparameters))
        self._takes_own()

    def __call__(self, params: Params) -> Optimizer:
        """The optimizer over all of `params`, whatever their `requires_grad`, less those a `frozen: true` rule takes.

        Those get `requires_grad=False`. Each param group carries its `name`, `param_names` and `peak_lr`.

        Raises:
            ConfigError: a rule matches nothing, two conflict, a rule needs names that are not there, or the algorithm
                does not take what the rules gave it.
        """
        plan = self.plan(params)
        info = optimizer_info(self.name)
        _check_takes(info, plan)
        for name in plan.frozen:
            plan.tensors[name].requires_grad_(False)
        own = self._takes_own()
        # A class of one group may derive one value from another (LBFGS: max_eval from max_iter): it gets the group's.
        top = plan.groups[0].hyperparameters if info.single_group else self._spec().hyperparameters
        defaults = in_words_of(own, info, top)
        if not own and info.fused and defaults["fused"] is None and defaults["foreach"] is None:
            held = [plan.tensors[name] for group in plan.groups for name in group.params]
            defaults["fused"] = True if _can_fuse(held) and not plan.sparse and not defaults["differentiable"] else None
        groups = [
            _param_group(plan, group, in_words_of(own, info, group.hyperparameters), defaults) for group in plan.groups
        ]
        optimizer = info.load(own=own)(groups, **defaults)
        if defaults.get("fused"):
            # A fused kernel can unscale gradients itself, but then clipping and hooks would see them scaled.
            optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
        optimizer.register_load_state_dict_pre_hook(partial(_before_load, None if own else info))
        return optimizer

    def plan(self, params: Params) -> Plan:
        """The groups that calling it with `params` would make; nothing is built, nothing is changed."""
        spec = self._spec()
        return Plan.resolve(params, parse_rules(self.groups, spec), spec)

    def explain(self, params: Params) -> Table:
        """The group table for `params`, to print before anything is trained."""
        return self.plan(params).table()

    def _takes_own(self) -> bool:
        """Whether our class is built; all that the config can get wrong in itself is found on the way."""
        spec = self._spec()
        settings = {"": spec.hyperparameters}
        for rule in parse_rules(self.groups, spec):
            settings[f"{rule.key}."] = rule.effects
        return takes_own(spec.info, self.implementation, settings)

    def _spec(self) -> Spec:
        info = optimizer_info(self.name)
        given = self.hyperparameters
        if "params" in given:
            raise ConfigError(
                "params: the factory takes it when it is called, not when it is made: a _partial_: true is left over "
                "in the config. Type _partial_: false"
            )
        for key in given:
            if key not in info.hyperparameters:
                known = (*info.hyperparameters, "groups", "implementation")
                raise ConfigError(
                    f"{key}: {info.name} has no hyperparameter {key!r}."
                    f"{left_over(key, algorithms_with(key))}{choices(key, known)}"
                )
        hyperparameters = {
            key: spec.check(given[key], key) if key in given else spec.default
            for key, spec in info.hyperparameters.items()
        }
        if hyperparameters.get("fused"):
            for flag in ("foreach", "differentiable"):
                if hyperparameters.get(flag):
                    raise ConfigError(f"{info.name}: fused: true excludes {flag}: true. Remove one of them")
        if wrong := info.conflict(hyperparameters):
            raise ConfigError(f"{info.name}: {wrong}")
        return Spec(algorithm=info.name, hyperparameters=hyperparameters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OptimizerFactory) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        arguments = {**self.hyperparameters, **({"groups": self.groups} if self.groups else {})}
        if self.implementation != "auto":
            arguments["implementation"] = self.implementation
        return f"OptimizerFactory({', '.join([repr(self.name), *(f'{k}={v!r}' for k, v in arguments.items())])})"


def _in_words(config: Any) -> Any:
    """A config with each `WeightDecay` in it as the keys that say the same."""
    if not isinstance(config, Mapping):
        return config
    words = {key: _in_words(value) for key, value in config.items()}
    if isinstance(decay := words.get("weight_decay"), WeightDecay):
        words |= decay.keys()
    return words


def _param_group(
    plan: Plan, group: Group, hyperparameters: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "params": [(name, plan.tensors[name]) if plan.named else plan.tensors[name] for name in group.params],
        # The rest comes from the constructor's, where torch may have put a value in the place of a null.
        **{key: value for key, value in hyperparameters.items() if value != defaults[key] and key not in OF_THIS_RUN},
        "name": group.name,
        "peak_lr": group.hyperparameters["lr"],
    }


def _check_takes(info: OptimizerInfo, plan: Plan) -> None:
    if info.single_group and len(plan.groups) > 1:
        names = ", ".join(group.name for group in plan.groups)
        raise ConfigError(
            f"groups: {info.name} takes one param group, the rules make {len(plan.groups)}: {names}. "
            "Remove them with groups: null"
        )
    if info.matrices_only:
        for group in plan.groups:
            for name in group.params:
                if plan.tensors[name].ndim != 2:
                    raise ConfigError(
                        f"name: {info.name} takes 2-D parameters only; {name} has the shape "
                        f"{list(plan.tensors[name].shape)}. Take name: adamw for this model"
                    )


def _can_fuse(tensors: Iterable[Tensor]) -> bool:
    """Whether torch's fused kernels take these: real floating point, on a device that has them."""
    from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

    devices = _get_fused_kernels_supported_devices()
    return all(torch.is_floating_point(tensor) and tensor.device.type in devices for tensor in tensors)


def _before_load(torchs: OptimizerInfo | None, optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """Refuse a state dict of other groups, and keep this run's way of executing a step.

    Args:
        torchs: the algorithm where its class is torch's, which takes what ours has saved for all it knows.
        optimizer: what is loaded into.
        state_dict: its source.
    """
    saved, current = state_dict["param_groups"], optimizer.param_groups
    check_saved(current, saved)
    if torchs is None:
        return state_dict
    for group in saved:
        check_crossing(torchs, group)
    saved = [{key: value for key, value in group.items() if key not in torchs.own_only} for group in saved]
    kept = [
        {
            **{key: ours[key] for key in OF_OURS if key in ours},
            **theirs,
            **{flag: ours[flag] for flag in OF_THIS_RUN if flag in ours},
        }
        for theirs, ours in zip(saved, current, strict=True)
    ]
    return {**state_dict, "param_groups": kept}


torch.serialization.add_safe_globals([OptimizerFactory])
