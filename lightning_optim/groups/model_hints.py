"""What a model's methods and names say about its parameters: input and output layers, exemptions from weight decay."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

# The name that nearly every language model gives to its output layer.
_OUTPUT_NAME = "lm_head"
# The attributes in which peft's wrappers hold the layer they replace. What else they hold adapts or replaces it.
_WRAPPED_BY_PEFT = ("base_layer", "original_module")
# The methods by which timm's models, and others like them, say how to group their parameters.
_NAMES, _KEYWORDS, _LAYERS = "no_weight_decay", "no_weight_decay_keywords", "group_matcher"
# What every model of timm has, also those without these methods.
_TIMM_ATTRIBUTE = "pretrained_cfg"
# Relative position biases are exempt in transformers and timm. Names of parameters and of modules: Swin's
# `relative_position_bias_table`, T5's `relative_attention_bias`, LeViT's `attention_biases`, `pos_bias_u`, `cpb_mlp`.
_POSITION_BIAS = re.compile(
    r"(?:^|[._])(?:pos|position|attention|rel_pos_\w+)_bias(?:es)?(?:[._]|$)|(?:^|\.)cpb_mlp(?:\.|$)"
)


def find_output_layers(modules: Mapping[str, nn.Module]) -> set[int]:
    """The ids of the modules that compute a language model's output from its last hidden state.

    They are what `get_output_embeddings()` of any module returns (transformers), and modules called `lm_head`. Where
    peft wraps such a layer, they are all modules in the wrapper.

    Args:
        modules: every module by its clean path.
    """
    named = [module for path, module in modules.items() if path.rpartition(".")[2] == _OUTPUT_NAME]
    return _ids_of([*named, *_returned_by("get_output_embeddings", modules)])


def find_input_layers(modules: Mapping[str, nn.Module]) -> set[int]:
    """The ids of the modules that embed a model's input: what `get_input_embeddings()` of any module returns.

    Where peft wraps such a layer, they are all modules in the wrapper.

    Args:
        modules: every module by its clean path.
    """
    return _ids_of(_returned_by("get_input_embeddings", modules))


def find_exemptions(modules: Mapping[str, nn.Module]) -> Callable[[str, Tensor], bool]:
    """A predicate on a clean name and its tensor: whether the model exempts it from weight decay.

    It does so in four cases:

    - `no_weight_decay()` of a module returns the name, relative to the module, or a glob that matches it; or
      `no_weight_decay_keywords()` returns a part of it. As in timm, the outermost module with such a method decides
      for all below it;
    - the tensor is a vector in such a module, or in any model of timm: timm's own groups exempt every vector;
    - the tensor's attribute `_no_weight_decay` is true (Mamba, S4);
    - the name is that of a relative position bias.

    Args:
        modules: every module by its clean path, each before those inside it.
    """
    deciding = dict(_find_deciding_modules(modules))

    def is_exempt(name: str, tensor: Tensor) -> bool:
        may_be_bias = "_bias" in name or "cpb_mlp" in name  # the regex is ten times slower
        if (may_be_bias and _POSITION_BIAS.search(name)) or getattr(tensor, "_no_weight_decay", False):
            return True
        for path, is_named in deciding.items():
            if relative := _relative_to(path, name):
                return tensor.ndim <= 1 or is_named(relative)
        return False

    return is_exempt


def _find_deciding_modules(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, Callable[[str], bool]]]:
    """`(path, predicate on names below it)` of each outermost module that says what it exempts, or is timm's."""
    outer: list[str] = []
    deciding = _find_classes(modules, (_NAMES, _KEYWORDS, _LAYERS))
    for path, module in modules.items():
        decides = type(module) in deciding or _TIMM_ATTRIBUTE in vars(module)
        if decides and not any(_relative_to(other, path) or other == path for other in outer):
            outer.append(path)
            yield path, _named_by(_call(module, _NAMES) or (), _call(module, _KEYWORDS) or ())


def _named_by(patterns: Iterable[str], keywords: Iterable[str]) -> Callable[[str], bool]:
    patterns, keywords = tuple(patterns), tuple(keywords)
    return lambda name: any(fnmatchcase(name, p) for p in patterns) or any(keyword in name for keyword in keywords)


def _relative_to(path: str, name: str) -> str:
    """The name relative to a module's path; empty if it is not inside the module."""
    if not path:
        return name
    return name.removeprefix(f"{path}.") if name.startswith(f"{path}.") else ""


def _ids_of(layers: Iterable[nn.Module]) -> set[int]:
    """The ids of the layers, and of all modules in those that are wrappers of peft."""
    found: set[int] = set()
    for layer in layers:
        is_wrapper = any(name in layer._modules for name in _WRAPPED_BY_PEFT)
        found.update(map(id, layer.modules() if is_wrapper else [layer]))
    return found


def _returned_by(method: str, modules: Mapping[str, nn.Module]) -> list[nn.Module]:
    classes = _find_classes(modules, (method,))
    layers = [
        _call(module, method, ignored=(AttributeError, NotImplementedError))
        for module in modules.values()
        if type(module) in classes
    ]
    return [layer for layer in layers if isinstance(layer, nn.Module)]


def _find_classes(modules: Mapping[str, nn.Module], methods: Sequence[str]) -> set[type]:
    """The classes of the modules that have one of the methods; there are far fewer classes than modules."""
    classes = {type(module) for module in modules.values()}
    return {cls for cls in classes if any(callable(getattr(cls, method, None)) for method in methods)}


def _call(module: nn.Module, method: str, ignored: tuple[type[Exception], ...] = ()) -> Any:
    """What the module's method returns; None if it has none."""
    if not callable(getattr(type(module), method, None)):
        return None
    try:
        return getattr(module, method)()
    except ignored:
        return None
