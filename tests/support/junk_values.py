"""Values that no config should hold, drawn from a seeded generator."""

from __future__ import annotations

import datetime
import sys
from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import nn


class Colour(Enum):
    RED = "adamw"


class Level(IntEnum):
    ONE = 1


@dataclass
class Point:
    x: int = 1
    y: Any = "b"


class OddText(str):
    """Text whose repr is an error."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class OddNumber(float):
    """A number that is equal to nothing and cannot be hashed."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    __hash__ = None  # type: ignore[assignment]


class OddMapping(dict):  # type: ignore[type-arg]
    """A mapping whose values cannot be read."""

    def __getitem__(self, key: object) -> Any:
        raise RuntimeError("no values")

    def items(self) -> Any:
        raise RuntimeError("no items")


class OddObject:
    """An object that can be neither printed, compared nor asked for an attribute."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")


TEXTS = (
    "",
    " ",
    "\t\n",
    "adamw",
    "AdamW",
    "torch.optim.AdamW",
    "1e-3",
    "1e400",
    "-1",
    "nan",
    "inf",
    "true",
    "null",
    "None",
    "None ",
    "0x10",
    "1_000",
    "???",
    "${missing}",
    "${",
    "a.b.c",
    "groups",
    "{i}",
    "auto",
    "all",
    "default",
    "été",
    "层",
    "\U0001f525",
    "١٢",  # Arabic digits
    "²",
    "\u202eadamw",  # right to left
    "\ud800",  # half of a pair
    "a\x00b",
    "\x1b[31mred\x1b[0m",
    "\x07\x08\x7f\x9b",
    "a\r\nb\u2028c",
    "%s %d {0} {name}",
    "'; DROP TABLE",
    "<script>alert(1)</script>",
    "__class__",
    "self",
    "*",
    "[",
    "re:",
    "x" * 10_000,
    "\u0301" * 300,
)

NUMBERS: tuple[Any, ...] = (
    0,
    -0.0,
    1,
    -1,
    2,
    0.5,
    1e-3,
    float("nan"),
    float("inf"),
    float("-inf"),
    sys.float_info.max,
    -sys.float_info.max,
    sys.float_info.min,
    5e-324,
    1e-300,
    1e300,
    3.5e38,
    1e39,
    2**31,
    2**63,
    2**64,
    -(2**63),
    10**18,
    10**308,
    10**309,
    10**5000,
    -(10**5000),
    True,
    False,
    1 + 2j,
    complex("nan"),
    Decimal("0.1"),
    Decimal("NaN"),
    Decimal("sNaN"),
    Decimal("1e999999"),
    Fraction(1, 3),
    Fraction(10**400, 3),
    Fraction(10**5000, 3),
    Level.ONE,
)


def _recursive_list() -> list[Any]:
    value: list[Any] = [1]
    value.append(value)
    return value


def _recursive_dict() -> dict[str, Any]:
    value: dict[str, Any] = {"params": "*"}
    value["a"] = value
    return value


def _nested(build: Callable[[Any], Any], levels: int = 2000) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = build(value)
    return value


def _billion() -> Any:
    """As a few YAML anchors make it: ten lists, each of ten times the one before."""
    value: Any = 1
    for _ in range(10):
        value = [value] * 10
    return value


def _recursive_twice() -> list[Any]:
    value: list[Any] = []
    value.extend([value, value])
    return value


def _object_array() -> Any:
    array = np.empty(2, dtype=object)
    array[0], array[1] = {"a": 10**5000}, array
    return array


MAKERS: tuple[Callable[[], Any], ...] = (
    # numpy
    lambda: np.float32(0.1),
    lambda: np.float64("nan"),
    lambda: np.float16("inf"),
    lambda: np.longdouble("1e4000"),
    lambda: np.int64(3),
    lambda: np.uint8(255),
    lambda: np.bool_(True),
    lambda: np.str_("adamw"),
    lambda: np.bytes_(b"adamw"),
    lambda: np.complex64(1j),
    lambda: np.array(0.5),
    lambda: np.array([0.9, 0.99]),
    lambda: np.array([]),
    lambda: np.array([[1, 2], [3, 4]]),
    lambda: np.array(["a", "b"]),
    lambda: np.array([None, "a"], dtype=object),
    _object_array,
    lambda: np.array([(1, 2.0)], dtype=[("a", int), ("b", float)]),
    lambda: np.datetime64("2020-01-01"),
    lambda: np.timedelta64("NaT"),
    lambda: np.dtype("float32"),
    lambda: np.float32,
    lambda: np.add,
    lambda: np.random.default_rng(0),
    lambda: np.ma.masked,
    lambda: np.void(b"abc"),
    # torch
    lambda: torch.tensor(0.5),
    lambda: torch.tensor(3),
    lambda: torch.tensor(True),
    lambda: torch.tensor([0.9, 0.99]),
    lambda: torch.tensor([]),
    lambda: torch.tensor(float("nan")),
    lambda: torch.tensor(1j),
    lambda: torch.tensor(0.5, requires_grad=True),
    lambda: torch.tensor(0.5, device="meta"),
    lambda: torch.zeros(2, 2).to_sparse(),
    lambda: torch.float32,
    lambda: torch.device("cpu"),
    lambda: torch.Size([1, 2]),
    lambda: nn.Parameter(torch.ones(2)),
    lambda: nn.Linear(1, 1),
    lambda: nn.Linear,
    lambda: nn.Linear(1, 1).parameters(),
    lambda: torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1),
    lambda: torch.Generator(),
    # Python
    lambda: b"adamw",
    lambda: bytearray(b"x"),
    lambda: memoryview(b"x"),
    lambda: datetime.date(2020, 1, 1),
    lambda: datetime.datetime(2020, 1, 1, 12),
    lambda: datetime.timedelta(days=1),
    lambda: {1, 2},
    lambda: frozenset({"a"}),
    lambda: (x for x in (1, 2)),
    lambda: iter([1]),
    lambda: range(3),
    lambda: range(10**18),
    lambda: slice(1),
    lambda: print,
    lambda: lambda *args: 1,
    lambda: int,
    lambda: object(),
    lambda: Exception("x"),
    lambda: sys,
    lambda: Ellipsis,
    lambda: NotImplemented,
    lambda: Colour.RED,
    lambda: Colour,
    lambda: Point(),
    lambda: Point,
    lambda: Path("a/b"),
    lambda: OrderedDict(a=1),
    lambda: defaultdict(list),
    lambda: UserDict(a=1),
    lambda: type("Named", (), {"__name__": 3})(),
    OddObject,
    lambda: OddText("adamw"),
    lambda: OddNumber(0.5),
    lambda: OddMapping(params="*"),
    # containers
    list,
    dict,
    tuple,
    lambda: None,
    lambda: [None],
    lambda: {"": ""},
    lambda: {None: None},
    lambda: {1: 2, "1": 3},
    lambda: {(1, 2): 3},
    lambda: {10**5000: 1},
    lambda: {float("nan"): 1},
    lambda: [[]],
    lambda: ["a", 1, None],
    lambda: [0.9] * 1000,
    _recursive_list,
    _recursive_dict,
    _recursive_twice,
    _billion,
    lambda: np.zeros(10**7),
    lambda: np.zeros((1,) * 60),
    lambda: ["a" * 10_000] * 500,
    lambda: {str(index): index for index in range(3000)},
    lambda: _nested(lambda value: [value]),
    lambda: _nested(lambda value: {"a": value}),
    lambda: _nested(lambda value: (value,)),
    # OmegaConf
    lambda: OmegaConf.create({"a": 1, "b": [1, 2]}),
    lambda: OmegaConf.create([0.9, 0.99]),
    lambda: OmegaConf.create({"a": "???"}),
    lambda: OmegaConf.create({"a": "${b}"}),
    lambda: OmegaConf.create({"a": "${a}"}),
    lambda: OmegaConf.create({"a": "${oc.env:NO_SUCH_VARIABLE_HERE}"}),
    lambda: OmegaConf.create({"a": "${no_such_resolver:1}"}),
    lambda: OmegaConf.create(["???", "${x.y}"]),
    lambda: OmegaConf.create({"a": float("nan"), "b": 2**70, "c": Path("x"), "d": b"x", "e": Colour.RED}),
    lambda: OmegaConf.create({1: "a", 2.5: "b", False: "c"}),
    lambda: OmegaConf.structured(Point),
)


def draw_junk(rng: Random, depth: int = 2) -> Any:
    """Any value at all, alone or within containers."""
    kind = rng.random()
    if kind < 0.25:
        return rng.choice(TEXTS)
    if kind < 0.5:
        return rng.choice(NUMBERS)
    if kind < 0.85 or not depth:
        return rng.choice(MAKERS)()
    items = [draw_junk(rng, depth - 1) for _ in range(rng.randrange(4))]
    if kind < 0.92:
        return items if rng.random() < 0.8 else tuple(items)
    return {draw_key(rng): item for item in items}


def draw_key(rng: Random) -> Any:
    """A key of a mapping, seldom one that is no text."""
    if rng.random() < 0.8:
        return rng.choice(TEXTS)
    return rng.choice((1, 0.5, None, True, (1, 2), 10**5000, b"a", float("nan"), Colour.RED, frozenset(), 1j))
