"""Module paths and parameter names without the attributes that wrappers (DDP, FSDP, `torch.compile`) insert."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

from torch import nn

WRAPPED_ATTRIBUTES = {
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel": "_fsdp_wrapped_module",
    "torch.distributed.algorithms._checkpoint.checkpoint_wrapper.CheckpointWrapper": "_checkpoint_wrapped_module",
    "torch.optim.swa_utils.AveragedModel": "module",
    "lightning.fabric.wrappers._FabricModule": "_forward_module",
    "lightning_fabric.wrappers._FabricModule": "_forward_module",
}
"""By wrapper class: the attribute that holds the wrapped module. It is left out of clean names."""
# A second reference of a wrapper to what it wraps.
_REPEATED = ("_original_module",)
# The prefixes to strip where only names are known, and not the modules.
_PREFIXES = ("_orig_mod", "module", "_fsdp_wrapped_module", "_forward_module")


def clean_named_modules(root: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """`(clean path, module)` of a module and all modules below it; a shared module appears under each of its paths.

    Args:
        root: the module.
        prefix: its own path.
    """
    yield from _walk(root, prefix)


def strip_wrapper_prefixes(names: Sequence[str]) -> list[str]:
    """The names without the wrapper prefixes that all of them start with.

    A prefix that only some of them have is the user's own module, and stays.
    """
    names = list(names)
    while names:
        first_segments = {name.partition(".")[0] for name in names}
        if len(first_segments) != 1 or not first_segments <= set(_PREFIXES) or not all("." in name for name in names):
            break
        names = [name.partition(".")[2] for name in names]
    return names


def join_path(path: str, name: str) -> str:
    """`path.name`, or the name alone at the root."""
    return f"{path}.{name}" if path else name


def _walk(root: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    pending: list[tuple[str, nn.Module, tuple[int, ...]]] = [(prefix, root, ())]
    while pending:
        path, module, ancestors = pending.pop()
        yield path, module
        if not module._modules:
            continue
        ancestors = (*ancestors, id(module))
        wrapped = _find_wrapped_attribute(type(module))  # type: ignore[arg-type]  # mypy: a type has no hash
        for name, child in reversed(module._modules.items()):
            is_repeated = wrapped is not None and name in _REPEATED
            if child is not None and id(child) not in ancestors and not is_repeated:
                pending.append((path if name == wrapped else join_path(path, name), child, ancestors))


@cache
def _find_wrapped_attribute(cls: type) -> str | None:
    for base in cls.__mro__:
        if (attribute := WRAPPED_ATTRIBUTES.get(f"{base.__module__}.{base.__qualname__}")) is not None:
            return attribute
    return None
