"""What the study compares: ways to fine-tune, optimizers and tasks, all as overrides of the recipe's config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

_TENTH = "lr_scale: 0.1"
_NO_DECAY = "+optimizer.groups.no_decay={kinds: [bias, norm], weight_decay: 0}"


@dataclass(frozen=True)
class Task:
    """A task of the recipe, small enough for hundreds of runs."""

    overrides: Sequence[str]
    stages: Sequence[str]
    """The unfreeze plan of the staged arms; all but the head has a tenth of the lr."""
    layers: str
    """The layers of layer decay."""
    seeds: int
    """Of the final runs."""
    is_pretrained: bool
    first_lr: Mapping[str, float]
    """Optimizer → where the search for the lr begins, when all of the network trains at one lr."""
    lr_factors: Mapping[str, float]
    """Arm → a multiple of that."""


@dataclass(frozen=True)
class Arm:
    """A way to fine-tune."""

    name: str
    is_staged: bool = False
    rules: Sequence[str] = ()
    """Rules for param groups, as overrides; `LAYERS` stands for those of the task."""
    overrides: Sequence[str] = ()
    tasks: Sequence[str] = ("digits", "text")
    needs: str | None = None
    """A package without which it is left out."""


FULL = "full"

ARMS: tuple[Arm, ...] = (
    Arm("head only", overrides=["unfreeze=head_then_backbone", "unfreeze.stages.backbone.at.epoch=1000000"]),
    Arm(FULL),
    Arm("full, backbone at lr/10", rules=[f"+optimizer.groups.backbone={{params: backbone, {_TENTH}}}"]),
    Arm("staged", is_staged=True),
    Arm(
        "staged, layer decay",
        is_staged=True,
        rules=["+optimizer.groups.depth={layers: LAYERS, layer_decay: 0.75}"],
    ),
    Arm(
        "LoRA",
        rules=["+optimizer.groups.base={kinds: [frozen], frozen: true}"],
        overrides=["task.lora_rank=8"],
        tasks=["text"],
        needs="peft",
    ),
)

# Optimizer → overrides.
OPTIMIZERS: dict[str, Sequence[str]] = {
    "adamw": ["optimizer=adamw"],
    "schedule_free_adamw": [
        "optimizer=schedule_free_adamw",
        "scheduler=constant",
        "scheduler.factor=1",
        "+callbacks.eval_weights._target_=lightning_optim.EvalWeights",
    ],
    "lion": ["optimizer=lion"],
    "sgd": ["optimizer=sgd", "optimizer.momentum=0.9"],
}

TASKS: dict[str, Task] = {
    "digits": Task(
        overrides=["task=digits"],
        stages=["unfreeze=head_then_backbone"],
        layers='"backbone.{i}"',
        seeds=20,
        is_pretrained=False,
        first_lr={"adamw": 3e-3, "schedule_free_adamw": 1e-2, "lion": 3e-4, "sgd": 3e-2},
        lr_factors={"head only": 1, "full": 1, "full, backbone at lr/10": 3, "staged": 3, "staged, layer decay": 3},
    ),
    "text": Task(
        overrides=[
            "task=text",
            "task.max_tokens=24",
            "task.texts_per_label=30",
            "task.batch_size=8",
            "trainer.max_epochs=2",
        ],
        stages=["unfreeze=tenths"],
        layers="auto",
        seeds=5,
        is_pretrained=True,
        first_lr={"adamw": 3e-4, "schedule_free_adamw": 1e-3, "lion": 1e-4, "sgd": 3e-2},
        lr_factors={
            "head only": 100,
            "full": 1,
            "full, backbone at lr/10": 10,
            "staged": 10,
            "staged, layer decay": 10,
            "LoRA": 10,
        },
    ),
}

# For speed: nothing is logged, and only the split that counts is evaluated, once.
_QUIET = (
    "~monitor",
    "+trainer.check_val_every_n_epoch=1000000",
    "+trainer.num_sanity_val_steps=0",
    "trainer.accelerator=cpu",
)


def find_arms(task: str) -> list[Arm]:
    """The arms of a task for which everything is installed."""
    return [arm for arm in ARMS if task in arm.tasks and (arm.needs is None or find_spec(arm.needs) is not None)]


def build_overrides(task_name: str, arm: Arm, optimizer: str, lr: float, seed: int) -> list[str]:
    """Overrides of the recipe's config for one run."""
    task = TASKS[task_name]
    stages = list(task.stages) if arm.is_staged else ["unfreeze=none"]
    rules = [rule.replace("LAYERS", task.layers) for rule in (*arm.rules, _NO_DECAY)]
    config = [*task.overrides, *OPTIMIZERS[optimizer], *stages, *rules, *arm.overrides]
    return [*config, f"optimizer.lr={lr:g}", f"seed={seed}", *_QUIET]
