"""Keeps torch's fused kernels from tensors that they would read or write in the wrong places.

They go through memory from a tensor's first element on and look at neither sizes nor strides. Where gradient, state and
parameter differ in layout, they compute other numbers, or write into memory that is not the parameter's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Adam, Optimizer
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..core.errors import ConfigError
from .first_step import class_of
from .layout_snapshot import FUSED_BUFFERS, LayoutSnapshot

_LOG = logging.getLogger(__name__)


class FusedLayouts:
    """Checks the layouts in each step of one optimizer; where they differ, that group steps without the fused kernel.

    It acts through torch's hooks around a step, `before_step` and `after_step`. The check runs after the closure, which
    computes the gradients, and so after every other hook before the step.
    """

    def __init__(self) -> None:
        self._accepted: LayoutSnapshot | None = None
        """Of the last step, if every group could be fused."""
        self._switched: list[tuple[dict[str, Any], Any]] = []
        """Groups that step without the kernel, with the value of their flag."""
        self._has_logged = False

    def before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """torch's hook before a step: the same arguments, with a closure that checks the layouts when it is done.

        The closure raises `ConfigError` if a gradient or a state has another shape than its parameter.
        """
        self.after_step()  # the last step may have raised
        closure = args[1] if len(args) > 1 else kwargs.get("closure")

        def checked_closure() -> Any:
            loss = None if closure is None else closure()
            _outside_dynamo(self._check)(optimizer)
            return loss

        return args[:1], {**kwargs, "closure": checked_closure}

    def after_step(self, *_: Any) -> None:
        """torch's hook after a step, and before its state is saved: the groups have their own flags again."""
        _outside_dynamo(self._restore_flags)()

    def _restore_flags(self) -> None:
        for group, flag in self._switched:
            group["fused"] = flag
        self._switched.clear()

    @torch.no_grad()
    def _check(self, optimizer: Optimizer) -> None:
        groups = [group for group in optimizer.param_groups if group.get("fused")]
        params = list(chain.from_iterable([group["params"] for group in groups]))
        if self._accepted is not None and self._accepted.still_holds(params, optimizer.state):
            return
        self._accepted = None
        unfit = [(group, _find_unfit(optimizer, group)) for group in groups]
        for group, found in unfit:
            if any(param.grad is not None for param in found):
                self._switched.append((group, group["fused"]))
                group["fused"] = None  # torch chooses, as without the flag
            else:
                _move_step_counts(optimizer, group)
        if not any(found for _, found in unfit):
            self._accepted = LayoutSnapshot.take(params, optimizer.state)
        if self._switched and not self._has_logged:
            self._has_logged = True
            _LOG.warning(
                "param group %r: parameter, gradient and state differ in memory layout, or only some parameters are "
                "DTensors. While they do, torch's fused kernel is not used: slower, with the same numbers",
                self._switched[0][0].get("name"),
            )


def _outside_dynamo(function: Callable[..., None]) -> Callable[..., None]:
    """The function, not compiled where `step` is: what it does depends on layouts that Dynamo does not guard."""
    if not torch.compiler.is_compiling():
        return function
    eager: Callable[..., None] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return eager


def can_fuse(cls: type[Optimizer], tensors: Iterable[Tensor]) -> bool:
    """Whether torch's fused kernels take these: real floating point, on a device that has the kernels.

    Args:
        cls: the optimizer's class.
        tensors: its parameters.
    """
    from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

    tensors = list(tensors)
    devices = _get_fused_kernels_supported_devices()
    return not _are_mixed(tensors) and all(
        torch.is_floating_point(tensor) and tensor.device.type in devices and _takes_type(cls, tensor)
        for tensor in tensors
    )


def _find_unfit(optimizer: Optimizer, group: Mapping[str, Any]) -> list[Tensor]:
    """The parameters of a group that the fused kernel cannot take as they are, with or without a gradient now.

    Raises:
        ConfigError: a gradient, or a state that is about to be used, has another shape than its parameter.
    """
    cls = class_of(optimizer, group)
    names = group.get("param_names") or [f"params[{index}] of a param group" for index in range(len(group["params"]))]
    unfit, is_mixed = [], _are_mixed(group["params"])
    for name, param in zip(names, group["params"], strict=True):
        state = optimizer.state.get(param) or {}
        tensors = {"gradient": param.grad, **{key: state.get(key) for key in FUSED_BUFFERS}}
        tensors = {key: tensor for key, tensor in tensors.items() if tensor is not None}
        for key, tensor in tensors.items():
            if param.grad is not None and tensor.shape != param.shape:
                raise ConfigError(
                    f"{name}: its {key} has the shape {list(tensor.shape)}, the parameter {list(param.shape)}. Give it "
                    "the parameter's shape; to start it anew, remove the parameter from optimizer.state"
                )
        # The state that a step creates has the parameter's layout.
        if is_mixed or not (
            _takes_type(cls, param) and all(_has_layout_of(param, tensor) for tensor in (param, *tensors.values()))
        ):
            unfit.append(param)
    return unfit


def _are_mixed(tensors: Iterable[Tensor]) -> bool:
    """Whether some are DTensors and others are not, as under tensor parallelism: one call does not take both."""
    return len({isinstance(tensor, DTensor) for tensor in tensors}) > 1


def _takes_type(cls: type[Optimizer], param: Tensor) -> bool:
    """Whether the kernel of a class takes a parameter of this type. Those of SGD and Adagrad do not take shards."""
    if isinstance(param, DTensor):
        return issubclass(cls, Adam)
    return not is_traceable_wrapper_subclass(param)


def _has_layout_of(param: Tensor, tensor: Tensor) -> bool:
    """Whether a gradient or a state has the memory layout of its parameter, and both are dense."""
    if isinstance(param, DTensor) and isinstance(tensor, DTensor):
        return param.placements == tensor.placements and _has_layout_of(param.to_local(), tensor.to_local())
    return (
        not is_traceable_wrapper_subclass(tensor)
        and (tensor.layout, tensor.dtype, tensor.device) == (torch.strided, param.dtype, param.device)
        and tensor.shape == param.shape  # shards; whole tensors have the same shape
        and _are_dense_alike(tuple(param.shape), param.stride(), tensor.stride())
    )


@lru_cache(maxsize=4096)
def _are_dense_alike(shape: tuple[int, ...], strides: tuple[int, ...], others: tuple[int, ...]) -> bool:
    """Whether tensors of this shape with these strides fill their memory without gaps, in the same order."""
    if 0 in shape:
        return True
    # The stride of a dimension of size 1 has no meaning.
    dims = sorted((stride, size, other) for stride, size, other in zip(strides, shape, others, strict=True) if size > 1)
    expected = 1
    for stride, size, other in dims:
        if stride != expected or other != expected:
            return False
        expected *= size
    return True


def _move_step_counts(optimizer: Optimizer, group: Mapping[str, Any]) -> None:
    """Put the step counts on the parameter's device, where the kernel reads them; others create them on the CPU."""
    for param in group["params"]:
        step = (optimizer.state.get(param) or {}).get("step")
        if isinstance(step, Tensor) and step.device != param.device:
            optimizer.state[param]["step"] = step.to(param.device, torch.float32)
