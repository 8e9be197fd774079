"""The optimizers in a checkpoint file: their groups, and each parameter's state by its name."""

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
_ABOUT_PARAMETERS = ("params", "param_names", "name", "configured")


@dataclass(frozen=True, kw_only=True)
class SavedGroup:
    """A param group of a checkpoint."""

    name: str
    """As saved, else `default`, `group1`, ... by its place."""
    params: tuple[str, ...]
    """Names, as the optimizer's states have them."""
    hyperparameters: Mapping[str, Any]
    """All else that the group holds."""


@dataclass(frozen=True, kw_only=True)
class SavedOptimizer:
    """An optimizer's state dict, with the parameters by name."""

    key: str
    """Where in the file it is: `optimizer_states[0]`."""
    groups: tuple[SavedGroup, ...]
    state: Mapping[str, Mapping[str, Any]]
    """By parameter; those that were never stepped are not in it."""
    named: bool
    """Whether the file has the parameters' names; else they are called `param 0`, ... in the order of the groups."""

    @property
    def params(self) -> tuple[str, ...]:
        """All names, in the order of the groups."""
        return tuple(name for group in self.groups for name in group.params)

    def nameless(self) -> SavedOptimizer:
        """The same with parameters called by their places, to compare with one that has no names."""
        place = {name: f"param {index}" for index, name in enumerate(self.params)}
        groups = tuple(
            SavedGroup(
                name=group.name,
                params=tuple(place[name] for name in group.params),
                hyperparameters=group.hyperparameters,
            )
            for group in self.groups
        )
        state = {place[name]: held for name, held in self.state.items()}
        return SavedOptimizer(key=self.key, groups=groups, state=state, named=False)


def read(path: Path) -> tuple[SavedOptimizer, ...]:
    """The optimizers in a file, on the CPU, from the disk as they are looked at where the format permits.

    Args:
        path: a Lightning checkpoint, `torch.save(optimizer.state_dict())`, or a dict or list with such in it.

    Raises:
        ConfigError: there is no such file, torch cannot load it safely, or no optimizer's state is in it.

    Example:
        >>> import tempfile, torch
        >>> path = Path(tempfile.mkdtemp()) / "optimizer.pt"
        >>> optimizer = torch.optim.SGD([("weight", torch.zeros(3))], lr=0.1)
        >>> torch.save({"epoch": 1, "optimizer": optimizer.state_dict()}, path)
        >>> [(saved.key, saved.params) for saved in read(path)]
        [('optimizer', ('weight',))]
    """
    content = _load(path)
    found = tuple(_optimizer(key, state_dict) for key, state_dict in _state_dicts(content, ""))
    if not found:
        holds = (
            f"Its keys are: {format_names(map(str, content))}"
            if isinstance(content, dict)
            else f"It is a {_type(content)}"
        )
        raise ConfigError(
            f"{path}: no optimizer's state is in it. {holds}. Save optimizer.state_dict(), or let Lightning save "
            "with save_weights_only=False"
        )
    return found


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
    # Only torch's own archives can be mapped; what was saved before 1.6 is read whole.
    archive = zipfile.is_zipfile(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        if classes := _refused(path, str(error), archive):
            raise ConfigError(
                f"{path}: torch.load(weights_only=True) refuses what is in it: {format_names(classes)}. Loading "
                "that runs "
                "code of the file's. Only if you trust it, save its optimizers alone: python -c \"import torch; "
                f"torch.save(torch.load('{path}', weights_only=False)['optimizer_states'], 'optimizers.pt')\""
            ) from error
        raise ConfigError(f"{path}: {_not_torchs(error)}") from error
    except Exception as error:  # torch's unpickler trips over a file of another kind in any way
        raise ConfigError(f"{path}: {_not_torchs(error)}") from error


def _refused(path: Path, said: str, archive: bool) -> list[str]:
    """The classes and functions that the file names and torch does not hold for safe."""
    if archive and (names := torch.serialization.get_unsafe_globals_in_checkpoint(path)):
        return sorted(names)
    return re.findall(r"GLOBAL ([\w.]+)", said)[:1]


def _not_torchs(error: Exception) -> str:
    # torch heads what is wrong with advice that is of no use here.
    _, _, said = str(error).rpartition("WeightsUnpickler error: ")
    lines = said.strip().splitlines() or [type(error).__name__]
    return f"torch cannot load it: {lines[0].rstrip('.')}. inspect takes a Lightning checkpoint or a file of torch.save"


def _state_dicts(content: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """`(key, state dict)` of each optimizer in what was loaded."""
    if isinstance(content, dict) and isinstance(content.get("param_groups"), list) and "state" in content:
        yield place or "optimizer", content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from _state_dicts(value, f"{place}.{key}" if place else str(key))
    elif isinstance(content, (list, tuple)):
        for index, value in enumerate(content):
            yield from _state_dicts(value, f"{place}[{index}]")


def _optimizer(key: str, state_dict: Mapping[str, Any]) -> SavedOptimizer:
    names: dict[Any, str] = {}
    seen: Counter[str] = Counter()
    groups, named = [], True
    for group in state_dict["param_groups"]:
        given = group.get("param_names") or [
            identity if isinstance(identity, str) else None for identity in group["params"]
        ]
        for identity, name in zip(group["params"], given, strict=True):
            named &= name is not None
            label = f"param {len(names)}" if name is None else str(name)
            seen[label] += 1
            # Two models in one optimizer may repeat a name.
            names[identity] = label if seen[label] == 1 else f"{label} ({seen[label]})"
        groups.append(group)
    labels = _group_names(groups)
    return SavedOptimizer(
        key=key,
        groups=tuple(
            SavedGroup(
                name=label,
                params=tuple(names[identity] for identity in group["params"]),
                hyperparameters={name: value for name, value in group.items() if name not in _ABOUT_PARAMETERS},
            )
            for label, group in zip(labels, groups, strict=True)
        ),
        state={names[identity]: held for identity, held in state_dict["state"].items() if identity in names},
        named=named,
    )


def _group_names(groups: list[Mapping[str, Any]]) -> list[str]:
    """As saved, else by place; one that is repeated has its place added."""
    labels: list[str] = []
    for index, group in enumerate(groups):
        label = str(group.get("name") or ("default" if index == 0 else f"group{index}"))
        labels.append(f"{label} ({index})" if label in labels else label)
    return labels


def _type(content: Any) -> str:
    return type(content).__name__
