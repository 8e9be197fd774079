"""`python -m lightning_optim.cli`: the same as `lightning-optim`."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
