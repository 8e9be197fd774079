"""`Setup`: an optimizer, a schedule and a plan, as our configs say them; `by_hand.py` says them with torch alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from lightning_optim import OptimizerFactory, SchedulerFactory, configure_optimizers

from .model import LR, Net

NO_DECAY = {"no_decay": {"kinds": ["bias", "norm"], "weight_decay": 0}}
WEIGHT_DECAY = 0.125
LR_SCALE = 0.5
"""Of the backbone's stage: a power of two, so that products of lrs are exact."""
GAMMA = 0.875
"""Of the exponential schedule, at each optimizer step."""
PLATEAU: dict[str, Any] = {"mode": "max", "patience": 0, "factor": 0.5}


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What both sides of a comparison run."""

    name: str
    optimizer: str
    """`adamw` or `sgd`."""
    schedule: str
    """`by step` or `by epoch`: exponential; `on plateau`: ReduceLROnPlateau by epoch."""
    accumulate: int = 1
    clip: float | None = None
    thaw: dict[str, int]
    """The trigger of the backbone's stage."""
    stops: tuple[str, ...]
    """The names of the checkpoints to resume from: `batch=n` after n batches, `epoch=n` at the end of an epoch."""
    lr: float = LR
    trainable_only: bool = False
    """Whether the optimizer gets the parameters that require a gradient, as Lightning's finetuning callbacks ask."""
    is_first: bool = True
    """Whether our callbacks come before the row's in the trainer's list."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """More of the Trainer."""

    def configure(self, module: Net) -> Any:
        """By our factories; its own lr, not the module's."""
        options = {"momentum": 0.875} if self.optimizer == "sgd" else {}
        factory = OptimizerFactory(self.optimizer, lr=self.lr, weight_decay=WEIGHT_DECAY, groups=NO_DECAY, **options)
        if self.schedule == "on plateau":
            scheduler = SchedulerFactory("reduce_on_plateau", interval="epoch", monitor="val/jumping", **PLATEAU)
        else:
            scheduler = SchedulerFactory("exponential", interval=self.schedule.removeprefix("by "), gamma=GAMMA)
        if not self.trainable_only:
            return configure_optimizers(module, factory, scheduler)
        built = factory((name, p) for name, p in module.named_parameters() if p.requires_grad)
        return {"optimizer": built, "lr_scheduler": scheduler.config(built)}

    @property
    def stages(self) -> dict[str, Any]:
        """Of StagedUnfreeze."""
        return {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": self.thaw, "lr_scale": LR_SCALE}}


BY_STEP = Setup(
    name="adamw, exponential by step",
    optimizer="adamw",
    schedule="by step",
    thaw={"step": 5},
    stops=("batch=2", "batch=5", "batch=7", "epoch=1", "batch=12"),
)
ON_PLATEAU = Setup(
    name="sgd, ReduceLROnPlateau by epoch, accumulating, clipped",
    optimizer="sgd",
    schedule="on plateau",
    accumulate=2,
    clip=0.5,
    thaw={"epoch": 1},
    stops=("batch=2", "epoch=0", "batch=6", "epoch=2"),
    is_first=False,
)
# Without stages, Lightning loses a step of ReduceLROnPlateau at a resume (#7877, #14702): a row of its own shows it.
BY_EPOCH = replace(ON_PLATEAU, name="sgd, exponential by epoch, accumulating, clipped", schedule="by epoch")
STAGED = (BY_STEP, ON_PLATEAU)
UNSTAGED = (BY_STEP, BY_EPOCH)
