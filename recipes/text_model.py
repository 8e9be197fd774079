"""A pretrained transformer that classifies: the mean of its last hidden states, dropout, a linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_optim import OptimizerFactory, SchedulerFactory

from .classifier import Classifier
from .pretrained_text import add_lora, load_backbone


class TextNet(Classifier):
    """Classifies texts.

    Args:
        backbone: name or folder of a model of transformers; None for the packaged one.
        num_classes: number of labels.
        dropout: between backbone and head; the backbone has that of its own config.
        lora_rank: rank of adapters (LoRA) that train in place of the backbone's weights; None for none.
        optimizer: builds the optimizer.
        scheduler: builds the schedule; None for a constant lr.
    """

    def __init__(
        self,
        backbone: str | None,
        num_classes: int,
        dropout: float,
        lora_rank: int | None,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(num_classes)
        self.save_hyperparameters()
        self.backbone, width = load_backbone(backbone)
        if lora_rank is not None:
            add_lora(self.backbone, lora_rank)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, num_classes))

    def forward(self, tokens: Tensor) -> Tensor:
        """`(n, 2, length)` of ids and mask, padded at the end → logits `(n, classes)`."""
        longest = int(tokens[:, 1].any(0).sum())
        ids, mask = tokens[:, :, :longest].unbind(1)
        hidden: Tensor = self.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(2).to(hidden.dtype)
        logits: Tensor = self.head((hidden * weights).sum(1) / weights.sum(1))
        return logits
