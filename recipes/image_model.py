"""A pretrained model of timm or torchvision with a head of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_optim import ConfigError, OptimizerFactory, SchedulerFactory
from lightning_optim.core.errors import did_you_mean, format_choices

from .classifier import Classifier

INSTALL = {"timm": 'pip install -e ".[recipes,images]" -c constraints.txt', "torchvision": "pip install torchvision"}


class ImageClassifier(Classifier):
    """Classifies images.

    Args:
        library: `timm` or `torchvision`.
        backbone: name of a model of it.
        pretrained: download its weights; False for random ones.
        weights: a file of weights in place of the download; None for the download.
        num_classes: number of labels.
        dropout: between backbone and head.
        optimizer: builds the optimizer.
        scheduler: builds the schedule; None for a constant lr.
    """

    def __init__(
        self,
        library: str,
        backbone: str,
        pretrained: bool,
        weights: str | None,
        num_classes: int,
        dropout: float,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(num_classes)
        self.save_hyperparameters()
        self.backbone, width = load_backbone(library, backbone, pretrained, weights)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """`(n, 3, size, size)` → logits `(n, classes)`."""
        logits: Tensor = self.head(self.backbone(images))
        return logits


def load_backbone(library: str, name: str, pretrained: bool, weights: str | None) -> tuple[nn.Module, int]:
    """A model that returns features `(n, width)`, and the width.

    Raises:
        ConfigError: the library is unknown or not installed, or it has no such model or cannot load its weights.
    """
    if library not in INSTALL:
        raise ConfigError(f"task.library: there is no library {library!r}.{format_choices(library, INSTALL)}")
    if weights is not None and not Path(weights).is_file():
        raise ConfigError(f"task.weights: there is no file {weights}. Type task.weights=null to download them")
    try:
        load = _load_timm if library == "timm" else _load_torchvision
        return load(name, pretrained, weights)
    except ImportError as error:
        raise ConfigError(f"task: images needs {library} ({error}). Type {INSTALL[library]}") from error


def _load_timm(name: str, pretrained: bool, weights: str | None) -> tuple[nn.Module, int]:
    import timm

    _check_name(name.partition(".")[0], timm.list_models(), "timm")
    overlay = {"file": weights} if weights else None
    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=0, pretrained_cfg_overlay=overlay)
    except (OSError, RuntimeError) as error:
        raise _no_weights(name, weights, error) from error
    return model, int(getattr(model, "head_hidden_size", None) or model.num_features)


def _load_torchvision(name: str, pretrained: bool, weights: str | None) -> tuple[nn.Module, int]:
    from torchvision import models

    _check_name(name, models.list_models(module=models), "torchvision")
    try:
        model = models.get_model(name, weights="DEFAULT" if pretrained and not weights else None)
        if weights:
            model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError) as error:
        raise _no_weights(name, weights, error) from error
    return model, _remove_last_linear(model, name)


def _remove_last_linear(model: nn.Module, name: str) -> int:
    """Take the output layer out of a model, and return how many features it had as inputs."""
    last = list(model.named_modules())[-1][0]
    layers = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not layers or layers[-1] != last:
        raise ConfigError(f"task.backbone: the last layer of {name} is not linear. Choose another model")
    parent, _, child = last.rpartition(".")
    width = model.get_submodule(last).in_features
    setattr(model.get_submodule(parent), child, nn.Identity())
    assert isinstance(width, int)
    return width


def _check_name(name: str, known: list[str], library: str) -> None:
    if name not in known:
        raise ConfigError(f"task.backbone: {library} has no model {name!r}.{did_you_mean(name, known)}")


def _no_weights(name: str, weights: str | None, error: Any) -> ConfigError:
    reason = str(error).partition("\n")[0]
    if weights:
        return ConfigError(f"task.weights: {weights} does not fit {name}: {reason}. Type another file, or null")
    return ConfigError(
        f"task.pretrained: the weights of {name} cannot be downloaded: {reason}. Type task.weights=FILE, or "
        "task.pretrained=false for random ones"
    )
