"""`python -m tests.reliability.write_golden`: writes the golden files of this release, once, before it is published."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from lightning_optim.core.version import read_version
from tests.reliability.golden import CASES, GOLDEN, RNG, STAGED, make_golden, make_rng, make_staged

MAX_BYTES, MAX_TOTAL_BYTES = 20_000, 300_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", default=read_version(), help="of the release")
    parser.add_argument("--overwrite", action="store_true", help="replace files: only before the release is published")
    given = parser.parse_args()
    folder = GOLDEN / given.version
    if folder.exists() and not given.overwrite:
        print(f"{folder} exists: a published release must be loaded as it was. Type --overwrite if it is none yet")
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    for name in CASES:
        torch.save(make_golden(name), folder / f"{name}.pt")
    torch.save(make_rng(), folder / f"{RNG}.pt")
    with tempfile.TemporaryDirectory() as runs:
        torch.save(make_staged(Path(runs)), folder / f"{STAGED}.pt")
    sizes = {path.name: path.stat().st_size for path in sorted(folder.glob("*.pt"))}
    print(f"{len(sizes)} files, {sum(sizes.values())} bytes, the largest {max(sizes.values())}")
    return 0 if max(sizes.values()) <= MAX_BYTES and sum(sizes.values()) <= MAX_TOTAL_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
