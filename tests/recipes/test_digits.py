"""The data of the recipes: a loader that resumes in mid-epoch, and splits that do not overlap."""

from __future__ import annotations

import pytest
import torch

from recipes.digits import Digits
from recipes.epoch_loader import EpochLoader

DATA = torch.utils.data.TensorDataset(torch.arange(10.0).view(10, 1), torch.arange(10))


def labels_of_an_epoch(loader: EpochLoader) -> list[list[int]]:
    return [labels.tolist() for _, labels in loader]


def test_loader_resumes_at_the_saved_batch() -> None:
    uninterrupted = EpochLoader(DATA, 3, seed=5)
    epochs = [labels_of_an_epoch(uninterrupted) for _ in range(3)]
    assert epochs[0] != epochs[1]
    assert all(sorted(sum(epoch, [])) == list(range(10)) for epoch in epochs)
    positions = [(epoch, batch) for epoch in range(3) for batch in range(5)]
    for epoch, batch in positions[:-1]:  # after the last one comes an epoch that was not recorded
        resumed = EpochLoader(DATA, 3, seed=5)
        resumed.load_state_dict({"epoch": epoch, "batch": batch})
        assert labels_of_an_epoch(resumed) == (epochs[epoch][batch:] if batch < 4 else epochs[epoch + 1])


@pytest.mark.parametrize(("world_size", "share"), [(2, 5), (3, 3)])
def test_ranks_get_equal_and_separate_shares(world_size, share) -> None:
    loaders = [EpochLoader(DATA, 3, 5, rank, world_size) for rank in range(world_size)]
    shares = [sum(labels_of_an_epoch(loader), []) for loader in loaders]
    assert [len(labels) for labels in shares] == [share] * world_size
    assert len(set(sum(shares, []))) == share * world_size


def test_noise_has_its_standard_deviation() -> None:
    clean, noisy = (Digits(1, noise, None, 10, 500, 297)._splits["train"].tensors[0] for noise in (0.0, 0.5))
    assert float((noisy - clean).std()) == pytest.approx(0.5, rel=0.01)  # of 64,000 samples


def test_splits_do_not_overlap_and_labels_are_few() -> None:
    data = Digits(seed=1, noise=0.0, labels_per_class=20, batch_size=10, test_size=500, val_size=297)
    tensors = {name: split.tensors for name, split in data._splits.items()}
    splits = {name: {image.numpy().tobytes() for image in images} for name, (images, _) in tensors.items()}
    assert not splits["train"] & splits["test"]
    assert not splits["val"] & splits["test"]
    assert not splits["train"] & splits["val"]
    assert tensors["train"][1].bincount().tolist() == [20] * 10
