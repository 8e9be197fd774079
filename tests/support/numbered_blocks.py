"""Small models of numbered blocks, and the depths that `layers: auto` finds in them."""

from __future__ import annotations

from torch import nn

from lightning_optim.groups.index import ParameterIndex
from lightning_optim.groups.parameters import read_parameters
from lightning_optim.groups.selectors import Selector


def holder(**children: nn.Module) -> nn.Module:
    module = nn.Module()
    for name, child in children.items():
        module.add_module(name, child)
    return module


def linear() -> nn.Module:
    return nn.Linear(2, 2, bias=False)


def block() -> nn.Module:
    return holder(attn=holder(q=linear(), k=linear()), norm=nn.LayerNorm(2, bias=False), mlp=linear())


def blocks(number: int) -> nn.ModuleList:
    return nn.ModuleList([block() for _ in range(number)])


def depths(module: nn.Module, layers: str | list[str] = "auto") -> dict[str, int]:
    """By parameter: its distance from the output; 0 where it is in no layer."""
    index = ParameterIndex(read_parameters(module))
    found = Selector.parse({"layers": layers}, "groups.depth").find_layers(index)
    return {
        index.names[o]: layer.depth if layer else 0
        for o, layer in ((o, found.layer_of.get(o) or found.stem_of.get(o)) for o in range(len(index.names)))
    }


def depth_of(found: dict[str, int], path: str) -> int:
    """The depth of a parameter, or of all in a module, which must agree."""
    (depth,) = {depth for name, depth in found.items() if f"{name}.".startswith(f"{path}.")}
    return depth


def by_module(found: dict[str, int], num_segments: int) -> dict[str, int]:
    """The depths by the first segments of the names, which must agree."""
    paths = dict.fromkeys(".".join(name.split(".")[:num_segments]) for name in found)
    return {path: depth_of(found, path) for path in paths}


def bert() -> nn.Module:
    return holder(
        embeddings=holder(word=nn.Embedding(5, 2), norm=nn.LayerNorm(2)),
        encoder=holder(layer=blocks(3)),
        pooler=linear(),
    )
