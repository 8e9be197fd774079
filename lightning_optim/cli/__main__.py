"""`python -m lightning_optim.cli` is `lightning-optim`."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
