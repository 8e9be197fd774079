"""The hyperparameters of a param group, checked: names, values, and what goes together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..catalog.common import OPTIONS
from ..catalog.decay import IN_PROPORTION
from ..catalog.info import REFUSED_BY_OURS
from ..catalog.registry import algorithms_with
from ..core.config_values import to_plain
from ..core.errors import ConfigError, choices, leftover_hint
from ..core.hyperparameters import Hyperparameter, Number
from ..core.param_group_keys import GROUP_METADATA
from .decay import WeightDecay

# What torch's schedulers keep in a param group: a group copied from another brings it along.
_OF_SCHEDULERS = ("initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum", "swa_lr")
# What a param group may hold besides hyperparameters.
KNOWN_GROUP_KEYS = (*GROUP_METADATA, *_OF_SCHEDULERS)


def checked(
    given: Mapping[str, Any], specs: Mapping[str, Hyperparameter], known: Collection[str], who: str, where: str = ""
) -> dict[str, Any]:
    """The values as the algorithm takes them, a `WeightDecay` among them as its keys.

    Args:
        given: hyperparameters by name, at the top or in one group.
        specs: what is known of their values; one that is not here is taken as it is.
        known: every name there may be.
        who: the optimizer's name, for the message.
        where: what the key is prefixed with.

    Raises:
        ConfigError: a name is unknown, or a value out of bounds.
    """
    values = dict(given)
    for key in REFUSED_BY_OURS:
        if values.pop(key, False):
            raise ConfigError(f"{where}{key}: torch's classes alone take it. Remove it, or type implementation: torch")
    if isinstance(decay := values.get("weight_decay"), WeightDecay):
        carried = decay.keys()
        for key in carried:
            if key != "weight_decay" and values.get(key) is not None:
                raise ConfigError(f"{where}{key}: the WeightDecay says it already. Remove {key}")
        values.update(carried)
    for key in values:
        if key not in known:
            raise ConfigError(
                f"{where}{key}: {who} has no hyperparameter {key!r}."
                f"{leftover_hint(key, algorithms_with(key))}{choices(str(key), sorted(known))}"
            )
    return {key: _value(value, specs.get(key), f"{where}{key}") for key, value in values.items()}


def _value(value: Any, spec: Hyperparameter | None, key: str) -> Any:
    if spec is None:
        return value
    if isinstance(value, Tensor) and key.rsplit(".", 1)[-1] == "lr":
        if value.numel() != 1:
            raise ConfigError(f"{key}: got a tensor of {value.numel()} elements; a tensor lr has one")
        spec.check(float(value), key)
        return value  # a scheduler writes into it
    return spec.check(to_plain(value), key)


def check_together(group: Mapping[str, Any], where: str, *, needs_peak_lr: bool, takes_lists: bool) -> None:
    """Whether the values of one group go together.

    Args:
        group: all of its values.
        where: what a key is prefixed with.
        needs_peak_lr: whether the rule divides by it.
        takes_lists: whether the rule runs over lists.

    Raises:
        ConfigError: they do not.
    """
    try:
        decay = WeightDecay.of(group)
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from None
    Number(default=0.0, low=0).check(group["peak_lr"], f"{where}peak_lr")
    if group["fused"]:
        raise ConfigError(f"{where}fused: there is no fused kernel of this optimizer's own. Type fused: null")
    if group["foreach"] and not takes_lists:
        raise ConfigError(
            f"{where}foreach: this optimizer's step_param takes one tensor at a time. Type foreach: null, or declare "
            "buffers, coefficients and update"
        )
    by_decay = decay.weight_decay > 0 and decay.mode in IN_PROPORTION
    if (needs_peak_lr or by_decay) and not group["peak_lr"] > 0:
        reason = f"weight_decay_mode: {decay.mode}" if by_decay else "the rule"
        raise ConfigError(
            f"{where}peak_lr: got {group['peak_lr']:g}, and {reason} divides by it. Build the optimizer with the lr "
            "of the schedule's peak; a scheduler may take it to 0 afterwards"
        )


def check_same(
    group: Mapping[str, Any], others: Iterable[Mapping[str, Any]], specs: Mapping[str, Hyperparameter], where: str
) -> None:
    """Whether what no group may have for itself is as in the other groups; how a step is executed is its own affair.

    Raises:
        ConfigError: it is not.
    """
    for key, other in [(key, other) for other in others for key in specs if key not in OPTIONS]:
        if not specs[key].per_group and group.get(key) != other.get(key):
            raise ConfigError(
                f"{where}{key}: got {group[key]}, and {other[key]} in the first group: it is one for the whole "
                f"optimizer. Type {key} at the top alone"
            )


def check_matrices(who: str, params: Iterable[tuple[str, Tensor]], where: str, advice: str) -> None:
    """Whether an optimizer of matrices takes these.

    Raises:
        ConfigError: one is not of two dimensions.
    """
    for name, tensor in params:
        if tensor.ndim != 2:
            raise ConfigError(
                f"{where}: {who} takes 2-D parameters only; {name} has the shape {list(tensor.shape)}. {advice}"
            )


def check_gradients(group: Mapping[str, Any], index: int, who: str, *, allow_complex: bool) -> None:
    """Whether the rule takes the gradients of a group.

    Raises:
        ConfigError: one is sparse, or of complex numbers for a rule written in real ones.
    """
    for place, param in enumerate(group["params"]):
        if param.grad is None:
            continue
        if param.grad.layout != torch.strided:
            raise ConfigError(
                f"{_name(group, index, place)}: its gradient is sparse, which {who} does not take. Build the embedding "
                "with sparse=False, or take torch.optim.SparseAdam (name: sparse_adam)"
            )
        if param.is_complex() and not allow_complex:
            raise ConfigError(
                f"{_name(group, index, place)}: it is complex, and {who}.step_param is not told so. "
                "Declare buffers, coefficients and update"
            )
        for key in ("centralize_gradients", "adaptive_clip"):
            if param.is_complex() and group[key]:
                raise ConfigError(
                    f"{_name(group, index, place)}: it is complex, and {key} is of rows of real numbers. Give it a "
                    f"group without {key}"
                )


def _name(group: Mapping[str, Any], index: int, place: int) -> str:
    names = group.get("param_names")
    return str(names[place]) if names else f"param_groups[{index}]['params'][{place}]"
