"""Commands in processes of their own; when one fails, the end of its output is shown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_module(name: str, *arguments: object, timeout_s: int = 300, may_fail: bool = False) -> tuple[int, str, str]:
    """`(exit status, stdout, stderr)` of `python -m NAME ARGUMENTS`, run in the repository."""
    command = [sys.executable, "-m", name, *map(str, arguments)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)
    if not may_fail:
        assert process.returncode == 0, f"{process.returncode}\n{process.stdout[-3000:]}\n{process.stderr[-6000:]}"
    return process.returncode, process.stdout, process.stderr
