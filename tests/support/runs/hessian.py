"""Trains with SophiaHessian under DDP: `python -m tests.support.runs.hessian FOLDER`; each rank writes what it saw."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from torch.nn import functional

from lightning_optim import OptimizerFactory, SophiaHessian
from lightning_optim.optim.gauss_newton import SampledGradients
from tests.support.runs.ddp import Whole
from tests.support.training import Witness


class Looks(Whole):
    """Keeps the first step's gradients at labels drawn for its own half of the batch."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self.trainer.global_step == 0:
            params = dict(self.named_parameters())

            def note(num_samples: float, grads: Any) -> None:
                assert num_samples == 4
                self.grads = {name: grads[p].clone() for name, p in params.items()}

            with SampledGradients(list(params.values()), self.trainer.global_rank, 1.0, note):
                functional.cross_entropy(self(batch[0]), batch[1])


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    seed_everything(0, verbose=False)

    def look(trainer: Trainer, module: Any) -> Any:
        state = trainer.optimizers[0].state
        return {name: state[p]["hessian"].clone() for name, p in module.named_parameters()}

    witness = Witness(look)
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=2, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, callbacks=[SophiaHessian(2), witness],
    )  # fmt: skip
    module = Looks(OptimizerFactory("sophia_g", lr=0.01))
    trainer.fit(module)
    weights = [p.detach() for p in module.parameters()]
    found = {"hessians": witness.seen, "weights": weights, "grads": module.grads}
    torch.save(found, folder / f"rank{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
