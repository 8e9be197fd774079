"""FSDP1 and DeepSpeed hand out flat pieces of parameters: what computes the same on them as on the parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..core.errors import ConfigError, format_names
from ..groups.kinds import FROZEN
from ..groups.parameters import Parameter
from ..groups.rules import AlgorithmSpec, Rule

ELEMENTWISE = frozenset({
    "adabelief", "adabound", "adaboundw", "adadelta", "adagrad", "adam", "adamax", "adamod", "adamw", "adan",
    "ademamix", "adopt", "amsbound", "amsgrad", "asgd", "diffgrad", "laprop", "lion", "madgrad", "nadam", "nadamw",
    "omd", "optimistic_adam", "padam", "qhadam", "radam", "rmsprop", "rprop", "sgd", "signum", "yogi",
})  # fmt: skip
"""The algorithms that step each element by its own gradients alone."""
NOT_ELEMENTWISE = ("skip_nonfinite", "centralize_gradients", "adaptive_clip", "cautious_update", "sharpness")
"""The modifiers that look at a row, a tensor or all parameters."""
_KINDS_BY_NAME = frozenset({"bias", FROZEN})
# Marks that torch's FSDP1 and DeepSpeed's ZeRO stage 3 put on parameters.
_FSDP1_MARK, _ZERO_3_MARK = "_fsdp_flattened", "ds_id"
_REMEDY = "Type trainer.strategy=ddp, or for sharding use ModelParallelStrategy (FSDP2)"


def check_flat_parameters(
    parameters: Iterable[Parameter], specs: Iterable[AlgorithmSpec], rules: Iterable[Rule]
) -> None:
    """Check a config where the parameters are flat pieces, whose shape says nothing about the parameter.

    Args:
        parameters: of the model.
        specs: every algorithm of the config.
        rules: the config's.

    Raises:
        ConfigError: it asks for something that needs whole parameters, or DeepSpeed has partitioned them.
    """
    tensors = [parameter.tensor for parameter in parameters]
    if any(hasattr(tensor, _ZERO_3_MARK) for tensor in tensors):
        raise ConfigError(f"params: DeepSpeed has partitioned the parameters, which has not been tested. {_REMEDY}")
    if not any(getattr(tensor, _FSDP1_MARK, False) for tensor in tensors):
        return
    rules = list(rules)
    prefix = "under FSDP1, whose parameters are flat pieces,"
    for spec in specs:
        source = next((f"{rule.key}.optimizer" for rule in rules if rule.algorithm == spec.algorithm), "name")
        if spec.algorithm not in ELEMENTWISE:
            raise ConfigError(
                f"{source}: {prefix} only algorithms that step each element by itself are exact: "
                f"{format_names(sorted(ELEMENTWISE))}; not {spec.algorithm}. {_REMEDY}"
            )
        _check_modifiers(spec.hyperparameters, "", prefix)
    for rule in rules:
        _check_modifiers(rule.effects, f"{rule.key}.", prefix)
        if unknown := [kind for kind in rule.selector.kinds if kind not in _KINDS_BY_NAME]:
            raise ConfigError(
                f"{rule.key}.kinds: {prefix} a parameter's shape is not known, and so not whether it is of the kind "
                f"{format_names(unknown)}. Select by params, classes or layers. Or type trainer.strategy=ddp, or for "
                "sharding use ModelParallelStrategy (FSDP2)"
            )
        if rule.effects.get("frozen"):
            raise ConfigError(
                f"{rule.key}.frozen: {prefix} part of a flat parameter cannot be frozen: clipping would count its "
                f"gradient. {_REMEDY}"
            )


def _check_modifiers(values: Any, prefix: str, reason: str) -> None:
    for key in NOT_ELEMENTWISE:
        if values.get(key):
            raise ConfigError(f"{prefix}{key}: {reason} it would see one rank's pieces only. Remove it. Or {_REMEDY}")
