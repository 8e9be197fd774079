"""A stand-in for torchvision, without which timm cannot be imported.

timm imports torchvision for image transforms, and a few names of feature extraction. Building a model and reading its
parameters needs none of that. Where torchvision is not installed, `install` provides a package of that name in which
every attribute exists and nothing works. It is for this recipe only: do not use it to train.
"""

from __future__ import annotations

import enum
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_NAME = "torchvision"


class InterpolationMode(enum.Enum):
    """The same as torchvision's: timm reads its values on import."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


class _AnyAttribute(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls


class _Anything(metaclass=_AnyAttribute):
    """A class, function, decorator or base class, whatever is asked for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self


class _Module(ModuleType):
    __version__ = "0.0.0"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return InterpolationMode if name == InterpolationMode.__name__ else _Anything


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=True) if fullname.partition(".")[0] == _NAME else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def install() -> None:
    """Provide the stand-in unless torchvision is installed."""
    if find_spec(_NAME) is None:
        sys.meta_path.append(_Finder())


def is_in_use() -> bool:
    """Whether the stand-in has taken the place of torchvision."""
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)
