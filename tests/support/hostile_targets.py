"""Targets that a hostile config may name, each of which would leave a mark if it were imported or called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

MARK = "mark"
"""The file that calls create, in the folder that they are given."""
MODULE = "hostile_module"
"""A module that creates it when it is imported; it stands in that folder."""


class _Payload:
    """Creates the mark when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.folder / MARK,)


def write_hostile_files(folder: Path) -> None:
    """The files that the targets need."""
    (folder / f"{MODULE}.py").write_text(f"open({str(folder / MARK)!r}, 'w').close()\nclass Thing: pass\n", "utf-8")
    torch.save(_Payload(folder), folder / "payload.pt")


def _each(targets: Sequence[str], arguments: list[Any]) -> dict[str, list[Any]]:
    return {target: list(arguments) for target in targets}


def hostile_targets(folder: Path) -> list[dict[str, Any]]:
    """Nodes: 60 and more, which call the shell, write or replace files, load code, import modules or unpickle."""
    mark, payload = str(folder / MARK), str(folder / "payload.pt")
    shell, code = f"touch {mark}", f"open({mark!r}, 'w')"
    touch = ["touch", mark]
    calls: Mapping[str, list[Any]] = {
        **_each(("os.system", "os.popen", "posix.system", "pty.spawn", "platform.popen"), [shell]),
        **_each(("subprocess.getoutput", "subprocess.getstatusoutput", "commands.getoutput"), [shell]),
        **_each([f"subprocess.{name}" for name in ("run", "call", "Popen", "check_call", "check_output")], [touch]),
        **_each(
            ("os.execv", "os.execvp", "os.spawnvp", "os.posix_spawn", "os.posix_spawnp"), ["/usr/bin/touch", touch]
        ),
        **_each(("builtins.open", "io.open", "codecs.open", "io.FileIO", "gzip.open", "bz2.open"), [mark, "w"]),
        **_each(("os.open", "os.mknod", "os.mkdir", "os.makedirs", "os.mkfifo"), [mark]),
        **_each(("pathlib.Path.touch", "pathlib.Path.mkdir", "dbm.open", "sqlite3.connect"), [mark]),
        **_each(("logging.FileHandler", "tarfile.TarFile.open", "shelve.open"), [mark]),
        **_each(("shutil.copy", "shutil.copyfile", "shutil.move", "os.rename", "os.link"), [payload, mark]),
        **_each(("os.symlink", "os.replace", "shutil.copy2", "shutil.copytree"), [payload, mark]),
        **_each(("builtins.exec", "builtins.eval", "code.interact", "timeit.timeit", "cProfile.run"), [code]),
        **_each(("builtins.__import__", "importlib.import_module", "pydoc.locate"), [MODULE]),
        **_each(("runpy.run_path", "torch.utils.cpp_extension.load"), [str(folder / f"{MODULE}.py")]),
        **_each(("runpy.run_module", "pkgutil.resolve_name", "hydra.utils.get_class"), [MODULE]),
        **_each(("hydra.utils.get_method", "hydra.utils.get_object"), [f"{MODULE}.Thing"]),
        **_each((MODULE, f"{MODULE}.Thing", f"{MODULE}.nothing"), []),
        **_each(("torch.save", "numpy.save", "numpy.savetxt"), [mark, [1.0]]),
        "hydra.utils.instantiate": [{"_target_": "pathlib.Path.touch", "_args_": [mark]}],
        "webbrowser.open": [f"file://{mark}"],
        "torch.jit.load": [payload],
        "torch.hub.load": [str(folder), "x"],
        "ctypes.CDLL": [payload],
    }
    nodes = [{"_target_": target, "_args_": arguments} for target, arguments in calls.items()]
    loaders = ("torch.load", "lightning.fabric.utilities.cloud_io._load")
    nodes += [{"_target_": target, "_args_": [payload], "weights_only": False} for target in loaders]
    nodes += [{"_target_": "numpy.load", "file": payload, "allow_pickle": True}]
    nodes += [{"_target_": "pathlib.Path.write_text", "_args_": [mark, "x"], "_partial_": True}]
    return nodes
