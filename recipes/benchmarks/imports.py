"""The arm `imports`: the time that lightning-optim adds to Python's start and to Hydra's scan for plugins.

An import is timed as a whole process, since it happens once per process. Hydra's scan is timed in this process, with
its modules unloaded before each repeat, and without them as if no plugin were installed.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial

from hydra.core.plugins import Plugins

from .arm import Arm
from .measure import Case, Timing

PYTHON, IMPORT = "python", "python, import lightning_optim"
SCAN, SCAN_WITH_US = "Hydra's plugin scan, no plugins", "Hydra's plugin scan, lightning-optim"


def _start_python(code: str) -> Callable[[], object]:
    return partial(subprocess.run, [sys.executable, "-c", code], check=True)


def _unload_plugins() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "hydra_plugins"]:
        del sys.modules[name]


def _hide_plugins() -> None:
    _unload_plugins()
    sys.modules["hydra_plugins"] = None  # type: ignore[assignment]  # Python's way to say that it is not installed


def _scan() -> object:
    plugins = object.__new__(Plugins)  # not Plugins(): that returns the one that exists
    plugins.__init__()  # type: ignore[misc]
    return plugins


def _differences(timings: Mapping[str, Timing]) -> dict[str, float]:
    return {
        "ms that `import lightning_optim` adds": timings[IMPORT].median_ms - timings[PYTHON].median_ms,
        "ms that lightning-optim adds to the scan": timings[SCAN_WITH_US].median_ms - timings[SCAN].median_ms,
    }


IMPORTS = Arm(
    title="Starting Python, and Hydra's scan for plugins",
    make_cases=lambda device: [
        Case(name=PYTHON, run=_start_python("pass")),
        Case(name=IMPORT, run=_start_python("import lightning_optim")),
        Case(name=SCAN, prepare=_hide_plugins, run=_scan),
        Case(name=SCAN_WITH_US, prepare=_unload_plugins, run=_scan),
    ],
    reference=PYTHON,
    uses_device=False,
    findings=_differences,
)
