"""How a rule runs over the parameters of a group: one after the other, over lists, or as kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, reduce
from inspect import getattr_static
from typing import Any

import torch
from torch import Tensor

from ..core.errors import ConfigError
from .bucket import Bucket, prefers_lists
from .eigenvectors import explain_no_decomposition
from .fused.available import LANGUAGES, can_compile, check_can_compile, pays_to_fuse
from .fused.execution import FusedExecution, trace_for
from .fused.program import Program
from .fused.requested_sums import RequestedSums, argument_name
from .real_view import real
from .rule import ParamGroup, UpdateRule
from .schedule_free import plan_average, warmed_up_lr
from .state_keys import AVERAGE_NUMBERS, BASE
from .step_context import StepContext


class RuleExecution(UpdateRule):
    """A rule that runs in the execution that a group asks for by `foreach` and `fused`."""

    _fused: FusedExecution | None = None
    """Created when first needed; not part of the state."""

    def run_on(
        self,
        bucket: Bucket,
        rule: Callable[..., None],
        buffers: Sequence[str],
        group: ParamGroup,
        requested: RequestedSums | None = None,
        count: Callable[[], None] | None = None,
    ) -> None:
        """Call `rule(p, g, buffers)` for a bucket of this group, in the execution that the group asks for.

        Args:
            bucket, rule, buffers, group: see there.
            requested: gets the sums that kernels add up.
            count: counts the step, once it is sure to be taken. If it is given, kernels may be launched later, at the
                end of `launching_together`.
        """
        rest = bucket
        if self.prefers_kernel(group, bucket.params[0].device):
            self._fused = self._fused or FusedExecution()
            options: dict[str, Any] = {"requested": requested, "owners": bucket.owners, "layout": bucket.layout}
            run = partial(self._fused.run, required=bool(group["fused"]), **options)
            rest = bucket.run_fused(run, rule, buffers)
            if count and not rest.params:
                self._fused.on_launch.append(count)
                return
            self._fused.launch()
        if requested:
            requested.copy(rest.owners)
        if rest.params:
            try:
                lists = self._runs_lists(rest.params[0], group["foreach"])
                rest.run(rule, buffers, foreach=lists, at_once=self.tensors_at_once(group, rest.params[0]))
            except torch.linalg.LinAlgError as error:
                raise ConfigError(explain_no_decomposition(group, rest.owners, rest.grads)) from error
            except RuntimeError as error:
                if "without overflow" in str(error):
                    raise ConfigError(_explain_overflow(group, str(error))) from error
                own_dtype = [name for name, dtype in self.step_buffers(group).items() if dtype is None]
                if converted := _explain_converted(group, rest, own_dtype):
                    raise ConfigError(converted) from error
                raise
        if count:
            count()

    @contextmanager
    def launching_together(self) -> Iterator[None]:
        """Launch the kernels of `run_on` at the end, one after the other: Python is slow after each of them.

        They have taken its place in the processor's caches. If there is an error, none of them is launched.
        """
        try:
            yield
            if self._fused:
                self._fused.launch()
        finally:
            if self._fused:
                self._fused.drop()

    def prefers_kernel(self, group: ParamGroup, device: torch.device) -> bool:
        """Whether kernels step those parameters of a group that are on a device, as far as there are any for them."""
        if group["fused"] is None:
            return group["foreach"] is None and self.is_traceable() and pays_to_fuse(group["params"], device)
        return bool(group["fused"])

    @classmethod
    def execution_of(cls, params: Sequence[Tensor], *, fused: bool | None, foreach: bool | None) -> str:
        """The execution that parameters of one device and dtype get.

        It is `kernel (C)`, `kernel (Triton)`, `lists`, `stacks` (of matrices of one shape) or `loop`.

        Args:
            params: of a group.
            fused, foreach: the group's flags.
        """
        device = params[0].device
        wants_kernel = fused or (fused is None and foreach is None and pays_to_fuse(params, device))
        if wants_kernel and cls.is_traceable() and can_compile(device):
            return f"kernel ({LANGUAGES[device.type]})"
        if not cls._runs_lists(params[0], foreach):
            return "loop"
        return "stacks" if cls.multiplies_matrices else "lists"

    def name_execution(self, group: ParamGroup) -> str:
        """The execution that a group gets, as `execution_of`; a rule that has no kernel is traced to find out."""
        flags = {"fused": group["fused"], "foreach": group["foreach"]}
        name = self.execution_of(group["params"], **flags)
        if not name.startswith("kernel"):
            return name
        try:
            self.trace_group(group, group["params"][0])
        except ConfigError:
            return self.execution_of(group["params"], **flags | {"fused": False})
        return name

    @classmethod
    def is_traceable(cls) -> bool:
        """Whether the rule depends on its arguments only, so that what it does once it does always."""
        is_pure = cls._is_declared() and isinstance(getattr_static(cls, "update"), staticmethod)
        return is_pure and not cls.multiplies_matrices

    @classmethod
    def _runs_lists(cls, param: Tensor, foreach: bool | None) -> bool:
        """Whether the rule runs over lists of tensors like this one. Products are much faster in stacks."""
        if not cls._is_declared():
            return False
        return cls.multiplies_matrices or prefers_lists(param) if foreach is None else foreach

    def trace_group(self, group: ParamGroup, param: Tensor, *, t: float = 1.0) -> Program:
        """The program of a kernel: what step number `t` does with a parameter of a group.

        Raises:
            ConfigError: there can be no kernel.
        """
        group = {**group, "lr": float(group["lr"])}
        param = real(param)
        context = StepContext.from_group(group, common_dtype(self.buffer_dtypes(group)))
        numbers = {**self.scalars(group), **dict.fromkeys(AVERAGE_NUMBERS, 0.0)}
        group, context, _ = self.plan_average(t, group, context, numbers)
        coefficients, _ = self._compute_coefficients(t, group, self.scalars(group), param)
        shapes = self.shapes(group, param)
        buffers = {
            argument_name(name): torch.empty(shapes.get(name, param.shape), dtype=dtype or param.dtype, device="meta")
            for name, dtype in self.step_buffers(group).items()
        }
        return trace_for(partial(self._run_rule, context, coefficients), param, buffers)

    def check_kernels(self, group: ParamGroup, params: Iterable[Tensor], prefix: str) -> None:
        """Check that there are kernels for parameters of a group.

        Raises:
            ConfigError: there are not.
        """
        try:
            for param in {self._kind_of(group, param): param for param in params}.values():
                self.trace_group(group, param)
                check_can_compile(param.device)
        except ConfigError as error:
            raise ConfigError(f"{prefix}{error}") from None

    def step_buffers(self, group: ParamGroup) -> dict[str, torch.dtype | None]:
        """The state tensors that a step takes, with their dtypes: the rule's, and what its modifiers add."""
        return {**self.buffer_dtypes(group), **({BASE: None} if group["schedule_free"] else {})}

    def plan_average(
        self, t: float, group: ParamGroup, context: StepContext, numbers: Mapping[str, float]
    ) -> tuple[ParamGroup, StepContext, dict[str, float]]:
        """The group with the lr of step `t`, the step's context, and the next numbers of `schedule_free` in the state.

        Args:
            t: the number of the step, from 1.
            group: its `lr` is a number.
            context: of the group.
            numbers: in the state before the step.
        """
        if not (settings := group["schedule_free"]):
            return group, context, {}
        group = {**group, "lr": warmed_up_lr(settings, t, group["lr"])}
        average, following = plan_average(settings, t, self.averaging_lr(t, {**group, **numbers}), numbers)
        shrinkage = context.decay.shrinkage(group["lr"], group["peak_lr"])
        return group, replace(context, shrinkage=shrinkage, average=average), following

    def _run_rule(self, context: StepContext, coefficients: ParamGroup, p: Any, g: Any, buffers: Sequence[Any]) -> None:
        g = context.transform_gradient(p, g)
        buffers, z = (buffers, None) if context.average is None else (buffers[:-1], buffers[-1])
        context.apply(p, g, self._compute_updates(p, g, buffers, coefficients), z)

    def _kind_of(self, group: ParamGroup, param: Tensor) -> Hashable:
        """What parameters must share so that one of them shows whether there is a kernel for all."""
        shapes = [tuple(shape) for shape in self.shapes(group, real(param)).values()]
        reduced = tuple([(shape == real(param).shape, math.prod(shape) == 1) for shape in shapes])
        return param.dtype, param.device, min(param.ndim, 2), reduced


def common_dtype(dtypes: Mapping[str, torch.dtype | None]) -> torch.dtype | None:
    """The dtype that the buffers with a fixed dtype promote to; None if there are none."""
    fixed = [dtype for dtype in dtypes.values() if dtype is not None]
    return reduce(torch.promote_types, fixed) if fixed else None


def _explain_converted(group: ParamGroup, bucket: Bucket, buffers: Iterable[str]) -> str | None:
    """What is wrong if parameters have another dtype than their buffers, which have been created in theirs."""
    names = list(buffers)
    for param, state in zip(bucket.params, bucket.states, strict=True):
        for name in names:
            if name in state and state[name].dtype != param.dtype:
                return (
                    f"param group {group.get('name')!r}: a parameter is {_short(param.dtype)}, and its {name} in the "
                    f"state {_short(state[name].dtype)}: the module was converted after the first step. Convert it "
                    "before that, or type trainer.precision"
                )
    return None


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _explain_overflow(group: ParamGroup, problem: str) -> str:
    """Why torch has no number for a product or a quotient of hyperparameters; names those of an odd size."""
    floats = {key: value for key, value in group.items() if isinstance(value, float) and value}
    odd = {key: value for key, value in floats.items() if not 1e-6 <= abs(value) <= 1e6} or floats
    values = ", ".join(f"{key}: {value:g}" for key, value in odd.items())
    return (
        f"{next(iter(odd), 'lr')}: the step of param group {group.get('name')!r} has a number that its dtype does not "
        f"hold ({problem}). Type other values than {values}"
    )
