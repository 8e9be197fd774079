"""The optimizers in a checkpoint file: their param groups, and each parameter's state by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

# Checkpoints hold the two factories; torch.load(weights_only=True) must know them.
import lightning_optim.build.factory
import lightning_optim.schedule.factory  # noqa: F401

from ..build.saved_state import check_state_dict
from ..build.unreadable_file import refuse_unreadable
from ..core.checkpoint_file import check_file, check_regular, is_archive
from ..core.errors import ConfigError, format_names, prefix_errors
from ..core.printable import to_printable

# `configured` repeats the hyperparameters, for loading by name.
_NOT_HYPERPARAMETERS = ("params", "param_names", "name", "configured")


@dataclass(frozen=True, kw_only=True)
class SavedGroup:
    """A param group of a checkpoint."""

    name: str
    """As saved, else `default`, `group1`, ... by position."""
    params: tuple[str, ...]
    """The names of the parameters, the keys of `SavedOptimizer.state`."""
    hyperparameters: Mapping[str, Any]
    """Everything else in the group."""


@dataclass(frozen=True, kw_only=True)
class SavedOptimizer:
    """An optimizer's state dict, with parameters by name."""

    key: str
    """Its path in the file: `optimizer_states[0]`."""
    groups: tuple[SavedGroup, ...]
    state: Mapping[str, Mapping[str, Any]]
    """By parameter; one that was never stepped is missing."""
    has_names: bool
    """Whether the file has the parameters' names; else they are `param 0`, ... in the order of the groups."""

    @property
    def params(self) -> tuple[str, ...]:
        """All names, in the order of the groups."""
        return tuple(name for group in self.groups for name in group.params)

    def by_position(self) -> SavedOptimizer:
        """The same with parameters named by position, to compare with one that has no names."""
        labels = {name: f"param {index}" for index, name in enumerate(self.params)}
        groups = tuple(
            SavedGroup(
                name=group.name,
                params=tuple(labels[name] for name in group.params),
                hyperparameters=group.hyperparameters,
            )
            for group in self.groups
        )
        state = {labels[name]: values for name, values in self.state.items()}
        return SavedOptimizer(key=self.key, groups=groups, state=state, has_names=False)


def read_checkpoint(path: Path, *, verify: bool = True) -> tuple[SavedOptimizer, ...]:
    """The optimizers in a file, on the CPU; tensors are memory-mapped if the format permits it.

    Args:
        path: a Lightning checkpoint, `torch.save(optimizer.state_dict())`, or a dict or list with such in it.
        verify: check the file's checksums first. False also reads files that have none: from torch before 1.6, or saved
            after `torch.serialization.set_crc32_options(False)`.

    Raises:
        ConfigError: the file does not exist or is damaged, torch cannot load it safely, it holds no optimizer state, or
            something else in its place.

    Examples:
        >>> import tempfile, torch
        >>> path = Path(tempfile.mkdtemp()) / "optimizer.pt"
        >>> optimizer = torch.optim.SGD([("weight", torch.zeros(3))], lr=0.1)
        >>> torch.save({"epoch": 1, "optimizer": optimizer.state_dict()}, path)
        >>> [(saved.key, saved.params) for saved in read_checkpoint(path)]
        [('optimizer', ('weight',))]
    """
    content = _load(path, verify=verify)
    with prefix_errors(_show(path)):
        optimizers = tuple(_to_saved_optimizer(key, found) for key, found in _find_state_dicts(content))
    if not optimizers:
        contains = (
            f"Its keys are: {format_names(_show(key) for key in content)}"
            if isinstance(content, dict)
            else f"It is a {type(content).__name__}"
        )
        raise ConfigError(
            f"{_show(path)}: the file has no optimizer state. {contains}. Save optimizer.state_dict(), or let "
            "Lightning save with save_weights_only=False"
        )
    return optimizers


def _load(path: Path, *, verify: bool) -> Any:
    if path.is_dir():
        if (path / ".metadata").exists():
            raise ConfigError(
                f"{_show(path)}: this is a sharded checkpoint, and inspect takes a single file. Type "
                f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {_show(path)} FILE"
            )
        files = sorted(_show(file.name) for file in path.iterdir() if file.suffix in (".ckpt", ".pt", ".pth"))
        raise ConfigError(
            f"{_show(path)}: this is a folder, and inspect takes a single file. In it: {format_names(files) or 'none'}"
        )
    if verify:
        check_file(path, how_to_skip="add --no-verify")
    else:
        check_regular(path)
    # Only zip archives can be memory-mapped; files from torch before 1.6 are read in full.
    with refuse_unreadable(path):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive(path))


def _find_state_dicts(content: Any) -> Iterator[tuple[str, Any]]:
    """`(key, state dict)` of each optimizer in what was loaded; these are yet to be checked.

    Each container is searched once: one may be in itself, or in many others.
    """
    if isinstance(content, dict) and "pytorch-lightning_version" in content:
        saved = content.get("optimizer_states", [])
        if not isinstance(saved, list):
            raise ConfigError(f"optimizer_states: must be a list, got a value of type {type(saved).__name__}")
        yield from ((f"optimizer_states[{index}]", state_dict) for index, state_dict in enumerate(saved))
        return
    seen: set[int] = set()
    remaining: list[tuple[str, Any]] = [("", content)]
    while remaining:
        path, value = remaining.pop()
        if isinstance(value, dict) and "param_groups" in value:
            yield path or "optimizer", value
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, dict):
                items = [(f"{path}.{_show(key)}" if path else _show(key), item) for key, item in value.items()]
            else:
                items = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
            remaining += reversed(items)


def _show(value: object) -> str:
    """A key, name or path from outside as text of bounded length that a terminal shows as it is."""
    return to_printable(str(value)[:4096])


def _to_saved_optimizer(key: str, state_dict: Any) -> SavedOptimizer:
    with prefix_errors(key):
        check_state_dict(state_dict, is_shown_only=True)
    # A parameter's id is its key in the state: a number, or its name where FSDP has gathered the state.
    names: dict[Any, str] = {}
    counts: Counter[str] = Counter()
    groups, has_names = [], True
    for group in state_dict["param_groups"]:
        given = group.get("param_names") or [
            param_id if isinstance(param_id, str) else None for param_id in group["params"]
        ]
        for param_id, name in zip(group["params"], given, strict=True):
            has_names &= name is not None
            label = f"param {len(names)}" if name is None else _show(name)
            counts[label] += 1
            # Two models in one optimizer may have parameters of the same name.
            names[param_id] = label if counts[label] == 1 else f"{label} ({counts[label]})"
        groups.append(group)
    return SavedOptimizer(
        key=key,
        groups=tuple(
            SavedGroup(
                name=label,
                params=tuple(names[param_id] for param_id in group["params"]),
                hyperparameters={
                    _show(name): value for name, value in group.items() if name not in _NOT_HYPERPARAMETERS
                },
            )
            for label, group in zip(_group_names(groups), groups, strict=True)
        ),
        state={
            names[param_id]: {_show(key): value for key, value in values.items()}
            for param_id, values in state_dict["state"].items()
            if param_id in names
        },
        has_names=has_names,
    )


def _group_names(groups: list[Mapping[str, Any]]) -> list[str]:
    """The groups' names as saved, else by position; the position is added to a repeated one."""
    labels: list[str] = []
    for index, group in enumerate(groups):
        label = _show(group.get("name") or ("default" if index == 0 else f"group{index}"))
        labels.append(f"{label} ({index})" if label in labels else label)
    return labels
