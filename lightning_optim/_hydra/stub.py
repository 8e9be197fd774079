"""The type stub of `lightning_optim.optim`: what type checkers and editors know of its classes, from the catalog.

`generate.py` writes it to `optim/__init__.pyi`; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from inspect import isfunction, signature

from ..catalog.built_in import BUILT_IN
from ..catalog.common import SHARED_OPTIONS
from ..catalog.decay import COMMON_MODES
from ..catalog.info import OptimizerInfo
from ..core.hyperparameters import Choice, Fields, Flag, Hyperparameter, Numbers, Parts
from ..optim.extra_keys import EXTRA_GROUP_KEYS
from ..optim.members.docstrings import with_python_words

# The default and the modes of `weight_decay_mode` differ between classes, so it is not among the shared options.
_MODE = "weight_decay_mode"

_HEAD = '''"""Written by `python -m lightning_optim._hydra.generate`: edit the catalog instead."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from torch import Tensor
from typing_extensions import TypedDict, Unpack

from .base import AdaptiveOptimizer as AdaptiveOptimizer
from .base import ParamsT
from .decay import WeightDecay as WeightDecay
from .members.member import Member
from .update import Update as Update
'''


def stub() -> str:
    """The text of `optim/__init__.pyi`."""
    infos = [BUILT_IN[name] for name in sorted(BUILT_IN) if BUILT_IN[name].own]
    blocks = [_decay_modes(), _options(), *map(_class, infos)]
    return "\n".join([_HEAD, *("\n".join([*block, ""]) for block in blocks)]).rstrip() + "\n"


def _decay_modes() -> Iterator[str]:
    yield f"_DecayMode: TypeAlias = {_literal(COMMON_MODES)}"
    yield f"_DecayModeOrUpdate: TypeAlias = _DecayMode | {_literal(('update',))}"


def _options() -> Iterator[str]:
    yield "class _Options(TypedDict, total=False):"
    yield '    """Options that every class accepts; by default they are False or None."""'
    for key, spec in SHARED_OPTIONS.items():
        if key != _MODE:
            yield ""
            yield f"    {key}: {_type(key, spec)}"
            yield f'    """{with_python_words(spec.help)}"""'
    yield ""
    yield f"    {EXTRA_GROUP_KEYS}: Sequence[str]"
    yield '    """keys of other libraries in param groups: stored, saved and not used"""'


def _class(info: OptimizerInfo) -> Iterator[str]:
    yield f"class {info.own.rpartition(':')[2]}(Member):"
    yield "    def __init__("
    yield "        self,"
    yield "        params: ParamsT,"
    positional = info.positional_names()
    for key, default in info.signature(own=True).items():
        if key == _MODE or key not in SHARED_OPTIONS:
            value = repr(default).replace("'", '"')
            yield f"        {key}: {_type(key, info.hyperparameters[key])} = {value},"
        if key == positional[-1]:
            yield "        *,"
    yield "        **options: Unpack[_Options],"
    yield "    ) -> None: ..."
    cls = info.load(own=True)
    for name, method in vars(cls).items():
        if isfunction(method) and not name.startswith("_") and not hasattr(cls.__base__, name):
            arguments = str(signature(method)).replace("'", "")
            yield f"    def {name}{arguments}: ..."


def _type(key: str, spec: Hyperparameter) -> str:
    text = {"lr": "float | Tensor", "weight_decay": "float | WeightDecay"}.get(key, "float")
    if isinstance(spec, Flag):
        text = "bool"
    elif isinstance(spec, Numbers):
        text = f"tuple[{', '.join(['float'] * len(spec.items))}]"
    elif isinstance(spec, Parts):
        text = "int | Sequence[int]"
    elif key == _MODE and isinstance(spec, Choice):
        text = "_DecayModeOrUpdate" if "update" in spec.options else "_DecayMode"
    elif isinstance(spec, Choice):
        text = _literal(spec.options)
    elif isinstance(spec, Fields):
        text = "Mapping[str, float]"
    return f"{text} | None" if spec.optional else text


def _literal(options: tuple[str, ...]) -> str:
    quoted = [f'"{option}"' for option in options]
    return f"Literal[{', '.join(quoted)}]"
