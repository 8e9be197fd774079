"""Writing to loggers: TensorBoard gets one event per step and layouts; other loggers get the plain dict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from .group_runs import Curve, GroupRuns
from .stores.mlflow import find_mlflow_store
from .stores.store import find_stores
from .stores.table import LoggedTable
from .stores.tensorboard import find_writer


def write_scalars(
    loggers: Sequence[Any],
    values: Mapping[str, float],
    step: int,
    *,
    runs: GroupRuns | None = None,
    curves: Mapping[str, Curve] | None = None,
) -> None:
    """Log all values of one step.

    Args:
        loggers: of the trainer.
        values: by tag.
        step: of the logger.
        runs: in which TensorBoard shows groups; None: in the logger's own.
        curves: by tag, where a value stands in them.
    """
    for logger in loggers:
        writer = find_writer(logger)
        if writer is None:
            logger.log_metrics(dict(values), step=step)
            continue
        own = runs.write(writer, values, curves or {}, step) if runs else values
        if own:
            # One event for all of them costs a fifth of one add_scalar each.
            summary = _summary(tuple(own))
            for item, value in zip(summary.value, own.values(), strict=True):
                item.simple_value = value
            writer._get_file_writer().add_summary(summary, step)  # type: ignore[no-untyped-call]


@lru_cache(maxsize=128)
def _summary(tags: tuple[str, ...]) -> Any:
    """TensorBoard's message, to be filled with the values of each step: nearly all steps have the same tags."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=tag) for tag in tags])


def write_hyperparameters(loggers: Sequence[Any], initial: Mapping[str, Any], added: Mapping[str, Any]) -> None:
    """Log hyperparameters.

    Args:
        loggers: which have not yet logged the run's initial hyperparameters.
        initial: those. TensorBoard shows only what it is given first, so it gets them here too.
        added: the hyperparameters to log.
    """
    for logger in loggers:
        _log_hyperparameters(logger, added if find_writer(logger) is None else {**initial, **added})


def add_hyperparameters(loggers: Sequence[Any], added: Mapping[str, Any]) -> None:
    """Log further hyperparameters in the course of a run; TensorBoard, which shows only its first ones, gets none."""
    for logger in loggers:
        if find_writer(logger) is None:
            _log_hyperparameters(logger, added)


def _log_hyperparameters(logger: Any, values: Mapping[str, Any]) -> None:
    mlflow = find_mlflow_store(logger)
    logger.log_hyperparams(mlflow.drop_changed(values) if mlflow else dict(values))


def write_table(loggers: Sequence[Any], tag: str, table: LoggedTable, step: int) -> None:
    """Log a table as what each logger has for it; a logger of curves only gets nothing."""
    for store in find_stores(loggers):
        store.write_table(tag, table, step)


def write_layout(loggers: Sequence[Any], layout: Mapping[str, Any]) -> None:
    """Log the layout of TensorBoard's page of custom scalars."""
    for writer in filter(None, map(find_writer, loggers)):
        writer.add_custom_scalars(dict(layout))


def write_histogram(loggers: Sequence[Any], tag: str, values: Any, step: int) -> None:
    """Log the distribution of a tensor's values."""
    for writer in filter(None, map(find_writer, loggers)):
        writer.add_histogram(tag, values, step)
