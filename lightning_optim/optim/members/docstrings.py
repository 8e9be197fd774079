"""Completes a member's docstring with what its catalog entry says, so that the source does not repeat it.

In the source, a docstring has a summary with the paper, a description, and `Examples:`. Where the catalog does not
say enough it also has `Args:`, `State:` or `Raises:` with only those entries that add something.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ...catalog.common import SHARED_OPTIONS
from ...catalog.decay import DECAY_MODES
from ...catalog.info import OptimizerInfo
from ...catalog.modifiers import find_evaluations_conflict
from ...core.hyperparameters import Choice, Flag, Hyperparameter, Number, Numbers, Parts
from ..base import AdaptiveOptimizer

_WIDTH = 116
_SECTIONS = ("Args", "State", "Raises", "Examples")
_PYTHON_WORDS = {"null": "None", "true": "True", "false": "False"}
_SMALLEST_FLOAT16 = 2.0**-24
_FLOAT16_EPS = (
    "In float16 the default is 0, and coordinates whose gradients have all been 0 may become NaN: use bfloat16, "
    "float32 or `master_weights`."
)


@dataclass
class SourceDocstring:
    """The sections of a docstring as the source has it."""

    head: str = ""
    args: dict[str, str] = field(default_factory=dict)
    state: dict[str, str] = field(default_factory=dict)
    raises: list[str] = field(default_factory=list)
    example: str = ""


def complete_docstring(cls: type[AdaptiveOptimizer], info: OptimizerInfo) -> str:
    """The full docstring of a member.

    Args:
        cls: the class, with the docstring of its source. `Args`, `State` and `Raises` of its bases are inherited.
        info: its catalog entry.
    """
    source = _read_source(cls)
    sections = {
        "Args": [f"{name}: {text}" for name, text in _describe_args(info, source)],
        "State of each parameter": [f"{name}: {text}" for name, text in _describe_state(info, source)],
        "Raises": [f"ConfigError: {'; '.join(_describe_errors(cls, source))}."],
    }
    texts = [f"{title}:\n" + "\n".join(map(_wrap, entries)) for title, entries in sections.items()]
    return "\n\n".join([source.head, *texts, source.example])


def parse_docstring(text: str) -> SourceDocstring:
    """The sections of a docstring of a member's source."""
    chunks = re.split(rf"^({'|'.join(_SECTIONS)}):\n", inspect.cleandoc(text), flags=re.MULTILINE)
    sections = dict(zip(chunks[1::2], chunks[2::2], strict=True))
    return SourceDocstring(
        head=chunks[0].strip(),
        args=dict(_parse_entries(sections.get("Args", ""))),
        state=dict(_parse_entries(sections.get("State", ""))),
        raises=[text for _, text in _parse_entries(sections.get("Raises", ""))],
        example=f"Examples:\n{sections.get('Examples', '').rstrip()}",
    )


def with_python_words(text: str) -> str:
    """A help text with `None`, `True` and `False` in place of YAML's words, where a colon follows."""
    return re.sub(r"\b(null|true|false)\b(?=:)", lambda match: _PYTHON_WORDS[match[0]], text)


def _parse_entries(section: str) -> Iterator[tuple[str, str]]:
    """`name: text` of each entry, its lines joined."""
    for entry in re.split(r"^    (?=\S)", section, flags=re.MULTILINE)[1:]:
        name, _, text = " ".join(entry.split()).partition(": ")
        yield name, text


def _read_source(cls: type[AdaptiveOptimizer]) -> SourceDocstring:
    """The class's own sections, and the entries of its bases."""
    merged = SourceDocstring()
    for base in reversed(cls.__mro__):
        if issubclass(base, AdaptiveOptimizer) and base is not AdaptiveOptimizer:
            source = parse_docstring(vars(base).get("_source_docstring") or base.__doc__ or "")
            merged.args |= source.args
            merged.state |= source.state
            merged.raises += source.raises
            merged.head, merged.example = source.head, source.example
    return merged


def _describe_args(info: OptimizerInfo, source: SourceDocstring) -> Iterator[tuple[str, str]]:
    yield "params", "tensors, `(name, parameter)` pairs, or param groups."
    for key in info.signature(own=True):
        if key not in SHARED_OPTIONS:
            spec = info.hyperparameters[key]
            text = source.args.get(key) or f"{with_python_words(spec.help)}."
            if key == "weight_decay":
                text = f"{text} By default `weight_decay_mode` is `{info.decay}`: {DECAY_MODES[info.decay]}."
            if key == "eps" and 0 < spec.default < _SMALLEST_FLOAT16 / 2:
                text = f"{text} {_FLOAT16_EPS}"
            yield f"{key} ({_describe_type(key, spec)})", text
    unsupported = [key for key in SHARED_OPTIONS if _is_unsupported(info, key)]
    for key in SHARED_OPTIONS:
        if key in source.args:
            yield f"{key} ({_describe_type(key, SHARED_OPTIONS[key])})", source.args[key]
    options = [f"`{key}`" for key in SHARED_OPTIONS if key not in unsupported and key not in source.args]
    text = f"{', '.join(options)}; see `lightning-optim show {info.name}`, which also prints the equations."
    if unsupported:
        *others, last = [f"`{key}`" for key in unsupported]
        names = f"{', '.join(others)} and {last}" if others else last
        text += f" {names} are refused, as a step takes {info.evaluations} gradients."
    yield "**options", text


def _describe_state(info: OptimizerInfo, source: SourceDocstring) -> Iterator[tuple[str, str]]:
    for name, condition in info.buffers.items():
        parts = [] if name in info.reduced else ["a tensor of its shape and dtype"]
        parts += [source.state[name].rstrip(".")] if name in source.state else []
        parts += [f"only with {condition}"] if condition else []
        yield name, f"{', '.join(parts)}."
    yield from ((name, text) for name, text in source.state.items() if name not in info.buffers)
    yield "step", "a 0-d tensor on the CPU, the number of its steps so far."
    if not _is_unsupported(info, "lookahead"):
        yield "slow", "only with lookahead, a tensor of its shape and dtype, the slow weights."
    if not _is_unsupported(info, "schedule_free"):
        alike = "only with schedule_free, a tensor of its shape and dtype"
        yield "schedule_free_z", f"{alike}, the point that is stepped; the parameter is y."
        yield "schedule_free_y", f"{alike}, y while `eval()` shows x in the parameter."
        yield "schedule_free_weight_sum", "only with schedule_free, a float, the sum of the weights in the average x."
        yield "schedule_free_max_lr", "only with schedule_free, a float, the largest lr so far."
    if not _is_unsupported(info, "skip_nonfinite"):
        yield "skipped", "only with skip_nonfinite, the number of skipped steps, once there was one."
    yield "master", "only with master_weights, a float32 copy of a 16-bit parameter; its buffers are float32 then."


def _describe_errors(cls: type[AdaptiveOptimizer], source: SourceDocstring) -> Iterator[str]:
    yield "a hyperparameter is unknown, out of bounds or in conflict with another one, at the top or in a param group"
    if cls.needs_peak_lr:
        yield "the `peak_lr` of a param group is 0"
    for key, value in cls._fixed.items():
        yield f"`{key}` is given, and not {value}"
    yield from (text.rstrip(".") for text in source.raises)


def _describe_type(key: str, spec: Hyperparameter) -> str:
    """The type and the bounds, e.g. `float in [0, 1)`."""
    if isinstance(spec, Number):
        text = f"{'int' if spec.integer else 'float'} {_describe_bounds(spec)}".strip()
    elif isinstance(spec, Numbers):
        bounds = [_describe_bounds(item) for item in spec.items]
        each = f"each {bounds[0]}" if len(set(bounds)) == 1 else " and ".join(bounds)
        text = f"{len(bounds)} floats, {each}"
    elif isinstance(spec, Choice):
        text = " or ".join(f'"{option}"' for option in spec.options)
    else:
        text = "bool" if isinstance(spec, Flag) else "mapping"
    text += ", or ints >= 1" if isinstance(spec, Parts) else ""
    alternative = {"lr": ", or a tensor of one element", "weight_decay": ", or a WeightDecay"}.get(key, "")
    return text + alternative + (" or None" if spec.optional else "")


def _describe_bounds(spec: Number) -> str:
    if spec.low is not None and spec.high is not None:
        return f"in {'(' if spec.open_low else '['}{spec.low:g}, {spec.high:g}{')' if spec.open_high else ']'}"
    if spec.low is not None:
        return f"{'>' if spec.open_low else '>='} {spec.low:g}"
    if spec.high is not None:
        return f"{'<' if spec.open_high else '<='} {spec.high:g}"
    return ""


def _is_unsupported(info: OptimizerInfo, option: str) -> bool:
    values: Mapping[str, bool] = {option: True}
    return find_evaluations_conflict(values, info.name, info.evaluations) is not None


def _wrap(entry: str) -> str:
    return textwrap.fill(
        entry, _WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 8, break_long_words=False, break_on_hyphens=False
    )
