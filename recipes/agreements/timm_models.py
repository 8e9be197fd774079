"""The models of timm, and what its `param_groups_...` functions do with their parameters."""

from __future__ import annotations

import timm
import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from .differences import Reason
from .library import Library, names_of


def build(name: str) -> nn.Module:
    """A model on the meta device."""
    with torch.device("meta"):
        model: nn.Module = timm.create_model(name)
    return model


def no_decay(model: nn.Module) -> set[str]:
    """The names of the parameters that timm exempts from weight decay."""
    groups = param_groups_weight_decay(model, 0.1, no_weight_decay_list=_exempt_names(model))
    return names_of((tensor for group in groups if not group["weight_decay"] for tensor in group["params"]), model)


def lr_scales(model: nn.Module, layer_decay: float) -> dict[str, float] | None:
    """By name: timm's lr scale; None where a model does not tell its layers by a `group_matcher`."""
    if not hasattr(model, "group_matcher"):
        return None
    groups = param_groups_layer_decay(model, layer_decay=layer_decay, no_weight_decay_list=_exempt_names(model))
    scale_of = {id(tensor): float(group["lr_scale"]) for group in groups for tensor in group["params"]}
    return {name: scale_of[id(tensor)] for name, tensor in model.named_parameters()}


def _exempt_names(model: nn.Module) -> set[str]:
    method = getattr(model, "no_weight_decay", None)
    return set(method()) if callable(method) else set()


REASONS = (
    Reason(
        text="ours only: the gain or bias of a norm layer, of shape (1, 1, C); timm exempts one dimension only",
        applies=lambda d: (
            d.is_ours and len(d.shape) > 1 and sum(size > 1 for size in d.shape) <= 1 and "norm" in d.name
        ),
        is_missed_norm=True,
    ),
)

TIMM = Library(
    name="timm",
    version=timm.__version__,
    models=timm.list_models(),
    build=build,
    no_decay=no_decay,
    reasons=REASONS,
    lr_scales=lr_scales,
)
