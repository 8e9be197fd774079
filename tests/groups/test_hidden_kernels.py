"""Muon gets all hidden kernels of a ResNet-18 and of a ViT, as transformers builds them, and nothing else."""

from __future__ import annotations

import warnings

import pytest
from torch import nn

from lightning_optim import OptimizerFactory

pytestmark = pytest.mark.slow  # needs transformers

NUM_KERNELS = {"resnet18": 20, "vit": 19}
"""Convolutions; and the projection of patches, with six linear layers in each of three blocks."""


def build(name: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of importing transformers
        transformers = pytest.importorskip("transformers")
        if name == "vit":
            sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
            return transformers.ViTForImageClassification(transformers.ViTConfig(image_size=32, patch_size=8, **sizes))
        sizes = {"hidden_sizes": [16, 32, 64, 128], "embedding_size": 16, "depths": [2, 2, 2, 2]}
        config = transformers.ResNetConfig(**sizes, layer_type="basic")
        return transformers.ResNetForImageClassification(config)


@pytest.mark.parametrize("name", list(NUM_KERNELS))
def test_all_hidden_kernels_go_to_muon(name: str) -> None:
    model = build(name)
    rule = {"params": "re:(?!classifier).*", "kinds": ["matrix"], "optimizer": "muon", "lr": 0.02}
    optimizer = OptimizerFactory("adamw", groups={"hidden": rule})(model)
    by_algorithm: dict[str, set[str]] = {"muon": set(), "adamw": set()}
    for group in optimizer.param_groups:
        by_algorithm[group["algorithm"]].update(group["param_names"])
    layers = (nn.Linear, nn.Conv2d)
    kernels = {f"{path}.weight" for path, module in model.named_modules() if isinstance(module, layers)}
    hidden = {kernel for kernel in kernels if not kernel.startswith("classifier")}
    assert len(hidden) == NUM_KERNELS[name] == len(kernels) - 1
    assert by_algorithm["muon"] == hidden
    assert by_algorithm["adamw"] == {name for name, _ in model.named_parameters()} - hidden
    assert {group["matrix"] for group in optimizer.param_groups if group["algorithm"] == "muon"} == {"flatten"}
    for param in model.parameters():
        param.grad = param.detach().clone().normal_()
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    optimizer.step()
    assert all((param != before[name]).any() for name, param in model.named_parameters() if name in hidden)
