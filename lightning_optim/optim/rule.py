"""The parts of an optimizer that a subclass writes: two hooks, or a declared rule that also runs over lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor

from .real_view import real
from .update import Update, restore_start

ParamGroup = Mapping[str, Any]
"""A param group; where a hook gets one, its `lr` is a number."""


class UpdateRule:
    """The interface between a rule and `AdaptiveOptimizer`, which runs it."""

    evaluations: ClassVar[int] = 1
    """How many gradients a step takes, and so how often it calls its closure. Without one, each call takes one."""
    needs_peak_lr: ClassVar[bool] = False
    """Whether the rule divides by the group's `peak_lr`."""
    multiplies_matrices: ClassVar[bool] = False
    """Whether the rule multiplies matrices: it runs over lists wherever it can, and no kernel is made of it."""

    # The two hooks ...

    def init_state(self, state: dict[str, Any], group: ParamGroup, param: Tensor) -> None:
        """Put the initial state of one parameter into `state`. By default: zeros for each buffer.

        `state["step"]` is already there, and the base class counts it. A hook that counts by itself sets it to a
        number.
        """
        shapes = self.shapes(group, real(param))
        for name, dtype in self.buffer_dtypes(group).items():
            if name in shapes:
                state[name] = param.new_zeros(shapes[name], dtype=dtype or param.dtype.to_real())
            else:
                state[name] = torch.zeros_like(param, dtype=dtype, memory_format=torch.preserve_format)
        state.update(self.scalars(group))

    def step_param(self, state: dict[str, Any], group: ParamGroup, grad: Tensor, param: Tensor) -> None:
        """Take one step with one parameter. By default: by the declared rule.

        Args:
            state: the parameter's state; `state["step"]`, a 0-d tensor, includes this step, so it is 1 the first time.
            group: its param group.
            grad: its gradient, of its shape, with L2 or L1 decay already added. Do not write into it.
            param: written in place. Any other decay has already been applied, unless it is cautious.
        """
        scalars = {name: state[name] for name in self.scalars(group)}
        coefficients, next_scalars = self._compute_coefficients(float(state["step"]), group, scalars, param)
        state.update(next_scalars)
        updates = self._compute_updates(param, grad, [state[name] for name in self.buffers(group)], coefficients)
        restore_start(param, updates)
        for update in updates:
            update.apply_to(param)

    # ... or the declared form.

    def buffers(self, group: ParamGroup) -> Sequence[str] | Mapping[str, torch.dtype | None]:
        """Names of the state tensors, in the order in which `update` takes them.

        Each has the parameter's shape, and its dtype unless the mapping gives another one. The rule gets the gradient
        in the common dtype of those that are given.
        """
        del group
        return ()

    def shapes(self, group: ParamGroup, param: Tensor) -> Mapping[str, Sequence[int]]:
        """Shapes of the buffers that do not have the parameter's. They hold real numbers.

        Each must have at least one dimension: torch's distributed checkpoints do not send 0-d tensors to every rank.

        Args:
            group: its param group.
            param: the parameter as `update` sees it: a complex one as pairs of real numbers.
        """
        del group, param
        return {}

    def scalars(self, group: ParamGroup) -> Mapping[str, float]:
        """Names and initial values of the numbers in a parameter's state.

        `coefficients` finds them in `group`, and returns their next value under the same name.
        """
        del group
        return {}

    def coefficients(self, t: float, group: ParamGroup) -> dict[str, Any]:
        """Every scalar of step `t` (the first is 1): floats, which may change each step, and static values.

        `update` may branch on static values (mostly bools), and on nothing else.
        """
        raise NotImplementedError(f"{type(self).__name__} has neither step_param nor coefficients and update")

    @staticmethod
    def update(p: Any, g: Any, *buffers: Any, **coefficients: Any) -> Update | tuple[Update, ...]:
        """The rule, written with methods of a tensor only: advance the buffers in place, return the step.

        It writes neither `p` nor `g`. Several `Update`s are applied one after the other.
        """
        raise NotImplementedError("an optimizer that has coefficients has an update too")

    def averaging_lr(self, t: float, group: ParamGroup) -> float:
        """What multiplies step `t`, by which `schedule_free` weights it: by default the group's lr.

        Times `d` where the state has one, as Prodigy's; so does the authors' wrapper. Override it where the rule
        multiplies its lr by another number.

        Args:
            t: the number of the step, from 1.
            group: its param group, with the numbers of the state.
        """
        del t
        lr: float = group["lr"]
        return lr * (group["d"] if "d" in self.scalars(group) else 1.0)

    def layout(self, group: ParamGroup, param: Tensor) -> Mapping[str, int]:
        """Numbers of a parameter's shape that `coefficients` finds in its group; only of rules of matrices.

        Parameters that differ in them are stepped apart.
        """
        del group, param
        return {}

    def tensors_at_once(self, group: ParamGroup, param: Tensor) -> int | None:
        """How many tensors like this one are stepped at once by lists; None: all that share their coefficients."""
        del group, param
        return None

    def denominator_floor(self, group: ParamGroup) -> float | None:
        """What keeps the denominators above 0 where gradients are 0; None if the rule needs nothing for that.

        By default the group's `eps`, if it has one. In float16 it must not be rounded to 0.
        """
        eps: float | None = group.get("eps")
        return eps

    # For rules that need more than one parameter's gradient.

    def step_scope(self, groups: Sequence[ParamGroup]) -> AbstractContextManager[None]:
        """A context around a step of these groups. Override it for sums over all parameters."""
        del groups
        return nullcontext()

    def before_closure(self) -> None:
        """Called before a closure is. Override it where a step takes several gradients, to start with the first."""

    # How the base class reads the rule.

    def buffer_dtypes(self, group: ParamGroup) -> dict[str, torch.dtype | None]:
        """The buffers with their dtypes; None stands for the parameter's."""
        declared = self.buffers(group)
        return dict(declared) if isinstance(declared, Mapping) else dict.fromkeys(declared)

    @classmethod
    def _is_declared(cls) -> bool:
        return cls.step_param is UpdateRule.step_param

    def _compute_coefficients(
        self, t: float, group: ParamGroup, scalars: Mapping[str, float], param: Tensor
    ) -> tuple[dict[str, Any], dict[str, float]]:
        """The coefficients of step `t`, and the next values of the scalars.

        Args:
            t: the number of the step, from 1.
            group: the param group.
            scalars: the numbers in the state before the step.
            param: one of those that are stepped together.
        """
        coefficients = self.coefficients(t, {**group, **scalars, **self.layout(group, param)})
        return coefficients, {name: coefficients.pop(name) for name in scalars}

    def _compute_updates(
        self, p: Any, g: Any, buffers: Sequence[Any], coefficients: Mapping[str, Any]
    ) -> tuple[Update, ...]:
        updates = self.update(p, g, *buffers, **coefficients)
        return updates if isinstance(updates, tuple) else (updates,)
