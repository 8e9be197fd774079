"""`inspect --json`: the contents of a checkpoint's optimizers, or the difference of two checkpoints."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from .checkpoint_compare import Comparison, compare, pair_optimizers
from .checkpoint_reader import SavedOptimizer, read_checkpoint
from .checkpoint_report import Report, Row, build_report


def describe_report(path: Path, *, verify: bool = True) -> dict[str, Any]:
    """The groups of each optimizer with the norms of their state, and all values that are not finite.

    Args:
        path: the checkpoint.
        verify: as of `read_checkpoint`.

    Raises:
        ConfigError: as `read_checkpoint`.
    """
    return {
        "path": str(path),
        "optimizers": [_describe(build_report(saved)) for saved in read_checkpoint(path, verify=verify)],
    }


def describe_comparison(path: Path, other: Path, *, verify: bool = True) -> dict[str, Any]:
    """The difference of two checkpoints, optimizer by optimizer; in each pair the first is of the first file.

    Args:
        path: its groups are listed.
        other: the checkpoint to compare it with.
        verify: as of `read_checkpoint`.

    Raises:
        ConfigError: as `read_checkpoint`.
    """
    pairs = pair_optimizers(read_checkpoint(path, verify=verify), read_checkpoint(other, verify=verify))
    return {"paths": [str(path), str(other)], "optimizers": [_describe_pair(first, second) for first, second in pairs]}


def _describe(report: Report) -> dict[str, Any]:
    *groups, total = map(_describe_row, report.rows)
    return {
        "key": report.key,
        "groups": groups,
        "all": {key: total[key] for key in ("tensors", "parameters", "unknown_sizes", "step", "norms", "state_bytes")},
        "nonfinite": [asdict(found) for found in report.nonfinite],
    }


def _describe_row(row: Row) -> dict[str, Any]:
    return {
        "group": row.group,
        "algorithm": row.algorithm,
        "tensors": row.num_tensors,
        "parameters": row.num_parameters,
        "unknown_sizes": row.num_unknown,
        "lr": row.lr,
        "weight_decay": row.weight_decay,
        "step": row.step,
        "norms": row.norms,
        "state_bytes": row.num_bytes,
    }


def _describe_pair(first: SavedOptimizer | None, second: SavedOptimizer | None) -> dict[str, Any]:
    """A comparison; null for an optimizer that only one file has."""
    keys = [None if saved is None else saved.key for saved in (first, second)]
    comparison = None if first is None or second is None else compare(first, second)
    return {"keys": keys, "comparison": None if comparison is None else _describe_comparison(comparison)}


def _describe_comparison(comparison: Comparison) -> dict[str, Any]:
    values = asdict(comparison)
    del values["keys"]
    return {"identical": comparison.is_identical, "num_equal": comparison.num_equal, **values}
