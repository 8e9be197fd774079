"""TensorBoard gets one event per step, text, layouts and histograms; other loggers get plain dicts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, create_autospec

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from lightning_optim.telemetry.loggers import (
    write_histogram,
    write_hyperparameters,
    write_layout,
    write_scalars,
    write_table,
)
from lightning_optim.telemetry.stores.table import LoggedTable


@pytest.fixture
def tensorboard() -> MagicMock:
    """A logger of TensorBoard."""
    return MagicMock(experiment=create_autospec(SummaryWriter, instance=True))


@pytest.fixture
def other() -> MagicMock:
    """A logger of another kind."""
    return MagicMock(experiment=SimpleNamespace())


def test_tensorboard_gets_one_event_for_all_values_of_a_step(tensorboard, other) -> None:
    events: list[Any] = []

    def add_summary(summary: Any, step: int) -> None:
        events.append((step, {item.tag: item.simple_value for item in summary.value}))

    tensorboard.experiment._get_file_writer().add_summary = add_summary
    for step, values in enumerate([{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}, {"b": 5.0}]):
        write_scalars([tensorboard, other], values, step)
    assert events == [(0, {"a": 1.0, "b": 2.0}), (1, {"a": 3.0, "b": 4.0}), (2, {"b": 5.0})]
    tensorboard.log_metrics.assert_not_called()
    assert [call.args[0] for call in other.log_metrics.call_args_list] == [step_values for _, step_values in events]
    assert [call.kwargs for call in other.log_metrics.call_args_list] == [{"step": 0}, {"step": 1}, {"step": 2}]


def test_tensorboard_gets_the_initial_hyperparameters_too(tensorboard, other) -> None:
    write_hyperparameters([tensorboard, other], {"batch_size": 4}, {"optim/default/lr": 0.1})
    tensorboard.log_hyperparams.assert_called_once_with({"batch_size": 4, "optim/default/lr": 0.1})
    other.log_hyperparams.assert_called_once_with({"optim/default/lr": 0.1})


def test_tables_layout_and_histograms_are_written_to_tensorboard_only(tensorboard, other) -> None:
    values = torch.ones(3)
    write_table([other, tensorboard], "groups", LoggedTable(columns=(), rows=(), markdown="| table |"), 7)
    write_layout([other, tensorboard], {"optim": {}})
    write_histogram([other, tensorboard], "norm/grad/w", values, 8)
    tensorboard.experiment.add_text.assert_called_once_with("groups", "| table |", 7)
    tensorboard.experiment.add_custom_scalars.assert_called_once_with({"optim": {}})
    tensorboard.experiment.add_histogram.assert_called_once_with("norm/grad/w", values, 8)
    assert not other.method_calls
