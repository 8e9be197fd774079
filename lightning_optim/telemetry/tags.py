"""Tags of the curves, which never change whatever groups join later, and TensorBoard's layout of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def tag_roots(optimizers: Sequence[Any]) -> list[str]:
    """`optim` for a single optimizer; `optim_<class>` for each of several, numbered where a class occurs twice."""
    if len(optimizers) == 1:
        return ["optim"]
    names = [type(optimizer).__name__.lower() for optimizer in optimizers]
    counts: Counter[str] = Counter()
    roots = []
    for name in names:
        counts[name] += 1
        roots.append(f"optim_{name}-{counts[name]}" if names.count(name) > 1 else f"optim_{name}")
    return roots


def tag(root: str, signal: str, group: str) -> str:
    """A group's tag, such as `optim/lr/head` or `optim/norm/exp_avg/head`."""
    return f"{root}/{signal}/{group}"


def parameter_tag(root: str, signal: str, parameter: str) -> str:
    """A parameter's tag, in a section of its own: `optim_param/norm/exp_avg/head.weight`."""
    return tag(root.replace("optim", "optim_param", 1), signal, parameter)


def scalar_layout(signals: Mapping[str, Iterable[str]], *, overlay: bool) -> dict[str, dict[str, list[Any]]]:
    """TensorBoard's custom scalars: a chart for each signal of each root, with an anchored regex for all its groups.

    Args:
        signals: of each root.
        overlay: whether groups are runs, and not part of the tags, as far as there are not too many.
    """
    group = "(/[^/]+)?" if overlay else "/[^/]+"
    return {
        root: {signal: ["Multiline", [f"^{root}/{signal}{group}$"]] for signal in names}
        for root, names in signals.items()
        if names
    }
