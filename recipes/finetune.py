"""Staged fine-tuning of a pretrained backbone, end to end: `python -m recipes.finetune`.

Pretrains a small convolutional network on clean digits, then fine-tunes it on heavily noisy ones from few labels:
first the head, then the backbone too. `task=text` fine-tunes a published transformer on texts, `task=images` a model of
timm or torchvision on a folder of images. It can be stopped at any time and resumed with `ckpt_path=<checkpoint>`.
"""

from __future__ import annotations

import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from lightning_optim import RNGState

from .checkpoints import AtomicCheckpointIO, RecordRun, read_phase_and_step
from .classifier import Classifier
from .split_data import SplitData
from .stopping import StopBetweenBatches

PRETRAIN, FINETUNE = "pretrain", "finetune"


@hydra.main(version_base="1.3", config_path=str(Path(__file__).parent / "conf"), config_name="finetune")
def main(config: DictConfig) -> None:
    """Run the phases and the test, in one run directory."""
    silence_warnings()
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    explain(config)
    phase, step = PRETRAIN if config.pretrain else FINETUNE, 0
    if config.ckpt_path:
        phase, step = read_phase_and_step(config.ckpt_path, data_settings(config))
    try:
        if phase == PRETRAIN:
            pretrained = pretrain(config, run_dir, config.ckpt_path, step)
            trainer, module, data = finetune(config, run_dir, pretrained)
        else:
            trainer, module, data = finetune(config, run_dir, None, config.ckpt_path, step)
    except (KeyboardInterrupt, SystemExit) as stop:
        _print_resume_command(run_dir)
        if isinstance(stop, SIGTERMException):
            sys.exit(128 + signal.SIGTERM)  # Lightning would exit with status 0, as if the run were complete
        raise
    (result,) = trainer.test(module, data, verbose=False)
    _print(f"\nTest accuracy on {data.description}: {result['test/accuracy']:.3f}")
    _print(f"See the run: tensorboard --logdir {_relative_to_cwd(run_dir / 'tensorboard')}")


def explain(config: DictConfig) -> None:
    """Print the group table and the unfreeze plan without training anything."""
    module = build_module(config, FINETUNE)
    factory = module.hparams["optimizer"]
    _print(factory.explain(module))
    if config.unfreeze:
        _print(instantiate(config.unfreeze).explain(module, factory))


def pretrain(config: DictConfig, run_dir: Path | None, ckpt_path: str | None = None, step: int = 0) -> Classifier:
    """Train on the data of the first phase and return the module."""
    seed_everything(config.seed, verbose=False)
    module, data = build_module(config, PRETRAIN), build_data(config, PRETRAIN)
    trainer = build_trainer(config, PRETRAIN, run_dir, [], step, max_epochs=config.pretrain.max_epochs)
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True)
    return module


def finetune(
    config: DictConfig,
    run_dir: Path | None,
    pretrained: Classifier | None,
    ckpt_path: str | None = None,
    step: int = 0,
) -> tuple[Trainer, Classifier, SplitData]:
    """Train on few labels, stage by stage; the backbone is the model's own, another network's, or a checkpoint's."""
    # Seeded again, so that a run resumed in this phase draws the same numbers as one that pretrained first.
    seed_everything(config.seed + 1, verbose=False)
    module, data = build_module(config, FINETUNE), build_data(config, FINETUNE)
    if pretrained is not None:
        module.copy_backbone_from(pretrained)
    nodes = [config.unfreeze, config.get("monitor"), *config.callbacks.values()]
    trainer = build_trainer(config, FINETUNE, run_dir, [instantiate(node) for node in nodes if node], step)
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True)
    return trainer, module, data


def build_module(config: DictConfig, phase: str) -> Classifier:
    """The network with the optimizer and scheduler of a phase."""
    source = config.pretrain if phase == PRETRAIN else config
    optimizer, scheduler = instantiate(source.optimizer), instantiate(source.scheduler)
    module: Classifier = instantiate(config.model, optimizer=optimizer, scheduler=scheduler)
    return module


def build_data(config: DictConfig, phase: str) -> SplitData:
    """The data of a phase."""
    data: SplitData = instantiate(config.data, **(config.pretrain.data if phase == PRETRAIN else {}))
    return data


def build_trainer(
    config: DictConfig, phase: str, run_dir: Path | None, callbacks: list[Callback], step: int, **arguments: Any
) -> Trainer:
    """A trainer that logs and saves below the run directory; without one it does neither."""
    if run_dir is None:
        silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer: Trainer = instantiate(config.trainer, callbacks=callbacks, **silent, **arguments)
        return trainer
    # Drops from the curves the steps that the stopped run logged after its last checkpoint.
    logger = TensorBoardLogger(str(run_dir), name="tensorboard", version=phase, purge_step=step or None)
    checkpoint = instantiate(config.checkpoint, dirpath=str(run_dir / "checkpoints" / phase))
    return instantiate(  # type: ignore[no-any-return]
        config.trainer,
        callbacks=[*callbacks, RNGState(), RecordRun(phase, data_settings(config)), StopBetweenBatches(), checkpoint],
        logger=logger,
        plugins=[AtomicCheckpointIO()],
        **arguments,
    )


def data_settings(config: DictConfig) -> dict[str, Any]:
    """The settings that determine the data, and so must be the same when a run is resumed."""
    task = OmegaConf.to_container(config.task, resolve=True)
    assert isinstance(task, dict)
    return {"seed": config.seed, **{f"task.{key!s}": value for key, value in task.items()}}


@rank_zero_only
def _print(renderable: Any) -> None:
    soft_wrap = isinstance(renderable, str)
    Console(width=None if sys.stdout.isatty() else 120, highlight=False, soft_wrap=soft_wrap).print(renderable)


def _print_resume_command(run_dir: Path) -> None:
    checkpoints = sorted(run_dir.glob("checkpoints/*/*.ckpt"), key=lambda path: path.stat().st_mtime)
    if checkpoints:
        _print(f"\nStopped. Carry on with: python -m recipes.finetune ckpt_path={_relative_to_cwd(checkpoints[-1])}")


def _relative_to_cwd(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def silence_warnings() -> None:
    """Silence Lightning's warnings that do not apply to data this small."""
    for message in (".*does not have many workers.*", ".*isinstance.treespec, LeafSpec.*", ".*Checkpoint directory.*"):
        warnings.filterwarnings("ignore", message=message)


if __name__ == "__main__":
    main()
