"""The families of faults, with the rule that each must pass, and all cells."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain

from tests.reliability.scoreboard import files, groups, kills, numbers, ranks, stops, writes
from tests.reliability.scoreboard.outcome import TIERS, Cell, Tier


@dataclass(frozen=True)
class Family:
    """A kind of fault."""

    fault: str
    rule: str


_TABLE = """
F1   SIGKILL before any step
     the rest of the run is bitwise the uninterrupted one's
F1b  a chain of 5 SIGKILLs
     the same
F2   SIGKILL inside optimizer.step
     the same
F3   death or an error of the disk while a checkpoint is written
     the newest file resumes bitwise, or is refused and the one before it does
F4   SIGTERM, Ctrl-C
     no finished step is lost, the rest is bitwise the same
F5   an exception in a hook, or in a callback of ours
     the same, and the exception is not masked
F6   SIGKILL before, at and after each thaw
     the same; groups, lrs and what is frozen too
F7   damaged files, wrong files, wrong contents
     refused, or the values are unchanged
F8   other groups, models and algorithms than the checkpoint's
     each parameter has its own state; or refused, and nothing changed
F9   checkpoints of other releases
     of earlier ones: exact; of later ones: refused
F10  a config that was edited between two runs
     the documented side wins, never a mix
F11  NaN and infinities
     as if those batches did not exist, and counted
F12  GradScaler: overflow, unscaled twice
     as if those batches did not exist; refused
F13  gradients: none, zero-size, sparse, complex, other layouts, tied
     bitwise the plain case, or refused
F14  rules and stages that match nothing, only frozen parameters, everything
     refused or warned of as documented
F15  SIGKILL between the batches of one step
     the step is taken again, bitwise
F16  other numbers of ranks; one rank killed
     equal by name; all ranks end with an error in 60 s
F17  WeightAveraging, EvalWeights: a kill or an exception in a validation
     the training weights are restored; or refused
F18  checkpoints written slowly by another thread
     each holds its moment, the last complete one wins
"""
_LINES = _TABLE.strip().splitlines()
FAMILIES: dict[str, Family] = {
    line.split()[0]: Family(line.split(maxsplit=1)[1], rule.strip())
    for line, rule in zip(_LINES[::2], _LINES[1::2], strict=True)
}
"""By id; on several ranks, the families have the ids of the fault."""
SOURCES = (kills, writes, stops, files, groups, numbers, ranks)


def all_cells(seed: int, tier: Tier = "full", only: Collection[str] = ()) -> Iterator[Cell]:
    """The cells up to a tier, in the order of the families.

    Args:
        seed: of what is drawn.
        tier: the last one that is included.
        only: ids of families; empty: all.
    """
    tiers = TIERS[: TIERS.index(tier) + 1]
    found = chain.from_iterable(source.cells(seed) for source in SOURCES)
    chosen = [cell for cell in found if cell.tier in tiers and (not only or cell.family in only)]
    return iter(sorted(chosen, key=lambda cell: list(FAMILIES).index(cell.family)))
