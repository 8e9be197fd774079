"""Does staging help? Ways to fine-tune × optimizers, each at its own best lr: `python -m recipes.study digits`.

Every run is the recipe, `python -m recipes.finetune`, with overrides. For each way and optimizer the lr is chosen on
the validation split; then runs with other seeds are tested. Each finished run is a line of `runs/study/<task>.jsonl`,
so the command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from .arguments import check_folder, check_names
from .studies.choose_lr import best_lr, choose_lrs
from .studies.design import ARMS, OPTIMIZERS, TASKS, build_overrides, find_arms
from .studies.records import Run
from .studies.report import Cell, Final, draw, format_table
from .studies.results import Results

FIRST_SELECTION_SEED = 100


def main(arguments: Sequence[str] | None = None) -> None:
    """Choose the lrs, carry out the final runs, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m recipes.study", description=__doc__)
    parser.add_argument("task", choices=tuple(TASKS))
    parser.add_argument(
        "--seeds", type=int, help="number of final runs of each cell; by default 20 on digits, 5 on text"
    )
    parser.add_argument("--selection-seeds", type=int, default=3, help="number of runs at each lr, by default 3")
    parser.add_argument("--arms", nargs="*", default=[], metavar="ARM", help="some arms only")
    parser.add_argument("--optimizers", nargs="*", default=[], metavar="NAME", help="some optimizers only")
    parser.add_argument("--folder", type=Path, default=Path("runs/study"), help="where the results are")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the result: png, svg or pdf")
    options = parser.parse_args(arguments)
    check_folder(parser, "--plot", options.plot)
    task = TASKS[options.task]
    arm_by_name = {arm.name: arm for arm in find_arms(options.task)}
    arms = check_names(parser, "arm", options.arms, arm_by_name)
    optimizers = check_names(parser, "optimizer", options.optimizers, OPTIMIZERS)
    for arm in ARMS:
        if options.task in arm.tasks and arm.name not in arm_by_name:
            print(f"without {arm.name}, which needs {arm.needs}: pip install {arm.needs}")

    results = Results(options.folder / f"{options.task}.jsonl", options.workers)
    cells = [Cell(arm, optimizer) for optimizer in optimizers for arm in arms]

    def runs_of(cell: Cell, lr: float, first_seed: int, count: int, split: str) -> list[Run]:
        seeds = range(first_seed, first_seed + count)
        arm = arm_by_name[cell.arm]
        return [Run(tuple(build_overrides(options.task, arm, cell.optimizer, lr, seed)), split) for seed in seeds]

    def evaluate(wanted: Sequence[tuple[Cell, float]]) -> list[float]:
        count = options.selection_seeds
        runs = [runs_of(cell, lr, FIRST_SELECTION_SEED, count, "val") for cell, lr in wanted]
        measured = iter(results.get(_by_seed(runs)))
        table = dict(zip(_by_seed(runs), measured, strict=True))
        return [statistics.fmean(table[run].accuracy for run in of_cell) for of_cell in runs]

    first_lrs = {cell: task.first_lr[cell.optimizer] * task.lr_factors[cell.arm] for cell in cells}
    searched = choose_lrs(first_lrs, evaluate)
    lrs = {cell: best_lr(by_lr) for cell, by_lr in searched.items()}
    print(_format_search(searched))
    final_runs = [runs_of(cell, lrs[cell], 0, options.seeds or task.seeds, "test") for cell in cells]
    results.get(_by_seed(final_runs))
    finals = {cell: Final(lrs[cell], results.get(runs)) for cell, runs in zip(cells, final_runs, strict=True)}
    print(format_table(finals))
    if options.plot:
        draw(finals, f"test accuracy on {options.task}: seeds, mean and 95 % interval", options.plot)


def _by_seed(runs: Sequence[Sequence[Run]]) -> list[Run]:
    """All runs of the first seed, then of the second: they share a pretrained network where there is one to train."""
    return [run for of_seed in zip(*runs, strict=True) for run in of_seed]


def _format_search(searched: dict[Cell, dict[float, float]]) -> str:
    lines = ["Mean accuracy on the validation split, by lr:"]
    for cell, by_lr in searched.items():
        values = ", ".join(f"{lr:g}: {accuracy:.3f}" for lr, accuracy in by_lr.items())
        lines.append(f"  {cell.optimizer}, {cell.arm}: {values}; chosen {best_lr(by_lr):g}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
