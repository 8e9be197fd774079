"""The optimizers in a checkpoint file: their param groups, and each parameter's state by name."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

# Checkpoints hold the two factories; torch.load(weights_only=True) must know them.
import lightning_optim.build.factory
import lightning_optim.schedule.factory  # noqa: F401

from ..core.errors import ConfigError, format_names

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


def read_checkpoint(path: Path) -> tuple[SavedOptimizer, ...]:
    """The optimizers in a file, on the CPU; tensors are memory-mapped if the format permits it.

    Args:
        path: a Lightning checkpoint, `torch.save(optimizer.state_dict())`, or a dict or list with such in it.

    Raises:
        ConfigError: the file does not exist, torch cannot load it safely, or it holds no optimizer state.

    Example:
        >>> import tempfile, torch
        >>> path = Path(tempfile.mkdtemp()) / "optimizer.pt"
        >>> optimizer = torch.optim.SGD([("weight", torch.zeros(3))], lr=0.1)
        >>> torch.save({"epoch": 1, "optimizer": optimizer.state_dict()}, path)
        >>> [(saved.key, saved.params) for saved in read_checkpoint(path)]
        [('optimizer', ('weight',))]
    """
    content = _load(path)
    optimizers = tuple(_to_saved_optimizer(key, state_dict) for key, state_dict in _find_state_dicts(content, ""))
    if not optimizers:
        contains = (
            f"Its keys are: {format_names(map(str, content))}"
            if isinstance(content, dict)
            else f"It is a {type(content).__name__}"
        )
        raise ConfigError(
            f"{path}: the file has no optimizer state. {contains}. Save optimizer.state_dict(), or let Lightning save "
            "with save_weights_only=False"
        )
    return optimizers


def _load(path: Path) -> Any:
    if path.is_dir():
        if (path / ".metadata").exists():
            raise ConfigError(
                f"{path}: this is a sharded checkpoint, and inspect takes a single file. Type "
                f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {path} FILE"
            )
        files = sorted(file.name for file in path.iterdir() if file.suffix in (".ckpt", ".pt", ".pth"))
        raise ConfigError(
            f"{path}: this is a folder, and inspect takes a single file. In it: {format_names(files) or 'none'}"
        )
    if not path.exists():
        raise ConfigError(f"{path}: there is no such file")
    # Only zip archives can be memory-mapped; files from torch before 1.6 are read in full.
    is_archive = zipfile.is_zipfile(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except pickle.UnpicklingError as error:
        if names := _unsafe_names(path, str(error), is_archive):
            raise ConfigError(
                f"{path}: torch.load(weights_only=True) refuses {format_names(names)} in it, as loading that runs code "
                'from the file. Only if you trust it, extract its optimizers: python -c "import torch; '
                f"torch.save(torch.load('{path}', weights_only=False)['optimizer_states'], 'optimizers.pt')\""
            ) from error
        raise ConfigError(f"{path}: {_describe_load_error(error)}") from error
    except Exception as error:  # for a file in another format, torch's unpickler may raise anything
        raise ConfigError(f"{path}: {_describe_load_error(error)}") from error


def _unsafe_names(path: Path, message: str, is_archive: bool) -> list[str]:
    """The classes and functions in the file that torch does not consider safe."""
    if is_archive and (names := torch.serialization.get_unsafe_globals_in_checkpoint(path)):
        return sorted(names)
    return re.findall(r"GLOBAL ([\w.]+)", message)[:1]


def _describe_load_error(error: Exception) -> str:
    # torch puts advice before the reason that does not apply here.
    _, _, reason = str(error).rpartition("WeightsUnpickler error: ")
    lines = reason.strip().splitlines() or [type(error).__name__]
    return f"torch cannot load it: {lines[0].rstrip('.')}. inspect takes a Lightning checkpoint or a torch.save file"


def _find_state_dicts(content: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """`(key, state dict)` of each optimizer in what was loaded."""
    if isinstance(content, dict) and isinstance(content.get("param_groups"), list) and "state" in content:
        yield path or "optimizer", content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from _find_state_dicts(value, f"{path}.{key}" if path else str(key))
    elif isinstance(content, (list, tuple)):
        for index, value in enumerate(content):
            yield from _find_state_dicts(value, f"{path}[{index}]")


def _to_saved_optimizer(key: str, state_dict: Mapping[str, Any]) -> SavedOptimizer:
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
            label = f"param {len(names)}" if name is None else str(name)
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
                hyperparameters={name: value for name, value in group.items() if name not in _NOT_HYPERPARAMETERS},
            )
            for label, group in zip(_group_names(groups), groups, strict=True)
        ),
        state={names[param_id]: values for param_id, values in state_dict["state"].items() if param_id in names},
        has_names=has_names,
    )


def _group_names(groups: list[Mapping[str, Any]]) -> list[str]:
    """The groups' names as saved, else by position; the position is added to a repeated one."""
    labels: list[str] = []
    for index, group in enumerate(groups):
        label = str(group.get("name") or ("default" if index == 0 else f"group{index}"))
        labels.append(f"{label} ({index})" if label in labels else label)
    return labels
