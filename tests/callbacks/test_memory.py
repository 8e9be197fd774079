"""What a frozen stage does not cost: activations kept for the backward pass, gradients, optimizer state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_optim import OptimizerFactory, StagedUnfreeze
from tests.support.training import BATCHES, Net, fit

PLAN = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}}}


class Weighed(Net):
    """Notes after each step the bytes of what autograd has kept, of gradients and of optimizer state."""

    def __init__(self) -> None:
        super().__init__(lambda module: OptimizerFactory("adamw")(module))
        self.kept: list[int] = []
        self.gradients: list[int] = []
        self.state: list[int] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        own = {p.data_ptr() for p in self.parameters()}
        seen: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            if tensor.data_ptr() not in own:  # the parameters are there anyway
                seen[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.kept.append(sum(seen.values()))
        return loss

    def on_before_zero_grad(self, optimizer: Any) -> None:
        self.gradients.append(sum(p.grad.nbytes for p in self.backbone.parameters() if p.grad is not None))
        states = [optimizer.state.get(p, {}) for p in self.backbone.parameters()]
        self.state.append(sum(value.nbytes for state in states for value in state.values()))


def test_a_frozen_stage_keeps_no_activations_no_gradients_and_no_state(tmp_path) -> None:
    module = Weighed()
    fit(module, tmp_path, StagedUnfreeze(PLAN), epochs=2)
    frozen, thawed = module.kept[0], module.kept[BATCHES]
    assert frozen < thawed / 2, "only the head's"
    assert set(module.kept[:BATCHES]) == {frozen} and set(module.kept[BATCHES:]) == {thawed}
    # The hook comes before each step's backward: that of the first thawed step is the last without.
    assert set(module.gradients[: BATCHES + 1]) == set(module.state[: BATCHES + 1]) == {0}
    assert module.state[-1] > 2 * sum(p.nbytes for p in module.backbone.parameters())
