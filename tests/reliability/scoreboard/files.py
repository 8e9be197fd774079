"""F7: flipped bits, truncated and wrong files, wrong contents. F9: checkpoints of other releases."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from tests.reliability.golden import CASES, GOLDEN, compare_with_golden, newer_callbacks, newer_schemas
from tests.reliability.scoreboard.outcome import (
    EXACT_OR_REFUSED,
    REFUSED,
    Cell,
    Outcome,
    Tier,
    Verdict,
    compare,
)
from tests.support.damaged_files import flip_bits, write_wrong_files, wrong_contents
from tests.support.damaged_runs import as_data, inspect, resume, write_checkpoint

NUM_FLIPS = 300
READERS: dict[str, Callable[[Path], Any]] = {"resume": resume, "inspect": lambda path: as_data(inspect(path))}
NUM_WRONG_FILES, NUM_WRONG_CONTENTS = 15, 63


@cache
def checkpoint() -> bytes:
    """An undamaged checkpoint of a run in stages."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return write_checkpoint(Path(folder)).read_bytes()


@cache
def undamaged(reader: str) -> Any:
    """What a reader gets of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "whole.ckpt"
        path.write_bytes(checkpoint())
        return READERS[reader](path)


@cache
def flips() -> list[bytes]:
    """The checkpoint with one flipped bit each."""
    return [content for *_, content in flip_bits(checkpoint(), NUM_FLIPS)]


def read_damaged(reader: str, content: Callable[[], bytes], folder: Path) -> Outcome:
    """F7: refused, or the values are those of the undamaged file."""
    path = folder / "damaged.ckpt"
    expected = undamaged(reader)
    path.write_bytes(content())
    return compare(expected, READERS[reader](path))


def read_wrong_file(reader: str, number: int, folder: Path) -> Outcome:
    """F7: what is no checkpoint file is refused at once."""
    whole = folder / "whole.ckpt"
    whole.write_bytes(checkpoint())
    name, path = list(write_wrong_files(folder, whole).items())[number]
    READERS[reader](path)
    return Outcome(Verdict.SILENT_WRONG, f"it was read: {name}")


def read_wrong_contents(reader: str, number: int, folder: Path) -> Outcome:
    """F7: a value of the wrong type is refused by its key."""
    path = folder / "wrong.ckpt"
    path.write_bytes(checkpoint())
    name, content = list(wrong_contents(torch.load(path, weights_only=True)).items())[number]
    torch.save(content, path)
    READERS[reader](path)
    return Outcome(Verdict.SILENT_WRONG, f"it was read: {name}")


def cells(seed: int) -> Iterator[Cell]:
    """The cells of F7 and F9."""
    del seed
    for reader, number in product(READERS, range(NUM_FLIPS)):
        run = partial(read_damaged, reader, partial(_flip, number))
        slow, fast = number % 30 == 0, number == 10 and reader == "inspect"
        yield _cell("F7", f"flipped bit {number}", reader, run, slow=slow, fast=fast, allowed=EXACT_OR_REFUSED)
    for reader, tenth in product(READERS, range(10)):
        run = partial(read_damaged, reader, partial(_cut, tenth))
        yield _cell("F7", f"truncated to {tenth}/10", reader, run, slow=tenth == 7, allowed=REFUSED)
    for reader, number in product(READERS, range(NUM_WRONG_FILES)):
        run = partial(read_wrong_file, reader, number)
        yield _cell("F7", f"no checkpoint file {number}", reader, run, slow=number == 9, allowed=REFUSED)
    for reader, number in product(READERS, range(NUM_WRONG_CONTENTS)):
        run = partial(read_wrong_contents, reader, number)
        yield _cell("F7", f"wrong contents {number}", reader, run, slow=number % 20 == 0, allowed=REFUSED)
    for path in sorted(GOLDEN.glob("*/*.pt")):
        golden = partial(_golden, path)
        yield _cell("F9", f"golden file of {path.parent.name}", path.stem, golden, slow=True, fast=path.stem == "adamw")
    for name in CASES:
        for what, run in newer_schemas(name).items():
            slow = name in ("adamw_own", "muon_adamw")
            yield _cell("F9", f"a later release: {what}", name, run, slow=slow, allowed=REFUSED)
    for name, run in newer_callbacks().items():
        yield _cell("F9", "a later release: a key of the state", name, run, slow=True, allowed=REFUSED)


def _golden(path: Path, folder: Path) -> Outcome:
    return compare_with_golden(path, folder)


def _flip(number: int) -> bytes:
    return flips()[number]


def _cut(tenth: int) -> bytes:
    content = checkpoint()
    return content[: len(content) * tenth // 10 + (tenth == 9)]


def _cell(
    family: str,
    fault: str,
    mechanism: str,
    run: Callable[[Path], Outcome],
    *,
    slow: bool = False,
    fast: bool = False,
    allowed: frozenset[Verdict] = frozenset({Verdict.EXACT}),
) -> Cell:
    tier: Tier = "fast" if fast else "slow" if slow else "full"
    return Cell(family=family, fault=fault, mechanism=mechanism, run=run, tier=tier, allowed=allowed)
