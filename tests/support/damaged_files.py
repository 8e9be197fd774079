"""Checkpoints that are damaged in every way, and hostile pickles that leave a mark where they are executed."""

from __future__ import annotations

import io
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.support.hostile_targets import MARK, MODULE, write_hostile_files

SEED = 20260522
"""Of the bits that are flipped."""


def flip_bits(content: bytes, number: int) -> Iterator[tuple[int, int, bytes]]:
    """`(byte, bit, content with that bit flipped)`, different ones each, drawn with `SEED`."""
    positions = np.random.default_rng(SEED).choice(len(content) * 8, number, replace=False)
    for position in map(int, positions):
        changed = bytearray(content)
        changed[position // 8] ^= 1 << position % 8
        yield position // 8, position % 8, bytes(changed)


def write_wrong_files(folder: Path, checkpoint: Path) -> dict[str, Path]:
    """What is no complete checkpoint file, by what it is; a wait or a large read is what some of them are for."""
    content = checkpoint.read_bytes()
    files: dict[str, bytes] = {
        "empty": b"",
        "text": b"epoch: 3\n",
        "zeros": bytes(4096),
        "a zip file's end alone": b"PK\x05\x06" + bytes(18),
        "a pickle": pickle.dumps({"epoch": 1}),
        "an image": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "bytes before the archive": b"PK\x03\x04" + bytes(60) + content,
        "two checkpoints in one file": content + content,
    }
    paths = {}
    for name, data in files.items():
        paths[name] = folder / f"{name}.ckpt"
        paths[name].write_bytes(data)
    for name, write in _SPECIAL.items():
        paths[name] = folder / f"{name}.ckpt"
        write(paths[name], content)
    return paths


def _write_fifo(path: Path, content: bytes) -> None:
    os.mkfifo(path)


def _write_link_to_device(path: Path, content: bytes) -> None:
    path.symlink_to("/dev/zero")


def _write_legacy(path: Path, content: bytes) -> None:
    torch.save({"epoch": 1}, path, _use_new_zipfile_serialization=False)


def _write_compressed(path: Path, content: bytes) -> None:
    """A bomb: its weight of 64 MiB takes 64 KiB."""
    _rezip(path, content, compression=zipfile.ZIP_DEFLATED, extra={"archive/data/0": bytes(1 << 26)})


def _write_overlapping(path: Path, content: bytes) -> None:
    """A bomb: a thousand entries with the bytes of the first, as the directory at the end of the file says."""
    _rezip(path, content, extra={f"x/{index:04}": b"" for index in range(1000)})
    data = bytearray(path.read_bytes())
    start = struct.unpack_from("<I", data, len(data) - 6)[0]
    while data[start : start + 4] == b"PK\x01\x02":
        lengths = struct.unpack_from("<3H", data, start + 28)
        struct.pack_into("<I", data, start + 42, 0)  # the position of its local header
        start += 46 + sum(lengths)
    path.write_bytes(data)


def _write_huge_size(path: Path, content: bytes) -> None:
    """An entry whose size is said to be 3 GiB."""
    data = bytearray(_rezipped(content))
    start = struct.unpack_from("<I", data, len(data) - 6)[0]
    struct.pack_into("<II", data, start + 20, 3 << 30, 3 << 30)
    path.write_bytes(data)


def _write_repeated_name(path: Path, content: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for text in ("first", "other"):
            archive.writestr("archive/data.pkl", text)


def _rezipped(content: bytes, **options: Any) -> bytes:
    file = io.BytesIO()
    _rezip(file, content, **options)
    return file.getvalue()


def _rezip(
    file: Any, content: bytes, compression: int = zipfile.ZIP_STORED, extra: Mapping[str, bytes] | None = None
) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(file, "w", compression) as archive:
        for name in source.namelist():
            if name not in (extra or {}):
                archive.writestr(name, source.read(name))
        for name, data in (extra or {}).items():
            archive.writestr(name, data)


_SPECIAL: Mapping[str, Callable[[Path, bytes], None]] = {
    "a pipe without a writer": _write_fifo,
    "a device without an end": _write_link_to_device,
    "torch before 1.6": _write_legacy,
    "a compressed entry": _write_compressed,
    "entries that overlap": _write_overlapping,
    "an entry of a size that the file does not have": _write_huge_size,
    "two entries of one name": _write_repeated_name,
}


def wrong_contents(checkpoint: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Checkpoints of Lightning with a value of the wrong type, by what is wrong.

    Args:
        checkpoint: of a run with one optimizer, whose first group has at least two parameters with state.
    """
    cases: dict[str, dict[str, Any]] = {}

    def case(name: str, change: Callable[[Any, Any], None]) -> None:
        changed = deepcopy(dict(checkpoint))
        change(changed, changed["optimizer_states"][0])
        cases[name] = changed

    def put(container: Any, key: Any, value: Any) -> None:
        container[key] = value

    for value in ({"a": 1}, 3, None, "text"):
        case(f"optimizer_states: {value!r}", lambda c, o, value=value: put(c, "optimizer_states", value))
    for value in (None, 3, "text", [1]):
        case(f"optimizer_states[0]: {value!r}", lambda c, o, value=value: put(c["optimizer_states"], 0, value))
    for key in ("param_groups", "state"):
        case(f"{key} missing", lambda c, o, key=key: put(c["optimizer_states"], 0, {k: o[k] for k in o if k != key}))
        for value in (None, 3, "text", torch.zeros(2)):
            case(f"{key}: {type(value).__name__}", lambda c, o, key=key, value=value: put(o, key, value))
    case("param_groups[0]: list", lambda c, o: put(o["param_groups"], 0, [1, 2]))
    case("params missing", lambda c, o: o["param_groups"][0].pop("params"))
    case("params: None", lambda c, o: put(o["param_groups"][0], "params", None))
    case("params: floats", lambda c, o: put(o["param_groups"][0], "params", [0.5, 1.5]))
    case("params: one twice", lambda c, o: put(o["param_groups"][0]["params"], 0, o["param_groups"][0]["params"][1]))
    case("too few names", lambda c, o: o["param_groups"][0]["param_names"].pop())
    case("param_names: a number", lambda c, o: put(o["param_groups"][0], "param_names", 3))
    case("param_names: numbers", lambda c, o: put(o["param_groups"][0]["param_names"], 0, 3))
    for key in ("lr", "weight_decay"):
        for value in ("x", [0.1], {}, torch.zeros(3), 10**500):
            case(
                f"{key}: {type(value).__name__}",
                lambda c, o, key=key, value=value: put(o["param_groups"][0], key, value),
            )
    for key in ("name", "configured"):
        case(f"{key}: 3", lambda c, o, key=key: put(o["param_groups"][0], key, 3))
    case("a key of bytes", lambda c, o: put(o["param_groups"][0], (1, 2), 3))
    case("peak_lr missing", lambda c, o: o["param_groups"][0].pop("peak_lr"))
    case("configured.lr: a vector", lambda c, o: put(o["param_groups"][0]["configured"], "lr", torch.zeros(2)))
    index = next(iter(checkpoint["optimizer_states"][0]["state"]))
    for value in (None, 3, [1.0], "text", torch.zeros(2)):
        case(f"state[0]: {type(value).__name__}", lambda c, o, value=value: put(o["state"], index, value))
    for value in (None, "x", [1], torch.zeros(2)):
        case(f"step: {type(value).__name__}", lambda c, o, value=value: put(o["state"][index], "step", value))
    case("step missing", lambda c, o: o["state"][index].pop("step"))
    buffers = {
        "sparse": torch.zeros(3, 3).to_sparse(),
        "meta": torch.zeros(3, 3, device="meta"),
        "larger than its storage": torch.zeros(1).expand(1 << 40),
    }
    for name, value in buffers.items():
        case(f"buffer: {name}", lambda c, o, value=value: put(o["state"][index], "exp_avg", value))
        case(f"lr: {name}", lambda c, o, value=value: put(o["param_groups"][0], "lr", value))
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    endless: list[Any] = []
    endless.append(endless)
    many: list[Any] = [0]
    for _ in range(19):
        many = [many] * 8
    for name, value in {"nested": deep, "in itself": endless, "2^57 values": many}.items():
        case(f"buffer: {name}", lambda c, o, value=value: put(o["state"][index], "exp_avg", value))
        case(f"hyperparameter: {name}", lambda c, o, value=value: put(o["param_groups"][0], "betas", value))
    return cases


class _Call:
    """Is unpickled as a call."""

    def __init__(self, function: Callable[..., Any] | Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def write_hostile_pickles(folder: Path) -> dict[str, Path]:
    """Files that create `MARK` in the folder if what they hold is executed, by how they do it."""
    write_hostile_files(folder)
    mark = folder / MARK
    code = f"open({str(mark)!r}, 'w').close()"
    contents: dict[str, Any] = {
        "os.system": _Call(os.system, f"touch '{mark}'"),
        "exec": _Call(exec, code),
        "eval": _Call(eval, code),
        "open": _Call(open, str(mark), "w"),
        "Path.touch": _Call(Path.touch, mark),
        "os.mkdir": _Call(os.mkdir, str(mark)),
        "torch.save": _Call(torch.save, [1], str(mark)),
        "torch.load of another file": _Call(torch.load, str(folder / "payload.pt"), None, None),
        "numpy.save": _Call(np.save, str(mark), np.zeros(1)),
        "in a dict's key": {_Call(exec, code): 1},
        "in an optimizer's state": {"optimizer_states": [{"state": {0: {"x": _Call(exec, code)}}, "param_groups": []}]},
        "beside weights": {
            "state_dict": {"w": torch.ones(2)},
            "pytorch-lightning_version": "2.6",
            "x": _Call(exec, code),
        },
    }
    paths = {}
    for name, content in contents.items():
        for is_archive in (True, False):
            path = folder / f"{name}{'' if is_archive else ', before torch 1.6'}.ckpt"
            torch.save(content, path, _use_new_zipfile_serialization=is_archive)
            paths[path.stem] = path
    imports = f"c{MODULE}\nThing\n.".encode()
    builtin = b"cbuiltins\nexec\n(V" + code.encode() + b"\ntR."
    for name, data in {"an import": imports, "a handwritten call": builtin}.items():
        path = folder / f"{name}.ckpt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", data)
            archive.writestr("archive/version", b"3\n")
        paths[name] = path
        paths[f"{name}, a pickle alone"] = folder / f"{name}.pkl"
        paths[f"{name}, a pickle alone"].write_bytes(data)
    return paths
