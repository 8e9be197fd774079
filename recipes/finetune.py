"""Staged fine-tuning of a pretrained backbone, end to end: `python -m recipes.finetune`.

Pretrains a small convolutional network on clean digits, then fine-tunes it on heavily noisy ones from few labels:
first the head, then the backbone too. Stop it when you like, and carry on with `ckpt_path=<checkpoint>`.
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

from .checkpoints import AtomicCheckpointIO, Whereabouts, peek
from .digits import Digits
from .model import DigitsNet
from .stopping import StopBetweenBatches

PRETRAIN, FINETUNE = "pretrain", "finetune"


@hydra.main(version_base="1.3", config_path=str(Path(__file__).parent / "conf"), config_name="finetune")
def main(config: DictConfig) -> None:
    """The whole recipe, in one run directory."""
    quiet()
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    explain(config)
    phase, step = peek(config.ckpt_path, settings(config)) if config.ckpt_path else (PRETRAIN, 0)
    try:
        backbone = None
        if phase == PRETRAIN:
            backbone = pretrain(config, run_dir, config.ckpt_path, step)
        resumes = phase == FINETUNE
        trainer, module, data = finetune(
            config, run_dir, backbone, config.ckpt_path if resumes else None, step if resumes else 0
        )
    except (KeyboardInterrupt, SystemExit) as stop:
        _say_how_to_carry_on(run_dir)
        if isinstance(stop, SIGTERMException):
            sys.exit(128 + signal.SIGTERM)  # Lightning's own exit status would be 0: done
        raise
    (result,) = trainer.test(module, data, verbose=False)
    _say(f"\nTest accuracy on noisy digits: {result['test/accuracy']:.3f}")
    _say(f"See the run: tensorboard --logdir {_shown(run_dir / 'tensorboard')}")


def explain(config: DictConfig) -> None:
    """Print the group table and the unfreeze plan, before anything is trained."""
    module = new_module(config, FINETUNE)
    factory = module.hparams["optimizer"]
    _say(factory.explain(module))
    if config.unfreeze:
        _say(instantiate(config.unfreeze).explain(module, factory))


def pretrain(config: DictConfig, run_dir: Path | None, ckpt_path: str | None = None, step: int = 0) -> DigitsNet:
    """Train on all clean images; returns the module."""
    seed_everything(config.seed, verbose=False)
    module, data = new_module(config, PRETRAIN), new_data(config, PRETRAIN)
    trainer = new_trainer(config, PRETRAIN, run_dir, [], step, max_epochs=config.pretrain.max_epochs)
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True)
    return module


def finetune(
    config: DictConfig,
    run_dir: Path | None,
    pretrained: DigitsNet | None,
    ckpt_path: str | None = None,
    step: int = 0,
) -> tuple[Trainer, DigitsNet, Digits]:
    """Train on few noisy images, stage by stage, from a pretrained backbone or from a checkpoint."""
    # Seeded anew, so that a run resumed in this phase and one that pretrained first draw the same numbers.
    seed_everything(config.seed + 1, verbose=False)
    module, data = new_module(config, FINETUNE), new_data(config, FINETUNE)
    if pretrained is not None:
        module.take_backbone(pretrained)
    nodes = [config.unfreeze, config.get("monitor"), *config.callbacks.values()]
    trainer = new_trainer(config, FINETUNE, run_dir, [instantiate(node) for node in nodes if node], step)
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True)
    return trainer, module, data


def new_module(config: DictConfig, phase: str) -> DigitsNet:
    """The network with the optimizer of a phase."""
    source = config.pretrain if phase == PRETRAIN else config
    optimizer, scheduler = instantiate(source.optimizer), instantiate(source.scheduler)
    module: DigitsNet = instantiate(config.model, optimizer=optimizer, scheduler=scheduler)
    return module


def new_data(config: DictConfig, phase: str) -> Digits:
    """The images of a phase."""
    task = config.task
    few = {"noise": task.noise, "labels_per_class": task.labels_per_class, "batch_size": task.batch_size}
    all_clean = {"noise": 0.0, "labels_per_class": None, "batch_size": task.pretrain_batch_size}
    return Digits(
        seed=config.seed,
        test_size=task.test_size,
        val_size=task.val_size,
        **(all_clean if phase == PRETRAIN else few),
    )


def new_trainer(
    config: DictConfig, phase: str, run_dir: Path | None, callbacks: list[Callback], step: int, **arguments: Any
) -> Trainer:
    """A trainer that logs and saves below the run directory; one without it does neither."""
    if run_dir is None:
        silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer: Trainer = instantiate(config.trainer, callbacks=callbacks, **silent, **arguments)
        return trainer
    # Steps that the stopped run logged after its checkpoint are dropped from the curves.
    logger = TensorBoardLogger(str(run_dir), name="tensorboard", version=phase, purge_step=step or None)
    checkpoint = instantiate(config.checkpoint, dirpath=str(run_dir / "checkpoints" / phase))
    return instantiate(  # type: ignore[no-any-return]
        config.trainer,
        callbacks=[*callbacks, RNGState(), Whereabouts(phase, settings(config)), StopBetweenBatches(), checkpoint],
        logger=logger,
        plugins=[AtomicCheckpointIO()],
        **arguments,
    )


def settings(config: DictConfig) -> dict[str, Any]:
    """What decides the data, and so must be the same when a run is resumed."""
    task = OmegaConf.to_container(config.task, resolve=True)
    assert isinstance(task, dict)
    return {"seed": config.seed, **{f"task.{key!s}": value for key, value in task.items()}}


@rank_zero_only
def _say(what: Any) -> None:
    Console(width=None if sys.stdout.isatty() else 120, highlight=False, soft_wrap=isinstance(what, str)).print(what)


def _say_how_to_carry_on(run_dir: Path) -> None:
    saved = sorted(run_dir.glob("checkpoints/*/*.ckpt"), key=lambda path: path.stat().st_mtime)
    if saved:
        _say(f"\nStopped. Carry on with: python -m recipes.finetune ckpt_path={_shown(saved[-1])}")


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def quiet() -> None:
    """Silence what does not apply here: nothing has workers to add or batches to spare."""
    for said in (".*does not have many workers.*", ".*isinstance.treespec, LeafSpec.*", ".*Checkpoint directory.*"):
        warnings.filterwarnings("ignore", message=said)


if __name__ == "__main__":
    main()
