"""Take out each guard behind SECURITY.md in a temporary copy of the package: the test of its promise must fail there.

    python -m tests.reliability.guards [--only NAME] [--jobs J] [--list]

The same tests must pass with the guard. Exit status 1 if a guard is not missed, or if a test fails with all of them.
"""

from __future__ import annotations

import sys

from tests.reliability.seeded_bugs import main
from tests.support.guard_table import GUARDS

if __name__ == "__main__":
    sys.exit(main(GUARDS, description=__doc__, caught="red", survived="GREEN"))
