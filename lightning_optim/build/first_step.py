"""What torch's classes refuse in their first step, refused before it with the key and the parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch.optim import SGD, Adagrad, Optimizer, SparseAdam

from ..core.errors import ConfigError
from ..core.param_group_keys import ALGORITHM


def attach_checks(optimizer: Optimizer) -> None:
    """Check before each step what depends on the device and on the gradients, where a group needs it."""
    attached: set[str] = set()

    def attach_flag_checks(optimizer: Optimizer) -> None:
        """torch's hook after a load, too: the flags of a group come from the checkpoint."""
        for flag, check in (("capturable", _check_capturable), ("differentiable", _check_differentiable)):
            if flag not in attached and any(group.get(flag) for group in optimizer.param_groups):
                optimizer.register_step_pre_hook(check)
                attached.add(flag)

    attach_flag_checks(optimizer)
    optimizer.register_load_state_dict_post_hook(attach_flag_checks)
    if any(issubclass(class_of(optimizer, group), SparseAdam) for group in optimizer.param_groups):
        optimizer.register_step_pre_hook(_after_closure(_check_sparse))
    if any(_has_fused_momentum(optimizer, group) for group in optimizer.param_groups):
        optimizer.register_step_pre_hook(_after_closure(_fill_momentum))


def attach_dense_check(optimizer: Optimizer) -> None:
    """Check before each step that the gradients are dense, where a module of the model may give sparse ones."""
    optimizer.register_step_pre_hook(_after_closure(_check_dense))


def _check_differentiable(optimizer: Optimizer, *_: Any) -> None:
    """torch's hook before a step: torch writes into no leaf of a graph, as the parameters of a module are."""
    for group in optimizer.param_groups:
        if group.get("differentiable") and any(param.is_leaf and param.requires_grad for param in group["params"]):
            raise ConfigError(
                "differentiable: torch steps no parameters of a module with it, only tensors that were computed from "
                f"others. Type differentiable: false. Where that is the config of param group {group.get('name')!r}, "
                "the checkpoint has another value: use it as it was saved"
            )


def _check_capturable(optimizer: Optimizer, *_: Any) -> None:
    """torch's hook before a step."""
    for group in optimizer.param_groups:
        if not group.get("capturable"):
            continue
        for device in {param.device for param in group["params"]}:
            cls: Any = class_of(optimizer, group)
            if problem := _try_step(cls, device, group.get("foreach"), group.get("fused")):
                raise ConfigError(
                    f"capturable: torch does not step param group {group.get('name')!r} with it on {device}: "
                    f"{problem}. Type capturable: false"
                )


@lru_cache(maxsize=64)
def _try_step(
    cls: Callable[..., Optimizer], device: torch.device, foreach: bool | None, fused: bool | None
) -> str | None:
    """Why a class cannot take a capturable step on a device; None if it can."""
    param = torch.zeros(1, device=device, requires_grad=True)
    param.grad = torch.zeros_like(param)
    flags: dict[str, Any] = {"foreach": foreach, "capturable": True} | ({} if fused is None else {"fused": fused})
    try:
        cls([param], lr=0.1, **flags).step()
    except (AssertionError, RuntimeError) as error:
        return str(error).rstrip(".")
    return None


def _after_closure(check: Callable[[Optimizer], None]) -> Callable[..., tuple[Any, Any]]:
    """torch's hook before a step; the closure computes the gradients, so they are checked when it is done."""

    def hook(optimizer: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any]:
        closure = args[1] if len(args) > 1 else kwargs.get("closure")

        def checked_closure() -> Any:
            loss = None if closure is None else closure()
            check(optimizer)
            return loss

        return args[:1], {**kwargs, "closure": checked_closure}

    return hook


def _check_sparse(optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        if not issubclass(class_of(optimizer, group), SparseAdam):
            continue
        for index, param in enumerate(group["params"]):
            if param.grad is not None and not param.grad.is_sparse:
                raise ConfigError(
                    f"{_name(group, index)}: its gradient is dense, and sparse_adam takes sparse ones only. Build its "
                    "embedding with sparse=True, or give it another optimizer by a rule, such as optimizer: adamw"
                )


def _check_dense(optimizer: Optimizer) -> None:
    """What torch's classes refuse; ours refuse it themselves."""
    for group in optimizer.param_groups:
        cls = class_of(optimizer, group)
        takes_sparse = issubclass(cls, (SGD, SparseAdam)) or (issubclass(cls, Adagrad) and not group["weight_decay"])
        if takes_sparse or not cls.__module__.startswith("torch.optim"):
            continue
        for index, param in enumerate(group["params"]):
            if param.grad is not None and param.grad.is_sparse:
                raise ConfigError(
                    f"{_name(group, index)}: its gradient is sparse, which torch's {cls.__name__} does not take here. "
                    "Build its embedding with sparse=False, or give it another optimizer by a rule, such as "
                    "optimizer: sparse_adam"
                )


def _has_fused_momentum(optimizer: Optimizer, group: Mapping[str, Any]) -> bool:
    return bool(group.get("fused") and group.get("momentum")) and issubclass(class_of(optimizer, group), SGD)


def _fill_momentum(optimizer: Optimizer) -> None:
    """torch's fused SGD raises a TypeError where some parameters have momentum and others get their first gradient."""
    for group in optimizer.param_groups:
        if not _has_fused_momentum(optimizer, group):
            continue
        state = getattr(optimizer, "children", {}).get(group.get(ALGORITHM), optimizer).state
        with_grad = [param for param in group["params"] if param.grad is not None]
        missing = [param for param in with_grad if state.get(param, {}).get("momentum_buffer") is None]
        if not missing or len(missing) == len(with_grad):
            continue
        if group["dampening"]:
            raise ConfigError(
                f"fused: torch's kernel cannot start the momentum of {len(missing)} parameters of param group "
                f"{group.get('name')!r}, which have their first gradient later than others. Type fused: false"
            )
        for param in missing:  # without dampening, momentum that starts at 0 is the same as torch's
            state[param]["momentum_buffer"] = torch.zeros_like(param)


def _name(group: Mapping[str, Any], index: int) -> str:
    return str(group["param_names"][index]) if "param_names" in group else f"parameter {index}"


def class_of(optimizer: Optimizer, group: Mapping[str, Any]) -> type[Optimizer]:
    """The class that steps a group: the optimizer's own, or that of a composite's child."""
    return type(getattr(optimizer, "children", {}).get(group.get(ALGORITHM), optimizer))
