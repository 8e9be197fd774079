"""MLflow: tables as JSON artifacts that grow, pictures as images by step."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ...core.errors import format_names
from .table import LoggedTable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)
_STEP = "step"
_MAX_LENGTH = 250
"""Of a hyperparameter's value: Lightning cuts it there."""


class MlflowStore:
    """Writes to the artifacts of an MLflow logger's run.

    Args:
        client: `mlflow.MlflowClient`.
        run_id: of the run.
    """

    def __init__(self, client: Any, run_id: str) -> None:
        self._client, self._run_id = client, run_id

    def write_table(self, tag: str, table: LoggedTable, step: int) -> None:
        """Append the new rows to `<tag>.json`, each with its step.

        MLflow needs pandas for tables, and `mlflow-skinny` brings none; without it, Markdown in `<tag>/<step>.md`.
        """
        if find_spec("pandas") is None:
            self._client.log_text(self._run_id, table.markdown, f"{tag}/{step}.md")
            return
        rows = table.rows[table.num_logged :]
        data: dict[str, list[Any]] = {} if _STEP in table.columns else {_STEP: [step] * len(rows)}
        data |= {name: [row[index] for row in rows] for index, name in enumerate(table.columns)}
        self._client.log_table(self._run_id, data, f"{tag}.json")

    def write_picture(self, tag: str, picture: NDArray[np.uint8], step: int) -> None:
        """Log a picture of shape (height, width, 3), as that of its step."""
        self._client.log_image(self._run_id, picture, key=tag, step=step)

    def drop_changed(self, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
        """Without those that the run has with another value: MLflow raises an error where one changes, as in a resume.

        The tables of groups have the values that are in force.
        """
        logged = self._client.get_run(self._run_id).data.params
        values = {key: str(value)[:_MAX_LENGTH] for key, value in hyperparameters.items()}
        changed = [key for key, value in values.items() if logged.get(key, value) != value]
        if changed:
            _LOG.info("MLflow keeps the values that the run has begun with: %s", format_names(changed))
        return {key: value for key, value in hyperparameters.items() if key not in changed}


def find_mlflow_store(logger: Any) -> MlflowStore | None:
    """The store of a logger with an MLflow client."""
    tracking = sys.modules.get("mlflow.tracking")
    experiment = getattr(logger, "experiment", None)
    is_client = tracking is not None and isinstance(experiment, tracking.MlflowClient)
    return MlflowStore(experiment, logger.run_id) if is_client else None
