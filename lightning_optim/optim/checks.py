"""Checks of a param group: names and values of its hyperparameters, their combination, and its gradients."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from ..catalog.common import SHARED_OPTIONS
from ..catalog.decay import PEAK_LR_MODES
from ..catalog.info import TORCH_ONLY_KEYS, UNSUPPORTED_FLAGS
from ..catalog.registry import algorithms_with
from ..core.config_values import to_plain
from ..core.errors import ConfigError, format_choices, leftover_hint
from ..core.hyperparameters import Hyperparameter, Number
from ..core.param_group_keys import GROUP_METADATA
from .decay import WeightDecay
from .extra_keys import EXTRA_GROUP_KEYS, extra_keys_advice

# What torch's schedulers store in a param group: a group copied from another one brings it along.
_SCHEDULER_KEYS = ("initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum", "swa_lr")
# What a param group may have besides hyperparameters.
KNOWN_GROUP_KEYS = (*GROUP_METADATA, *_SCHEDULER_KEYS)
# What another library's keys may not be called, besides hyperparameters.
RESERVED_GROUP_KEYS = (*KNOWN_GROUP_KEYS, *TORCH_ONLY_KEYS, EXTRA_GROUP_KEYS)
_dtype, _layout = attrgetter("dtype"), attrgetter("layout")


def parse_hyperparameters(
    given: Mapping[str, Any], specs: Mapping[str, Hyperparameter], known: Collection[str], cls_name: str, prefix: str
) -> dict[str, Any]:
    """The values as the algorithm takes them; a `WeightDecay` is replaced by its keys.

    Args:
        given: hyperparameters by name, at the top or in one group.
        specs: the allowed values by name; a value without a spec is taken as it is.
        known: every allowed name.
        cls_name: the optimizer's name, for the message.
        prefix: comes before the key in the message.

    Raises:
        ConfigError: a name is unknown, or a value out of bounds.
    """
    values = dict(given)
    for key in UNSUPPORTED_FLAGS:
        if values.pop(key, False):
            raise ConfigError(f"{prefix}{key}: only torch's classes take it. Remove it, or type implementation: torch")
    if isinstance(decay := values.get("weight_decay"), WeightDecay):
        keys = decay.keys()
        for key in keys:
            if key != "weight_decay" and values.get(key) is not None:
                raise ConfigError(f"{prefix}{key}: the WeightDecay already sets it. Remove {key}")
        values.update(keys)
    for key in values:
        if key not in known:
            raise ConfigError(
                f"{prefix}{key}: {cls_name} has no hyperparameter {key!r}."
                f"{leftover_hint(key, algorithms_with(key))}{format_choices(str(key), sorted(known))}"
                f"{extra_keys_advice(values, known) if prefix else ''}"
            )
    return {key: _parse_value(value, specs.get(key), f"{prefix}{key}") for key, value in values.items()}


def _parse_value(value: Any, spec: Hyperparameter | None, key: str) -> Any:
    if spec is None:
        return value
    if isinstance(value, Tensor) and key.rsplit(".", 1)[-1] == "lr":
        if value.numel() != 1:
            raise ConfigError(f"{key}: got a tensor of {value.numel()} elements; a tensor lr has one")
        spec.check(float(value), key)
        return value  # a scheduler writes into it
    return spec.check(to_plain(value), key)


def check_combination(
    group: Mapping[str, Any], prefix: str, *, needs_peak_lr: bool, supports_foreach: bool, supports_fused: bool
) -> None:
    """Check that the values of one group go together.

    Args:
        group: all of its values.
        prefix: comes before a key in the message.
        needs_peak_lr: whether the rule divides by `peak_lr`.
        supports_foreach: whether the rule runs over lists.
        supports_fused: whether the rule can be traced.

    Raises:
        ConfigError: they do not.
    """
    try:
        decay = WeightDecay.of(group)
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from None
    Number(default=0.0, low=0).check(group["peak_lr"], f"{prefix}peak_lr")
    if group["fused"] and group["foreach"]:
        raise ConfigError(f"{prefix}fused: true excludes foreach: true. Remove one of them")
    if group["fused"] and not supports_fused:
        raise ConfigError(
            f"{prefix}fused: a kernel needs a declared rule: buffers, coefficients, and an update that is a "
            "staticmethod. Declare these, or type fused: null"
        )
    if group["foreach"] and not supports_foreach:
        raise ConfigError(
            f"{prefix}foreach: this optimizer's step_param takes one tensor at a time. Type foreach: null, or declare "
            "buffers, coefficients and update"
        )
    decay_divides = decay.weight_decay > 0 and decay.mode in PEAK_LR_MODES
    if (needs_peak_lr or decay_divides) and not group["peak_lr"] > 0:
        reason = f"weight_decay_mode: {decay.mode}" if decay_divides else "the rule"
        raise ConfigError(
            f"{prefix}peak_lr: got {group['peak_lr']:g}, and {reason} divides by it. Build the optimizer with the lr "
            "of the schedule's peak; a scheduler may set it to 0 afterwards"
        )


def check_shared_values(
    group: Mapping[str, Any], others: Iterable[Mapping[str, Any]], specs: Mapping[str, Hyperparameter], prefix: str
) -> None:
    """Check that values which all groups must share are the same as in the other groups; execution flags may differ.

    Raises:
        ConfigError: they are not.
    """
    for key, other in [(key, other) for other in others for key in specs if key not in SHARED_OPTIONS]:
        if not specs[key].per_group and group.get(key) != other.get(key):
            raise ConfigError(
                f"{prefix}{key}: got {group[key]}, but {other[key]} in the first group: all groups share one value. "
                f"Type {key} only at the top"
            )


def check_matrices(cls_name: str, params: Iterable[tuple[str, Tensor]], prefix: str, advice: str) -> None:
    """Check that torch's class of an optimizer of matrices can take these parameters.

    Raises:
        ConfigError: one does not have two dimensions.
    """
    for name, tensor in params:
        if tensor.ndim != 2:
            raise ConfigError(
                f"{prefix}: {cls_name} takes 2-D parameters only; {name} has the shape {list(tensor.shape)}. {advice}"
            )


def check_gradients(group: Mapping[str, Any], group_index: int, cls_name: str, *, allow_complex: bool) -> None:
    """Check that the rule can take the gradients of a group.

    Raises:
        ConfigError: one is sparse, or complex where the rule is written for real numbers.
    """
    by_row = [key for key in ("centralize_gradients", "adaptive_clip") if group[key]]
    grads = [grad for param in group["params"] if (grad := param.grad) is not None]
    layouts, dtypes = set(map(_layout, grads)), set(map(_dtype, group["params"]))
    if layouts <= {torch.strided} and not any(dtype.is_complex for dtype in dtypes):
        return  # nearly always, and there may be very many parameters
    check_dense(group, group_index, cls_name)
    for index, param in enumerate(group["params"]):
        if param.grad is None or not param.is_complex():
            continue
        if not allow_complex:
            raise ConfigError(
                f"{_param_name(group, group_index, index)}: it is complex, which {cls_name}.step_param is not written "
                "for. Declare buffers, coefficients and update"
            )
        if by_row:
            raise ConfigError(
                f"{_param_name(group, group_index, index)}: it is complex, and {by_row[0]} works on rows of real "
                f"numbers. Put it in a group without {by_row[0]}"
            )


def check_dense(group: Mapping[str, Any], group_index: int, cls_name: str) -> None:
    """Raises a ConfigError if a gradient of a group is sparse."""
    for index, param in enumerate(group["params"]):
        if param.grad is not None and param.grad.layout != torch.strided:
            raise ConfigError(
                f"{_param_name(group, group_index, index)}: its gradient is sparse, which {cls_name} does not take. "
                "Build the embedding with sparse=False, or use torch.optim.SparseAdam (name: sparse_adam)"
            )


def _param_name(group: Mapping[str, Any], group_index: int, index: int) -> str:
    names = group.get("param_names")
    return str(names[index]) if names else f"param_groups[{group_index}]['params'][{index}]"
