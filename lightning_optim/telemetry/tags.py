"""Tags of the curves, which never change whatever groups join later, and TensorBoard's layout of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

EPS = "eps"
ROOT = re.compile(r"optim(?!_param)(_[^/]+)?")
"""The first segment of the tags; that of norms by parameter is another one."""
_SETTING = re.compile(rf"weight_decay|momentum|beta\d+|{EPS}")
_READING_ORDER = (
    *("lr", "ratio/update_param", "norm/grad", "norm/grad_unclipped", "rms/*", "norm/update", "cos/grad_momentum"),
    *("norm/param", "norm/*", "weight_decay", "momentum", "beta*", EPS, "step", "state_mib", "nonfinite"),
)
"""What tells most comes first; `*` stands for names of state buffers, or a number."""
# Signals whose name has two segments, such as `norm/grad`; those of all others have one.
_TWO_SEGMENTS = tuple(dict.fromkeys(name.partition("/")[0] for name in _READING_ORDER if "/" in name))


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


def split_tag(name: str) -> tuple[str, str, str] | None:
    """Root, signal and group of a tag of the monitor, None if it is another one.

    The group is '' where the run itself is one group's.
    """
    root, *segments = name.split("/")
    if not segments or not ROOT.fullmatch(root):
        return None
    num_segments = 2 if segments[0] in _TWO_SEGMENTS else 1
    return root, "/".join(segments[:num_segments]), "/".join(segments[num_segments:])


def parameter_tag(root: str, signal: str, parameter: str) -> str:
    """A parameter's tag, in a section of its own: `optim_param/norm/exp_avg/head.weight`."""
    return tag(root.replace("optim", "optim_param", 1), signal, parameter)


def is_setting(signal: str) -> bool:
    """Whether a signal is a hyperparameter that most runs leave as it is; lr is none."""
    return _SETTING.fullmatch(signal) is not None


def in_reading_order(signals: Iterable[str]) -> list[str]:
    """Signals as a reader wants them: lr, update ratio, gradient, RMS, then the rest; unknown ones come last."""
    signals = list(signals)
    return sorted(signals, key=lambda signal: (_rank(signal), signals.index(signal)))


def scalar_layout(signals: Mapping[str, Iterable[str]], *, overlay: bool) -> dict[str, dict[str, list[Any]]]:
    """TensorBoard's custom scalars: a chart for each signal of each root, with an anchored regex for all its groups.

    The charts stand in reading order. That of the RMS of a second moment also has the `eps` that it is compared to.

    Args:
        signals: of each root.
        overlay: whether groups are runs, and not part of the tags, as far as there are not too many.
    """
    layout: dict[str, dict[str, list[Any]]] = {}
    for root, names in signals.items():
        ordered = in_reading_order(names)
        for signal in ordered:
            shown = [signal, EPS] if signal.startswith("rms/") and EPS in ordered else [signal]
            patterns = [f"^{root}/{name}{'(/[^/]+)?' if overlay else '/[^/]+'}$" for name in shown]
            layout.setdefault(root, {})[", ".join(shown)] = ["Multiline", patterns]
    return layout


def _rank(signal: str) -> int:
    patterns = [signal, f"{signal.partition('/')[0]}/*", "beta*" if signal.startswith("beta") else signal]
    return next((_READING_ORDER.index(name) for name in patterns if name in _READING_ORDER), len(_READING_ORDER))
