"""Writing to loggers: TensorBoard gets one event per step, text and layouts; other loggers get the plain dict."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .group_runs import Curve, GroupRuns

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


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
        writer = _find_writer(logger)
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
        logger.log_hyperparams(dict(added) if _find_writer(logger) is None else {**initial, **added})


def add_hyperparameters(loggers: Sequence[Any], added: Mapping[str, Any]) -> None:
    """Log further hyperparameters in the course of a run; TensorBoard, which shows only its first ones, gets none."""
    for logger in loggers:
        if _find_writer(logger) is None:
            logger.log_hyperparams(dict(added))


def write_text(loggers: Sequence[Any], tag: str, text: str, step: int) -> None:
    """Log Markdown, where the logger shows text."""
    for writer in filter(None, map(_find_writer, loggers)):
        writer.add_text(tag, text, step)


def write_layout(loggers: Sequence[Any], layout: Mapping[str, Any]) -> None:
    """Log the layout of TensorBoard's page of custom scalars."""
    for writer in filter(None, map(_find_writer, loggers)):
        writer.add_custom_scalars(dict(layout))


def write_histogram(loggers: Sequence[Any], tag: str, values: Any, step: int) -> None:
    """Log the distribution of a tensor's values."""
    for writer in filter(None, map(_find_writer, loggers)):
        writer.add_histogram(tag, values, step)


def _find_writer(logger: Any) -> SummaryWriter | None:
    """A TensorBoard logger's writer; on ranks other than zero Lightning returns a dummy, which is none."""
    experiment = getattr(logger, "experiment", None)
    # Not imported for this check: it loads 200 modules. Where there is a writer, they are loaded.
    tensorboard = sys.modules.get("torch.utils.tensorboard")
    return experiment if tensorboard is not None and isinstance(experiment, tensorboard.SummaryWriter) else None
