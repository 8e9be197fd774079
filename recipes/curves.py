"""Curves of a healthy run and of five with one mistake each: `python -m recipes.curves`.

Six runs of the same network on the same clean digits from the same seed. Each run writes its curves to its own folder
and has one row per param group in the printed table. `lightning-optim report` names each mistake from the curves alone.
"""

from __future__ import annotations

import argparse
import logging
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch import seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig
from torch import Tensor

from lightning_optim.report.find_runs import find_runs
from lightning_optim.report.read_run import read_curves_by_tag

from .finetune import FINETUNE, PRETRAIN, build_data, build_module, silence_warnings
from .model import DigitsNet

# Run → its mistake, as overrides of the recipe's config.
RUNS: dict[str, list[str]] = {
    "healthy": [],
    "lr_too_high": ["optimizer.lr=3"],
    "second_moment_near_eps": ["model._target_=recipes.curves.SmallLossNet"],
    "no_gradient": ["model._target_=recipes.curves.DetachedNet"],
    "group_that_does_not_move": ["optimizer.groups.backbone.lr_scale=1e-4"],
    "nonfinite": ["model._target_=recipes.curves.RootOfZeroNet"],
}

GROUPS = ("backbone", "head")
FIRST_NAN_STEP = 20

# No schedule and no decay, so that only the gradients move the curves.
_SHARED_OVERRIDES = [
    "unfreeze=none",
    "scheduler=constant",
    "scheduler.factor=1",
    "optimizer/groups=[backbone_head]",
    "optimizer.groups.backbone.lr_scale=1",
    "optimizer.lr=1e-3",
    "optimizer.weight_decay=0",
    "monitor.update_norm=true",
    "+trainer.num_sanity_val_steps=0",
    "trainer.enable_progress_bar=false",
]

_SIGNALS = ("ratio/update_param", "norm/param", "rms/exp_avg_sq")
_NUM_STEPS_SHOWN = 10
_EVENT_FILES = "events.out.tfevents.*"


class SmallLossNet(DigitsNet):
    """Divides its loss by 1e8; the loss that it logs is the one before the division."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """A hundred-millionth of the cross-entropy."""
        return super().training_step(batch, batch_idx) * 1e-8


class DetachedNet(DigitsNet):
    """Detaches what its head gets, so that no gradient arrives at its backbone."""

    def forward(self, images: Tensor) -> Tensor:
        """As of the base class."""
        logits: Tensor = self.head(self.backbone(images).detach())
        return logits


class RootOfZeroNet(DigitsNet):
    """From step 20 on, adds a penalty that is 0 and has the gradient NaN: 0 times the infinite slope of a root."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The cross-entropy, and the penalty."""
        loss = super().training_step(batch, batch_idx)
        if self.global_step < FIRST_NAN_STEP:
            return loss
        bias = self.get_parameter("head.1.bias")
        return loss + (bias - bias).square().sum().sqrt()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train all six and print the table."""
    parser = argparse.ArgumentParser(prog="python -m recipes.curves", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/curves"), help="where each run gets a folder")
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps of each run")
    parser.add_argument("overrides", nargs="*", help="overrides of the recipe's config, for all runs")
    options = parser.parse_args(arguments)
    silence_warnings()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)

    curves = {}
    for name, run_overrides in RUNS.items():
        print(f"{name}: {' '.join(run_overrides) or 'nothing is wrong'}")
        curves[name] = train(name, options.folder, options.steps, options.overrides)
    print(_format_table(curves))
    print(f"See what is wrong: lightning-optim report {options.folder} --out report.html")
    print(f"See the runs: tensorboard --logdir {options.folder}")


def train(name: str, folder: Path, steps: int, overrides: Sequence[str] = ()) -> dict[str, list[float]]:
    """Train a run with its curves in `folder / name`, and return them by tag."""
    config = _compose([*RUNS[name], *overrides])
    run = folder / name
    _delete_event_files(run)
    seed_everything(config.seed, verbose=False)
    trainer = instantiate(
        config.trainer,
        max_steps=steps,
        max_epochs=-1,
        callbacks=[instantiate(config.monitor)],
        logger=TensorBoardLogger(str(folder), name=name, version=""),
        enable_checkpointing=False,
    )
    trainer.fit(build_module(config, FINETUNE), build_data(config, PRETRAIN))
    return read_curves(run)


def read_curves(run: Path) -> dict[str, list[float]]:
    """The curves in a run's folder, by tag; those of groups as `optim/<signal>/<group>`, however they are laid out."""
    (files,) = find_runs([run])
    return {tag: curve.values.tolist() for tag, curve in read_curves_by_tag(files).items()}


def _compose(overrides: Sequence[str]) -> DictConfig:
    with initialize_config_dir(str(Path(__file__).parent / "conf"), version_base="1.3"):
        return compose("finetune", [*_SHARED_OVERRIDES, *overrides])


def _delete_event_files(run: Path) -> None:
    # TensorBoard joins all event files of a folder into one curve; groups may have folders below the run's.
    for events in run.rglob("events.out.tfevents.*"):
        events.unlink()


def _format_table(curves: Mapping[str, Mapping[str, list[float]]]) -> str:
    columns = ["run", "group", *_SIGNALS, "train/loss", "val/accuracy"]
    lines = [f"| {' | '.join(columns)} |", f"| --- | --- |{' ---: |' * (len(columns) - 2)}"]
    for name, by_tag in curves.items():
        loss, accuracy = _format_first_and_last(by_tag["train/loss"]), by_tag.get("val/accuracy", [float("nan")])[-1]
        for group in GROUPS:
            # Where no gradient has ever arrived, there is no second moment.
            cells = [_format_first_and_last(by_tag.get(f"optim/{signal}/{group}", [])) for signal in _SIGNALS]
            lines.append(f"| {name} | {group} | {' | '.join(cells)} | {loss} | {accuracy:.2f} |")
    return "\n".join([*lines, f"Medians of the first {_NUM_STEPS_SHOWN} steps → of the last {_NUM_STEPS_SHOWN}."])


def _format_first_and_last(values: Sequence[float]) -> str:
    if not values:
        return ""
    return " → ".join(
        f"{statistics.median(part):.2g}" for part in (values[:_NUM_STEPS_SHOWN], values[-_NUM_STEPS_SHOWN:])
    )


if __name__ == "__main__":
    main()
