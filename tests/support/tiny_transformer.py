"""A transformer of two layers with random weights and its tokenizer, as a folder that transformers loads."""

from __future__ import annotations

from pathlib import Path

import torch

WORDS = ("red", "green", "blue", "one", "two", "three", "and", "then")


def write_tiny_transformer(folder: Path) -> Path:
    """Write it, without dropout, and return the folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    vocabulary = {word: number for number, word in enumerate([*special.values(), *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def write_csv_of_words(file: Path) -> Path:
    """Write a CSV of 60 texts, whose first word tells the label, and return it."""
    colours, numbers, fillers = WORDS[:3], WORDS[3:6], WORDS[6:]
    rows = [
        (f"{first} {' '.join(fillers[int(digit)] for digit in f'{number:05b}')}", label)
        for label, firsts in (("colour", colours), ("number", numbers))
        for first in firsts
        for number in range(10)
    ]
    file.write_text("\n".join(["text,label", *(f"{text},{label}" for text, label in rows)]), encoding="utf-8")
    return file
