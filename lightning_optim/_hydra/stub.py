"""What type checkers and editors are told of our classes: their signatures, as the catalog has them.

`generate.py` writes it to `optim/__init__.pyi`; a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from inspect import isfunction, signature

from ..catalog.built_in import BUILT_IN
from ..catalog.info import OptimizerInfo
from ..core.hyperparameters import Choice, Fields, Flag, Hyperparameter, Numbers

_HEAD = '''"""Written by `python -m lightning_optim._hydra.generate`: edit the catalog instead."""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from .base import AdaptiveOptimizer as AdaptiveOptimizer
from .base import ParamsT
from .decay import WeightDecay as WeightDecay
from .members.member import Member
from .update import Update as Update
'''


def stub() -> str:
    """The text of `optim/__init__.pyi`."""
    infos = [BUILT_IN[name] for name in sorted(BUILT_IN) if BUILT_IN[name].own]
    return "\n".join([_HEAD, *(line for info in infos for line in (*_class(info), ""))]).rstrip() + "\n"


def _class(info: OptimizerInfo) -> Iterator[str]:
    yield f"class {info.own.rpartition(':')[2]}(Member):"
    yield "    def __init__("
    yield "        self,"
    yield "        params: ParamsT,"
    last = info.positional_names()[-1]
    for key, default in info.signature(own=True).items():
        value = repr(default).replace("'", '"')
        yield f"        {key}: {_type(key, info.hyperparameters[key])} = {value},"
        if key == last:
            yield "        *,"
    yield "    ) -> None: ..."
    cls = info.load(own=True)
    for name, method in vars(cls).items():
        if isfunction(method) and not name.startswith("_") and not hasattr(cls.__base__, name):
            arguments = str(signature(method)).replace("'", "")
            yield f"    def {name}{arguments}: ..."


def _type(key: str, spec: Hyperparameter) -> str:
    kind = {"lr": "float | Tensor", "weight_decay": "float | WeightDecay"}.get(key, "float")
    if isinstance(spec, Flag):
        kind = "bool"
    elif isinstance(spec, Numbers):
        kind = f"tuple[{', '.join(['float'] * len(spec.items))}]"
    elif isinstance(spec, Choice):
        options = ", ".join(f'"{option}"' for option in spec.options)
        kind = f"Literal[{options}]"
    elif isinstance(spec, Fields):
        kind = "Mapping[str, float]"
    return f"{kind} | None" if spec.optional else kind
