"""Tags: names of curves that never change, whatever joins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def roots(optimizers: Sequence[Any]) -> list[str]:
    """`optim` for one optimizer; `optim_<class>` for each of several, numbered where two are alike."""
    if len(optimizers) == 1:
        return ["optim"]
    names = [type(optimizer).__name__.lower() for optimizer in optimizers]
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(f"optim_{name}-{seen[name]}" if names.count(name) > 1 else f"optim_{name}")
    return result


def tag(root: str, signal: str, group: str) -> str:
    """`optim/lr/head`, `optim/norm/exp_avg/head`."""
    return f"{root}/{signal}/{group}"


def parameter_tag(root: str, signal: str, parameter: str) -> str:
    """`optim_param/norm/exp_avg/head.weight`: the same for one parameter, in a section of its own."""
    return tag(root.replace("optim", "optim_param", 1), signal, parameter)


def layout(signals: Mapping[str, Iterable[str]]) -> dict[str, dict[str, list[Any]]]:
    """TensorBoard's custom scalars: a chart for each signal of each root, whose anchored regex takes in every group."""
    return {
        root: {signal: ["Multiline", [f"^{tag(root, signal, '[^/]+')}$"]] for signal in found}
        for root, found in signals.items()
        if found
    }
