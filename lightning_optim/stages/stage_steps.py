"""How many steps the optimizers of a run have done, by the stage whose groups they hold."""

from __future__ import annotations

from collections.abc import Sequence

from .staged import StagedOptimizer


class StageSteps:
    """Counts steps by stage: several optimizers of a module need not step equally often.

    Args:
        optimizers: of the run, split by stage.
    """

    def __init__(self, optimizers: Sequence[StagedOptimizer]) -> None:
        self._optimizers = tuple(optimizers)
        self._by_hand = any(staged.by_hand for staged in optimizers)
        self._holding: dict[str, list[StagedOptimizer]] = {}
        for staged in optimizers:
            for stage in dict.fromkeys(str(group.stage) for group in staged.plan.groups):
                self._holding.setdefault(stage, []).append(staged)

    def count(self, stage: str) -> int:
        """The steps of the optimizer that holds the stage's groups; of several, the largest number."""
        holding = self._holding.get(stage, ())
        # The usual case, in each batch while a stage waits.
        return holding[0].num_steps if len(holding) == 1 else max([s.num_steps for s in holding], default=0)

    def can_thaw(self, stage: str) -> bool:
        """Whether the stage's first gradient would be whole: not while the module accumulates gradients by hand."""
        if not self._by_hand:
            return True
        # An optimizer whose stages all wait has no gradient yet: the others show what the module is doing.
        holding = [staged for staged in self._holding.get(stage, ()) if staged.has_groups] or self._optimizers
        return not any(staged.is_accumulating for staged in holding)

    def start_batch(self) -> None:
        """Forget which optimizers have stepped in the batch before."""
        if self._by_hand:
            for staged in self._optimizers:
                staged.has_stepped = False
