"""Reads TensorBoard's event files: scalars, texts and hyperparameters, as far as the files are intact."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError
from ..core.printable import to_printable
from .curves import Log, Text

EVENT_FILES = "events.out.tfevents.*"
_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
_TEXT_SUFFIX = "/text_summary"


def read_event_files(paths: list[Path]) -> Log:
    """What the event files of one folder have; the later ones continue, or resume, the earlier ones.

    Args:
        paths: in the order in which they were written.

    Raises:
        ConfigError: a file cannot be read.
    """
    log = Log()
    for path in paths:
        _read_file(path, log)
    return log


def sort_event_files(paths: Iterator[Path]) -> list[Path]:
    """By the time in their names, and the number after it."""
    return sorted(paths, key=lambda path: [int(digits) for digits in re.findall(r"\d+", path.name)])


def _read_file(path: Path, log: Log) -> None:
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"report: {path} cannot be read: {error.strerror or error}") from error
    for record in _iterate_records(content, to_printable(path.name), log.notes):
        try:
            event = Event.FromString(record)
        except DecodeError:
            log.notes.append(f"{to_printable(path.name)}: a record is damaged and left out")
            continue
        _add_event(event, log)


def _iterate_records(content: bytes, name: str, notes: list[str]) -> Iterator[bytes]:
    """The records of a file, each a length, its checksum, the data, and its checksum.

    Not by TensorBoard's loader: it stops at the first damaged record, and does not say so.
    """
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    position, damaged = 0, 0
    while position < len(content):
        if position + _HEADER.size > len(content):
            notes.append(f"{name}: the last record is incomplete; the run is still writing, or was stopped there")
            break
        length, checksum = _HEADER.unpack_from(content, position)
        if masked_crc32c(content[position : position + 8]) != checksum:
            lost = (len(content) - position) / len(content)
            notes.append(f"{name}: damaged at byte {position:,}; the rest of the file, {lost:.0%}, cannot be read")
            break
        start = position + _HEADER.size
        position = start + length + _CHECKSUM.size
        if position > len(content):
            notes.append(f"{name}: the last record is incomplete; the run is still writing, or was stopped there")
            break
        record = content[start : start + length]
        if masked_crc32c(record) == _CHECKSUM.unpack_from(content, start + length)[0]:
            yield record
        else:
            damaged += 1
    if damaged:
        notes.append(f"{name}: {damaged:,} damaged records are left out")


def _add_event(event: Any, log: Log) -> None:
    if event.HasField("session_log") and event.session_log.status == 1:  # START: `SummaryWriter(purge_step=...)`
        for points in log.points.values():
            points.drop_from(event.step)
    step = event.step
    for value in event.summary.value:
        if value.HasField("simple_value"):
            log.add(value.tag, step, value.simple_value)
        elif value.HasField("metadata") and value.metadata.plugin_data.plugin_name == "hparams":
            log.hyperparameters |= _read_hyperparameters(value.metadata.plugin_data.content)
        elif value.HasField("tensor"):
            _add_tensor(value, step, log)


def _add_tensor(value: Any, step: int, log: Log) -> None:
    """Texts, and scalars as TensorFlow 2 writes them."""
    plugin = value.metadata.plugin_data.plugin_name
    if plugin == "text" or value.tag.endswith(_TEXT_SUFFIX):
        text = b"\n".join(value.tensor.string_val).decode(errors="replace")
        log.texts.setdefault(value.tag.removesuffix(_TEXT_SUFFIX), []).append(Text(step, text))
    elif plugin == "scalars":
        from tensorboard.util.tensor_util import make_ndarray

        log.add(value.tag, step, float(make_ndarray(value.tensor)))


def _read_hyperparameters(content: bytes) -> dict[str, Any]:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    logged = HParamsPluginData.FromString(content).session_start_info.hparams
    return {name: getattr(value, kind) for name, value in logged.items() if (kind := value.WhichOneof("kind"))}
