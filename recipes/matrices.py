"""Optimizers of matrices next to AdamW, on the digits of scikit-learn at equal steps: `python -m recipes.matrices`.

A small convolutional network with BatchNorm. AdamW steps all of it, or the biases, the norms and the output layer
beside an optimizer for the kernels. Each gets the lr that has the smallest mean loss over three seeds that are not
counted; then ten others are. The lr falls linearly to 0.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from lightning_optim import OptimizerFactory

from .digits import Digits
from .model import DigitsNet

NAMES = ("adamw", "muon", "normuon", "adamuon", "soap", "shampoo")
LRS = {
    "adamw": (3e-3, 1e-2, 3e-2, 0.1),
    "muon": (2e-2, 5e-2, 0.1, 0.2),
    "normuon": (1e-2, 3e-2, 0.1, 0.3),
    "adamuon": (1e-2, 3e-2, 0.1, 0.3),
    "soap": (3e-3, 1e-2, 3e-2, 0.1),
    "shampoo": (3e-2, 0.1, 0.3, 1.0),
}
"""By optimizer: the lrs that are tried, for AdamW those of the whole network."""
_TUNED_ON = (100, 101, 102)
_WIDTH, _DROPOUT = 8, 0.0


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a run ends with."""

    loss: float
    """Cross-entropy of the test images."""
    accuracy: float
    """Of the test images."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Tune, train and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", default=list(NAMES), help=f"of {', '.join(NAMES)}; adamw is always trained")
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps of each run (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=10, help="runs of each optimizer (default: %(default)s)")
    options = parser.parse_args(arguments)
    names = list(dict.fromkeys(["adamw", *options.names]))
    if unknown := [name for name in names if name not in NAMES]:
        parser.error(f"there is no {unknown[0]!r}: {', '.join(NAMES)}")
    print_scores(compare(names, options.steps, options.seeds), options.steps)


def compare(names: Sequence[str], num_steps: int, num_seeds: int) -> dict[str, tuple[float, list[Score]]]:
    """By optimizer: its lr, and the scores of the seeds."""
    found: dict[str, tuple[float, list[Score]]] = {}
    for name in names:
        adamw_lr = found["adamw"][0] if "adamw" in found else 0.0

        def score(seed: int, lr: float, name: str = name, adamw_lr: float = adamw_lr) -> Score:
            return train(seed, build_factory(name, lr, adamw_lr), num_steps)

        lr = min(LRS[name], key=lambda lr: statistics.fmean(score(seed, lr).loss for seed in _TUNED_ON))
        found[name] = lr, [score(seed, lr) for seed in range(num_seeds)]
    return found


def build_factory(name: str, lr: float, adamw_lr: float) -> OptimizerFactory:
    """AdamW for everything, or for what is no kernel of the backbone."""
    no_decay = {"no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0}}
    if name == "adamw":
        return OptimizerFactory("adamw", lr=lr, weight_decay=0.01, groups=no_decay)
    hidden = {"params": "backbone", "kinds": ["matrix"], "optimizer": name, "lr": lr, "weight_decay": 0.01}
    return OptimizerFactory("adamw", lr=adamw_lr, weight_decay=0.01, groups={**no_decay, "hidden": hidden})


def train(seed: int, factory: OptimizerFactory, num_steps: int) -> Score:
    """Train a new network on clean digits and score it on the test images."""
    torch.manual_seed(seed)
    net = DigitsNet(_WIDTH, _DROPOUT, factory)
    data = Digits(seed=seed, noise=0.0, labels_per_class=None, batch_size=64, test_size=500, val_size=1)
    data.setup("fit")
    optimizer = factory(net)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / num_steps)
    batches = _endless(data)
    for _ in range(num_steps):
        images, labels = next(batches)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return _score(net.eval(), data)


def _endless(data: Digits) -> Iterator[tuple[Tensor, Tensor]]:
    loader = data.train_dataloader()
    while True:
        yield from loader


@torch.no_grad()
def _score(net: DigitsNet, data: Digits) -> Score:
    outputs: list[Tensor] = []
    labels: list[Tensor] = []
    for images, of_batch in data.test_dataloader():
        outputs.append(net(images))
        labels.append(of_batch)
    logits, expected = torch.cat(outputs), torch.cat(labels)
    loss = nn.functional.cross_entropy(logits, expected)
    return Score(loss=float(loss), accuracy=float((logits.argmax(1) == expected).float().mean()))


def print_scores(found: dict[str, tuple[float, list[Score]]], num_steps: int) -> None:
    """Print a line for each optimizer."""
    table = Table(title=f"The test images of the digits after {num_steps} steps", title_justify="left")
    headers = ("optimizer", "lr", "loss, mean", "± standard error", "accuracy, mean", "seeds with a smaller loss")
    for header in headers:
        table.add_column(header, justify="left" if header == "optimizer" else "right")
    of_adamw = [score.loss for score in found["adamw"][1]]
    for name, (lr, scores) in found.items():
        losses = [score.loss for score in scores]
        error = statistics.stdev(losses) / len(losses) ** 0.5 if len(losses) > 1 else 0.0
        wins = sum(loss < other for loss, other in zip(losses, of_adamw, strict=True))
        accuracy = statistics.fmean(score.accuracy for score in scores)
        of_seeds = f"{wins} of {len(losses)}" if name != "adamw" else ""
        table.add_row(name, f"{lr:g}", f"{statistics.fmean(losses):.4f}", f"{error:.4f}", f"{accuracy:.4f}", of_seeds)
    Console(width=120, highlight=False).print(table)


if __name__ == "__main__":
    main()
