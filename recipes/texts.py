"""Tokenised texts with labels: few for training, and at most as many of each label for validation and test."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from .labelled_texts import read_texts
from .pretrained_text import load_tokenizer
from .split_data import SplitData, sample_per_label


class Texts(SplitData):
    """Inputs are `(n, 2, max_tokens)`: token ids and their mask.

    Args:
        seed: of the choice of training texts and of the order.
        csv: a file with the columns text and label; None for docstrings of the standard library.
        backbone: whose tokenizer: the name or folder of a model, or None for the packaged one.
        max_tokens: what is longer is cut.
        texts_per_label: how many of the training texts of each label are used; None for all.
        eval_texts_per_label: the same for validation and test, the same texts for every seed.
        batch_size: per rank.
    """

    def __init__(
        self,
        seed: int,
        csv: str | None,
        backbone: str | None,
        max_tokens: int,
        texts_per_label: int | None,
        eval_texts_per_label: int | None,
        batch_size: int,
    ) -> None:
        rows = read_texts(csv)
        self._numbers = {label: number for number, label in enumerate(sorted({label for _, label in rows["train"]}))}
        self._tokenizer, self._max_tokens = load_tokenizer(backbone), max_tokens
        splits = {
            "train": self._encode(_few(rows["train"], texts_per_label, seed)),
            "val": _by_length(self._encode(_few(rows["val"], eval_texts_per_label, 0))),
            "test": _by_length(self._encode(_few(rows["test"], eval_texts_per_label, 0))),
        }
        description = "docstrings of modules not trained on" if csv is None else f"texts of {csv}"
        super().__init__(splits, batch_size, seed, description, eval_batch_size=32)

    def _encode(self, rows: list[tuple[str, str]]) -> TensorDataset:
        encoded = self._tokenizer(
            [text for text, _ in rows],
            max_length=self._max_tokens,
            truncation=True,
            padding="max_length",
            return_tensors="pt",
        )
        tokens: Tensor = torch.stack([encoded["input_ids"], encoded["attention_mask"]], 1)
        return TensorDataset(tokens, torch.tensor([self._numbers[label] for _, label in rows]))


def _few(rows: list[tuple[str, str]], per_label: int | None, seed: int) -> list[tuple[str, str]]:
    if per_label is None:
        return rows
    indices = sample_per_label([label for _, label in rows], np.arange(len(rows)), per_label, seed)
    return [rows[index] for index in indices]


def _by_length(data: TensorDataset) -> TensorDataset:
    # Batches of texts of one length have little padding, and TextNet cuts what all of a batch have.
    order = data.tensors[0][:, 1].sum(1).argsort(stable=True)
    return TensorDataset(*data[order])
