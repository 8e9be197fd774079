"""Commands in processes of their own, whose last words are shown when they fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_module(name: str, *arguments: object, timeout_s: int = 300, may_fail: bool = False) -> tuple[int, str, str]:
    """`(exit status, stdout, stderr)` of `python -m NAME ARGUMENTS` in the checkout."""
    command = [sys.executable, "-m", name, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert may_fail or done.returncode == 0, f"{done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done.returncode, done.stdout, done.stderr
