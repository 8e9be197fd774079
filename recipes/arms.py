"""Is it worth it? Four ways to use a backbone, over many seeds: `python -m recipes.arms`.

From scratch, with the pretrained backbone frozen throughout, all at once, and staged: the same data, network, optimizer
and number of steps. Prints mean test accuracy and its 95 % interval (Student's t) over the seeds.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import warnings
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track

from .classifier import Classifier
from .finetune import finetune, pretrain, silence_warnings

# Arm → (whether it starts from the pretrained backbone, overrides of the recipe's config).
ARMS: dict[str, tuple[bool, list[str]]] = {
    "from scratch": (False, ["unfreeze=none"]),
    "head only": (True, ["unfreeze.stages.backbone.at.epoch=1000000"]),
    "all at once": (True, ["unfreeze=none"]),
    "staged": (True, []),
}

# Two-sided 95 % quantiles of Student's t, by degrees of freedom.
_T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 14: 2.145, 19: 2.093}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every arm with every seed and print the table."""
    parser = argparse.ArgumentParser(prog="python -m recipes.arms", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, choices=sorted(n + 1 for n in _T95), help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--split", choices=("test", "val"), default="test")
    parser.add_argument("overrides", nargs="*", help="overrides of the recipe's config, for all arms")
    options = parser.parse_args(arguments)
    silence_warnings()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")

    accuracies: dict[str, list[float]] = {arm: [] for arm in ARMS}
    console = Console(stderr=True)
    for seed in track(range(options.first_seed, options.first_seed + options.seeds), "seeds", console=console):
        pretrained = pretrain(_compose(options.overrides, seed), None)
        for arm in ARMS:
            accuracies[arm].append(_measure_accuracy(arm, options.overrides, seed, pretrained, options.split))
    print(_format_table(accuracies, options.split))


def _measure_accuracy(arm: str, overrides: Sequence[str], seed: int, pretrained: Classifier, split: str) -> float:
    starts_pretrained, arm_overrides = ARMS[arm]
    trainer, module, data = finetune(
        _compose([*overrides, *arm_overrides], seed), None, pretrained if starts_pretrained else None
    )
    evaluate = trainer.test if split == "test" else trainer.validate
    (result,) = evaluate(module, data, verbose=False)
    return float(result[f"{split}/accuracy"])


def _compose(overrides: Sequence[str], seed: int) -> DictConfig:
    with initialize_config_dir(str(Path(__file__).parent / "conf"), version_base="1.3"):
        return compose(
            "finetune",
            [
                *overrides,
                "~monitor",
                f"seed={seed}",
                "+trainer.check_val_every_n_epoch=1000000",
                "+trainer.num_sanity_val_steps=0",
            ],
        )


def _format_table(accuracies: dict[str, list[float]], split: str) -> str:
    lines = [f"| arm | {split} accuracy | 95 % interval | seeds |", "| --- | ---: | ---: | ---: |"]
    for arm, values in accuracies.items():
        mean = statistics.mean(values)
        half_width = _T95[len(values) - 1] * statistics.stdev(values) / len(values) ** 0.5
        lines.append(f"| {arm} | {mean:.3f} | {mean - half_width:.3f} to {mean + half_width:.3f} | {len(values)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
