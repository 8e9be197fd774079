"""Parameter names for a checkpoint that has none: those of this run, where it can only mean one order."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..core.errors import ConfigError
from .merge_values import ParamGroup
from .state_checks import check_shapes

_LOG = logging.getLogger(__name__)
_ADVICE = (
    "Put the names into the checkpoint before it is loaded, in the order in which its optimizer had the parameters: "
    "for group, names in zip(checkpoint['optimizer_states'][0]['param_groups'], [['head.weight', 'head.bias'], ...]): "
    "group['param_names'] = names"
)


def name_saved_groups(
    current: Sequence[ParamGroup], state_dict: Mapping[str, Any], order: Sequence[str]
) -> dict[str, Any]:
    """The state dict with parameter names in its groups, where this run has names and the checkpoint has none.

    One group is taken to have the parameters in the module's order, and a log line says so. Several groups are taken to
    be the current ones, by position, if the shapes of the states leave no other choice.

    Args:
        current: `optimizer.param_groups`.
        state_dict: the result of `optimizer.state_dict()`, with or without names.
        order: the names of the module's parameters, in its order.

    Raises:
        ConfigError: there is no such order, or a state has another shape than its parameter.
    """
    saved = state_dict["param_groups"]
    has_keys_of_dcp = all(isinstance(param, str) for group in saved for param in group["params"])
    if all(map(_has_names, saved)) or has_keys_of_dcp or not all(map(_has_names, current)):
        return dict(state_dict)
    params = {
        name: param for group in current for name, param in zip(group["param_names"], group["params"], strict=True)
    }
    if len(saved) == 1:
        names = [[*(name for name in order if name in params), *(name for name in params if name not in order)]]
        _check_fit(names, saved, params, state_dict["state"])
        _LOG.warning(
            "the checkpoint's optimizer has no parameter names: its %d states are loaded in the order of the module's "
            "parameters, whose shapes they have",
            len(saved[0]["params"]),
        )
    else:
        names = [list(group["param_names"]) for group in current]
        _check_fit(names, saved, params, state_dict["state"])
        _check_only_choice(saved, params, state_dict["state"])
    groups = [{**group, "param_names": group_names} for group, group_names in zip(saved, names, strict=True)]
    return {**state_dict, "param_groups": groups}


def _has_names(group: ParamGroup) -> bool:
    return "param_names" in group


def _check_fit(
    names: Sequence[Sequence[str]], saved: Sequence[ParamGroup], params: Mapping[str, Tensor], states: Mapping[Any, Any]
) -> None:
    """Check that the groups have the sizes, and the states the shapes, of the parameters with these names."""
    sizes, saved_sizes = [len(group) for group in names], [len(group["params"]) for group in saved]
    if sizes != saved_sizes:
        raise ConfigError(
            f"the checkpoint's optimizer has no parameter names, and {_format_sizes(saved_sizes)}, this run "
            f"{_format_sizes(sizes)}. {_ADVICE}"
        )
    for group_names, group in zip(names, saved, strict=True):
        for name, key in zip(group_names, group["params"], strict=True):
            try:
                check_shapes(name, params[name], states.get(key) or {})
            except ConfigError as error:
                raise ConfigError(
                    f"{error}, or with the parameters in another order, as the checkpoint has no names. {_ADVICE}"
                ) from None


def _check_only_choice(saved: Sequence[ParamGroup], params: Mapping[str, Tensor], states: Mapping[Any, Any]) -> None:
    """Check that no two parameters could have each other's state: each that has one has a shape of its own."""
    shapes = Counter(tuple(param.shape) for param in params.values())
    keys = [key for group in saved for key in group["params"]]
    for (name, param), key in zip(params.items(), keys, strict=True):
        has_tensors = any(isinstance(value, Tensor) and value.ndim for value in (states.get(key) or {}).values())
        if has_tensors and shapes[tuple(param.shape)] > 1:
            raise ConfigError(
                f"the checkpoint's optimizer has {len(saved)} param groups without parameter names, so nothing says "
                f"which state is that of {name}: another parameter has the shape {list(param.shape)} too. {_ADVICE}"
            )


def _format_sizes(sizes: Sequence[int]) -> str:
    return f"{len(sizes)} param group{'s' if len(sizes) > 1 else ''} of {' + '.join(map(str, sizes))} parameters"
