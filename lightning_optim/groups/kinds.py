"""The kinds of a parameter (`bias`, `norm`, `matrix`, ...), from its owner's class, its name and its shape."""

from __future__ import annotations

import re

from torch import nn

KINDS = ("bias", "norm", "embedding", "matrix", "vector")

# Matches `LayerNorm2d` and `Normalization`, but not `NormalizingFlow` or `AbnormalHead`.
_NORM_CLASS = re.compile(r"Norm(?!al(?!ization))|norm$")
_NORM_NAME = re.compile(r"(^|_)(norm|layernorm|batchnorm|groupnorm|rmsnorm|ln|bn)\d*(_|$)", re.IGNORECASE)
_EMBEDDING = re.compile(r"embed", re.IGNORECASE)
_PLAIN_LAYERS = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


def kinds_of(name: str, ndim: int, owner: nn.Module | None) -> frozenset[str]:
    """The kinds of a parameter under one of its names; they are not exclusive.

    Args:
        name: the name under which the owner uses it: `fc.weight`, parametrized or not.
        ndim: its number of dimensions.
        owner: the module that uses it; None where only names are known.
    """
    leaf = name.rpartition(".")[2]
    kinds = {"vector"} if ndim <= 1 else set()
    if leaf == "bias" or leaf.startswith("bias_") or leaf.endswith("_bias"):
        kinds.add("bias")
    if _is_norm(name, owner):
        kinds.add("norm")
    elif _is_embedding(name, owner):
        kinds.add("embedding")
    elif ndim >= 2:
        kinds.add("matrix")
    return frozenset(kinds)


def _is_norm(name: str, owner: nn.Module | None) -> bool:
    if isinstance(owner, (*_PLAIN_LAYERS, nn.Embedding, nn.EmbeddingBag)):
        return False
    if owner is not None:
        return bool(_NORM_CLASS.search(type(owner).__name__))
    path = name.split(".")[:-1]
    return bool(path and _NORM_NAME.search(path[-1]))


def _is_embedding(name: str, owner: nn.Module | None) -> bool:
    if isinstance(owner, (nn.Embedding, nn.EmbeddingBag)):
        return True
    if isinstance(owner, _PLAIN_LAYERS):
        return False
    # An embedding stored as a plain parameter (`pos_embed`), or in a class of the user's own, or known by name only.
    candidates = name.split(".")[-2:] if owner is None else [name.rpartition(".")[2], type(owner).__name__]
    return any(_EMBEDDING.search(candidate) for candidate in candidates)
