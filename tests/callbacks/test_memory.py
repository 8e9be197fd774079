"""What a frozen stage saves: activations stored for the backward pass, gradients, optimizer state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_optim import OptimizerFactory, StagedUnfreeze
from tests.support.training import BATCHES, Net, fit

PLAN = {"head": {"params": "head"}, "backbone": {"params": "backbone", "at": {"epoch": 1}}}


class MeasuredNet(Net):
    """In each step, the bytes of activations that autograd stores, and of the backbone's gradients and state."""

    def __init__(self) -> None:
        super().__init__(lambda module: OptimizerFactory("adamw")(module))
        self.activations: list[int] = []
        self.gradients: list[int] = []
        self.states: list[int] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        params = {p.data_ptr() for p in self.parameters()}
        stored: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            if tensor.data_ptr() not in params:  # parameters take no extra memory
                stored[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.activations.append(sum(stored.values()))
        return loss

    def on_before_zero_grad(self, optimizer: Any) -> None:
        self.gradients.append(sum(p.grad.nbytes for p in self.backbone.parameters() if p.grad is not None))
        states = [optimizer.state.get(p, {}) for p in self.backbone.parameters()]
        self.states.append(sum(value.nbytes for state in states for value in state.values()))


def test_a_frozen_stage_has_no_activations_no_gradients_and_no_state(tmp_path) -> None:
    module = MeasuredNet()
    fit(module, tmp_path, StagedUnfreeze(PLAN), epochs=2)
    frozen, thawed = module.activations[0], module.activations[BATCHES]
    assert frozen < thawed / 2, "more than the head's"
    assert set(module.activations[:BATCHES]) == {frozen} and set(module.activations[BATCHES:]) == {thawed}
    # The hook comes before each step's backward pass: in the first thawed step, there is nothing yet.
    assert set(module.gradients[: BATCHES + 1]) == set(module.states[: BATCHES + 1]) == {0}
    assert module.states[-1] > 2 * sum(p.nbytes for p in module.backbone.parameters())
