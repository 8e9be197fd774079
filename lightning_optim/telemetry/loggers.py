"""Writing to loggers: TensorBoard gets one event a step, text and layouts; the others get the plain dict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from torch.utils.tensorboard import SummaryWriter


def write_scalars(loggers: Sequence[Any], values: Mapping[str, float], step: int) -> None:
    """All values at one step."""
    for logger in loggers:
        writer = _writer(logger)
        if writer is None:
            logger.log_metrics(dict(values), step=step)
            continue
        # One event holds them all: a fifth of the cost of add_scalar for each.
        summary = _summary(tuple(values))
        for place, value in zip(summary.value, values.values(), strict=True):
            place.simple_value = value
        writer._get_file_writer().add_summary(summary, step)  # type: ignore[no-untyped-call]


@lru_cache(maxsize=8)
def _summary(tags: tuple[str, ...]) -> Any:
    """TensorBoard's message, to be filled in at every step: the tags are the same at nearly all of them."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=tag) for tag in tags])


def write_hyperparameters(loggers: Sequence[Any], own: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """On the loggers' pages of hyperparameters.

    Args:
        loggers: that the run's own ones have not been given to.
        own: those. TensorBoard shows what it is given first, so it gets them too.
        found: what is added.
    """
    for logger in loggers:
        logger.log_hyperparams(dict(found) if _writer(logger) is None else {**own, **found})


def write_text(loggers: Sequence[Any], tag: str, text: str, step: int) -> None:
    """Markdown, where the logger shows text."""
    for writer in filter(None, map(_writer, loggers)):
        writer.add_text(tag, text, step)


def write_layout(loggers: Sequence[Any], layout: Mapping[str, Any]) -> None:
    """TensorBoard's page of custom scalars."""
    for writer in filter(None, map(_writer, loggers)):
        writer.add_custom_scalars(dict(layout))


def write_histogram(loggers: Sequence[Any], tag: str, values: Any, step: int) -> None:
    """The distribution of a tensor's values."""
    for writer in filter(None, map(_writer, loggers)):
        writer.add_histogram(tag, values, step)


def _writer(logger: Any) -> SummaryWriter | None:
    """A TensorBoard logger's writer; Lightning hands out a dummy on ranks other than zero."""
    experiment = getattr(logger, "experiment", None)
    return experiment if isinstance(experiment, SummaryWriter) else None
