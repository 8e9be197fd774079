"""The kinds of a parameter (`bias`, `norm`, `matrix`, ...), from its owner's class, its name and its shape."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import nn

FROZEN = "frozen"
"""The kind of a parameter that requires no gradient when the rules are applied."""
KINDS = ("bias", "norm", "embedding", "output", "matrix", "vector", "no_weight_decay", FROZEN)
KINDS_BY_NAME = ("bias", "vector", FROZEN)
"""The kinds that follow from name and tensor. The others need the module that uses the parameter."""

# Matches `LayerNorm2d` and `Normalization`, but not `NormalizingFlow` or `AbnormalHead`.
_NORM_CLASS = re.compile(r"Norm(?!al(?!ization))|norm$")
_NORM_NAME = re.compile(r"(^|_)(norm|layernorm|batchnorm|groupnorm|rmsnorm|ln|bn)\d*(_|$)", re.IGNORECASE)
_EMBEDDING = re.compile(
    r"embed|(^|_)emb(_|\d*$)|(^|_)tokens?$|(^|_)rel_pos(_|$)|(^|_)pos(ition(al)?)?_enc(_|od|$)", re.IGNORECASE
)
# The magnitude that weight normalization splits off a weight: `fc.weight_g`, `fc.parametrizations.weight.original0`.
_MAGNITUDE = re.compile(r"_g$|^original0$")
# The names of a gain or a bias per feature.
_GAINS = frozenset({"scale", "gain", "gamma", "beta"})
_NORMS = (
    *(nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase),
    *(nn.LocalResponseNorm, nn.CrossMapLRN2d),
)
_PLAIN_LAYERS = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


def kinds_of(
    name: str,
    shape: Sequence[int],
    owner: nn.Module | None,
    *,
    effective_name: str | None = None,
    is_input: bool = False,
    is_output: bool = False,
    is_exempt: bool = False,
) -> frozenset[str]:
    """The kinds of a parameter under one of its names, except `FROZEN`; they are not exclusive.

    Args:
        name: `fc.weight`.
        shape: its shape.
        owner: the module that uses it; None where only names are known: the result has `KINDS_BY_NAME` only.
        effective_name: the name under which the owner uses it, where it is parametrized.
        is_input: whether the owner embeds the model's input.
        is_output: whether the owner is the output layer of a language model.
        is_exempt: whether the model exempts it from weight decay.
    """
    is_magnitude = bool(_MAGNITUDE.search(name.rpartition(".")[2]))
    name = effective_name or name
    leaf = name.rpartition(".")[2]
    is_bias = leaf == "bias" or leaf.startswith("bias_") or leaf.endswith("_bias")
    # A `bias_k` of MultiheadAttention has the shape (1, 1, C).
    is_vector = len(shape) <= 1 or ((is_bias or is_magnitude) and is_flat(shape))
    kinds = {"vector"} if is_vector else set()
    if is_bias:
        kinds.add("bias")
    if is_exempt:
        kinds.add("no_weight_decay")
    if owner is None:
        return frozenset(kinds)
    if _is_norm(name, owner):
        kinds.add("norm")
    elif is_input or _is_embedding(leaf, owner):
        kinds.add("embedding")
    elif is_output:
        kinds.add("output")
    elif not (is_vector or is_bias or _is_gain_or_table(leaf, shape, owner, is_exempt=is_exempt)):
        kinds.add("matrix")
    return frozenset(kinds)


def is_flat(shape: Sequence[int]) -> bool:
    """Whether at most one dimension is longer than 1: `(8,)`, `(8, 1)`, `(1, 1, 1, 8)`."""
    return sum(size > 1 for size in shape) <= 1


def _is_gain_or_table(leaf: str, shape: Sequence[int], owner: nn.Module, *, is_exempt: bool) -> bool:
    """Whether a parameter of two or more dimensions multiplies no vector of features.

    It is a gain with dimensions of 1: a LayerScale's, RWKV's `time_mix_key`, NFNet's `gain`; or what the model exempts
    from weight decay: Swin's `relative_position_bias_table`, Mamba's `A_log`. A layer's weight is neither.
    """
    if isinstance(owner, _PLAIN_LAYERS) and "weight" in leaf:
        return False
    return is_exempt or (len(shape) > 2 and is_flat(shape))


def _is_norm(name: str, owner: nn.Module) -> bool:
    if isinstance(owner, (*_PLAIN_LAYERS, *_EMBEDDINGS)):
        return False
    if isinstance(owner, _NORMS):  # of any shape: a LayerNorm may span several dimensions
        return True
    own = {leaf: parameter for leaf, parameter in owner._parameters.items() if parameter is not None}
    # A norm of another class has a gain and a bias per feature and nothing else: a `NormedLinear` has a matrix.
    if not (own.keys() <= _GAINS or all(is_flat(parameter.shape) for parameter in own.values())):
        return False
    module_name = name.rpartition(".")[0].rpartition(".")[2]
    is_named_norm = _NORM_CLASS.search(type(owner).__name__) or _NORM_NAME.search(module_name)
    return bool(is_named_norm) or _scales_and_shifts(owner, own)


def _scales_and_shifts(owner: nn.Module, own: Mapping[str, nn.Parameter]) -> bool:
    """Whether a module's own parameters are those of a norm, whatever its class is called: a `GRN`, a user's `LN`."""
    if "Scale" in type(owner).__name__:  # a LayerScale: a gain without a norm
        return False
    if not (own.keys() <= {"gamma", "beta"} or own.keys() == {"weight", "bias"}):
        return False
    # A linear layer to one output has a flat weight too, but a bias of another size.
    has_equal_sizes = len({parameter.numel() for parameter in own.values()}) == 1
    has_other_modules = any(True for child in owner.children() for _ in child.parameters())
    return has_equal_sizes and not has_other_modules


def _is_embedding(leaf: str, owner: nn.Module) -> bool:
    if isinstance(owner, _EMBEDDINGS):
        return True
    if isinstance(owner, _PLAIN_LAYERS):
        return False
    # An embedding stored as a plain parameter (`pos_embed`, `cls_token`), or in a class of the user's own.
    return any(_EMBEDDING.search(candidate) for candidate in (leaf, type(owner).__name__))
