"""`task=images`: folders of images, models of timm and torchvision, and clear errors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from lightning_optim import ConfigError
from recipes.image_files import MEAN, STD, ImageBatches, ImageFolder, count_labels, list_images, read_image
from recipes.image_model import load_backbone
from tests.support.processes import ROOT

image_module = pytest.importorskip("PIL.Image", reason="needs pillow")

COLOURS = {"blue": (0, 0, 255), "red": (255, 0, 0)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images of each colour, of 20 × 12 pixels."""
    generator = np.random.default_rng(0)
    for label, colour in COLOURS.items():
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(10):
            pixels = (np.array(colour) * generator.uniform(0.5, 1, (12, 20, 1))).astype(np.uint8)
            suffix = "png" if number else "PNG"
            image_module.fromarray(pixels).save(tmp_path / "images" / label / f"{number}.{suffix}")
    return tmp_path / "images"


def test_splits_share_no_image_and_are_read_in_batches(folder) -> None:
    data = ImageFolder(seed=0, folder=str(folder), size=8, images_per_label=4, batch_size=4)
    files = {split: set(batches._files) for split, batches in data._splits.items()}
    assert {split: len(names) for split, names in files.items()} == {"train": 8, "val": 4, "test": 4}
    assert len(set().union(*files.values())) == 16
    for images, labels in data.train_dataloader():
        assert images.shape == (4, 3, 8, 8)
        assert torch.equal(images[:, 0].mean((1, 2)) > images[:, 2].mean((1, 2)), labels == 1)  # red comes second
    (batch,) = data.test_dataloader()
    assert batch[0].shape == (4, 3, 8, 8) and sorted(batch[1].tolist()) == [0, 0, 1, 1]


def test_an_image_is_scaled_to_its_shorter_side_cut_and_normalised(tmp_path) -> None:
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 255  # the centre is white
    image_module.fromarray(pixels).save(tmp_path / "wide.png")
    white = torch.tensor([(1 - mean) / std for mean, std in zip(MEAN, STD, strict=True)])
    torch.testing.assert_close(read_image(tmp_path / "wide.png", 10), white.view(3, 1, 1).expand(3, 10, 10))
    assert read_image(tmp_path / "wide.png", 7).shape == (3, 7, 7)


def test_wrong_folders_are_errors_that_say_what_to_type(folder, tmp_path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "broken" / "label").mkdir(parents=True)
    (broken := tmp_path / "broken" / "label" / "a.png").write_bytes(b"no image")
    for given, message in (
        (None, "task.folder: null. Type task.folder=FOLDER, with a subfolder of images for each label"),
        ("nowhere", "task.folder: there is no folder nowhere. Type"),
        (str(tmp_path / "none"), f"task.folder: {tmp_path / 'none'} has no images (.bmp, .gif"),
    ):
        with pytest.raises(ConfigError) as caught:
            list_images(given)
        assert str(caught.value).startswith(message)
    assert count_labels(str(folder)) == 2
    with pytest.raises(ConfigError, match=r"^task\.folder: .*a\.png is not an image that can be read"):
        ImageBatches([broken], [0], 8)[0]


# Models


def test_wrong_models_are_errors_that_say_what_to_type(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    for arguments, message in (
        (("tim", "resnet18", True, None), "task.library: there is no library 'tim'. Did you mean 'timm'?"),
        (("timm", "resnet18", True, "no.pth"), "task.weights: there is no file no.pth. Type task.weights=null"),
        (("timm", "resnet18", True, None), "task: images needs timm (import of timm halted"),
        (("torchvision", "resnet18", True, None), "task: images needs torchvision (import of torchvision halted"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_backbone(*arguments)
        assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("Type pip install torchvision")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ConfigError, match=r"^task: images needs pillow \(.*\)\. Type pip install pillow$"):
        read_image(Path("a.png"), 8)


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """What stands for torchvision has two models, and this list gets the weights that are asked for."""
    asked: list[str | None] = []

    def get_model(name: str, weights: str | None) -> nn.Module:
        asked.append(weights)
        layers = [nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3)]
        return nn.Sequential(*layers, *([nn.ReLU()] if name == "odd" else []))

    models = SimpleNamespace(list_models=lambda module: ["even", "odd"], get_model=get_model)
    stand_in = ModuleType("torchvision")
    stand_in.models = models  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", stand_in)
    return asked


def test_a_model_of_torchvision_loses_its_last_layer(torchvision, tmp_path) -> None:
    model, width = load_backbone("torchvision", "even", True, None)
    assert (width, torchvision) == (5, ["DEFAULT"])
    assert model(torch.zeros(1, 3, 2, 2)).shape == (1, 5)
    state = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3)).state_dict()
    torch.save(state, tmp_path / "weights.pth")
    model, _ = load_backbone("torchvision", "even", True, str(tmp_path / "weights.pth"))
    assert load_backbone("torchvision", "even", False, None)[1] == 5
    assert torchvision[1:] == [None, None] and torch.equal(model[1].weight, state["1.weight"])
    for name, message in (
        ("eve", "task.backbone: torchvision has no model 'eve'. Did you mean 'even'?"),
        ("odd", "task.backbone: the last layer of odd is not linear"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_backbone("torchvision", name, True, None)
        assert str(caught.value).startswith(message)
    torch.save({}, tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match=r"^task\.weights: .*weights\.pth does not fit even: "):
        load_backbone("torchvision", "even", True, str(tmp_path / "weights.pth"))


def test_a_model_of_timm_gets_the_weights_that_are_asked_for(tmp_path, monkeypatch) -> None:
    """By what stands for timm."""
    asked = []

    def create_model(name: str, **arguments: object) -> nn.Module:
        asked.append(arguments)
        if arguments["pretrained"] and not arguments["pretrained_cfg_overlay"]:
            raise RuntimeError("no network\nand more")
        model = nn.Flatten()
        model.num_features = 7
        return model

    stand_in = ModuleType("timm")
    stand_in.list_models, stand_in.create_model = lambda: ["net"], create_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", stand_in)
    (file := tmp_path / "weights.pth").touch()
    assert load_backbone("timm", "net.tag", False, None)[1] == load_backbone("timm", "net", True, str(file))[1] == 7
    overlays = [None, {"file": str(file)}]
    assert asked == [
        {"pretrained": overlay is not None, "num_classes": 0, "pretrained_cfg_overlay": overlay} for overlay in overlays
    ]
    with pytest.raises(
        ConfigError, match=r"^task\.pretrained: .* net cannot be downloaded: no network\. Type task\.we"
    ):
        load_backbone("timm", "net", True, None)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")
def test_a_model_of_timm_is_fine_tuned_from_a_file_of_weights(folder, tmp_path, run_python: Callable[..., str]) -> None:
    """In a process of its own, where a stand-in takes the place of torchvision if that is missing."""
    code = f"""
import warnings; warnings.simplefilter("ignore")
from recipes.agreements import torchvision_stub; torchvision_stub.install()
import timm, torch
from hydra import compose, initialize_config_dir
from recipes import finetune
net = timm.create_model("resnet10t")
torch.save(net.state_dict(), {str(tmp_path / "weights.pth")!r})
with initialize_config_dir({str(ROOT / "recipes" / "conf")!r}, version_base="1.3"):
    config = compose("finetune", [
        "task=images", "task.folder={folder}", "task.backbone=resnet10t", "task.weights={tmp_path / "weights.pth"}",
        "task.size=32", "task.batch_size=4", "trainer.max_epochs=2", "~monitor",
    ])
module = finetune.build_module(config, finetune.FINETUNE)
print("loaded", torch.equal(module.backbone.conv1[0].weight, net.conv1[0].weight))
trainer, module, data = finetune.finetune(config, None, None)
print(*(group["name"] for group in trainer.optimizers[0].param_groups))
print(trainer.test(module, data, verbose=False)[0]["test/accuracy"] >= 0.5)
"""
    lines = run_python(code).splitlines()
    assert "loaded True" in lines and lines[-1] == "True"
    assert any({"head", "backbone.depth.stem", "backbone.depth.3.no_decay"} <= set(line.split()) for line in lines)


def test_the_config_composes_without_a_folder() -> None:
    with initialize_config_dir(str(ROOT / "recipes" / "conf"), version_base="1.3"):
        config = compose("finetune", ["task=images"])
    assert config.pretrain is None and config.task.pretrained is True
