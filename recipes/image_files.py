"""A folder of images, with a subfolder for each label, in three splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from lightning_optim import ConfigError

from .split_data import SplitData, sample_per_label, split_by_label

KEY = "task.folder"
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# Of ImageNet, which nearly all pretrained models were trained on.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImageFolder(SplitData):
    """Inputs are `(n, 3, size, size)`, normalised as for ImageNet; images are read when they are needed.

    Args:
        seed: of the choice of training images and of the order.
        folder: with a subfolder of images for each label.
        size: of the square in pixels: the shorter side is scaled to it, then the centre is cut out.
        images_per_label: how many of the training images of each label are used; None for all.
        batch_size: per rank.
    """

    def __init__(self, seed: int, folder: str | None, size: int, images_per_label: int | None, batch_size: int) -> None:
        files = list_images(folder)
        names = sorted({label for _, label in files})
        splits = split_by_label([label for _, label in files], KEY)
        if images_per_label is not None:
            labels = [label for _, label in files]
            splits["train"] = sample_per_label(labels, splits["train"], images_per_label, seed)
        batches = {
            split: ImageBatches([files[i][0] for i in indices], [names.index(files[i][1]) for i in indices], size)
            for split, indices in splits.items()
        }
        super().__init__(batches, batch_size, seed, description=f"images of {folder}", eval_batch_size=64)


class ImageBatches:
    """Images and labels by index.

    Args:
        files: of the images.
        labels: as numbers.
        size: of the square in pixels.
    """

    def __init__(self, files: Sequence[Path], labels: Sequence[int], size: int) -> None:
        self._files, self._labels, self._size = files, labels, size

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, indices: int) -> tuple[Tensor, int]: ...
    @overload
    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor]: ...
    def __getitem__(self, indices: int | Tensor) -> tuple[Tensor, int | Tensor]:
        """An image, or those at several indices."""
        if isinstance(indices, int):
            return read_image(self._files[indices], self._size), self._labels[indices]
        images, labels = zip(*(self[index] for index in indices.tolist()), strict=True)
        return torch.stack(images), torch.tensor(labels)


def list_images(folder: str | None) -> list[tuple[Path, str]]:
    """`(file, label)` of each image, sorted.

    Raises:
        ConfigError: there is no such folder, or it has no subfolders with images.
    """
    what = f"Type {KEY}=FOLDER, with a subfolder of images for each label"
    if folder is None:
        raise ConfigError(f"{KEY}: null. {what}")
    if not Path(folder).is_dir():
        raise ConfigError(f"{KEY}: there is no folder {folder}. {what}")
    files = [
        (file, label.name)
        for label in sorted(Path(folder).iterdir())
        if label.is_dir()
        for file in sorted(label.rglob("*"))
        if file.suffix.lower() in SUFFIXES
    ]
    if not files:
        raise ConfigError(f"{KEY}: {folder} has no images ({', '.join(SUFFIXES)}) in subfolders. {what}")
    return files


def count_labels(folder: str | None) -> int:
    """The number of labels, which is how many outputs the head has."""
    return len({label for _, label in list_images(folder)})


def read_image(file: Path, size: int) -> Tensor:
    """`(3, size, size)`: the centre of an image, normalised as for ImageNet.

    Raises:
        ConfigError: it cannot be read.
    """
    image_module = _import_pillow()
    try:
        with image_module.open(file) as opened:
            image = opened.convert("RGB")
    except OSError as error:
        raise ConfigError(f"{KEY}: {file} is not an image that can be read: {error}. Remove it") from error
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    image = image.resize((width, height), image_module.Resampling.BICUBIC)
    pixels = np.asarray(image.crop((left, top, left + size, top + size)), dtype=np.float32) / 255
    normalised = (pixels - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return torch.from_numpy(normalised).permute(2, 0, 1).contiguous()


def _import_pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ConfigError(f"task: images needs pillow ({error}). Type pip install pillow") from error
    return Image
