"""Changes to the structure of a checkpoint's contents, drawn from a random generator."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import torch
from torch import Tensor

from lightning_optim import OptimizerFactory, SchedulerFactory

Key = tuple[Any, ...]
"""Where a value is: the keys and positions that lead to it."""

OURS = {"optimizer_states": 10, "lr_schedulers": 5, "callbacks": 8, "hyper_parameters": 3}
"""The keys at the top of a checkpoint whose contents this package has written, with how often they are changed."""
LIGHTNINGS = {
    "loops": 6,
    "state_dict": 3,
    "epoch": 1,
    "global_step": 1,
    "pytorch-lightning_version": 1,
    "hparams_name": 1,
}
"""Those that are Lightning's and the module's."""
FACTORIES = (OptimizerFactory, SchedulerFactory)
HIDDEN = "\x1b[2J\x07\u202ename\nlightning-optim: all is well"
MAX_DEPTH = 12
# The longest list in a checkpoint is the state of Python's generator: 625 numbers.
_MAX_LISTED = 60


def mutate(content: Mapping[str, Any], rng: Random) -> tuple[dict[str, Any], bool]:
    """A changed copy, with one to three changes, and whether these are in what this package has written.

    Args:
        content: of a checkpoint. It stays as it is: what is unchanged is shared with the copy.
        rng: draws the changes.
    """
    changed = dict(content)
    is_ours = rng.random() < 0.88
    roots = OURS if is_ours else LIGHTNINGS
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        present = [root for root in roots if root in changed]
        if not present:
            break
        root = rng.choices(present, [roots[root] for root in present])[0]
        change = rng.choice(_CHANGES)
        changed = change(changed, _draw_path(changed, root, rng), rng)
    return changed, is_ours


def replace(value: Any, path: Key, new: Any) -> Any:
    """A copy of nested containers with another value at a path."""
    if not path:
        return new
    key, *below = path
    if isinstance(value, FACTORIES):
        return _build_factory(type(value), replace(vars(value), path, new))
    if isinstance(value, dict):
        copy = value.copy()
        copy[key] = replace(value[key], tuple(below), new)
        return copy
    items = list(value)
    items[key] = replace(items[key], tuple(below), new)
    return type(value)(items)


def find(value: Any, path: Key) -> Any:
    """The value at a path."""
    for key in path:
        value = vars(value)[key] if isinstance(value, FACTORIES) else value[key]
    return value


def _build_factory(cls: type, attributes: Any) -> Any:
    """A factory as a pickle makes one: its `__init__` is not called."""
    factory = cls.__new__(cls)
    factory.__dict__.update(attributes)
    return factory


def draw_junk(rng: Random) -> Any:
    """Any value that a file may have in place of another one."""
    return rng.choice(_JUNK)()


def _draw_path(content: Mapping[str, Any], root: str, rng: Random) -> Key:
    """A path below a key, by a walk that goes down more often than it stops."""
    path, value = [root], content[root]
    while len(path) < MAX_DEPTH and (keys := _keys(value)) and (len(path) == 1 or rng.random() < 0.88):
        path.append(rng.choice(keys))
        value = find(value, (path[-1],))
    return tuple(path)


def _keys(value: Any) -> list[Any]:
    if isinstance(value, FACTORIES):
        return list(vars(value))
    if isinstance(value, dict):
        return list(value)
    return list(range(min(len(value), _MAX_LISTED))) if isinstance(value, (list, tuple)) else []


def _put_junk(content: Any, path: Key, rng: Random) -> Any:
    return replace(content, path, draw_junk(rng))


def _delete(content: Any, path: Key, rng: Random) -> Any:
    *above, key = path
    container = find(content, tuple(above))
    if isinstance(container, FACTORIES):
        attributes = {name: value for name, value in vars(container).items() if name != key}
        copy = _build_factory(type(container), attributes)
    elif isinstance(container, dict):
        copy = container.copy()
        del copy[key]
    else:
        items = list(container)
        del items[key]
        copy = type(container)(items)
    return replace(content, tuple(above), copy)


def _delete_everywhere(content: Any, path: Key, rng: Random) -> Any:
    """A key from all neighbours too: the step of every parameter, the names of all groups."""
    if len(path) < 3:
        return content
    *above, _, key = path
    neighbours = find(content, tuple(above))
    for other in _keys(neighbours):
        if isinstance(find(neighbours, (other,)), dict) and key in find(neighbours, (other,)):
            content = _delete(content, (*above, other, key), rng)
    return content


def _add(content: Any, path: Key, rng: Random) -> Any:
    value = find(content, path)
    new = draw_junk(rng)
    if isinstance(value, dict):
        copy = value.copy()
        copy[rng.choice(("extra", "lr", "params", "step", "name", HIDDEN, "", 0, 99, -1, None, (1, 2), 1.5, True))] = (
            new
        )
        return replace(content, path, copy)
    if isinstance(value, (list, tuple)):
        items = list(value)
        items.insert(rng.randint(0, len(items)), rng.choice([new, *items[:1]]))
        return replace(content, path, type(value)(items))
    return replace(content, path, new)


def _swap(content: Any, path: Key, rng: Random) -> Any:
    """With another value, mostly with a neighbour."""
    other = _neighbour(content, path, rng) if rng.random() < 0.7 else _draw_path(content, path[0], rng)
    if other[: len(path)] == path or path[: len(other)] == other:
        return content
    values = find(content, path), find(content, other)
    return replace(replace(content, path, values[1]), other, values[0])


def _copy_over(content: Any, path: Key, rng: Random) -> Any:
    """Another value's copy in its place."""
    other = _neighbour(content, path, rng) if rng.random() < 0.7 else _draw_path(content, path[0], rng)
    return replace(content, path, find(content, other))


def _neighbour(content: Any, path: Key, rng: Random) -> Key:
    *above, own = path
    if not above:
        return (own,)
    container = find(content, tuple(above))
    return (*above, rng.choice(_keys(container)))


def _reorder(content: Any, path: Key, rng: Random) -> Any:
    while len(path) > 1 and not isinstance(find(content, path), (dict, list, tuple)):
        path = path[:-1]
    value = find(content, path)
    if isinstance(value, dict):
        keys = list(value)
        rng.shuffle(keys)
        copy = value.copy()
        copy.clear()
        copy.update({key: value[key] for key in keys})
        return replace(content, path, copy)
    if isinstance(value, (list, tuple)):
        items = list(value)
        rng.shuffle(items)
        return replace(content, path, type(value)(items))
    return content


def _rename(content: Any, path: Key, rng: Random) -> Any:
    *above, key = path
    container = find(content, tuple(above))
    if not isinstance(container, dict):
        return content
    new = rng.choice((f"{key}x", str(key).upper(), HIDDEN, 7, None, f"module.{key}"))
    copy = container.copy()
    copy.clear()
    copy.update({new if k == key else k: v for k, v in container.items()})
    return replace(content, tuple(above), copy)


def _alter(content: Any, path: Key, rng: Random) -> Any:
    """A value of the same kind that is another one, mostly one that cannot be right."""
    return replace(content, path, _altered(find(content, path), rng))


def _altered(value: Any, rng: Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        numbers = (
            -value,
            value + 1,
            value * 2,
            0,
            -1,
            1e-300,
            1e300,
            math.nan,
            math.inf,
            -math.inf,
            2**40,
            2**63,
            10**400,
        )
        new = rng.choice(numbers)
        return rng.choice(
            (new, new, str(value)[:60], torch.tensor(0.5), torch.tensor([0.5, 0.5]), [value], bool(value))
        )
    if isinstance(value, str):
        return rng.choice(("", value + "x", value.upper(), HIDDEN, "x" * 100_000, value.encode(), [value], "nan"))
    if isinstance(value, Tensor):
        return rng.choice(_TENSORS)(value)
    if isinstance(value, tuple):
        return rng.choice((list(value), value[:-1], (*value, 0), ()))
    if isinstance(value, list):
        return rng.choice((tuple(value), value[:-1], [*value, *value], [], value[::-1], dict(enumerate(value))))
    if isinstance(value, dict):
        return rng.choice(({}, list(value.values()), list(value.items()), {**value, "again": value}))
    return draw_junk(rng)


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": [value]}
    return value


def _in_itself() -> Any:
    value: list[Any] = [1]
    value.append(value)
    return value


def _repeated() -> Any:
    """Ten lists of ten lists, ten times over: 10 billion values in a few bytes."""
    value: Any = [0]
    for _ in range(10):
        value = [value] * 10
    return value


def _storage_too_small(value: Tensor) -> Tensor:
    return torch.zeros(1, dtype=value.dtype).expand(value.shape if value.ndim else (1 << 40,))


_TENSORS: tuple[Callable[[Tensor], Any], ...] = (
    lambda value: value.flatten(),
    lambda value: value.unsqueeze(0),
    lambda value: value[..., :0] if value.ndim else value.reshape(1)[:0],
    lambda value: torch.cat([value, value]) if value.ndim else torch.stack([value, value]),
    lambda value: value.double(),
    lambda value: value.to(torch.float16),
    lambda value: value.long(),
    lambda value: value.bool(),
    lambda value: value + 1j,
    lambda value: torch.full_like(value, math.nan) if value.is_floating_point() else value - 1,
    lambda value: -value if value.dtype != torch.uint8 else value + 1,
    lambda value: value.to_sparse() if value.ndim else torch.zeros(2).to_sparse(),
    lambda value: torch.empty_like(value, device="meta"),
    lambda value: torch.nn.Parameter(value) if value.is_floating_point() else value,
    lambda value: value.tolist(),
    lambda value: torch.quantize_per_tensor(value.float(), 0.1, 0, torch.qint8),
    _storage_too_small,
)
_JUNK: tuple[Callable[[], Any], ...] = (
    *(lambda value=value: value for value in (None, True, False, 0, -1, 3, 2**70, 10**400, 0.5, -0.0, math.nan)),
    *(lambda value=value: value for value in (math.inf, -math.inf, 1e308, 1j, "", "x", HIDDEN, "x" * 5000, b"x")),
    *(
        lambda value=value: value
        for value in ((), (1,), set(), {1, "a"}, bytearray(b"x"), torch.float32, torch.Size([2]))
    ),
    list,
    dict,
    OrderedDict,
    lambda: [1, "a"],
    lambda: {"a": 1},
    lambda: {0: {}},
    lambda: Counter("aab"),
    lambda: {"_target_": "builtins.exec", "_args_": ["raise SystemExit"]},
    lambda: torch.zeros(0),
    lambda: torch.zeros(()),
    lambda: torch.zeros(2, 2),
    lambda: torch.zeros(2, 2, device="meta"),
    lambda: torch.zeros(2, 2).to_sparse(),
    lambda: torch.tensor(math.nan),
    lambda: torch.tensor(True),
    lambda: _nested(5),
    lambda: _nested(100),
    _in_itself,
    _repeated,
)
_CHANGES: tuple[Callable[[Any, Key, Random], Any], ...] = (
    _put_junk,
    _put_junk,
    _alter,
    _alter,
    _alter,
    _delete,
    _delete,
    _delete_everywhere,
    _add,
    _swap,
    _copy_over,
    _reorder,
    _rename,
)
