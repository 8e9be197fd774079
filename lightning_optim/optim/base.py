"""`AdaptiveOptimizer`: runs a rule over all parameters, with everything that is not the rule itself."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..catalog.common import COMMON_HYPERPARAMETERS, SHARED_OPTIONS
from ..catalog.modifiers import find_average_conflict, find_evaluations_conflict, find_kernel_conflict
from ..catalog.registration import SharedOptionsMixin
from ..core.errors import ConfigError
from ..core.origin import is_ours
from ..core.param_names import joining
from .bucket import Bucket, build_buckets, scalar
from .checks import (
    KNOWN_GROUP_KEYS,
    RESERVED_GROUP_KEYS,
    check_combination,
    check_gradients,
    check_shared_values,
    parse_hyperparameters,
)
from .closures import has_new_gradients, no_gradients_error, read_gradient_versions
from .eager import run_step_eagerly
from .execution import RuleExecution, common_dtype
from .extra_keys import EXTRA_GROUP_KEYS, parse_extra_keys
from .finite import should_skip, skips_nonfinite
from .fused.requested_sums import RequestedSums
from .half_precision import check_float16
from .known_group import GroupTensors, KnownGroups
from .master_weights import is_master_out_of_sync, switch_master
from .modifiers import sync_lookahead
from .rule import ParamGroup
from .schedule_free import check_training, fit_average, show_evaluation_weights, show_training_weights
from .sharpness import SharpnessMixin, is_sharpened
from .state_keys import AVERAGE_NUMBERS, BASE, MASTER, MODIFIER_KEYS, SKIPPED, SLOW
from .step_context import StepContext
from .torch_state_dict import TorchStateDictAdapter

ParamsT = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]
"""Tensors, `(name, parameter)` pairs or param groups, as torch's optimizers take them."""


class AdaptiveOptimizer(RuleExecution, SharpnessMixin, Optimizer, SharedOptionsMixin):
    """An optimizer of which a subclass writes only the rule.

    Either with two hooks, tensor by tensor:

    - `init_state(state, group, param)` puts what the rule needs into `state`;
    - `step_param(state, group, grad, param)` changes `param` in place.

    Or declared, and then the same lines run tensor by tensor and over lists (`foreach`): `buffers`, `coefficients` and
    `update`, and `scalars` if the state holds numbers.

    Every subclass gets the rest: closures, `add_param_group` at any time, a step count per parameter, weight decay in
    each mode (see `WeightDecay`), `maximize`, a tensor lr, validation in every group, state dtypes that survive
    `load_state_dict`, and, in the declared form, complex parameters (as pairs of real numbers).

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        defaults: hyperparameters by name, `lr` among them; a group may have its own values. `weight_decay` is a number
            or a `WeightDecay`; 0 if it is missing.
        **options: other values for these; `weight_decay_mode`, `cautious_decay`, `maximize`, `foreach`, `fused`;
            and the modifiers `skip_nonfinite`, `centralize_gradients`, `adaptive_clip`, `cautious_update`,
            `lookahead`, `schedule_free`, `master_weights`, `sharpness`. `extra_group_keys` names keys of other
            libraries in param groups (timm's `lr_scale`): they are stored, saved and not used.

    Raises:
        ConfigError: a hyperparameter is unknown or out of bounds, at the top or in a group.

    Examples:
        >>> import torch
        >>> class SignDescent(optim.AdaptiveOptimizer):
        ...     def __init__(self, params, lr=1e-3, **options):
        ...         super().__init__(params, {"lr": lr}, **options)
        ...
        ...     def step_param(self, state, group, grad, param):
        ...         param.add_(grad.sign(), alpha=-group["lr"])
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
        >>> weight.grad = torch.tensor([0.5, -2.0])
        >>> SignDescent([weight], lr=0.25).step()
        >>> weight.data
        tensor([ 0.7500, -0.7500])
    """

    __module__ = "lightning_optim.optim"  # where users import it from: pickles outlive a move of this file

    # Set by `Member` from the catalog.
    _fixed: ClassVar[Mapping[str, Any]] = {}
    """Hyperparameters that have only one value in this class."""
    _torch_keys: ClassVar[Sequence[str]] = ()
    """Keys that only the param groups of torch's class of the same rule have."""
    _torch_counts_steps: ClassVar[bool] = True
    """Whether the state of torch's class of the same rule has a `step`."""
    _possible_buffers: ClassVar[Sequence[str]] = ()
    """Every buffer that some hyperparameters give."""

    _requested: RequestedSums | None = None
    """What telemetry asks for in the next step."""
    _skip_decision: bool | None = None
    """Whether to skip the step, where a `Composite` has decided it for all its children; None: decide here."""

    def __init__(self, params: ParamsT, defaults: Mapping[str, Any], **options: Any) -> None:
        self._known_groups = KnownGroups()
        extra_keys = options.pop(EXTRA_GROUP_KEYS, None)
        known = {"weight_decay": 0.0, **{key: spec.default for key, spec in SHARED_OPTIONS.items()}, **defaults}
        values = known | self._parse(defaults, known) | self._parse(options, known)
        values["weight_decay_mode"] = values["weight_decay_mode"] or self.default_mode
        if extra_keys is not None:
            values[EXTRA_GROUP_KEYS] = parse_extra_keys(extra_keys, {*values, *RESERVED_GROUP_KEYS})
        super().__init__(params, values)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step with each parameter that has a gradient.

        Args:
            closure: evaluates the model again, with gradients, and returns the loss; called `gradients_per_step` times.

        Returns:
            What the closure returned the first time.

        Raises:
            ConfigError: a gradient is sparse, the decay cannot be applied at this lr, or the step takes several
                gradients and the closure computes none; then nothing has changed.
        """
        try:
            return self._evaluate_and_step(closure)
        finally:
            self._requested = None  # also after an error: what was asked for was this step

    def _evaluate_and_step(self, closure: Callable[[], Any] | None) -> Any:
        if self._skip_decision is None and is_sharpened(self.param_groups):  # else a Composite has the gradients
            loss = self._evaluate_sharpened(closure)
            self.step_groups()
            return loss
        if closure is None:
            self.step_groups()
            return None
        self.before_closure()
        losses = []
        for _ in range(self.evaluations):
            before = read_gradient_versions(self.param_groups) if self.evaluations > 1 else None
            with torch.enable_grad():
                losses.append(closure())
            if before is not None and not has_new_gradients(self.param_groups, before):
                self.before_closure()
                raise no_gradients_error(type(self).__name__, self.evaluations)
            self.step_groups()
        return losses[0]

    def step_groups(self) -> None:
        """Step every group with the current gradients."""
        check_training(self.param_groups, self.state)
        work, may_change = [], not is_ours(self.step_scope)
        for index, group in enumerate(self.param_groups):
            tensors = self._known_groups.recall(group, self.state)
            if tensors is None:
                check_gradients(group, index, type(self).__name__, allow_complex=self._is_declared())
            # A schedule may have put a tensor there; rules compute with Python's numbers.
            numbers = {key: float(group[key]) for key in ("lr", "weight_decay")}
            with_numbers = {**group, **numbers}
            context = StepContext.from_group(with_numbers, common_dtype(self.buffer_dtypes(group)))
            work.append((with_numbers, context, None if may_change else tensors))
        if self._skip_if_nonfinite([group for group, *_ in work if skips_nonfinite(group)]):
            work = [item for item in work if not skips_nonfinite(item[0])]
        with self.step_scope([group for group, *_ in work]):
            for group, context, tensors in work:
                self._step_group(group, context, tensors)

    def eval(self) -> None:
        """Put the evaluation weights of `schedule_free` into the parameters, before evaluating or saving the model.

        A second call changes nothing. Under Lightning, `EvalWeights` calls it.
        """
        show_evaluation_weights(self.param_groups, self.state)

    def train(self) -> None:
        """Put the training weights back, bit for bit, before the next forward pass of the training."""
        show_training_weights(self.param_groups, self.state)

    def measure_step(self, requested: RequestedSums) -> Iterable[Tensor]:
        """Have the next step add up sums where a kernel takes it.

        Args:
            requested: gets them.

        Returns:
            The parameters that `requested` knows everything about after the step: it has their sums or, where they were
            asked for, copies from before the step; what it has of neither has not changed. None where code of a user
            runs around the kernels: it may change what they have summed.
        """
        around = (self.step, self.step_groups, self.step_scope)
        if self.evaluations > 1 or not all(is_ours(method) for method in around):
            return ()
        self._requested = requested
        return [param for group in self.param_groups for param in group["params"]]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a param group, at any time: its parameters start like new ones.

        Where only the new group or only the other groups have names, the missing ones are those of the positions.

        Raises:
            ConfigError: one of its hyperparameters is unknown or out of bounds.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"a param group is a dict, not {type(param_group).__name__}")
        prefix = f"{param_group['name']}." if "name" in param_group else f"param_groups[{len(self.param_groups)}]."
        with joining(param_group, self.param_groups) as joined:
            super().add_param_group(self._complete_group(joined, prefix))

    def _complete_group(self, param_group: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        """A param group with all hyperparameters, checked."""
        reserved = {*self.defaults, *RESERVED_GROUP_KEYS}
        extra_keys = (
            *self.defaults.get(EXTRA_GROUP_KEYS, ()),
            *parse_extra_keys(param_group.get(EXTRA_GROUP_KEYS), reserved, prefix),
        )
        unchecked = {*KNOWN_GROUP_KEYS, *extra_keys}
        metadata = {key: value for key, value in param_group.items() if key in unchecked}
        hyperparameters = {
            key: value for key, value in param_group.items() if key not in unchecked and key != EXTRA_GROUP_KEYS
        }
        group = self.defaults | metadata | self._parse(hyperparameters, self.defaults, prefix)
        group |= {EXTRA_GROUP_KEYS: tuple(dict.fromkeys(extra_keys))} if extra_keys else {}
        group["weight_decay_mode"] = group["weight_decay_mode"] or self.defaults["weight_decay_mode"]
        group.setdefault("peak_lr", float(group["lr"]))
        check_combination(
            group,
            prefix,
            needs_peak_lr=self.needs_peak_lr,
            supports_foreach=self._is_declared(),
            supports_fused=self.is_traceable() or self.multiplies_matrices,  # which `_conflict` refuses
        )
        if conflict := self._conflict(group):
            raise ConfigError(f"{prefix}{conflict}")
        check_shared_values(group, self.param_groups[:1], self.hyperparameters, prefix)
        pairs = [
            param if isinstance(param, tuple) else (f"params[{i}]", param) for i, param in enumerate(group["params"])
        ]
        params = [param for _, param in pairs]
        self.check_params(group, pairs, prefix)
        if self._is_declared() and common_dtype(self.buffer_dtypes(group)) in (None, torch.float16):
            check_float16(group, params, self.denominator_floor, prefix)
        if group["fused"] and params:
            self.check_kernels(group, params, prefix)
        return group

    def state_dict(self) -> dict[str, Any]:
        """As torch's; the groups also have the keys that torch's class of the same rule would look for."""
        return TorchStateDictAdapter(self).to_torch(super().state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict of this class, or of torch's class of the same rule.

        `foreach` and `fused` stay those of this run. Buffers keep their declared dtypes, bit by bit; what hooks have
        stored keeps the dtype it was saved in.

        Raises:
            ConfigError: the state of a parameter lacks a buffer; then nothing has changed.
        """
        adapter = TorchStateDictAdapter(self)
        # The last hook before the load, so it sees what is loaded; the first after it, so other hooks see the result.
        before = self.register_load_state_dict_pre_hook(adapter.from_torch)
        after = self.register_load_state_dict_post_hook(adapter.restore_dtypes, prepend=True)
        try:
            super().load_state_dict(state_dict)
        finally:
            before.remove()
            after.remove()

    def _patch_step_function(self) -> None:
        """torch's hook of the constructor and of unpickling, in which it puts the step hooks around `step`."""
        super()._patch_step_function()
        run_step_eagerly(type(self))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._fused, self._known_groups = None, KnownGroups()  # the old ones know where the old tensors were
        # torch adds this flag here; groups that join later would have it, and the existing ones would not.
        self.defaults.pop("differentiable", None)

    def _repr_html_(self) -> str:
        from ..groups.optimizer_table import format_optimizer  # a step needs no tables

        return format_optimizer(self)

    def buckets(self, group: ParamGroup, tensors: GroupTensors | None = None) -> list[Bucket]:
        """A group's parameters that have a gradient, each with its state.

        Args:
            group: the param group.
            tensors: its own in this step, if they are known; None: to be read.
        """
        tensors = tensors or self._known_groups.recall(group, self.state)
        if tensors is None:
            for param in group["params"]:
                if param.grad is not None:
                    self.ensure_state(group, param)
            tensors = self._known_groups.learn(group, self.state)
        numbers = (*self.scalars(group), *(AVERAGE_NUMBERS if group["schedule_free"] else ()))
        layouts: list[Hashable] = []
        if self.multiplies_matrices:
            layouts = [tuple(self.layout(group, param).values()) for param in tensors.params]
        return build_buckets(*tensors[:3], numbers, layouts, tensors.known)

    def ensure_state(self, group: ParamGroup, param: Tensor) -> dict[str, Any]:
        """The state of a parameter, created on first use and with what the modifiers of its group need."""
        state: dict[str, Any] = self.state[param]
        if is_master_out_of_sync(state, group, param):
            fixed = [name for name, dtype in self.buffer_dtypes(group).items() if dtype is not None]
            switch_master(state, group, param, fixed)
        param = state.get(MASTER, param)
        if not group["lookahead"]:
            state.pop(SLOW, None)
        elif SLOW not in state:
            state[SLOW] = param.detach().clone()
        fit_average(state, group, param)
        if "step" not in state:
            self._init_state(state, group, param)
        return state

    def _init_state(self, state: dict[str, Any], group: ParamGroup, param: Tensor) -> None:
        modifier_keys = set(state)
        counter = state["step"] = scalar(0.0)
        self.init_state(state, group, param)
        hook = f"{type(self).__name__}.init_state"
        if state["step"] is not counter and (self._is_declared() or isinstance(state["step"], Tensor)):
            raise ConfigError(f"{hook}: the base class counts state['step']. Use another key")
        for key in set(MODIFIER_KEYS) & set(state) - modifier_keys:
            raise ConfigError(f"{hook}: state[{key!r}] is reserved for a modifier. Use another key")

    def _skip_if_nonfinite(self, groups: Sequence[ParamGroup]) -> bool:
        """Whether these groups, which ask for it, skip this step; if so, each of their parameters counts it."""
        skip = should_skip(groups) if self._skip_decision is None else self._skip_decision
        for group in groups if skip else ():
            for param in (p for p in group["params"] if p.grad is not None):
                state = self.ensure_state(group, param)
                state[SKIPPED] = state.get(SKIPPED, 0) + 1
        return skip

    def _step_group(self, group: ParamGroup, context: StepContext, tensors: GroupTensors | None) -> None:
        buffers = tuple(self.step_buffers(group))
        requested = None if group["lookahead"] or not self._is_declared() else self._requested
        with self.launching_together():
            for bucket in self.buckets(group, tensors):
                if self._requested and not requested:  # something changes the parameters outside the kernel
                    self._requested.copy(bucket.owners)
                at_step, planned, average = self.plan_average(bucket.t, group, context, bucket.scalars)
                if self._is_declared():
                    scalars = {name: bucket.scalars[name] for name in self.scalars(group)}
                    coefficients, following = self._compute_coefficients(bucket.t, at_step, scalars, bucket.params[0])
                    rule, count = partial(self._run_rule, planned, coefficients), {**following, **average}
                    self.run_on(bucket, rule, buffers, group, requested, partial(bucket.advance, count))
                else:
                    bucket.advance(average)
                    bucket.for_each(partial(self._run_hook, planned, at_step))
                if (lookahead := group["lookahead"]) and bucket.t % lookahead["k"] == 0:
                    sync = partial(_sync_lookahead, lookahead["alpha"])
                    self.run_on(bucket, sync, (SLOW,), group)
                bucket.write_back()

    def _run_hook(self, context: StepContext, group: ParamGroup, state: dict[str, Any], p: Tensor, g: Tensor) -> None:
        g, t = context.transform_gradient(p, g), float(state["step"])
        context.apply_hook(lambda: self.step_param(state, group, g, p), p, g, state.get(BASE))
        if isinstance(state["step"], Tensor) and float(state["step"]) != t:
            raise ConfigError(
                f"{type(self).__name__}.step_param: the base class counts state['step']. Do not change it"
            )

    def check_params(self, group: ParamGroup, params: Iterable[tuple[str, Tensor]], prefix: str) -> None:
        """Check that the rule takes the parameters of a new group. By default it takes any.

        Args:
            group: all values of the group, checked.
            params: its parameters, with their names or positions.
            prefix: comes before a key in the message.

        Raises:
            ConfigError: it does not.
        """

    def _conflict(self, group: ParamGroup) -> str | None:
        """What is wrong with the combination of a group's values, or None."""
        name = type(self).__name__
        return (
            find_evaluations_conflict(group, name, self.evaluations)
            or find_average_conflict(group)
            or (find_kernel_conflict(group, name) if self.multiplies_matrices else None)
        )

    def _parse(self, given: Mapping[str, Any], known: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        specs = {**COMMON_HYPERPARAMETERS, **SHARED_OPTIONS, **self.hyperparameters}
        return parse_hyperparameters(given, specs, known, type(self).__name__, prefix)


def _sync_lookahead(alpha: float, p: Any, g: Any, buffers: Sequence[Any]) -> None:
    del g
    sync_lookahead(p, buffers[0], alpha)
