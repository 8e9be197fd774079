"""Peak memory of a part of a process, as Linux counts it."""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path

_PROCESS = Path("/proc/self")


def reset_peak() -> int | None:
    """Count the peak from here: the memory in use now, in KiB, without what is free; None where this is not Linux."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        (_PROCESS / "clear_refs").write_text("5")
    except (OSError, AttributeError):
        return None
    return _read("VmRSS")


def peak_since(start: int | None) -> float | None:
    """The peak above `start`, which `reset_peak` has returned, in MB; None if that was None."""
    return None if start is None else (_read("VmHWM") - start) * 1024 / 1e6


def _read(name: str) -> int:
    (kib,) = re.findall(rf"^{name}:\s+(\d+) kB$", (_PROCESS / "status").read_text(), re.MULTILINE)
    return int(kib)
