"""The base of the family: two hooks to write an optimizer with, or a declared form that also runs over lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial, reduce
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..catalog.common import OPTIONS, USUAL
from ..catalog.modifiers import evaluations_conflict
from ..catalog.registration import TakesOwnOptions
from ..core.errors import ConfigError
from .bucket import HALF_DTYPES, Bucket, gather, real, scalar
from .checks import KNOWN_GROUP_KEYS, check_gradients, check_same, check_together, checked
from .finite import should_skip, skips_nonfinite
from .modifiers import look_ahead
from .state_keys import AROUND, MASTER, SKIPPED, SLOW
from .step_context import StepContext
from .torch_state_dict import TorchStateDictAdapter
from .update import Update, restore_start

ParamsT = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]
"""Tensors, `(name, parameter)` pairs or param groups, as torch's optimizers take them."""

ParamGroup = Mapping[str, Any]
"""A param group; where a hook gets one, its `lr` is a number."""


class AdaptiveOptimizer(Optimizer, TakesOwnOptions):
    """An optimizer of which a subclass writes the rule, and nothing else.

    With two hooks, tensor by tensor:

    - `init_state(state, group, param)` puts what the rule needs into `state`;
    - `step_param(state, group, grad, param)` changes `param` in place.

    Or declared, and then the same lines run tensor by tensor and over lists (`foreach`): `buffers`, `coefficients` and
    `update`, with `scalars` where the state holds numbers.

    Around the rule stand, for every subclass: closures, `add_param_group` at any time, a step count for each parameter,
    weight decay in each mode (see `WeightDecay`), `maximize`, a tensor lr, validation in every group, state dtypes
    through `load_state_dict`, and, in the declared form, complex parameters (as pairs of real numbers).

    Args:
        params: tensors, `(name, parameter)` pairs, or param groups.
        defaults: hyperparameters by name, `lr` among them; a group may have its own. `weight_decay` is a number or a
            `WeightDecay`; 0 if it is not there.
        **options: other values for these, and `weight_decay_mode`, `cautious_decay`, `maximize`, `foreach`, `fused`;
            and the modifiers `skip_nonfinite`, `centralize_gradients`, `adaptive_clip`, `cautious_update`,
            `lookahead`, `master_weights`.

    Raises:
        ConfigError: a hyperparameter is unknown or out of bounds, at the top or in a group.

    Example:
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

    evaluations: ClassVar[int] = 1
    """How many gradients a step takes: so often it calls its closure. Without one, a call takes one of them."""
    needs_peak_lr: ClassVar[bool] = False
    """Whether the rule divides by the group's `peak_lr`."""

    # What the registry knows of a member.
    _fixed: ClassVar[Mapping[str, Any]] = {}
    """Hyperparameters that have one value in this class."""
    _torch_keys: ClassVar[Sequence[str]] = ()
    """Keys that only the groups of torch's class of the same rule have."""
    _possible_buffers: ClassVar[Sequence[str]] = ()
    """Every buffer there may be under some hyperparameters."""
    _skipped: bool | None = None
    """Whether a composite has found that this step is skipped; None: find out."""

    def __init__(self, params: ParamsT, defaults: Mapping[str, Any], **options: Any) -> None:
        known = {"weight_decay": 0.0, **{key: spec.default for key, spec in OPTIONS.items()}, **defaults}
        values = known | self._checked(defaults, known) | self._checked(options, known)
        values["weight_decay_mode"] = values["weight_decay_mode"] or self.default_mode
        super().__init__(params, values)

    # What a subclass writes: the two hooks ...

    def init_state(self, state: dict[str, Any], group: ParamGroup, param: Tensor) -> None:
        """Put the state of one parameter into `state`. Here: zeros for each buffer.

        `state["step"]` is there already and counts by itself; a hook that would rather count sets it to a number.
        """
        shapes = self.shapes(group, real(param))
        for name, dtype in self.dtypes(group).items():
            if name in shapes:
                state[name] = param.new_zeros(shapes[name], dtype=dtype or param.dtype.to_real())
            else:
                state[name] = torch.zeros_like(param, dtype=dtype, memory_format=torch.preserve_format)
        state.update(self.scalars(group))

    def step_param(self, state: dict[str, Any], group: ParamGroup, grad: Tensor, param: Tensor) -> None:
        """Take one step with one parameter. Here: by the declared rule.

        Args:
            state: its state; `state["step"]`, a 0-d tensor, counts this step already, so the first time it is 1.
            group: its param group.
            grad: its gradient, of its shape, with L2 or L1 decay already in it; not to be written into.
            param: written in place; any other decay has been applied already, unless it is cautious.
        """
        now = {name: state[name] for name in self.scalars(group)}
        coefficients, then = self._advance(float(state["step"]), group, now)
        state.update(then)
        updates = self._updates(param, grad, [state[name] for name in self.buffers(group)], coefficients)
        restore_start(param, updates)
        for update in updates:
            update.take(param)

    # ... or the declared form.

    def buffers(self, group: ParamGroup) -> Sequence[str] | Mapping[str, torch.dtype | None]:
        """Names of the state tensors, in the order in which `update` takes them.

        Each has the parameter's shape, and its dtype unless the mapping gives another. The rule gets the gradient in
        the common dtype of those that are given.
        """
        del group
        return ()

    def shapes(self, group: ParamGroup, param: Tensor) -> Mapping[str, Sequence[int]]:
        """Shapes of the buffers that have not the parameter's. They hold real numbers.

        Of one dimension at least: what has none, torch's distributed checkpoints do not bring to every rank.

        Args:
            group: its param group.
            param: a complex one as pairs of real numbers, as `update` sees it.
        """
        del group, param
        return {}

    def scalars(self, group: ParamGroup) -> Mapping[str, float]:
        """Names of the numbers in a parameter's state, with their first value.

        `coefficients` finds them in `group`, and gives their next value under the same name.
        """
        del group
        return {}

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        """Every scalar of step `t` (the first is 1): floats, which change, and what is fixed.

        On what is fixed, bools for the most part, `update` may branch; on nothing else.
        """
        raise NotImplementedError(f"{type(self).__name__} has neither step_param nor coefficients and update")

    def step_scope(self, groups: Sequence[ParamGroup]) -> AbstractContextManager[None]:
        """Stands around a step of these groups: what a rule overrides that adds up over all parameters."""
        del groups
        return nullcontext()

    def before_closure(self) -> None:
        """Called before a closure is: what a rule of several gradients a step overrides, to begin with the first."""

    @staticmethod
    def update(p: Any, g: Any, *buffers: Any, **coefficients: Any) -> Update | tuple[Update, ...]:
        """The rule, in methods of a tensor only: advance the buffers in place, return the step.

        It writes neither `p` nor `g`. Several `Update`s are taken one after the other.
        """
        raise NotImplementedError("an optimizer that has coefficients has an update too")

    # What stands around the rule.

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step for each parameter that has a gradient.

        Args:
            closure: evaluates the model again, with gradients, and returns the loss; called `evaluations` times.

        Returns:
            What the closure returned, at first.

        Raises:
            ConfigError: a gradient is sparse, or the decay cannot be applied at this lr; then nothing has changed.
        """
        if closure is None:
            self.step_groups()
            return None
        self.before_closure()
        losses = []
        for _ in range(self.evaluations):
            with torch.enable_grad():
                losses.append(closure())
            self.step_groups()
        return losses[0]

    def step_groups(self) -> None:
        """Step every group with the gradients at hand."""
        work = []
        for index, group in enumerate(self.param_groups):
            check_gradients(group, index, type(self).__name__, allow_complex=self._is_declared())
            # Numbers, whatever a schedule has put there: the rules compute with Python's.
            numbers = {key: float(group[key]) for key in ("lr", "weight_decay")}
            work.append(({**group, **numbers}, StepContext.of({**group, **numbers}, _common(self.dtypes(group)))))
        if self._leaves_out([group for group, _ in work if skips_nonfinite(group)]):
            work = [(group, around) for group, around in work if not skips_nonfinite(group)]
        with self.step_scope([group for group, _ in work]):
            for group, around in work:
                self._step_group(group, around)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a param group, at any time: its parameters start as new ones do.

        Raises:
            ConfigError: one of its hyperparameters is unknown or out of bounds.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"a param group is a dict, not {type(param_group).__name__}")
        where = f"param_groups[{len(self.param_groups)}]."
        if "name" in param_group:
            where = f"{param_group['name']}."
        about = {key: value for key, value in param_group.items() if key in KNOWN_GROUP_KEYS}
        given = {key: value for key, value in param_group.items() if key not in KNOWN_GROUP_KEYS}
        group = self.defaults | about | self._checked(given, self.defaults, where)
        group["weight_decay_mode"] = group["weight_decay_mode"] or self.defaults["weight_decay_mode"]
        group.setdefault("peak_lr", float(group["lr"]))
        check_together(group, where, needs_peak_lr=self.needs_peak_lr, takes_lists=self._is_declared())
        if wrong := self._conflict(group):
            raise ConfigError(f"{where}{wrong}")
        check_same(group, self.param_groups[:1], self.hyperparameters, where)
        super().add_param_group(group)

    def state_dict(self) -> dict[str, Any]:
        """As torch's; the groups also say what torch's class of the same rule would look for."""
        return TorchStateDictAdapter(self).to_torch(super().state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back one's own state, or that of torch's class of the same rule.

        `foreach` and `fused` stay those of this run; buffers keep their declared dtypes, bit by bit, and what hooks
        have made the dtype it was saved in.

        Raises:
            ConfigError: the state of a parameter lacks a buffer; then nothing has changed.
        """
        crossing = TorchStateDictAdapter(self)
        # Last before the load, so that it sees what is loaded; first after it, so that other hooks see what there is.
        before = self.register_load_state_dict_pre_hook(crossing.from_torch)
        after = self.register_load_state_dict_post_hook(crossing.restore, prepend=True)
        try:
            super().load_state_dict(state_dict)
        finally:
            before.remove()
            after.remove()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # torch puts this flag there, and later groups would have it, unlike those that are there already.
        self.defaults.pop("differentiable", None)

    def dtypes(self, group: ParamGroup) -> dict[str, torch.dtype | None]:
        """The buffers with their dtypes; None is the parameter's."""
        declared = self.buffers(group)
        return dict(declared) if isinstance(declared, Mapping) else dict.fromkeys(declared)

    def _leaves_out(self, groups: Sequence[ParamGroup]) -> bool:
        """Whether these groups, which would rather, leave this step out; each of their parameters then counts it."""
        skipped = should_skip(groups) if self._skipped is None else self._skipped
        for group in groups if skipped else ():
            for param in (p for p in group["params"] if p.grad is not None):
                state = self.ensure_state(group, param)
                state[SKIPPED] = state.get(SKIPPED, 0) + 1
        return skipped

    def buckets(self, group: ParamGroup) -> list[Bucket]:
        """A group's parameters that have a gradient, each with its state."""
        for param in group["params"]:
            if param.grad is not None:
                self.ensure_state(group, param)
        return gather(group["params"], self.state, tuple(self.scalars(group)))

    def _step_group(self, group: ParamGroup, around: StepContext) -> None:
        buffers = tuple(self.dtypes(group))
        for bucket in self.buckets(group):
            if self._is_declared():
                coefficients, then = self._advance(bucket.t, group, bucket.scalars)
                bucket.advance(then)
                bucket.run(partial(self._run_rule, around, coefficients), buffers, foreach=group["foreach"])
            else:
                bucket.advance({})
                bucket.each(partial(self._run_hook, around, group))
            if (ahead := group["lookahead"]) and bucket.t % ahead["k"] == 0:
                follow = partial(_look_ahead, ahead["alpha"])
                bucket.run(follow, (SLOW,), foreach=group["foreach"] if self._is_declared() else False)
            bucket.write_back()

    def ensure_state(self, group: ParamGroup, param: Tensor) -> dict[str, Any]:
        """The state of a parameter, with what the keys of its group ask for."""
        state: dict[str, Any] = self.state[param]
        if (group["master_weights"] and param.dtype in HALF_DTYPES) != (MASTER in state):
            self._switch_master(state, group, param)
        param = state.get(MASTER, param)
        if not group["lookahead"]:
            state.pop(SLOW, None)
        elif SLOW not in state:
            state[SLOW] = param.detach().clone()
        if "step" in state:
            return state
        around = set(state)
        counter = state["step"] = scalar(0.0)
        self.init_state(state, group, param)
        if state["step"] is not counter and (self._is_declared() or isinstance(state["step"], Tensor)):
            raise ConfigError(f"{type(self).__name__}.init_state: state['step'] counts by itself. Take another key")
        for key in set(AROUND) & set(state) - around:
            raise ConfigError(f"{type(self).__name__}.init_state: state[{key!r}] is a modifier's. Take another key")
        return state

    def _switch_master(self, state: dict[str, Any], group: ParamGroup, param: Tensor) -> None:
        """Make the master, or drop it; what has the parameter's dtype follows."""
        before = state.pop(MASTER, param).dtype
        if group["master_weights"]:
            state[MASTER] = param.detach().float()
        after = state.get(MASTER, param).dtype
        others = {"step", MASTER, *(name for name, dtype in self.dtypes(group).items() if dtype is not None)}
        for key, value in state.items():
            if key not in others and isinstance(value, Tensor) and value.dtype == before:
                state[key] = value.to(after)

    def _run_rule(self, around: StepContext, coefficients: ParamGroup, p: Any, g: Any, buffers: Sequence[Any]) -> None:
        g = around.gradient(p, g)
        around.take(p, g, self._updates(p, g, buffers, coefficients))

    def _run_hook(self, around: StepContext, group: ParamGroup, state: dict[str, Any], p: Tensor, g: Tensor) -> None:
        g, t = around.gradient(p, g), float(state["step"])
        around.hook(lambda: self.step_param(state, group, g, p), p, g)
        if isinstance(state["step"], Tensor) and float(state["step"]) != t:
            raise ConfigError(f"{type(self).__name__}.step_param: state['step'] counts by itself. Leave it alone")

    def _advance(
        self, t: float, group: ParamGroup, scalars: Mapping[str, float]
    ) -> tuple[dict[str, Any], dict[str, float]]:
        """The coefficients of step `t`, and what becomes of the scalars."""
        coefficients = self.coefficients(t, {**group, **scalars})
        return coefficients, {name: coefficients.pop(name) for name in scalars}

    def _updates(self, p: Any, g: Any, buffers: Sequence[Any], coefficients: Mapping[str, Any]) -> tuple[Update, ...]:
        made = self.update(p, g, *buffers, **coefficients)
        return made if isinstance(made, tuple) else (made,)

    def _conflict(self, group: ParamGroup) -> str | None:
        """What is wrong with a group's values, each of which is allowed."""
        return evaluations_conflict(group, type(self).__name__, self.evaluations)

    def _is_declared(self) -> bool:
        return type(self).step_param is AdaptiveOptimizer.step_param

    def _checked(self, given: Mapping[str, Any], known: Mapping[str, Any], where: str = "") -> dict[str, Any]:
        specs = {**USUAL, **OPTIONS, **self.hyperparameters}
        return checked(given, specs, known, type(self).__name__, where)


def _look_ahead(alpha: float, p: Any, g: Any, buffers: Sequence[Any]) -> None:
    del g
    look_ahead(p, buffers[0], alpha)


def _common(dtypes: Mapping[str, torch.dtype | None]) -> torch.dtype | None:
    """What the dtypes of the buffers have in common, where any is fixed."""
    fixed = [dtype for dtype in dtypes.values() if dtype is not None]
    return reduce(torch.promote_types, fixed) if fixed else None
