"""FSDP1's flat pieces of parameters: what is exact on them, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_optim import ConfigError, OptimizerFactory, list_optimizers, optimizer_info
from lightning_optim.build.flat_parameters import ELEMENTWISE, NOT_ELEMENTWISE
from lightning_optim.catalog.modifiers import MODIFIERS

WHOLE = [torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.ones(5)]
# They take further gradients or a sum over all parameters, which a rank's pieces do not have.
NEED_MORE = {"adai", "extra_adam", "extra_sgd", "prodigy", "sophia_g", "storm"}
MODIFIER_VALUES = {"adaptive_clip": 0.1, "lookahead": {"k": 2}, "schedule_free": {"beta": 0.9}}


def split(tensor: Tensor) -> Sequence[Tensor]:
    return tensor.flatten().split(7)


def trained(name: str, *, in_pieces: bool, **hyperparameters: Any) -> Tensor:
    """All elements after some steps."""
    tensors = [piece for tensor in WHOLE for piece in (split(tensor) if in_pieces else [tensor])]
    params = [nn.Parameter(tensor.clone()) for tensor in tensors]
    optimizer = OptimizerFactory(name, **hyperparameters)([(f"p{i}", p) for i, p in enumerate(params)])
    generator = torch.Generator().manual_seed(1)
    for _ in range(6):
        grads = [torch.randn(tensor.shape, generator=generator) for tensor in WHOLE]
        pieces = [piece for grad in grads for piece in (split(grad) if in_pieces else [grad])]
        for param, grad in zip(params, pieces, strict=True):
            param.grad = grad.clone()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in params])


def is_elementwise(name: str, **hyperparameters: Any) -> bool:
    if "weight_decay" in optimizer_info(name).hyperparameters:
        hyperparameters["weight_decay"] = 0.1
    return torch.equal(*(trained(name, in_pieces=pieces, **hyperparameters) for pieces in (True, False)))


def test_an_elementwise_algorithm_is_the_same_on_pieces() -> None:
    assert [name for name in sorted(ELEMENTWISE) if not is_elementwise(name)] == []


def test_the_other_algorithms_are_not_or_need_more_than_pieces() -> None:
    built_in = {name for name in list_optimizers() if optimizer_info(name).is_built_in}
    # Those without: they do not take such pieces.
    others = (
        built_in
        - ELEMENTWISE
        - NEED_MORE
        - {"lbfgs", "sparse_adam", *(n for n in built_in if optimizer_info(n).matrices_only)}
    )
    assert {name for name in others if is_elementwise(name)} == set()


def test_only_elementwise_modifiers_are_allowed() -> None:
    same = {key: is_elementwise("adam", implementation="own", **{key: MODIFIER_VALUES.get(key, True)})
            for key in MODIFIERS.keys() - {"sharpness"}}  # fmt: skip
    # What a sum over all parameters decides, whether a gradient is not finite or their norm, one rank's pieces do not.
    assert {key for key, value in same.items() if not value} == {*NOT_ELEMENTWISE} - {"skip_nonfinite", "sharpness"}


class Flattened(nn.Module):
    """As FSDP1 leaves a module: its parameters are flat, and marked."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Linear(4, 6), nn.Linear(6, 2)
        for module in (self.backbone, self.head):
            for name, parameter in list(module.named_parameters()):
                flat = nn.Parameter(parameter.detach().flatten())
                flat._fsdp_flattened = True
                setattr(module, name, flat)


def test_rules_by_name_and_class_are_taken() -> None:
    rules = {"biases": {"kinds": ["bias"], "weight_decay": 0}, "head": {"params": "head", "lr_scale": 0.1}}
    groups = OptimizerFactory("adamw", lr=1.0, groups=rules)(Flattened()).param_groups
    assert {group["name"]: group["lr"] for group in groups} == {
        "default": 1.0, "biases": 1.0, "head": 0.1, "biases.head": 0.1
    }  # fmt: skip


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "lamb"}, r"^name: under FSDP1, .* only algorithms .*; not lamb\. Type trainer\.strategy=ddp"),
        (
            {"name": "adamw", "groups": {"h": {"params": "head", "optimizer": "lamb"}}},
            r"^groups\.h\.optimizer: under FSDP1, .*; not lamb\.",
        ),
        ({"name": "adam", "skip_nonfinite": True}, r"^skip_nonfinite: under FSDP1, .* one rank's pieces only"),
        ({"name": "adam", "sharpness": {}}, r"^sharpness: under FSDP1, .* one rank's pieces only"),
        (
            {"name": "adam", "groups": {"h": {"params": "head", "adaptive_clip": 0.1}}},
            r"^groups\.h\.adaptive_clip: under FSDP1",
        ),
        (
            {"name": "adamw", "groups": {"v": {"kinds": ["bias", "vector"], "weight_decay": 0}}},
            r"^groups\.v\.kinds: under FSDP1, .* the kind vector\. Select by params, classes or layers",
        ),
        (
            {"name": "adamw", "groups": {"f": {"params": "head", "frozen": True}}},
            r"^groups\.f\.frozen: under FSDP1, .* clipping would count its gradient\. Type trainer",
        ),
    ],
    ids=["algorithm", "rule's algorithm", "modifier", "norm", "rule's modifier", "kinds", "frozen"],
)
def test_what_needs_whole_parameters_is_refused(config, message) -> None:
    with pytest.raises(ConfigError, match=message):
        OptimizerFactory(**config)(Flattened())


def test_parameters_that_deepspeed_has_partitioned_are_refused() -> None:
    module = nn.Linear(2, 2)
    module.weight.ds_id = 0
    with pytest.raises(ConfigError, match=r"^params: DeepSpeed has partitioned .* Type trainer\.strategy=ddp"):
        OptimizerFactory("adamw")(module)
