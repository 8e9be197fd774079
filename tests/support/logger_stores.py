"""Read curves and tables back from what W&B, MLflow and CSV loggers have written to disk."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_optim.telemetry.tags import is_setting, split_tag
from tests.support.tensorboard_events import Curves

Rows = list[dict[str, Any]]

# The log of an offline run of W&B is LevelDB's: blocks of this size, of records with a header of 7 bytes, after a
# header of the file. https://github.com/google/leveldb/blob/main/doc/log_format.md
_BLOCK, _HEADER = 32768, 7
_ENDS_RECORD = (1, 4)  # FULL and LAST


def _read_wandb_records(file: Path) -> Iterator[Any]:
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, record = file.read_bytes(), _HEADER, b""
    while position + _HEADER <= len(data):
        if _BLOCK - position % _BLOCK < _HEADER:  # too short for a header: the rest of a block is padding
            position += _BLOCK - position % _BLOCK
            continue
        size, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        record += data[position + _HEADER : position + _HEADER + size]
        position += _HEADER + size
        if kind in _ENDS_RECORD:
            yield Record.FromString(record)
            record = b""


def read_wandb(folder: Path) -> tuple[Curves, dict[str, list[tuple[int, Rows]]]]:
    """The curves of the offline runs below a folder, by `trainer/global_step`, and `(step, rows)` of their tables."""
    curves: Curves = defaultdict(list)
    tables: dict[str, list[tuple[int, Rows]]] = defaultdict(list)
    for file in sorted(folder.rglob("*.wandb")):
        for record in _read_wandb_records(file):
            if not record.HasField("history"):
                continue
            row: dict[str, Any] = {}
            for item in record.history.item:
                key, *field = item.nested_key or [item.key]
                value = json.loads(item.value_json)
                row[key] = {**row.get(key, {}), field[0]: value} if field else value
            step = row.get("trainer/global_step")
            for key, value in row.items():
                if isinstance(value, (int, float)):
                    curves[key].append((step, value))
                elif isinstance(value, dict) and value.get("_type") == "table-file":
                    table = json.loads((file.parent / "files" / value["path"]).read_text(encoding="utf-8"))
                    rows = [dict(zip(table["columns"], cells, strict=True)) for cells in table["data"]]
                    tables[key].append((step, rows))
    return curves, tables


def read_mlflow(uri: str, run_id: str) -> Curves:
    """The curves of a run."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    return {
        key: [(point.step, point.value) for point in client.get_metric_history(run_id, key)]
        for key in client.get_run(run_id).data.metrics
    }


def read_mlflow_table(uri: str, run_id: str, artifact: str) -> Rows:
    """The rows of a table among a run's artifacts."""
    from mlflow.tracking import MlflowClient

    table = json.loads(Path(MlflowClient(uri).download_artifacts(run_id, artifact)).read_text(encoding="utf-8"))
    return [dict(zip(table["columns"], cells, strict=True)) for cells in table["data"]]


def read_csv(folder: Path) -> Curves:
    """The curves of the CSV files below a folder."""
    curves: Curves = defaultdict(list)
    for file in sorted(folder.rglob("metrics.csv")):
        with file.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                for key, value in row.items():
                    if value and key != "step":
                        curves[key].append((int(row["step"]), float(value)))
    return curves


def assert_same_curves(found: Curves, expected: Curves) -> None:
    """Check that two stores hold the same curves of an optimizer, each point to a relative 1e-6."""
    found, expected = _of_optimizer(found), _of_optimizer(expected)
    assert set(found) == set(expected) and expected
    for tag, points in expected.items():
        assert [step for step, _ in found[tag]] == [step for step, _ in points], tag
        for (step, value), (_, other) in zip(found[tag], points, strict=True):
            assert math.isclose(value, other, rel_tol=1e-6, abs_tol=1e-30), (tag, step, value, other)


def fill_settings(curves: Curves) -> Curves:
    """The curves with the values of hyperparameters at each step: some have a point only where they change."""
    filled = dict(curves)
    for tag, points in curves.items():
        root, signal, group = split_tag(tag) or ("", "", "")
        if is_setting(signal):
            steps = [step for step, _ in curves[f"{root}/lr/{group}"]]
            filled[tag] = [(step, [value for at, value in points if at <= step][-1]) for step in steps]
    return filled


def _of_optimizer(curves: Curves) -> Curves:
    return {tag: sorted(points) for tag, points in curves.items() if tag.startswith("optim")}
